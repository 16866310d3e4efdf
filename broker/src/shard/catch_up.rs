//! Reads for lagging followers: few at a time, each in its turn, paid for by what it brought.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use baton_core::compaction::cut_empty;
use baton_core::replica::{Flow, Input, StoredBatch};
use baton_core::{BrokerId, Offset, TopicPartition};

use crate::shard::completion::{Completion, CopyId};
use crate::shard::partition::Partition;
use crate::shard::run::Shard;

/// How many of them a shard has under way. How much one brings is the core's business.
const READS_MAX: usize = 16;

/// One read that a leader asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    flow: Flow,
    from: Offset,
    max_bytes: usize,
}

/// Which reads wait, in the order in which their followers came. A follower of a partition
/// has one flow at a time: what an earlier one wanted is of no use any more.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    order: VecDeque<(TopicPartition, BrokerId)>,
    waiting: BTreeMap<(TopicPartition, BrokerId), Read>,
    running: usize,
}

impl CatchUp {
    fn push(&mut self, id: TopicPartition, to: BrokerId, read: Read) {
        if self.waiting.insert((id, to), read).is_none() {
            self.order.push_back((id, to));
        }
    }

    fn pop(&mut self) -> Option<(TopicPartition, BrokerId, Read)> {
        if self.running >= READS_MAX {
            return None;
        }
        let (id, to) = self.order.pop_front()?;
        self.waiting.remove(&(id, to)).map(|read| (id, to, read))
    }
}

impl Partition {
    /// The batch that contains the log's start begins below it, and is read by the start.
    fn readable(&self, from: Offset) -> Offset {
        if from >= self.replica.log_floor() { from.max(self.replica.log_start()) } else { from }
    }
}

/// A follower may end inside what compaction has made one empty batch of.
fn beginning_at(from: Offset, mut batches: Vec<StoredBatch>) -> Vec<StoredBatch> {
    if let Some(first) = batches.first_mut()
        && let Some(rest) = cut_empty(first, from)
    {
        *first = rest;
    }
    batches
}

impl Shard {
    /// From memory at once, if it is there.
    pub(super) fn read_for_follower(
        &mut self,
        id: TopicPartition,
        to: BrokerId,
        flow: Flow,
        from: Offset,
        max_bytes: usize,
    ) -> Option<Input> {
        let partition = self.partitions.get(&id)?;
        // The batch that contains the log's start begins below it.
        let readable = partition.readable(from);
        if let Some(batches) = self.cache.read(partition.local, readable, max_bytes) {
            let batches = beginning_at(from, batches);
            return Some(Input::ReadForFollower { to, flow, batches });
        }
        self.catch_up.push(id, to, Read { flow, from, max_bytes });
        self.start_catch_up_reads();
        None
    }

    /// A read is done: there is room for another one.
    pub(super) fn catch_up_read_done(&mut self) {
        self.catch_up.running -= 1;
        self.start_catch_up_reads();
    }

    fn start_catch_up_reads(&mut self) {
        while let Some((id, to, Read { flow, from, max_bytes })) = self.catch_up.pop() {
            let Some(partition) = self.partitions.get(&id).filter(|p| p.replica.awaits_read(to, flow)) else {
                continue;
            };
            self.catch_up.running += 1;
            let readable = partition.readable(from);
            let (log, local, peers) = (Arc::clone(&self.parts.log), partition.local, self.parts.peers.clone());
            let copy = CopyId { id, local };
            self.running.push(Box::pin(async move {
                peers.catch_up_turn().await;
                let result = log.read(local, readable, max_bytes).await;
                let result = result.map(|found| beginning_at(from, found.batches));
                if let Ok(batches) = &result {
                    peers.pay_catch_up(batches.iter().map(|batch| batch.len()).sum());
                }
                Completion::ReadForFollower { copy, to, flow, result }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flow: u64) -> Read {
        Read { flow: Flow(flow), from: Offset(flow), max_bytes: 1 }
    }

    #[test]
    fn a_new_flow_takes_the_place_of_the_old_one() {
        let (a, b) = (BrokerId(1), BrokerId(2));
        let id = TopicPartition::default();
        let mut queue = CatchUp::default();
        queue.push(id, a, read(1));
        queue.push(id, b, read(2));
        queue.push(id, a, read(3));
        assert_eq!(queue.pop(), Some((id, a, read(3))));
        assert_eq!(queue.pop(), Some((id, b, read(2))));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn only_so_many_run_at_once() {
        let mut queue = CatchUp { running: READS_MAX, ..CatchUp::default() };
        queue.push(TopicPartition::default(), BrokerId(1), read(1));
        assert_eq!(queue.pop(), None);
        queue.running -= 1;
        assert!(queue.pop().is_some());
    }
}
