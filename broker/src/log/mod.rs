//! The log of one broker: every partition's batches, made durable together.
//!
//! The trait does not show what stores the bytes. It is shaped for two families of
//! implementations: an LSM store that holds the batches themselves, and shared append-only
//! segment files with an index beside them.
//!
//! | module | what it does |
//! |---|---|
//! | [`fjall`] | the log on disk |
//! | [`memory`] | the log of tests and simulation, on a disk that outlives it |
//! | `operation` | what is waiting for a commit, and how its caller is answered |
//! | `book` | which partitions there are, and which changes are allowed |
//! | `frame` | the header and checksum of a stored batch |
//! | `sizes` | how old and how large the log is, batch by batch |
//! | `contract` | one suite of tests, run on every implementation |

pub mod fjall;
pub mod memory;

mod book;
#[cfg(test)]
pub(crate) mod contract;
mod frame;
mod operation;
mod sizes;

use std::collections::BTreeMap;

use baton_core::{DiskId, Epoch, Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::future::BoxFuture;

/// A partition's number in one data directory: never reused there, so that the keys of a
/// deleted partition are never taken for those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPartition(pub u32);

/// Batches to append to one partition. Each is a whole RecordBatch v2 with its base offset and
/// leader epoch stamped; they are contiguous, and the first starts at the partition's end.
#[derive(Clone, Debug)]
pub struct Append {
    pub partition: LocalPartition,
    /// At least one, ascending.
    pub batches: Vec<StoredBatch>,
}

pub use baton_core::replica::StoredBatch;

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
    pub compaction: Compaction,
}

impl PartitionMeta {
    /// Of a copy that begins at `start`.
    pub(crate) fn beginning(highest_epoch: Epoch, start: Offset, producers: Bytes) -> Self {
        let producers_at = if producers.is_empty() { Offset::ZERO } else { start };
        Self { highest_epoch, producers, producers_at, ..Self::default() }
    }
}

/// How far compaction has come in one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Below, every key has been looked at once: what follows is dirty.
    pub clean_to: Offset,
    /// Below, batches may have been rewritten, and may cover those of several originals.
    pub rewritten_to: Offset,
    /// When the next tombstone may go, in milliseconds since 1970; 0 if there is none.
    pub horizon_ms: i64,
}

/// A piece of the log, by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// After its last batch.
    pub end: Offset,
    pub bytes: u64,
}

