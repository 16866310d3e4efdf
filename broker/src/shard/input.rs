//! What a shard is told.

use std::sync::Arc;

use baton_core::batch::BatchHeader;
use baton_core::partition::PartitionState;
use baton_core::replica::{Acks, Attempt, Input, Message, RecoveredLog, WriteKind};
use baton_core::transaction::partition::{AbortedTransaction, EndMarker, Guard};
use baton_core::transaction::{Producer, Protocol};
use baton_core::{BrokerId, Epoch, Error, Generation, Member, Offset, TopicPartition};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::log::StoredBatch;
use crate::log::{LocalPartition, PartitionMeta};
use crate::shard::status::{Copies, PartitionStatus};
use baton_core::topic::TopicConfig;

/// A partition that was brought up from disk.
#[derive(Debug)]
pub struct OpenPartition {
    pub id: TopicPartition,
    pub topic: Arc<str>,
    pub local: LocalPartition,
    pub member: Member,
    pub recovered: RecoveredLog,
    pub meta: PartitionMeta,
    pub settings: TopicConfig,
    pub status: watch::Sender<PartitionStatus>,
}

/// A partition that left its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedCopy {
    pub local: LocalPartition,
    pub generation: Generation,
    pub highest_epoch: Epoch,
}

/// The answer to one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub base: Offset,
    pub append_time_ms: Option<i64>,
    pub duplicate: bool,
    pub epoch: Epoch,
}

/// Called once, unless the shard stops first.
pub type ProduceReply = Box<dyn FnOnce(Result<Produced, Error>) + Send>;

/// The transaction that a batch says it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTransaction {
    /// The transactional id.
    pub id: Arc<str>,
    pub protocol: Protocol,
}

/// What a leader asks the coordinator of a transaction before a batch opens it in a partition;
/// answered by [`ShardInput::Verified`].
#[derive(Clone, Debug)]
pub struct VerifyCall {
    pub at: TopicPartition,
    pub guard: Guard,
    pub transaction: InTransaction,
    pub producer: Producer,
}

/// What a reader wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    #[default]
    Uncommitted,
    /// Nothing of open transactions, nor what comes behind them; and which were aborted.
    Committed,
}

/// One validated batch for one partition.
pub struct ProduceCall {
    pub id: TopicPartition,
    pub acks: Acks,
    /// Only in this leader epoch: what another leader wrote meanwhile must not be between this
    /// batch and what its author knew.
    pub epoch: Option<Epoch>,
    /// A batch of a transaction has to say of which.
    pub transaction: Option<InTransaction>,
    pub header: BatchHeader,
    pub bytes: Bytes,
    pub reply: ProduceReply,
}

impl std::fmt::Debug for ProduceCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProduceCall").field("id", &self.id).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// The end of a transaction, for one partition.
pub struct MarkCall {
    pub id: TopicPartition,
    pub marker: EndMarker,
    /// See [`baton_core::transaction::partition::TransactionTable::check_marker`].
    pub raised: bool,
    pub reply: ProduceReply,
}

impl std::fmt::Debug for MarkCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkCall").field("id", &self.id).field("marker", &self.marker).finish_non_exhaustive()
    }
}

/// A read of one partition, answered at once with what is there.
#[derive(Debug)]
pub struct FetchCall {
    pub id: TopicPartition,
    pub from: Offset,
    pub max_bytes: usize,
    /// The leader epoch that the reader knows (KIP-320).
    pub epoch: Option<Epoch>,
    pub isolation: Isolation,
    pub copies: Copies,
    pub reply: oneshot::Sender<Result<Fetched, FetchFailure>>,
}

#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The first one contains the offset that was asked for; all below the high watermark.
    pub batches: Vec<StoredBatch>,
    /// Readers were shown what lies below it.
    pub high_watermark: Offset,
    /// The same, if a client may be told that this is the end: a new leader does not know how
    /// far its predecessor was.
    pub latest: Option<Offset>,
    /// Below it everything is decided for good.
    pub last_stable: Offset,
    /// Of what was read, for a reader of what is committed; in the order of their markers.
    pub aborted: Vec<AbortedTransaction>,
    pub log_start: Offset,
    pub epoch: Epoch,
}

