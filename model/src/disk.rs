//! A disk of the model: one record per offset, and what of it is on stable storage.

use std::hash::{Hash, Hasher};

use baton_core::ids::{Epoch, Generation, Offset};
use baton_core::lineage::Lineage;
use baton_core::producer::ProducerTable;
use baton_core::replica::{LogTerm, RecoveredLog, StoredBatch};

use crate::records::Records;

/// A record as a client sent it, in the epoch in which a leader took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub epoch: Epoch,
    pub id: u8,
}

impl Record {
    #[must_use]
    pub fn of(batch: &StoredBatch) -> Self {
        Self { epoch: batch.epoch, id: batch.max_timestamp_ms as u8 }
    }
}

/// The contents of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    pub start: Offset,
    pub records: Vec<Record>,
    /// The highest epoch that was saved.
    pub epoch: Epoch,
    pub high_watermark: Offset,
    pub generation: Generation,
}

/// A change of the log that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogOp {
    SaveEpoch(Epoch),
    Append { term: LogTerm, records: Vec<Record> },
    Truncate { term: LogTerm, to: Offset },
    Restart { term: LogTerm, generation: Generation, start: Offset },
}

impl LogOp {
    /// Its number only says whether the replica still waits for it.
    pub fn fingerprint(&self, current: LogTerm, into: &mut impl Hasher) {
        match self {
            Self::SaveEpoch(epoch) => (0u8, epoch).hash(into),
            Self::Append { term, records } => (1u8, *term == current, records).hash(into),
            Self::Truncate { term, to } => (2u8, *term == current, to).hash(into),
            Self::Restart { term, generation, start } => (3u8, *term == current, generation, start).hash(into),
        }
    }
}

impl Image {
    #[must_use]
    pub fn end(&self) -> Offset {
        self.start.plus(self.records.len() as u64)
    }

    #[must_use]
    pub fn at(&self, offset: u64) -> Option<Record> {
        let index = offset.checked_sub(self.start.0)?;
        self.records.get(usize::try_from(index).ok()?).copied()
    }

    /// Without the high watermark: a process that runs knows a later one.
    pub fn fingerprint(&self, into: &mut impl Hasher) {
        (self.start, &self.records, self.epoch, self.generation).hash(into);
    }

    pub fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::SaveEpoch(epoch) => self.epoch = self.epoch.max(*epoch),
            LogOp::Append { records, .. } => self.records.extend(records),
            LogOp::Truncate { to, .. } => {
                let keep = to.0.saturating_sub(self.start.0) as usize;
                self.records.truncate(keep);
                self.high_watermark = self.high_watermark.min(self.end());
            }
            LogOp::Restart { generation, start, .. } => {
                self.records.clear();
                self.start = *start;
                self.high_watermark = *start;
                self.generation = *generation;
            }
        }
    }

    #[must_use]
    pub fn lineage(&self) -> Lineage {
        let mut lineage = Lineage::default();
        for (at, record) in (self.start.0..).zip(&self.records) {
            // A log whose epochs go back is what the checks are there to find.
            if lineage.last_epoch().is_none_or(|last| last <= record.epoch) {
                lineage.record(record.epoch, Offset(at));
            }
        }
        lineage
    }

    #[must_use]
    pub fn producers(&self, records: &Records) -> ProducerTable {
        records.producers(self)
    }

    #[must_use]
    pub fn recovered(&self, damaged: bool, records: &Records) -> RecoveredLog {
        RecoveredLog {
            start: self.start,
            floor: self.start,
            compacted: Offset::ZERO,
            end: self.end(),
            highest_epoch: self.epoch,
            lineage: self.lineage(),
            high_watermark: self.high_watermark,
            producers: self.producers(records),
            damaged,
        }
    }
}
