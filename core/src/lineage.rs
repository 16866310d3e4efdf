//! Which leader epoch wrote which offsets, and where two logs stop agreeing.
//!
//! Truncation compares epochs, never high watermarks (KIP-101), and searches backwards
//! through the whole history, not one step of it (KIP-279).

use crate::ids::{Epoch, Offset};

/// The epochs of a log in ascending order, each with the first offset that it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lineage {
    entries: Vec<(Epoch, Offset)>,
}

/// The entries are not strictly ascending in epoch and ascending in offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lineage has to rise in epoch and in offset")]
pub struct NotALineage;

impl Lineage {
    /// # Errors
    /// [`NotALineage`] if the entries do not rise.
    pub fn from_entries(entries: Vec<(Epoch, Offset)>) -> Result<Self, NotALineage> {
        let rises = entries.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
        if rises { Ok(Self { entries }) } else { Err(NotALineage) }
    }

    #[must_use]
    pub fn entries(&self) -> &[(Epoch, Offset)] {
        &self.entries
    }

    /// The epoch of the last record; none for an empty log.
    #[must_use]
    pub fn last_epoch(&self) -> Option<Epoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that a batch of `epoch` was appended at `base`. Returns whether this began an epoch.
    ///
    /// # Panics
    /// If `epoch` is older than the last one: the caller accepts appends of its own epoch only.
    pub fn record(&mut self, epoch: Epoch, base: Offset) -> bool {
        match self.last_epoch() {
            Some(last) if last == epoch => false,
            last => {
                assert!(last < Some(epoch), "a log never goes back to an older epoch");
                self.entries.push((epoch, base));
                true
            }
        }
    }

    /// Forgets everything at and above `end`.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// Retention: nothing below `start` is in the log any more. The epoch of the last record
    /// below it stays known, so that a copy that ends exactly there is still recognised.
    pub fn set_start(&mut self, start: Offset) {
        let Some(known) = start.0.checked_sub(1).map(Offset) else {
            return;
        };
        let keep = self.entries.partition_point(|(_, first)| *first <= known).saturating_sub(1);
        self.entries.drain(..keep);
        if let Some(first) = self.entries.first_mut() {
            first.1 = first.1.max(known);
        }
    }

    /// The epoch that wrote the record at `offset`, and that epoch's first offset.
    #[must_use]
    pub fn at(&self, offset: Offset) -> Option<(Epoch, Offset)> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).and_then(|index| self.entries.get(index)).copied()
    }

    /// The offset after the last record written in `epoch` or an older one (KIP-101's
    /// OffsetForLeaderEpoch).
    #[must_use]
    pub fn end_of(&self, epoch: Epoch, log_end: Offset) -> Offset {
        let after = self.entries.partition_point(|(e, _)| *e <= epoch);
        self.entries.get(after).map_or(log_end, |(_, start)| *start)
    }

    /// The end of the longest prefix on which two logs agree: the greatest n such that the
    /// records at n − 1 carry the same epoch in both. Equal (epoch, offset) implies an
    /// identical prefix, so that one agreement is enough.
    #[must_use]
    pub fn common_end(&self, end: Offset, other: &Self, other_end: Offset) -> Offset {
        let mut n = end.min(other_end);
        while let Some(last) = n.0.checked_sub(1).map(Offset) {
            let Some((theirs, their_start)) = other.at(last) else {
                // Where the other log begins nothing of it is kept, and what came before it
                // was committed when it was given up.
                let begins = other.entries.first().is_some_and(|(_, start)| *start == n);
                return if begins { n } else { Offset::ZERO };
            };
            let Some((mine, my_start)) = self.at(last) else {
                return Offset::ZERO;
            };
            if mine == theirs {
                return n;
            }
            // Both epochs hold down to the later of their starts: nothing in between agrees.
            n = my_start.max(their_start);
        }
        Offset::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lineage(entries: &[(u32, u64)]) -> Lineage {
        Lineage::from_entries(entries.iter().map(|(e, o)| (Epoch(*e), Offset(*o))).collect()).unwrap()
    }

    /// A log as a list of epochs, one per offset.
    fn of(log: &[u32]) -> Lineage {
        let mut lineage = Lineage::default();
        for (offset, epoch) in log.iter().enumerate() {
            lineage.record(Epoch(*epoch), Offset(offset as u64));
        }
        lineage
    }

    #[test]
    fn the_search_goes_back_through_the_whole_history() {
        // KIP-279: one step back would keep offset 2, which epoch 2 wrote on one side only.
        let leader = of(&[1, 1, 3, 3]);
        let follower = of(&[1, 1, 2, 4]);
        assert_eq!(leader.common_end(Offset(4), &follower, Offset(4)), Offset(2));
    }

    #[test]
    fn an_empty_log_agrees_on_nothing() {
        assert_eq!(of(&[]).common_end(Offset(0), &of(&[1, 1]), Offset(2)), Offset(0));
    }

    #[test]
    fn a_log_that_differs_from_its_start_on_is_cut_there() {
        let leader = lineage(&[(1, 0), (2, 10)]);
        let follower = lineage(&[(1, 10)]);
        assert_eq!(leader.common_end(Offset(20), &follower, Offset(12)), Offset(10));
        let beyond = lineage(&[(1, 30)]);
        assert_eq!(leader.common_end(Offset(20), &beyond, Offset(35)), Offset(0));
    }

    #[test]
    fn entries_that_do_not_rise_are_refused() {
        assert!(Lineage::from_entries(vec![(Epoch(2), Offset(0)), (Epoch(1), Offset(5))]).is_err());
        assert!(Lineage::from_entries(vec![(Epoch(1), Offset(5)), (Epoch(2), Offset(5))]).is_err());
    }

    #[test]
    fn retention_keeps_the_epoch_of_what_is_left() {
        let mut l = lineage(&[(1, 0), (3, 10), (4, 20)]);
        l.set_start(Offset(15));
        assert_eq!(l, lineage(&[(3, 14), (4, 20)]));
        l.set_start(Offset(30));
        assert_eq!(l, lineage(&[(4, 29)]));
        assert_eq!(l.common_end(Offset(30), &lineage(&[(4, 3)]), Offset(30)), Offset(30));
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let l = lineage(&[(1, 0), (3, 10)]);
        assert_eq!(l.end_of(Epoch(2), Offset(15)), Offset(10));
        assert_eq!(l.end_of(Epoch(3), Offset(15)), Offset(15));
    }

    proptest! {
        #[test]
        fn common_end_is_the_longest_prefix_with_equal_last_epoch(
            mut a in prop::collection::vec(1u32..5, 0..12), mut b in prop::collection::vec(1u32..5, 0..12),
        ) {
            a.sort_unstable();
            b.sort_unstable();
            let expected = (1..=a.len().min(b.len())).rev().find(|n| a[n - 1] == b[n - 1]).unwrap_or(0);
            let found = of(&a).common_end(Offset(a.len() as u64), &of(&b), Offset(b.len() as u64));
            prop_assert_eq!(found, Offset(expected as u64));
        }

        #[test]
        fn truncation_and_lookup_agree_with_a_plain_list(
            mut a in prop::collection::vec(1u32..6, 1..16), cut in 0usize..16,
        ) {
            a.sort_unstable();
            let mut l = of(&a);
            a.truncate(cut);
            l.truncate(Offset(cut as u64));
            prop_assert_eq!(l, of(&a));
        }
    }
}
