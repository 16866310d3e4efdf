//! What clients ask of a group coordinator, what it answers, and what it has the host do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::offsets::Committed;
use super::record::GroupRecord;
use crate::connection::ConnectionId;
use crate::error::Error;
use crate::ids::{ProducerEpoch, ProducerId, TopicId, TopicPartition};

/// Names one request of a client until it is answered; the host chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one append until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One way of dividing partitions that a member knows, with what it says about itself. The
/// bytes are the clients' own affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// Who speaks: the member id, and the name of a static member (KIP-345).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Empty: not known yet.
    pub member: String,
    pub instance: Option<String>,
}

/// A member wants to be in the next generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    pub identity: Identity,
    pub client_id: String,
    pub client_host: String,
    pub session_ms: u32,
    pub rebalance_ms: u32,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    /// The id that the member gets if it has none: random, the host's.
    pub fresh_id: String,
    /// A member without an id has to come again with the one that it is given (KIP-394).
    pub must_know_id: bool,
    /// The client understands that its assignment may stay as it is (KIP-814).
    pub may_skip_assignment: bool,
}

/// A member wants its part; the leader brings everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    pub identity: Identity,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// By member id; empty unless the leader speaks.
    pub assignments: Vec<(String, Bytes)>,
}

/// Offsets to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub identity: Identity,
    /// −1: not by a member.
    pub generation: i32,
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// Real only when this producer's transaction commits.
    pub transaction: Option<(ProducerId, ProducerEpoch)>,
    /// Where the request came in, if the order of the client's connections is known.
    pub connection: Option<ConnectionId>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Join(RequestId, String, Join),
    Sync(RequestId, String, Sync),
    Heartbeat {
        request: RequestId,
        group: String,
        identity: Identity,
        generation: i32,
    },
    Leave {
        request: RequestId,
        group: String,
        members: Vec<Identity>,
    },
    Commit(RequestId, String, Commit),
    /// Forget offsets; each with the name of its topic, which members may be subscribed to.
    DeleteOffsets {
        request: RequestId,
        group: String,
        offsets: Vec<(String, TopicPartition)>,
    },
    DeleteGroup {
        request: RequestId,
        group: String,
    },
    /// The records of this append are on every in-sync replica, or certainly not stored.
    Appended {
        ticket: Ticket,
        result: Result<(), Error>,
    },
    /// A transaction that had offsets here has ended.
    TransactionEnded {
        producer: ProducerId,
        epoch: ProducerEpoch,
        committed: bool,
    },
    /// Time passed; see [`super::GroupCoordinator::next_deadline_ms`].
    Tick,
    /// Offsets that were kept long enough are forgotten, and those in topics that are gone.
    Sweep {
        /// The names of the topics that are known.
        topics: BTreeMap<TopicId, String>,
        /// Topics that certainly are no more. One that is in neither may just have been made.
        gone: BTreeSet<TopicId>,
    },
    /// This broker does not lead the partition any more.
    End,
}

impl Input {
    /// The group that it is about, if it is about one.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Self::Join(_, group, _)
            | Self::Sync(_, group, _)
            | Self::Heartbeat { group, .. }
            | Self::Leave { group, .. }
            | Self::Commit(_, group, _)
            | Self::DeleteOffsets { group, .. }
            | Self::DeleteGroup { group, .. } => Some(group),
            Self::Appended { .. } | Self::TransactionEnded { .. } | Self::Tick | Self::Sweep { .. } | Self::End => None,
        }
    }
}

/// What a joined member hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member: String,
    /// The leader: keep everybody's assignment (KIP-814).
    pub skip_assignment: bool,
    /// For the leader: everybody's id, instance and metadata.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// The part that a member got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// What became of each of several offsets.
pub type ByOffset = Vec<(TopicPartition, Result<(), Error>)>;

/// The answer to a request, once.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An error may carry the member id that the client is to use.
    Join(Result<Joined, (Error, String)>),
    Sync(Result<Synced, Error>),
    Heartbeat(Result<(), Error>),
    /// For the whole request, and for each member of it.
    Leave(Vec<(Identity, Result<(), Error>)>),
    Commit(ByOffset),
    DeleteOffsets(Result<ByOffset, Error>),
    DeleteGroup(Result<(), Error>),
}

/// What the host has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Answer(RequestId, Answer),
    /// Append the records as one batch, of this producer's transaction if one is named, and
    /// report the outcome by [`Input::Appended`], in the order of the tickets.
    Append {
        ticket: Ticket,
        records: Vec<GroupRecord>,
        transaction: Option<(ProducerId, ProducerEpoch)>,
    },
}
