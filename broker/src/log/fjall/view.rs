//! What the committer shows to readers and callers: the durable state, and whether it goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use baton_core::Offset;

use super::keys::Prefix;
use crate::log::{LocalPartition, LogError, Usage};

/// The readable part of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visible {
    pub(super) prefix: Prefix,
    pub(super) start: Offset,
    /// Durable.
    pub(super) end: Offset,
    /// How often the tail was cut: a reader that sees another number than before has read
    /// while something vanished, and reads again.
    pub(super) cuts: u64,
}

#[derive(Default)]
pub(super) struct View {
    partitions: RwLock<HashMap<LocalPartition, Visible>>,
    stopped: RwLock<Option<LogError>>,
    commits: AtomicU64,
    bytes: AtomicU64,
    free_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
}

impl View {
    /// # Errors
    /// The log has stopped, or there is no such partition.
    pub(super) fn get(&self, partition: LocalPartition) -> Result<Visible, LogError> {
        self.check_open()?;
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.get(&partition).copied().ok_or(LogError::UnknownPartition(partition))
    }

    pub(super) fn check_open(&self) -> Result<(), LogError> {
        match &*self.stopped.read().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// Sets what is durable now; `cuts` stay.
    pub(super) fn publish(&self, changed: impl Iterator<Item = (LocalPartition, Prefix, Offset, Offset)>) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        for (partition, prefix, start, end) in changed {
            let cuts = partitions.get(&partition).map_or(0, |v| v.cuts);
            partitions.insert(partition, Visible { prefix, start, end, cuts });
        }
    }

    /// Hides the tail from `to` on, before it is removed.
    pub(super) fn cut(&self, partition: LocalPartition, to: Offset) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(visible) = partitions.get_mut(&partition) {
            visible.end = visible.end.min(to);
            visible.cuts += 1;
        }
    }

    pub(super) fn remove(&self, partition: LocalPartition) {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    /// The first reason counts.
    pub(super) fn stop(&self, why: LogError) {
        let mut stopped = self.stopped.write().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(why);
    }

    pub(super) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_space(&self, bytes: u64, free: u64, reserve: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.set_free(free, reserve);
    }

    pub(super) fn set_free(&self, free: u64, reserve: u64) {
        self.free_bytes.store(free, Ordering::Relaxed);
        self.reserve_bytes.store(reserve, Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        Usage {
            bytes: self.bytes.load(Ordering::Relaxed),
            free_bytes,
            below_reserve: free_bytes < self.reserve_bytes.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }
}
