//! What goes into the state machine and what comes out of it.

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::error::ErrorCode;
use crate::ids::{BrokerId, Epoch, Generation, Member, Offset};
use crate::partition::{PartitionState, VersionedState};
use crate::producer::ProducerTable;
use crate::replica::{Flow, Message, StoredBatch};
use crate::transaction::message::Protocol;
use crate::transaction::partition::{EndMarker, Guard};

/// Names one produce request towards the runtime; unique while it is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Numbers the incarnations of the local log: rises with each truncation, so that the
/// completion of an append from before it is not taken for one from after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTerm(pub u64);

/// Numbers the writes of the partition's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// When a produce request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    /// Durable on every in-sync replica.
    All,
    /// Durable on the leader: outside the guarantee.
    Leader,
}

/// A batch that [`crate::batch::validate_produce`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produce {
    pub request: RequestId,
    pub acks: Acks,
    pub header: BatchHeader,
    pub bytes: Bytes,
    /// Wall clock in ms since 1970: for LogAppendTime and for the age of producers.
    pub wall_ms: i64,
}

/// A marker for this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub request: RequestId,
    pub marker: EndMarker,
    /// See [`crate::transaction::partition::TransactionTable::check_marker`].
    pub raised: bool,
    /// Wall clock in ms since 1970: the marker's own time.
    pub wall_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The partition's node was read, or a write of ours changed it.
    State(VersionedState),
    /// `min.insync.replicas` of the topic.
    MinInsync(usize),
    Produce(Produce),
    /// A batch of a transaction; `guard`: its coordinator was asked (see [`Effect::Verify`]),
    /// and agreed.
    ProduceIn {
        produce: Produce,
        protocol: Protocol,
        guard: Option<Guard>,
    },
    /// The end of a transaction; acknowledged as a batch would be.
    Mark(Mark),
    /// An [`Effect::Append`] is on stable storage up to `end`.
    Durable {
        term: LogTerm,
        end: Offset,
    },
    /// An [`Effect::SaveEpoch`] is on stable storage.
    EpochSaved(Epoch),
    /// An [`Effect::Truncate`] or [`Effect::Restart`] is on stable storage, with everything
    /// before it that it leaves, and this is the producers' state rebuilt for what is left.
    LogChanged {
        term: LogTerm,
        producers: ProducerTable,
    },
    Message {
        from: BrokerId,
        message: Message,
    },
    /// The answer to [`Effect::ReadForFollower`]; empty if the log could not be read there.
    ReadForFollower {
        to: BrokerId,
        flow: Flow,
        batches: Vec<StoredBatch>,
    },
    /// The answer to [`Effect::WriteState`].
    Written {
        attempt: Attempt,
        outcome: WriteOutcome,
    },
    /// The registry's view of peers changed, or one was heard of or given up.
    PeersChanged,
    /// The stream from or to this broker was opened anew: messages may have been lost.
    LinkReset(BrokerId),
    /// Time has passed (every 100 ms or so).
    Tick,
    /// Stop leading, in favour of this broker if it is in sync and alive.
    Resign {
        toward: BrokerId,
    },
    /// Give up what lies below `to`: retention, or a client that deletes records. Only a
    /// leader does, and only below its high watermark.
    Trim {
        to: Offset,
    },
    /// An [`Effect::Trim`] is on stable storage; `floor` is the first offset of the batch that
    /// contains `start`.
    Trimmed {
        term: LogTerm,
        start: Offset,
        floor: Offset,
    },
    /// Compaction rewrote batches below this offset; nothing at or above the high watermark.
    Compacted {
        to: Offset,
    },
    /// An operator chose another copy: lead and acknowledge nothing more up to this epoch.
    Fence {
        epoch: Epoch,
    },
    /// An [`Effect::Append`] was refused for want of space; nothing of it was written.
    AppendFailed {
        term: LogTerm,
    },
    /// The log failed: never lead or acknowledge again in this process.
    StorageFailed(String),
    /// What is stored of this copy was found damaged when it was read.
    Damaged(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// The node has this version now.
    Done { version: i32 },
    /// It certainly did not happen. A fresh [`Input::State`] follows.
    Conflict,
    /// Whether it happened is unknown. A fresh [`Input::State`] follows, read after a sync.
    Unknown,
    /// Refused for another reason (the joining broker is draining or gone). The state's
    /// version is unchanged.
    Refused,
}

/// Why the state of the partition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteKind {
    Isr,
    Resign,
}

/// Which stream a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Live,
    /// Throttled, so that it never delays live appends.
    CatchUp,
}

/// Carried out in their order. The log's effects of one partition take effect in the order in
/// which they are emitted; everything "durable before sent" is enforced here, by waiting for
/// the matching input, and not by the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the highest epoch durable, then say [`Input::EpochSaved`].
    SaveEpoch(Epoch),
    /// Append, make durable, then say [`Input::Durable`].
    Append {
        term: LogTerm,
        batches: Vec<StoredBatch>,
    },
    /// Remove everything at and above `to`, then say [`Input::LogChanged`].
    Truncate {
        term: LogTerm,
        to: Offset,
    },
    /// Empty the copy and begin at `start`, as this generation, with what the leader knows of
    /// the producers whose batches lie below; then [`Input::LogChanged`].
    Restart {
        term: LogTerm,
        generation: Generation,
        start: Offset,
        producers: ProducerTable,
    },
    /// Nothing below `start` is read again; the producers' state as of `start` is kept beside
    /// the log. Then say [`Input::Trimmed`].
    Trim {
        term: LogTerm,
        start: Offset,
    },
    Send {
        to: BrokerId,
        stream: Stream,
        message: Message,
    },
    /// Read batches from `from` on and say [`Input::ReadForFollower`]. From memory if
    /// possible, and then at once, before any other input.
    ReadForFollower {
        to: BrokerId,
        flow: Flow,
        from: Offset,
        max_bytes: usize,
    },
    /// Set the partition's node at `expected_version`; with `joining` also check that this
    /// broker is registered under that disk and not draining; with `toward` also check that
    /// its candidate exists. Then say [`Input::Written`].
    WriteState {
        attempt: Attempt,
        kind: WriteKind,
        expected_version: i32,
        state: PartitionState,
        joining: Vec<Member>,
        toward: Option<BrokerId>,
    },
    /// Sync, read the partition's node, and say [`Input::State`].
    ReadRegistry,
    Acknowledge {
        request: RequestId,
        base: Offset,
        append_time_ms: Option<i64>,
        duplicate: bool,
    },
    /// The batch would open a transaction here: ask its coordinator, and come again with this
    /// guard ([`Input::ProduceIn`]) if it agrees, in the order of the batches.
    Verify {
        produce: Produce,
        guard: Guard,
    },
    Reject {
        request: RequestId,
        why: Refusal,
    },
    /// Readers may see everything below it.
    HighWatermark(Offset),
    /// For metadata, metrics and events.
    RoleChanged,
    /// The copy contradicts itself: stop serving it and tell a person.
    Halt(String),
}

/// Why a produce request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    pub cause: String,
}

impl Refusal {
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into() }
    }
}
