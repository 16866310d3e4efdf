//! The newest batches of a shard's partitions, in memory: followers and consumers that keep
//! up never touch the log.
//!
//! A cache belongs to one shard and has no lock. What it holds of a partition is contiguous.
//! Above its bound the globally oldest batch goes first, except that no partition is driven
//! below its fair share of half the cache: a flood in one partition does not take the last
//! batches of the quiet ones.
//!
//! The bytes counted are those of the batches plus a fixed cost each. A batch whose bytes are
//! a slice of a larger buffer keeps all of that buffer alive: callers that cut small batches
//! out of large frames should copy them.

use std::collections::{BTreeMap, VecDeque};

use baton_core::Offset;

use crate::log::{LocalPartition, StoredBatch};

/// What a batch costs besides its bytes: its place in the queue and its share of the maps.
const OVERHEAD_BYTES: u64 = 128;

/// A bounded cache of the newest batches of many partitions.
#[derive(Debug)]
pub struct TailCache {
    bytes_max: u64,
    bytes: u64,
    /// Batches pushed so far: the age of each.
    pushed: u64,
    partitions: BTreeMap<LocalPartition, Tail>,
    /// Partitions above their share, by the age of their oldest batch. The first one gives
    /// when room is needed.
    above_share: BTreeMap<u64, LocalPartition>,
    /// Bytes below which nothing is taken from a partition; see [`TailCache::reshare`].
    share_bytes: u64,
    /// For how many partitions `share_bytes` was computed: a power of two.
    shared_by: u64,
}

/// The batches of one partition, contiguous and never empty.
#[derive(Debug, Default)]
struct Tail {
    batches: VecDeque<Aged>,
    bytes: u64,
}

#[derive(Debug)]
struct Aged {
    age: u64,
    batch: StoredBatch,
}

impl Tail {
    fn oldest_age(&self) -> Option<u64> {
        self.batches.front().map(|aged| aged.age)
    }

    /// The offset after the newest batch.
    fn end(&self) -> Option<Offset> {
        self.batches.back().map(|aged| aged.batch.last.plus(1))
    }

    fn push(&mut self, aged: Aged) {
        self.bytes += cost(&aged.batch);
        self.batches.push_back(aged);
    }

    fn pop_oldest(&mut self) {
        if let Some(aged) = self.batches.pop_front() {
            self.bytes -= cost(&aged.batch);
        }
    }

    fn pop_newest(&mut self) {
        if let Some(aged) = self.batches.pop_back() {
            self.bytes -= cost(&aged.batch);
        }
    }
}

fn cost(batch: &StoredBatch) -> u64 {
    let bytes = u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
    bytes.saturating_add(OVERHEAD_BYTES)
}

impl TailCache {
    /// A cache of at most `bytes_max`; 0 caches nothing.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            pushed: 0,
            partitions: BTreeMap::new(),
            above_share: BTreeMap::new(),
            share_bytes: bytes_max / 2,
            shared_by: 1,
        }
    }

    /// Bytes in use; never above the bound.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the batch that was just appended to a partition. One that does not continue what
    /// is cached replaces it: a reader must never skip over a gap.
    pub fn push(&mut self, partition: LocalPartition, batch: StoredBatch) {
        let continues = self.partitions.get(&partition).and_then(Tail::end).is_none_or(|end| end == batch.base);
        if !continues || cost(&batch) > self.bytes_max {
            self.remove(partition);
        }
        if cost(&batch) > self.bytes_max {
            return;
        }
        let aged = Aged { age: self.pushed, batch };
        self.pushed += 1;
        self.change(partition, |tail| tail.push(aged));
        self.evict();
    }

    /// Forgets every batch whose last offset is at or above `to`, as the log does.
    pub fn truncate(&mut self, partition: LocalPartition, to: Offset) {
        self.change(partition, |tail| {
            while tail.batches.back().is_some_and(|aged| aged.batch.last >= to) {
                tail.pop_newest();
            }
        });
    }

    /// Forgets every batch that lies wholly below `start`: the new start of the log.
    pub fn set_start(&mut self, partition: LocalPartition, start: Offset) {
        self.change(partition, |tail| {
            while tail.batches.front().is_some_and(|aged| aged.batch.last < start) {
                tail.pop_oldest();
            }
        });
    }

    /// Forgets a partition.
    pub fn remove(&mut self, partition: LocalPartition) {
        self.change(partition, |tail| *tail = Tail::default());
    }

    /// The batches from the one that contains `from`, up to `bytes_max` but at least one;
    /// none if that one is not here, which the log may still have.
    #[must_use]
    pub fn read(&self, partition: LocalPartition, from: Offset, bytes_max: usize) -> Option<Vec<StoredBatch>> {
        let batches = &self.partitions.get(&partition)?.batches;
        let first = batches.partition_point(|aged| aged.batch.last < from);
        if batches.get(first)?.batch.base > from {
            return None;
        }
        let mut left = bytes_max;
        let mut read = Vec::new();
        for Aged { batch, .. } in batches.range(first..) {
            if !read.is_empty() && batch.bytes.len() > left {
                break;
            }
            left = left.saturating_sub(batch.bytes.len());
            read.push(batch.clone());
        }
        Some(read)
    }

    /// Changes one partition's tail and keeps the sums and the order of eviction right.
    fn change(&mut self, partition: LocalPartition, change: impl FnOnce(&mut Tail)) {
        let tail = self.partitions.entry(partition).or_default();
        if let Some(age) = tail.oldest_age() {
            self.above_share.remove(&age);
        }
        self.bytes -= tail.bytes;
        change(tail);
        self.bytes += tail.bytes;
        match tail.oldest_age() {
            None => {
                self.partitions.remove(&partition);
            }
            Some(age) if tail.bytes > self.share_bytes => {
                self.above_share.insert(age, partition);
            }
            Some(_) => {}
        }
        self.reshare();
    }

    /// Half the cache is shared out evenly. Everything above that half is therefore in
    /// partitions above their share, and eviction always finds one. The number of partitions
    /// is rounded up to a power of two, and falls only at a quarter, so that sorting all of
    /// them anew is rare.
    fn reshare(&mut self) {
        let count = u64::try_from(self.partitions.len()).unwrap_or(u64::MAX).max(1);
        if count <= self.shared_by && count > self.shared_by / 4 {
            return;
        }
        self.shared_by = count.next_power_of_two();
        self.share_bytes = self.bytes_max / 2 / self.shared_by;
        let share_bytes = self.share_bytes;
        let above = self.partitions.iter().filter(|(_, tail)| tail.bytes > share_bytes);
        self.above_share = above.filter_map(|(partition, tail)| Some((tail.oldest_age()?, *partition))).collect();
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((_, &partition)) = self.above_share.first_key_value() else {
                debug_assert!(false, "{} bytes are cached and nobody is above its share", self.bytes);
                return;
            };
            self.change(partition, Tail::pop_oldest);
        }
    }
}

#[cfg(test)]
#[path = "tail_cache_tests.rs"]
mod tests;