/// Why a copy may not be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The log ends below what the witness saw durable.
    EndBelowWitness {
        end: Offset,
        witness: Offset,
    },
    /// The log does not know an epoch that the witness saw durable: an older tail came back.
    EpochBelowWitness {
        epoch: Epoch,
        witness: Epoch,
    },
    BadChecksum {
        at: Offset,
    },
    Gap {
        expected: Offset,
        found: Offset,
    },
    /// The meta record or the witness itself cannot be read.
    Unreadable {
        what: String,
    },
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
    /// Too much is waiting for the disk; nothing was written, and the same call may succeed later.
    #[error("{queued} bytes are waiting for the disk, {limit} are allowed")]
    Overloaded { queued: u64, limit: u64 },
    /// The caller broke the contract of [`Log`]; nothing was written.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing was written: the batches do not continue the log.
    #[error("the log of {partition:?} ends at {expected}, the batch starts at {found}")]
    NotContiguous { partition: LocalPartition, expected: Offset, found: Offset },
    #[error("no such partition in this data directory: {0:?}")]
    UnknownPartition(LocalPartition),
    #[error("offset {at} is below the log's start {start}")]
    BelowStart { at: Offset, start: Offset },
    /// A stored batch is damaged; the partition has to leave the in-sync replicas.
    #[error("damaged: {0:?}")]
    Damaged(Damage),
    /// An append names a damaged partition; nothing was written, of the others neither.
    #[error("{partition:?} is damaged: {damage:?}")]
    DamagedCopy { partition: LocalPartition, damage: Damage },
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
    /// Group commits since the log was opened: one fsync each.
    pub commits: u64,
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
/// the implementation's own threads (or, in simulation, on simulated time). Dropping the future
/// does not take the call back.
///
/// A call changes everything it names or, when it returns an error, nothing. After
/// [`LogError::Failed`] nothing is known, and every further call fails.
///
/// [`Log::read`] and [`Log::find_time`] see what is durable: at least all that resolved before
/// they were called, and never what a loss of power could take away.
///
/// A partition with [`Damage`] can be read below the damage, but takes no appends until
/// [`Log::reset`] refills it or [`Log::truncate`] to an offset at or below the damage accepts
/// the loss.
pub trait Log: Send + Sync + 'static {
    fn identity(&self) -> Identity;

    /// Everything found at opening, by local number.
    fn recovered(&self) -> BTreeMap<LocalPartition, Recovered>;

    /// A new, empty partition starting at `start`; an existing one with that id is an error of
    /// the caller ([`LogError::Refused`]).
    fn create(
        &self,
        id: TopicPartition,
        generation: Generation,
        start: Offset,
    ) -> BoxFuture<'static, Result<LocalPartition, LogError>>;

    /// Forgets a partition and gives its space back in time.
    fn delete(&self, partition: LocalPartition) -> BoxFuture<'static, Result<(), LogError>>;

    /// One group commit for everything that was called meanwhile: one fsync for all partitions.
    /// Answers with the end of each partition named, in the order of `appends`.
    fn append(&self, appends: Vec<Append>) -> BoxFuture<'static, Result<Vec<DurableEnd>, LogError>>;

    /// Removes every batch whose last offset is at or above `to`; the witness is lowered first.
    /// `to` is a batch boundary; inside a batch, that batch goes too and the end is its base.
    /// At or above the end nothing is removed; below the start is [`LogError::BelowStart`].
    ///
    /// `meta` takes the place of the meta record, if there is one, in the same commit: what the
    /// old one says of epochs and producers may be about batches that go, and their offsets
    /// will be given to others.
    fn truncate(
        &self,
        partition: LocalPartition,
        to: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>>;

    /// Retention: nothing below `start` is read again. Never moves back; beyond the end it is
    /// [`LogError::Refused`] (a copy that is behind the leader's start is [`Log::reset`]).
    ///
    /// `meta` takes the place of the meta record in the same commit, if there is one: what is
    /// known of producers may rest on batches that go.
    fn set_start(
        &self,
        partition: LocalPartition,
        start: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>>;

    /// Empties a copy and begins a new generation at `start` (a damaged copy before its refill).
    /// The meta record starts again too, with `producers` as of `start`, except for the highest
    /// epoch seen: a promise outlives the data.
    fn reset(
        &self,
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
        producers: Bytes,
    ) -> BoxFuture<'static, Result<(), LogError>>;

    /// Compaction: each of `batches`, ascending, takes the place of those that it covers. It
    /// begins where a stored batch begins and ends where one ends, and both are below the end;
    /// so the log stays without gaps. All of it and `meta` are one commit.
    fn rewrite(
        &self,
        partition: LocalPartition,
        batches: Vec<StoredBatch>,
        meta: PartitionMeta,
    ) -> BoxFuture<'static, Result<(), LogError>>;

    fn save(&self, partition: LocalPartition, meta: PartitionMeta) -> BoxFuture<'static, Result<(), LogError>>;

    /// Batches from the one that contains `from`, up to `max_bytes` but at least one; empty at
    /// or beyond the end. Checks CRC and contiguity of what it returns; damage behind the first
    /// batch ends the answer before it, so that the next read reports it.
    fn read(
        &self,
        partition: LocalPartition,
        from: Offset,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<ReadBatches, LogError>>;

    /// The base offset of the first batch whose max timestamp is at or above `timestamp_ms`,
    /// from the persisted time index; the log's start if retention has cut into that batch.
    fn find_time(
        &self,
        partition: LocalPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Offset>, LogError>>;

    /// Up to where everything is older than `before_ms`: the end of the last batch with a max
    /// timestamp below it, in front of the first one that is not. A batch without timestamps
    /// is as old as what follows it, and the last ones of that kind are young.
    fn expired(&self, partition: LocalPartition, before_ms: i64) -> BoxFuture<'static, Result<Offset, LogError>>;

    /// The sizes of the log from `from` on, in pieces of whole batches of at least
    /// `piece_bytes` each, but for the last. Batches are counted as they are stored.
    fn measure(
        &self,
        partition: LocalPartition,
        from: Offset,
        piece_bytes: u64,
    ) -> BoxFuture<'static, Result<Vec<Piece>, LogError>>;

    fn usage(&self) -> Usage;

    /// Finishes what was called, makes it durable, marks the directory cleanly closed.
    fn close(&self) -> BoxFuture<'static, Result<(), LogError>>;
}