/// A producer of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer: Producer,
    pub last_sequence: Option<i32>,
    /// In ms since 1970, as the producer says.
    pub last_timestamp_ms: Option<i64>,
    /// Of the coordinator that ended its last transaction.
    pub coordinator_epoch: Option<Epoch>,
    /// The first offset of its open transaction.
    pub open_since: Option<Offset>,
}

/// Why a read was refused, with what a reader wants to know then.
#[derive(Clone, Debug)]
pub struct FetchFailure {
    pub error: Error,
    pub latest: Option<Offset>,
    pub log_start: Offset,
}

/// The last epoch that wrote something up to the one that was asked for, and the offset after
/// its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: Epoch,
    pub end: Offset,
}

#[derive(Debug)]
pub enum ShardInput {
    Open(Box<OpenPartition>),
    /// Forget the partition; its data is the caller's business.
    Close {
        id: TopicPartition,
        done: oneshot::Sender<Option<ClosedCopy>>,
    },
    /// Something for the state machine.
    Replica {
        id: TopicPartition,
        input: Input,
    },
    Messages {
        from: BrokerId,
        messages: Vec<(TopicPartition, Message)>,
    },
    Produce(ProduceCall),
    /// A coordinator answered a [`VerifyCall`].
    Verified {
        id: TopicPartition,
        guard: Guard,
        result: Result<(), Error>,
    },
    /// A transaction has ended. Answered when the marker is as safe as a batch.
    Mark(MarkCall),
    Fetch(FetchCall),
    /// Which batch has the first record at or after a time.
    FindTime {
        id: TopicPartition,
        timestamp_ms: i64,
        reply: oneshot::Sender<Result<Option<Offset>, Error>>,
    },
    /// Who wrote to the partition, as far as it is remembered.
    Producers {
        id: TopicPartition,
        reply: oneshot::Sender<Vec<ActiveProducer>>,
    },
    /// Where a leader epoch ended (KIP-320); none if nothing is known of it.
    EpochEnd {
        id: TopicPartition,
        epoch: Epoch,
        reply: oneshot::Sender<Result<Option<EpochEnd>, Error>>,
    },
    /// Give up what lies below `before`, or below the high watermark. Answered with where the
    /// log begins once every in-sync replica has given it up.
    DeleteRecords {
        id: TopicPartition,
        before: Option<Offset>,
        reply: oneshot::Sender<Result<Offset, Error>>,
    },
    /// How many bytes the copy takes, as its batches are stored.
    Measure {
        id: TopicPartition,
        reply: oneshot::Sender<Result<u64, Error>>,
    },
    Settings {
        id: TopicPartition,
        settings: TopicConfig,
    },
    /// An operator chose another copy: acknowledge nothing more in epochs up to this one.
    /// Answered with the copy's generation and end, if there is one.
    Fence {
        id: TopicPartition,
        epoch: Epoch,
        done: oneshot::Sender<Option<(Generation, Offset)>>,
    },
    /// Messages to or from this broker may have been lost.
    LinkReset(BrokerId),
    /// The detector or the registry has news: the shard reads the shared view again.
    PeersChanged,
    /// Say that the shard is alive.
    Ping {
        done: oneshot::Sender<()>,
    },
    /// Save what is only remembered in memory, then say so.
    Checkpoint {
        done: oneshot::Sender<()>,
    },
}

/// What a shard asks of the task that speaks with the registry.
#[derive(Debug)]
pub enum RegistryCall {
    Read(TopicPartition),
    Write {
        id: TopicPartition,
        attempt: Attempt,
        kind: WriteKind,
        expected_version: i32,
        state: Box<PartitionState>,
        joining: Vec<Member>,
        toward: Option<BrokerId>,
    },
    /// The role changed: elections look at the partition again.
    Role(TopicPartition),
}
