//! Servers that lag: a client of such a server reads the past until it writes or syncs.

use std::collections::{BTreeSet, VecDeque};

use super::tree::{Node, Tree};
use crate::api::RegistryError;
use crate::limits::parent_of;

/// A path, and the node that was there before.
type Replaced = (String, Option<Node>);

/// What later transactions replaced: enough to read every state since the oldest view.
#[derive(Debug, Default)]
pub struct Past {
    /// The transaction, and what it replaced, the oldest first.
    replaced: VecDeque<(i64, Vec<Replaced>)>,
}

impl Past {
    pub fn note(&mut self, zxid: i64, replaced: Vec<Replaced>) {
        self.replaced.push_back((zxid, replaced));
    }

    /// Nobody looks at what was before this transaction any more; none: at nothing.
    pub fn forget_before(&mut self, view: Option<i64>) {
        match view {
            Some(view) => while self.replaced.pop_front_if(|(zxid, _)| *zxid <= view).is_some() {},
            None => self.replaced.clear(),
        }
    }

    fn since(&self, view: i64) -> impl DoubleEndedIterator<Item = &Replaced> {
        let first = self.replaced.partition_point(|(zxid, _)| *zxid <= view);
        self.replaced.range(first..).flat_map(|(_, replaced)| replaced)
    }

    /// A node as it was after the transaction `view`.
    pub fn node<'a>(&'a self, tree: &'a Tree, view: i64, path: &str) -> Option<&'a Node> {
        match self.since(view).find(|(changed, _)| changed == path) {
            Some((_, before)) => before.as_ref(),
            None => tree.get(path),
        }
    }

    /// The names of its children at that time, sorted.
    pub fn children(&self, tree: &Tree, view: i64, path: &str) -> Result<Vec<String>, RegistryError> {
        if self.node(tree, view, path).is_none() {
            return Err(RegistryError::NoNode(path.to_owned()));
        }
        let mut names: BTreeSet<String> = tree.children(path).unwrap_or_default().into_iter().collect();
        for (changed, before) in self.since(view).rev() {
            let Some(name) = changed.rsplit('/').next().filter(|_| parent_of(changed) == Some(path)) else { continue };
            if before.is_some() {
                names.insert(name.to_owned());
            } else {
                names.remove(name);
            }
        }
        Ok(names.into_iter().collect())
    }
}
