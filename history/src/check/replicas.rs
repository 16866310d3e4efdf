//! What replicas hold: below their high watermarks it is the same everywhere.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::findings::{Finding, Findings};
use super::ids::{EventId, PartitionId};
use super::{Checker, Invalid, Sight};
use crate::event::{Block, Replica};
use crate::report::Kind;

/// Who first told the hash of a block, by partition, beginning and end.
#[derive(Debug, Default)]
pub struct Blocks {
    told: BTreeMap<(PartitionId, u64, u64), Told>,
    pub differences: Vec<BlockDifference>,
}

/// Two replicas that differ, which an unclean election may excuse once all of them are known.
#[derive(Debug)]
pub struct BlockDifference {
    pub partition: PartitionId,
    from: u64,
    to: u64,
    known: Told,
    other: Told,
}

impl BlockDifference {
    pub fn report(&self, permitted: bool, findings: &mut Findings) {
        let Self { partition, from, known, other, .. } = self;
        let last = self.to.saturating_sub(1);
        findings.add(Kind::ReplicasDiffer, permitted, *partition, || Finding {
            offsets: vec![*from, last],
            what: format!("brokers {} and {} differ from {from} up to {last}", known.broker, other.broker),
            events: vec![known.event, other.event],
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct Told {
    hash: u64,
    broker: u32,
    event: EventId,
}

impl Checker {
    /// Holds what a replica has below its high watermark against what is known already.
    pub(super) fn replica(&mut self, e: &Replica<'_>, event: EventId) -> Result<(), Invalid> {
        self.counts.replica_dumps += 1;
        let partition = self.partitions.intern(&e.partition);
        let told_to = e.to.min(e.high_watermark);
        let mut next = e.from.max(e.log_start);
        for record in e.records.iter().filter(|record| record.offset < e.high_watermark) {
            self.lacks(e, partition, next, record.offset.min(told_to), event);
            next = next.max(record.offset.saturating_add(1));
            let epoch = record.epoch.and_then(NonZeroU32::new);
            self.see(partition, record.offset, Sight { payload: record.payload, epoch, event, by_replica: true })?;
        }
        for block in e.blocks.iter().filter(|block| block.to <= e.high_watermark) {
            self.lacks(e, partition, next, block.from.min(told_to), event);
            next = next.max(block.to);
            self.block(e.broker, partition, *block, event);
        }
        // A block across the high watermark was not looked into.
        if e.blocks.is_empty() {
            self.lacks(e, partition, next, told_to, event);
        }
        Ok(())
    }

    fn lacks(&mut self, e: &Replica<'_>, partition: PartitionId, from: u64, to: u64, event: EventId) {
        if from < to {
            self.findings.add(Kind::ReplicasDiffer, false, partition, || Finding {
                offsets: vec![from, to - 1],
                what: format!("broker {} has nothing from {from} up to {}", e.broker, to - 1),
                events: vec![event],
            });
        }
    }

    fn block(&mut self, broker: u32, partition: PartitionId, Block { from, to, hash }: Block, event: EventId) {
        let told = Told { hash, broker, event };
        let known = *self.blocks.told.entry((partition, from, to)).or_insert(told);
        if known.hash == hash {
            return;
        }
        self.blocks.differences.push(BlockDifference { partition, from, to, known, other: told });
    }
}
