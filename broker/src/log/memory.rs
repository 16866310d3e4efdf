//! The log of tests and simulation: the semantics of the real one, on simulated time.
//!
//! Nothing here owns a thread or reads a clock. Commits run one at a time in a task of the
//! caller's runtime, take as long as [`MemoryOptions`] says, and make everything durable that
//! was called before the "disk write" began. A [`MemoryDisk`] outlives its [`MemoryLog`], so
//! that a simulated broker finds after its restart exactly what a real one would find.

mod disk;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::{Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

pub use disk::{MemoryDisk, StoredCopy};

use super::operation::{Change, Operation, Waiting};
use super::{
    Append, DurableEnd, Identity, LocalPartition, Log, LogError, PartitionMeta, Piece, ReadBatches, Recovered,
    StoredBatch, Usage,
};

/// How the simulated disk behaves in time.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// What one group commit takes; zero still lets every ready task run in between.
    pub commit_latency: Duration,
    pub read_latency: Duration,
    /// Bytes that may wait for a commit before appends are refused.
    pub queued_bytes_max: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { commit_latency: Duration::from_millis(1), read_latency: Duration::ZERO, queued_bytes_max: 256 << 20 }
    }
}

/// One opening of a [`MemoryDisk`]. Opening it again fences this one off: its calls then
/// fail with [`LogError::Closed`], as those of a process that was killed.
pub struct MemoryLog {
    shared: Arc<Shared>,
    identity: Identity,
    recovered: BTreeMap<LocalPartition, Recovered>,
}

struct Shared {
    disk: MemoryDisk,
    /// Which opening of the disk this is.
    session: u64,
    options: MemoryOptions,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Operation>,
    bytes: u64,
    committing: bool,
}

impl MemoryLog {
    /// Opens the disk as a starting process would. The calls need a running tokio runtime.
    #[must_use]
    pub fn open(disk: &MemoryDisk, options: MemoryOptions) -> Self {
        let (session, identity, recovered) = disk.open();
        let shared = Shared { disk: disk.clone(), session, options, queue: Mutex::new(Queue::default()) };
        Self { shared: Arc::new(shared), identity, recovered }
    }

    fn submit(&self, change: Change) -> Waiting {
        let (operation, waiting) = Operation::new(change);
        let mut queue = self.shared.queue();
        let (queued, limit) = (queue.bytes, self.shared.options.queued_bytes_max);
        let full = queued > limit && matches!(operation.change, Change::Append(_));
        if full || self.shared.disk.is_overloaded() {
            operation.answer(Err(LogError::Overloaded { queued, limit }));
            return waiting;
        }
        queue.bytes += operation.change.bytes();
        queue.waiting.push_back(operation);
        if !queue.committing {
            queue.committing = true;
            tokio::spawn(Shared::commit_all(Arc::clone(&self.shared)));
        }
        waiting
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits group after group until nothing waits.
    async fn commit_all(self: Arc<Self>) {
        loop {
            // Lets callers that are ready now join the group.
            tokio::task::yield_now().await;
            let group = {
                let mut queue = self.queue();
                queue.bytes = 0;
                if queue.waiting.is_empty() {
                    queue.committing = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            self.commit(group).await;
        }
    }

    /// One group: staged on the disk at once, durable and answered after the latency.
    async fn commit(&self, group: VecDeque<Operation>) {
        let (replies, changes): (Vec<_>, Vec<_>) = group.into_iter().map(|o| (o.reply, o.change)).unzip();
        self.disk.stage(self.session, changes);
        sleep(self.options.commit_latency + self.disk.slowness()).await;
        let mut answers = self.disk.sync(self.session).into_iter();
        for reply in replies {
            let _ = reply.send(answers.next().unwrap_or(Err(LogError::Closed)));
        }
    }
}

async fn sleep(duration: Duration) {
    if duration.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(duration).await;
    }
}

impl Log for MemoryLog {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn recovered(&self) -> BTreeMap<LocalPartition, Recovered> {
        self.recovered.clone()
    }

    fn create(
        &self,
        id: TopicPartition,
        generation: Generation,
        start: Offset,
    ) -> BoxFuture<'static, Result<LocalPartition, LogError>> {
        self.submit(Change::Create { id, generation, start }).created()
    }

    fn delete(&self, partition: LocalPartition) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Delete(partition)).changed()
    }

    fn append(&self, appends: Vec<Append>) -> BoxFuture<'static, Result<Vec<DurableEnd>, LogError>> {
        self.submit(Change::Append(appends)).ends()
    }

    fn truncate(
        &self,
        partition: LocalPartition,
        to: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Truncate { partition, to, meta }).changed()
    }

    fn set_start(
        &self,
        partition: LocalPartition,
        start: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::SetStart { partition, start, meta }).changed()
    }

    fn reset(
        &self,
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
        producers: Bytes,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Reset { partition, generation, start, producers }).changed()
    }

    fn rewrite(
        &self,
        partition: LocalPartition,
        batches: Vec<StoredBatch>,
        meta: PartitionMeta,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Rewrite { partition, batches, meta }).changed()
    }

    fn save(&self, partition: LocalPartition, meta: PartitionMeta) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Save { partition, meta }).changed()
    }

    fn read(
        &self,
        partition: LocalPartition,
        from: Offset,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<ReadBatches, LogError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            sleep(shared.options.read_latency + shared.disk.slowness()).await;
            shared.disk.read(shared.session, partition, from, max_bytes)
        }
        .boxed()
    }

    fn find_time(
        &self,
        partition: LocalPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Offset>, LogError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            sleep(shared.options.read_latency + shared.disk.slowness()).await;
            shared.disk.find_time(shared.session, partition, timestamp_ms)
        }
        .boxed()
    }

    fn expired(&self, partition: LocalPartition, before_ms: i64) -> BoxFuture<'static, Result<Offset, LogError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            sleep(shared.options.read_latency + shared.disk.slowness()).await;
            shared.disk.expired(shared.session, partition, before_ms)
        }
        .boxed()
    }

    fn measure(
        &self,
        partition: LocalPartition,
        from: Offset,
        piece_bytes: u64,
    ) -> BoxFuture<'static, Result<Vec<Piece>, LogError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            sleep(shared.options.read_latency + shared.disk.slowness()).await;
            shared.disk.measure(shared.session, partition, from, piece_bytes)
        }
        .boxed()
    }

    fn usage(&self) -> Usage {
        self.shared.disk.usage()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Close).changed()
    }
}

#[cfg(test)]
mod tests;
