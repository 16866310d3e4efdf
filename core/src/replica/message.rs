//! What replicas of one partition say to each other.

use crate::ids::{Epoch, Incarnation, Member, Offset};
use crate::lineage::Lineage;
use crate::partition::LeaderId;
use crate::producer::ProducerTable;
use crate::replica::StoredBatch;

/// Numbers a follower's attempts to follow. Everything that belongs to an older attempt is
/// dropped, so that a delayed message can do no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Announce(Announce),
    Hello(Hello),
    HelloReply(HelloReply),
    Append(Append),
    Ack(Ack),
}

/// "I lead this partition in this epoch": sent at once by a new leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Announce {
    pub epoch: Epoch,
    pub leader: LeaderId,
}

/// "I follow you; this is my log."
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    pub epoch: Epoch,
    pub member: Member,
    pub incarnation: Incarnation,
    pub flow: Flow,
    pub lineage: Lineage,
    pub end: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HelloReply {
    /// The leader's epoch.
    pub epoch: Epoch,
    pub flow: Flow,
    pub verdict: HelloVerdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HelloVerdict {
    Accepted {
        truncate_to: Offset,
        high_watermark: Offset,
        /// Where the leader's log begins: what lies below is given up.
        log_start: Offset,
    },
    /// The copy ends below the leader's log start (or shares nothing with it): empty it and
    /// begin here, with what is known of the producers whose batches lie below.
    RestartAt { start: Offset, producers: ProducerTable },
    /// The copy lacks what this member had acknowledged.
    Damaged,
    /// Not the leader of that epoch, or not yet.
    NotYet,
    /// The leader's epoch is higher.
    Fenced,
}

/// Batches that follow what the follower has. Empty: only the high watermark and the log start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    pub epoch: Epoch,
    pub flow: Flow,
    pub base: Offset,
    /// The epoch of the record before `base`; 0 if there is none.
    pub previous_epoch: Epoch,
    pub batches: Vec<StoredBatch>,
    pub high_watermark: Offset,
    /// Where the leader's log begins, durably.
    pub log_start: Offset,
}

/// "Everything below this is on my stable storage, in this epoch."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    pub epoch: Epoch,
    pub flow: Flow,
    pub member: Member,
    pub incarnation: Incarnation,
    pub durable_end: Offset,
    /// Where the follower's log begins, durably.
    pub log_start: Offset,
}
