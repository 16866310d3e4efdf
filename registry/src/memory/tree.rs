//! The server's state as a pure machine: nodes, versions, sequence counters, transactions.
//!
//! No clock, no sessions' liveness, no I/O: a transaction goes in, and its results, its changes
//! and what must be durable come out. A refused transaction leaves no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::api::{CreateMode, EventKind, Op, OpResult, RegistryError, SessionId, Stat};
use crate::limits::parent_of;

/// One znode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub data: Bytes,
    pub version: i32,
    pub czxid: i64,
    pub mzxid: i64,
    pub owner: SessionId,
    pub num_children: i32,
    /// How many children were ever created here: the next sequence number (as in ZooKeeper,
    /// where every creation counts, not only the sequential ones).
    pub created_children: i32,
}

impl Node {
    #[must_use]
    pub fn stat(&self) -> Stat {
        Stat {
            version: self.version,
            czxid: self.czxid,
            mzxid: self.mzxid,
            ephemeral_owner: self.owner,
            num_children: self.num_children,
        }
    }

    fn is_ephemeral(&self) -> bool {
        self.owner != SessionId::default()
    }
}

/// What a committed transaction changed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub results: Vec<OpResult>,
    pub changes: Vec<(String, EventKind)>,
    /// The paths of persistent nodes whose data or existence changed.
    pub durable: Vec<String>,
}

/// All nodes, by path. The root always exists.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    /// The paths of each session's ephemeral nodes.
    ephemerals: BTreeMap<SessionId, BTreeSet<String>>,
    zxid: i64,
    /// No node's counter of children has passed this.
    sequence_max: i32,
    /// What the transaction in progress replaced, newest last.
    undo: Vec<(String, Option<Node>)>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([("/".to_owned(), Node::default())]),
            ephemerals: BTreeMap::new(),
            zxid: 0,
            sequence_max: 0,
            undo: Vec::new(),
        }
    }
}

impl Tree {
    /// A tree as it was left by an earlier process: every transaction and sequence number from
    /// here on is above the given ones, which the earlier process may have handed out.
    #[must_use]
    pub fn restored(nodes: BTreeMap<String, Node>, zxid: i64, sequence: i32) -> Self {
        let mut tree = Self { zxid, sequence_max: sequence, ..Self::default() };
        tree.nodes.extend(nodes);
        let paths: Vec<String> = tree.nodes.keys().cloned().collect();
        for node in tree.nodes.values_mut() {
            node.num_children = 0;
            node.created_children = sequence;
        }
        for path in &paths {
            if let Some(parent) = parent_of(path).and_then(|p| tree.nodes.get_mut(p)) {
                parent.num_children += 1;
            }
        }
        tree
    }

