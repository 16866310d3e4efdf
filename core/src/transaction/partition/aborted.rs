//! Which transactions of a partition were aborted, so that readers leave them out.

use crate::ids::{Offset, ProducerId};

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTransaction {
    pub producer: ProducerId,
    pub first: Offset,
    /// The marker's offset.
    pub last: Offset,
    /// The last stable offset when the marker was appended: no transaction that ended later
    /// has anything below it.
    pub last_stable: Offset,
}

/// The aborted transactions of one partition, in the order of their markers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AbortedIndex(Vec<AbortedTransaction>);

impl AbortedIndex {
    /// The index out of a snapshot; none if it contradicts itself.
    pub(super) fn restored(aborted: Vec<AbortedTransaction>) -> Option<Self> {
        let rising = aborted.windows(2).all(|pair| pair[0].last < pair[1].last);
        let sane = aborted.iter().all(|one| one.first < one.last);
        (rising && sane).then_some(Self(aborted))
    }

    pub(super) fn push(&mut self, aborted: AbortedTransaction) {
        debug_assert!(self.0.last().is_none_or(|last| last.last < aborted.last));
        self.0.push(aborted);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &AbortedTransaction> {
        self.0.iter()
    }

    /// Those that have records at offsets from `from` on and below `to`: what a reader of
    /// this range has to leave out.
    pub fn within(&self, from: Offset, to: Offset) -> impl Iterator<Item = &AbortedTransaction> {
        let start = self.0.partition_point(|aborted| aborted.last < from);
        let found = &self.0[start..];
        let enough = found.iter().position(|aborted| aborted.last_stable >= to).map_or(found.len(), |last| last + 1);
        found[..enough].iter().filter(move |aborted| aborted.first < to)
    }

    /// Those that were aborted below this offset.
    pub(super) fn up_to(&self, end: Offset) -> Self {
        let known = self.0.partition_point(|aborted| aborted.last < end);
        Self(self.0[..known].to_vec())
    }

    /// The log starts here now.
    pub(super) fn forget_below(&mut self, start: Offset) {
        let gone = self.0.partition_point(|aborted| aborted.last < start);
        self.0.drain(..gone);
    }
}
