//! The log of one broker: every partition's batches, made durable together.
//!
//! The trait does not show what stores the bytes. It is shaped for two families of
//! implementations: an LSM store that holds the batches themselves, and shared append-only
//! segment files with an index beside them.

use std::collections::BTreeMap;

use baton_core::{DiskId, Epoch, Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::future::BoxFuture;

/// A partition's number in one data directory: never reused there, so that the keys of a
/// deleted partition are never taken for those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPartition(pub u32);

/// Batches to append to one partition. Each is a whole RecordBatch v2 with its base offset and
/// leader epoch stamped; they are contiguous, and the first starts at the partition's end.
#[derive(Clone, Debug)]
pub struct Append {
    pub partition: LocalPartition,
    /// (last offset, whole batch, max timestamp in ms)
    pub batches: Vec<StoredBatch>,
}

/// One batch as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub base: Offset,
    pub last: Offset,
    pub epoch: Epoch,
    pub max_timestamp_ms: i64,
    pub bytes: Bytes,
}

/// After an append returned, everything below `end` is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableEnd {
    pub partition: LocalPartition,
    pub end: Offset,
}

/// Small durable state of one partition beside its batches; written whole.
/// Saving it is a commit of its own: when `save` returned, it is on stable storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMeta {
    /// The highest leader epoch seen: durable before the first ack in it.
    pub highest_epoch: Epoch,
    /// (epoch, first offset of that epoch), ascending.
    pub lineage: Vec<(Epoch, Offset)>,
    /// A lower bound of the high watermark.
    pub high_watermark: Offset,
    /// The state of idempotent producers as of `producers_at`, encoded by the core.
    pub producers: Bytes,
    pub producers_at: Offset,
}

/// Why a copy may not be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The log ends below what the witness saw durable.
    EndBelowWitness { end: Offset, witness: Offset },
    BadChecksum { at: Offset },
    Gap { expected: Offset, found: Offset },
    /// The meta record or the witness itself cannot be read.
    Unreadable { what: String },
}

/// One partition as found when the directory was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub partition: LocalPartition,
    pub id: TopicPartition,
    pub generation: Generation,
    pub start: Offset,
    pub end: Offset,
    pub meta: PartitionMeta,
    /// Headers' view of the batches from `meta.producers_at` on is read with [`Log::read`].
    pub damage: Option<Damage>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing was written; reads, deletes and acknowledgements go on.
    #[error("the disk is full: {free} bytes are free, {reserve} are reserved")]
    Full { free: u64, reserve: u64 },
    #[error("no such partition in this data directory: {0:?}")]
    UnknownPartition(LocalPartition),
    #[error("offset {at} is below the log's start {start}")]
    BelowStart { at: Offset, start: Offset },
    /// A stored batch is damaged; the partition has to leave the in-sync replicas.
    #[error("damaged: {0:?}")]
    Damaged(Damage),
    /// The store failed; the process must end, and the directory is tainted.
    #[error("the storage failed: {0}")]
    Failed(String),
    #[error("the log is closed")]
    Closed,
}

/// What [`Log::read`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBatches {
    /// Contiguous; the first one *contains* the offset that was asked for.
    pub batches: Vec<StoredBatch>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub free_bytes: u64,
    pub below_reserve: bool,
}

/// Who this data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: uuid::Uuid,
    pub broker: baton_core::BrokerId,
    pub disk: DiskId,
}

/// Functions that return a future take effect in the order in which they are *called*; the
/// future resolves when the effect is durable. They never block the caller: work happens on
/// the implementation's own threads (or, in simulation, on simulated time).
pub trait Log: Send + Sync + 'static {
    fn identity(&self) -> Identity;

    /// Everything found at opening, by local number.
    fn recovered(&self) -> BTreeMap<LocalPartition, Recovered>;

    /// A new, empty partition starting at `start`; an existing one with that id is an error of
    /// the caller (`Failed`).
    fn create(&self, id: TopicPartition, generation: Generation, start: Offset) -> BoxFuture<'static, Result<LocalPartition, LogError>>;

    /// Forgets a partition and gives its space back in time.
    fn delete(&self, partition: LocalPartition) -> BoxFuture<'static, Result<(), LogError>>;

    /// One group commit for everything that was called meanwhile: one fsync for all partitions.
    fn append(&self, appends: Vec<Append>) -> BoxFuture<'static, Result<Vec<DurableEnd>, LogError>>;

    /// Removes every batch whose last offset is at or above `to`; the witness is lowered first.
    /// `to` is a batch boundary.
    fn truncate(&self, partition: LocalPartition, to: Offset) -> BoxFuture<'static, Result<(), LogError>>;

    /// Retention: nothing below `start` is read again.
    fn set_start(&self, partition: LocalPartition, start: Offset) -> BoxFuture<'static, Result<(), LogError>>;

    /// Empties a copy and begins a new generation at `start` (a damaged copy before its refill).
    fn reset(&self, partition: LocalPartition, generation: Generation, start: Offset) -> BoxFuture<'static, Result<(), LogError>>;

    fn save(&self, partition: LocalPartition, meta: PartitionMeta) -> BoxFuture<'static, Result<(), LogError>>;

    /// Batches from the one that contains `from`, up to `max_bytes` but at least one; empty at
    /// the end. Checks CRC and contiguity of what it returns.
    fn read(&self, partition: LocalPartition, from: Offset, max_bytes: usize) -> BoxFuture<'static, Result<ReadBatches, LogError>>;

    /// The base offset of the first batch whose max timestamp is at or above `timestamp_ms`,
    /// from the persisted time index.
    fn find_time(&self, partition: LocalPartition, timestamp_ms: i64) -> BoxFuture<'static, Result<Option<Offset>, LogError>>;

    fn usage(&self) -> Usage;

    /// Finishes what was called, makes it durable, marks the directory cleanly closed.
    fn close(&self) -> BoxFuture<'static, Result<(), LogError>>;
}