    #[must_use]
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    #[must_use]
    pub fn sequence_max(&self) -> i32 {
        self.sequence_max
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Every persistent node, in the order of the paths (a parent before its children).
    pub fn persistent(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter().filter(|(_, node)| !node.is_ephemeral())
    }

    /// Every node on a line, in the order of the paths.
    #[must_use]
    pub fn dump(&self) -> String {
        let line = |(path, node): (&String, &Node)| format!("{path} {node:?}\n");
        self.nodes.iter().map(line).collect()
    }

    /// The names of the children, sorted.
    pub fn children(&self, path: &str) -> Result<Vec<String>, RegistryError> {
        if !self.nodes.contains_key(path) {
            return Err(RegistryError::NoNode(path.to_owned()));
        }
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let mut names = Vec::new();
        let mut from = Bound::Excluded(prefix.clone());
        loop {
            let next = self.nodes.range((from, Bound::Unbounded)).next();
            let Some(rest) = next.and_then(|(key, _)| key.strip_prefix(&prefix)) else {
                return Ok(names);
            };
            from = match rest.split_once('/') {
                // Below a child that was seen: on to the first key that is not ('0' follows '/').
                Some((child, _)) => Bound::Included(format!("{prefix}{child}0")),
                None => {
                    names.push(rest.to_owned());
                    Bound::Excluded(format!("{prefix}{rest}"))
                }
            };
        }
    }

    /// Applies all operations or none. On failure, the index of the one that was refused.
    pub fn transact(&mut self, session: SessionId, ops: &[Op]) -> Result<Commit, (usize, RegistryError)> {
        debug_assert!(self.undo.is_empty());
        self.zxid += 1;
        let mut commit = Commit::default();
        for (index, op) in ops.iter().enumerate() {
            match self.apply(session, op, &mut commit) {
                Ok(result) => commit.results.push(result),
                Err(error) => {
                    self.roll_back();
                    return Err((index, error));
                }
            }
        }
        Ok(commit)
    }

    /// Makes the last transaction final. Returns what it replaced, the oldest first.
    pub fn confirm(&mut self) -> Vec<(String, Option<Node>)> {
        std::mem::take(&mut self.undo)
    }

    /// Takes the last, unconfirmed transaction back (its zxid stays used).
    pub fn roll_back(&mut self) {
        while let Some((path, before)) = self.undo.pop() {
            self.put(&path, before);
        }
    }

    /// Deletes what a session owned: one transaction, as ZooKeeper does it. It is to be
    /// confirmed.
    pub fn end_session(&mut self, session: SessionId) -> Vec<(String, EventKind)> {
        let paths = self.ephemerals.remove(&session).unwrap_or_default();
        self.zxid += 1;
        let mut commit = Commit::default();
        for path in paths {
            // It is gone already only if somebody deleted it, which also unlisted it.
            let _ = self.delete(&path, None, &mut commit);
        }
        commit.changes
    }

    fn apply(&mut self, session: SessionId, op: &Op, commit: &mut Commit) -> Result<OpResult, RegistryError> {
        match op {
            Op::Check { path, version } => {
                self.expect(path, *version)?;
                Ok(OpResult::Checked)
            }
            Op::Create { path, data, mode } => {
                let path = self.create(session, path, data.clone(), *mode, commit)?;
                Ok(OpResult::Created { path })
            }
            Op::Set { path, data, version } => {
                let version = self.set(path, data.clone(), *version, commit)?;
                Ok(OpResult::Set { version })
            }
            Op::Delete { path, version } => {
                self.delete(path, *version, commit)?;
                Ok(OpResult::Deleted)
            }
        }
    }

    fn expect(&self, path: &str, version: Option<i32>) -> Result<&Node, RegistryError> {
        let node = self.get(path).ok_or_else(|| RegistryError::NoNode(path.to_owned()))?;
        match version {
            // −1 is ZooKeeper's word for any version.
            Some(version) if version != -1 && version != node.version => {
                Err(RegistryError::BadVersion(path.to_owned()))
            }
            _ => Ok(node),
        }
    }

    fn create(
        &mut self,
        session: SessionId,
        prefix: &str,
        data: Bytes,
        mode: CreateMode,
        commit: &mut Commit,
    ) -> Result<String, RegistryError> {
        let parent_path = parent_of(prefix).ok_or_else(|| RegistryError::NodeExists(prefix.to_owned()))?.to_owned();
        let mut parent = self.get(&parent_path).cloned().ok_or_else(|| RegistryError::NoNode(prefix.to_owned()))?;
        let path = match mode {
            CreateMode::EphemeralSequential => format!("{prefix}{:010}", parent.created_children),
            CreateMode::Persistent | CreateMode::Ephemeral => prefix.to_owned(),
        };
        if self.nodes.contains_key(&path) {
            return Err(RegistryError::NodeExists(path));
        }
        if parent.is_ephemeral() {
            return Err(RegistryError::NoChildrenForEphemerals(parent_path));
        }
        parent.num_children += 1;
        parent.created_children += 1;
        self.sequence_max = self.sequence_max.max(parent.created_children);
        let owner = if mode == CreateMode::Persistent { SessionId::default() } else { session };
        let zxid = self.zxid;
        let node = Node { data, czxid: zxid, mzxid: zxid, owner, ..Node::default() };
        if !node.is_ephemeral() {
            commit.durable.push(path.clone());
        }
        self.replace(&parent_path, Some(parent));
        self.replace(&path, Some(node));
        commit.changes.push((path.clone(), EventKind::Created));
        Ok(path)
    }

    fn set(
        &mut self,
        path: &str,
        data: Bytes,
        version: Option<i32>,
        commit: &mut Commit,
    ) -> Result<i32, RegistryError> {
        let mut node = self.expect(path, version)?.clone();
        node.data = data;
        node.version = node.version.wrapping_add(1);
        node.mzxid = self.zxid;
        if !node.is_ephemeral() {
            commit.durable.push(path.to_owned());
        }
        let version = node.version;
        self.replace(path, Some(node));
        commit.changes.push((path.to_owned(), EventKind::Changed));
        Ok(version)
    }

    fn delete(&mut self, path: &str, version: Option<i32>, commit: &mut Commit) -> Result<(), RegistryError> {
        let node = self.expect(path, version)?;
        if node.num_children > 0 {
            return Err(RegistryError::NotEmpty(path.to_owned()));
        }
        if !node.is_ephemeral() {
            commit.durable.push(path.to_owned());
        }
        self.replace(path, None);
        if let Some(parent_path) = parent_of(path)
            && let Some(mut parent) = self.get(parent_path).cloned()
        {
            parent.num_children -= 1;
            self.replace(parent_path, Some(parent));
        }
        commit.changes.push((path.to_owned(), EventKind::Deleted));
        Ok(())
    }

    fn replace(&mut self, path: &str, node: Option<Node>) {
        let before = self.put(path, node);
        self.undo.push((path.to_owned(), before));
    }

    /// Puts or removes a node, and keeps the lists of ephemerals right.
    fn put(&mut self, path: &str, node: Option<Node>) -> Option<Node> {
        let owner = node.as_ref().map(|n| n.owner).filter(|o| *o != SessionId::default());
        let before = match node {
            Some(node) => self.nodes.insert(path.to_owned(), node),
            None => self.nodes.remove(path),
        };
        let owned = before.as_ref().map(|n| n.owner).filter(|o| *o != SessionId::default());
        if owned != owner {
            if let Some(paths) = owned.and_then(|o| self.ephemerals.get_mut(&o)) {
                paths.remove(path);
            }
            if let Some(owner) = owner {
                self.ephemerals.entry(owner).or_default().insert(path.to_owned());
            }
        }
        before
    }

    /// What must hold after every transaction; for tests.
    #[cfg(test)]
    fn check(&self) {
        for (path, node) in &self.nodes {
            let children = self.children(path).unwrap();
            assert_eq!(children.len(), usize::try_from(node.num_children).unwrap(), "{path}");
            if let Some(parent) = parent_of(path) {
                assert!(self.nodes.contains_key(parent), "{path} has no parent");
            }
            let listed = self.ephemerals.get(&node.owner).is_some_and(|p| p.contains(path));
            assert_eq!(listed, node.is_ephemeral(), "{path}");
        }
        let listed: usize = self.ephemerals.values().map(BTreeSet::len).sum();
        assert_eq!(listed, self.nodes.values().filter(|n| n.is_ephemeral()).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn create(path: &str, mode: CreateMode) -> Op {
        Op::Create { path: path.to_owned(), data: Bytes::new(), mode }
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let path = prop::sample::select(vec!["/a", "/b", "/a/b", "/a/b/c", "/a-b", "/a-b/x"]);
        let version = prop::option::weighted(0.3, 0..3i32);
        let op = (0..6usize, path, version).prop_map(|(kind, path, version)| {
            let path = path.to_owned();
            match kind {
                0 => Op::Check { path, version },
                1 => create(&path, CreateMode::Persistent),
                2 => create(&path, CreateMode::Ephemeral),
                3 => create(&path, CreateMode::EphemeralSequential),
                4 => Op::Set { path, data: Bytes::from_static(b"x"), version },
                _ => Op::Delete { path, version },
            }
        });
        prop::collection::vec(op, 1..4)
    }

    proptest! {
        /// A refused transaction changes nothing but the zxid, and the books always balance.
        #[test]
        fn transactions_are_all_or_nothing(
            transactions in prop::collection::vec((1..3i64, ops()), 0..40),
            ended in 1..3i64,
        ) {
            let mut tree = Tree::default();
            for (session, ops) in transactions {
                let before = tree.nodes.clone();
                match tree.transact(SessionId(session), &ops) {
                    Ok(commit) => prop_assert_eq!(commit.results.len(), ops.len()),
                    Err((index, _)) => {
                        prop_assert!(index < ops.len());
                        prop_assert_eq!(&before, &tree.nodes);
                    }
                }
                tree.confirm();
                tree.check();
            }
            tree.end_session(SessionId(ended));
            tree.confirm();
            tree.check();
            prop_assert!(tree.nodes.values().all(|n| n.owner != SessionId(ended)));
        }
    }

    #[test]
    fn children_are_sorted_and_only_the_next_level() {
        let mut tree = Tree::default();
        for path in ["/a", "/a/x", "/a/x/y", "/a/x-z", "/a/x/w", "/b"] {
            tree.transact(SessionId(1), &[create(path, CreateMode::Persistent)]).unwrap();
            tree.confirm();
        }
        assert_eq!(tree.children("/").unwrap(), ["a", "b"]);
        assert_eq!(tree.children("/a").unwrap(), ["x", "x-z"]);
        assert_eq!(tree.children("/a/x").unwrap(), ["w", "y"]);
        assert!(tree.children("/none").is_err());
    }
}
