//! What a shard shows of its partitions: read by listeners and elections without asking it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use baton_core::replica::RoleView;
use baton_core::{Epoch, Member, Offset, TopicPartition};
use tokio::sync::watch;

use baton_core::topic::TopicConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    pub role: RoleView,
    pub member: Member,
    pub epoch: Epoch,
    /// The version of the registry's state that the replica has taken in; −1 before the first.
    pub version: i32,
    pub log_start: Offset,
    pub log_end: Offset,
    /// Readers may see everything below it.
    pub high_watermark: Offset,
    /// The same, if a client may be told that this is the end.
    pub latest: Option<Offset>,
    /// Readers of what is committed may see everything below it.
    pub last_stable: Offset,
    pub in_sync: usize,
    pub assigned: usize,
    /// The copy was found damaged and has not been refilled yet.
    pub damaged: bool,
    /// It follows and is in sync: readers who accept that may read here (KIP-392).
    pub follows_in_sync: bool,
    /// Its disk was full when it led last: it does not stand for election for a while.
    pub yields: bool,
}

impl PartitionStatus {
    /// Whether elections have something to look at that they did not see in `before`.
    #[must_use]
    pub fn concerns_elections(&self, before: &Self) -> bool {
        let seen = |s: &Self| (s.role, s.member, s.version, s.damaged, s.yields);
        seen(self) != seen(before)
    }

    /// Whether readers who are content with such copies may read here.
    #[must_use]
    pub fn serves(&self, copies: Copies) -> bool {
        self.leads() || (copies == Copies::InSync && self.follows_in_sync)
    }

    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.role, RoleView::Leader { .. })
    }
}

/// Which copies of a partition may answer a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    Leader,
    /// The nearest one that is in sync (KIP-392): it may be a little behind the leader.
    InSync,
}

/// The status of a copy, and its changes. It gives copies of it only: whoever held the guard of
/// `watch::Receiver::borrow` and borrowed again, while the shard waited to write, would wait for
/// ever, and the shard and its thread with it.
#[derive(Clone, Debug)]
pub struct StatusWatch(watch::Receiver<PartitionStatus>);

impl StatusWatch {
    #[must_use]
    pub const fn new(shown: watch::Receiver<PartitionStatus>) -> Self {
        Self(shown)
    }

    /// As it is; a change that was not waited for yet stays news.
    #[must_use]
    pub fn now(&self) -> PartitionStatus {
        *self.0.borrow()
    }

    /// As it is; what changed until now is no news any more.
    pub fn take(&mut self) -> PartitionStatus {
        *self.0.borrow_and_update()
    }

    /// Waits for news.
    ///
    /// # Errors
    /// The copy is closed.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }

    /// Waits until it is as wanted.
    ///
    /// # Errors
    /// The copy is closed.
    pub async fn wait_for(
        &mut self,
        wanted: impl FnMut(&PartitionStatus) -> bool,
    ) -> Result<PartitionStatus, watch::error::RecvError> {
        self.0.wait_for(wanted).await.map(|status| *status)
    }

    /// What is there counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.0.mark_unchanged();
    }
}

/// How to reach one local partition.
#[derive(Clone, Debug)]
pub struct PartitionHandle {
    pub id: TopicPartition,
    pub topic: Arc<str>,
    pub settings: TopicConfig,
    pub status: StatusWatch,
}

/// The partitions of which this broker has a copy.
#[derive(Clone, Debug, Default)]
pub struct Partitions {
    open: Arc<RwLock<BTreeMap<TopicPartition, PartitionHandle>>>,
}

impl Partitions {
    #[must_use]
    pub fn get(&self, id: TopicPartition) -> Option<PartitionHandle> {
        self.read().get(&id).cloned()
    }

    #[must_use]
    pub fn all(&self) -> Vec<PartitionHandle> {
        self.read().values().cloned().collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&self, handle: PartitionHandle) {
        self.write().insert(handle.id, handle);
    }

    pub fn remove(&self, id: TopicPartition) -> Option<PartitionHandle> {
        self.write().remove(&id)
    }

    /// The lock guards a map that no panic can leave half-written.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<TopicPartition, PartitionHandle>> {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<TopicPartition, PartitionHandle>> {
        self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
