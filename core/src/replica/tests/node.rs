//! A broker of the simulation: a disk that keeps what was synced, and a process that may die.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::BatchHeader;
use crate::election::{Candidate, Elector};
use crate::ids::{BrokerId, DiskId, Epoch, Generation, Incarnation, Member, Offset};
use crate::lineage::Lineage;
use crate::producer::ProducerTable;
use crate::replica::tests::registry::SessionId;
use crate::replica::{Flow, LogTerm, Peer, RecoveredLog, Replica, StoredBatch};

/// The contents of one copy.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub start: Offset,
    pub batches: Vec<StoredBatch>,
    /// What is kept of the producers from below the first batch.
    pub base: ProducerTable,
    pub epoch: Epoch,
    pub high_watermark: Offset,
    pub generation: Generation,
}

impl Image {
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, StoredBatch::end)
    }

    pub fn truncate(&mut self, to: Offset) {
        self.batches.retain(|b| b.base < to);
        self.high_watermark = self.high_watermark.min(self.end());
    }

    pub fn restart(&mut self, generation: Generation, start: Offset, producers: ProducerTable) {
        self.batches.clear();
        self.base = producers;
        self.start = start;
        self.high_watermark = start;
        self.generation = generation;
    }

    /// What is below goes; the batch that contains `start` stays.
    pub fn drop_below(&mut self, start: Offset) {
        for batch in self.batches.iter().filter(|b| b.last < start) {
            self.base.applied(&BatchHeader::parse(&batch.bytes).unwrap(), batch.base);
        }
        self.batches.retain(|b| b.last >= start);
        self.start = self.start.max(start);
    }

    /// Where the first batch begins.
    pub fn floor(&self) -> Offset {
        self.batches.first().map_or(self.start, |b| b.base.min(self.start))
    }

    pub fn lineage(&self) -> Lineage {
        let mut lineage = Lineage::default();
        for batch in &self.batches {
            lineage.record(batch.epoch, batch.base);
        }
        lineage
    }

    pub fn producers(&self) -> ProducerTable {
        let mut table = self.base.clone();
        for batch in &self.batches {
            table.applied(&BatchHeader::parse(&batch.bytes).unwrap(), batch.base);
        }
        table
    }

    pub fn recovered(&self, damaged: bool) -> RecoveredLog {
        RecoveredLog {
            start: self.start,
            floor: self.floor(),
            compacted: Offset::ZERO,
            end: self.end(),
            highest_epoch: self.epoch,
            lineage: self.lineage(),
            high_watermark: self.high_watermark,
            producers: self.producers(),
            damaged,
        }
    }

    /// As a read for a follower: whole batches from `from` on, one at least.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Vec<StoredBatch> {
        let mut bytes = 0;
        let rest = self.batches.iter().filter(|b| b.base >= from);
        rest.take_while(|b| {
            let fits = bytes == 0 || bytes + b.len() <= max_bytes;
            bytes += b.len();
            fits
        })
        .cloned()
        .collect()
    }
}

/// What the log still has to make durable, in order.
#[derive(Clone, Debug)]
pub enum LogOp {
    SaveEpoch(Epoch),
    Append { term: LogTerm, batches: Vec<StoredBatch> },
    Truncate { term: LogTerm, to: Offset },
    Restart { term: LogTerm, generation: Generation, start: Offset, producers: ProducerTable },
    Trim { term: LogTerm, start: Offset },
}

#[derive(Clone, Debug)]
pub struct Process {
    pub replica: Replica,
    pub elector: Elector,
    pub incarnation: Incarnation,
    pub session: Option<SessionId>,
    /// What the process would read from its log: more than what is durable.
    pub image: Image,
    pub ops: VecDeque<LogOp>,
    pub peers: BTreeMap<BrokerId, Peer>,
    pub draining: bool,
    pub min_insync: usize,
    /// The last version of the state that was shown to it.
    pub seen: usize,
    pub candidates: Vec<Candidate>,
    /// Reads of the state under way, with the version that they found.
    pub reads: VecDeque<Option<usize>>,
    /// Reads of the log for followers.
    pub log_reads: VecDeque<(BrokerId, Flow, Offset, usize)>,
    pub electing: bool,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub broker: BrokerId,
    pub disk: DiskId,
    /// What survives a crash.
    pub stable: Image,
    pub damaged: bool,
    pub process: Option<Process>,
}

impl Node {
    pub fn member(&self) -> Member {
        Member { broker: self.broker, disk: self.disk, generation: self.stable.generation }
    }

    /// The copy as its process sees it, or as it lies on the disk.
    pub fn image(&self) -> &Image {
        self.process.as_ref().map_or(&self.stable, |p| &p.image)
    }
}
