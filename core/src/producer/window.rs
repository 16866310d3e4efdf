//! The latest batches of one producer in one epoch.

use super::{BATCHES_REMEMBERED, Verdict};
use crate::batch::BatchHeader;
use crate::branches::reached;
use crate::ids::Offset;

/// Sequence numbers run from 0 to `i32::MAX` and start again.
const SEQUENCES: u32 = 1 << 31;

/// Beyond this distance, what lies behind cannot be told from what lies ahead.
pub(super) const CONTIGUOUS_MAX: u32 = 1 << 30;

/// Where the records with some sequence numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequencedBatch {
    pub base_offset: Offset,
    /// 0 or more.
    pub base_sequence: i32,
    /// Records after the first.
    pub last_delta: u32,
}

impl SequencedBatch {
    fn of(header: &BatchHeader, base_offset: Offset) -> Self {
        let (base_sequence, last_delta) = (header.base_sequence, header.last_offset_delta);
        Self { base_offset, base_sequence, last_delta }
    }

    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_delta))
    }

    /// The sequence number that follows; 0 follows `i32::MAX`.
    #[must_use]
    pub fn next_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_delta) + 1;
        (sum & i64::from(i32::MAX)) as i32
    }
}

/// How many steps lead from one sequence number on to another: 0 up to 2³¹ − 1.
fn steps(from: i32, to: i32) -> u32 {
    (to.wrapping_sub(from) as u32) & (SEQUENCES - 1)
}

/// At most [`BATCHES_REMEMBERED`] batches that follow one another without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Window {
    pub(super) batches: Vec<SequencedBatch>,
    /// How many sequence numbers in a row were stored, up to the last one; counts those of
    /// batches that are no longer remembered, up to [`CONTIGUOUS_MAX`].
    contiguous: u32,
}

impl Window {
    /// A window out of a snapshot; none if its parts cannot belong together.
    pub fn restored(batches: Vec<SequencedBatch>, contiguous: u32) -> Option<Self> {
        let follow = |pair: &[SequencedBatch]| {
            pair[0].next_sequence() == pair[1].base_sequence && pair[0].last_offset() < pair[1].base_offset
        };
        let consistent = batches.len() <= BATCHES_REMEMBERED
            && batches.iter().all(|batch| batch.base_sequence >= 0)
            && batches.windows(2).all(follow)
            && contiguous <= CONTIGUOUS_MAX;
        consistent.then_some(Self { batches, contiguous })
    }

    pub fn batches(&self) -> &[SequencedBatch] {
        &self.batches
    }

    pub fn contiguous(&self) -> u32 {
        self.contiguous
    }

    /// The batches below `start`.
    pub fn before(&self, start: Offset) -> Self {
        let above: u32 = self.batches.iter().filter(|b| b.base_offset >= start).map(|b| b.last_delta + 1).sum();
        let batches: Vec<_> = self.batches.iter().filter(|b| b.base_offset < start).copied().collect();
        Self { batches, contiguous: self.contiguous.saturating_sub(above) }
    }

    /// A batch of the window's own epoch.
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        let (Some(oldest), Some(newest)) = (self.batches.first(), self.batches.last()) else {
            let expected = 0;
            return if header.base_sequence == expected { Verdict::Append } else { Verdict::OutOfOrder { expected } };
        };
        let same = |batch: &&SequencedBatch| {
            (batch.base_sequence, batch.last_delta) == (header.base_sequence, header.last_offset_delta)
        };
        if let Some(batch) = self.batches.iter().find(same) {
            reached!("producer.duplicate");
            let (base, last) = (batch.base_offset, batch.last_offset());
            return Verdict::Duplicate { base, last };
        }
        let expected = newest.next_sequence();
        if header.base_sequence == expected {
            return Verdict::Append;
        }
        let behind = steps(header.base_sequence, expected);
        let remembered = steps(oldest.base_sequence, expected);
        let end_behind = behind.checked_sub(header.last_offset_delta.saturating_add(1));
        if behind <= self.contiguous && end_behind >= Some(remembered) {
            reached!("producer.forgotten");
            return Verdict::Forgotten { below: oldest.base_offset };
        }
        reached!("producer.out_of_order");
        Verdict::OutOfOrder { expected }
    }

    /// The window after this batch. One that does not follow starts it anew.
    pub fn followed_by(mut self, header: &BatchHeader, base: Offset) -> Self {
        let batch = SequencedBatch::of(header, base);
        let follows = self.batches.last().is_some_and(|last| last.next_sequence() == batch.base_sequence);
        if !follows {
            reached!("producer.window_starts_anew");
            self = Self::default();
        }
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.remove(0);
        }
        let count = batch.last_delta.saturating_add(1);
        self.contiguous = self.contiguous.saturating_add(count).min(CONTIGUOUS_MAX);
        self.batches.push(batch);
        self
    }
}
