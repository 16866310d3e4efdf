//! Parts of states that wait are kept once: many differ in one broker only.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use crate::hasher::{Digest, Identity};
use crate::node::Node;
use crate::registry::Registry;
use crate::state::{Ledger, State};

/// What nobody holds any more is forgotten after so many new parts, or as many as there are.
const NEW_MAX: usize = 1 << 18;

/// One kind of parts, by the hash of all that they are.
#[derive(Debug)]
struct Parts<T> {
    known: HashMap<u64, Arc<T>, BuildHasherDefault<Identity>>,
    purge_at: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { known: HashMap::default(), purge_at: NEW_MAX }
    }
}

impl<T: Hash> Parts<T> {
    fn share(&mut self, part: &mut Arc<T>) {
        let mut digest = Digest::default();
        part.hash(&mut digest);
        let known = self.known.entry(digest.finish()).or_insert_with(|| Arc::clone(part));
        *part = Arc::clone(known);
        if self.known.len() > self.purge_at {
            self.known.retain(|_, part| Arc::strong_count(part) > 1);
            self.purge_at = self.known.len() * 2 + NEW_MAX;
        }
    }
}

#[derive(Debug, Default)]
pub struct Shared {
    nodes: Parts<Node>,
    registries: Parts<Registry>,
    ledgers: Parts<Ledger>,
}

impl Shared {
    /// Replaces what is known already by the one that is known.
    pub fn share(&mut self, state: &mut State) {
        for node in &mut state.nodes {
            self.nodes.share(node);
        }
        self.registries.share(&mut state.registry);
        self.ledgers.share(&mut state.ledger);
        state.nodes.shrink_to_fit();
        state.network.shrink_to_fit();
    }

    /// How many parts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.known.len() + self.registries.known.len() + self.ledgers.known.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
