//! Gives the space of batches below the log start back while tables are compacted.
//!
//! Tombstones for every batch would double the writing. Instead the compaction destroys
//! what lies below a partition's durable log start, and everything of prefixes that are no
//! longer in use. A start is set here only after it is on stable storage: what compaction has
//! destroyed never comes back above the start.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use baton_core::Offset;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

use super::keys::{self, Prefix};

/// The durable log start of each prefix in use.
#[derive(Debug, Default)]
pub(super) struct Floors(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    /// Prefixes below this that are not in `starts` are no longer in use. Zero until the
    /// directory has been read, so that nothing is destroyed by ignorance.
    known_below: u32,
    starts: HashMap<Prefix, Offset>,
}

impl Floors {
    /// Called before the first batch of the prefix is written.
    pub(super) fn begin(&self, prefix: Prefix, start: Offset) {
        self.with(|state| state.starts.insert(prefix, start));
    }

    /// Called when `start` is on stable storage.
    pub(super) fn raise(&self, prefix: Prefix, start: Offset) {
        self.with(|state| state.starts.insert(prefix, start));
    }

    /// Called when it is on stable storage that nothing refers to the prefix. Numbers are
    /// handed out in order, so all below it have begun.
    pub(super) fn end(&self, prefix: Prefix) {
        self.with(|state| {
            state.known_below = state.known_below.max(prefix.0.saturating_add(1));
            state.starts.remove(&prefix)
        });
    }

    /// Called when all prefixes in use below `next` have begun.
    pub(super) fn known_below(&self, next: u32) {
        self.with(|state| {
            state.known_below = next;
            None
        });
    }

    fn with(&self, change: impl FnOnce(&mut State) -> Option<Offset>) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn destroys(&self, prefix: Prefix, offset: Offset) -> bool {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match state.starts.get(&prefix) {
            Some(start) => offset < *start,
            None => prefix.0 < state.known_below,
        }
    }
}

/// Makes the filter of a keyspace.
pub(super) struct FilterFactory {
    pub(super) floors: Arc<Floors>,
    /// How to read a key of the keyspace; None for keys that always stay.
    pub(super) parse: fn(&[u8]) -> Option<(Prefix, Offset)>,
}

/// An entry of the time index goes when all that it speaks of is gone.
pub(super) fn parse_time(key: &[u8]) -> Option<(Prefix, Offset)> {
    keys::parse_time(key).map(|(prefix, _, offset)| (prefix, offset))
}

impl std::panic::RefUnwindSafe for FilterFactory {}

impl Factory for FilterFactory {
    fn name(&self) -> &str {
        "log start"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Filter { floors: Arc::clone(&self.floors), parse: self.parse })
    }
}

struct Filter {
    floors: Arc<Floors>,
    parse: fn(&[u8]) -> Option<(Prefix, Offset)>,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let key = item.key();
        let destroyed = (self.parse)(key).is_some_and(|(p, o)| self.floors.destroys(p, o));
        Ok(if destroyed { Verdict::Destroy } else { Verdict::Keep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_gone_is_destroyed() {
        let floors = Floors::default();
        let (used, unused) = (Prefix(1), Prefix(2));
        floors.begin(used, Offset(10));
        assert!(!floors.destroys(unused, Offset(0)), "the directory was not read yet");
        floors.known_below(3);
        assert!(floors.destroys(unused, Offset(0)));
        assert!(!floors.destroys(Prefix(3), Offset(0)), "a prefix that is about to begin");
        assert!(floors.destroys(used, Offset(9)));
        assert!(!floors.destroys(used, Offset(10)));
        floors.raise(used, Offset(12));
        assert!(floors.destroys(used, Offset(11)));
        floors.end(used);
        assert!(floors.destroys(used, Offset(12)));
    }
}
