//! What is asked of a transaction coordinator, what it answers, and what it has the host do.

use std::collections::BTreeSet;

use super::partition::EndMarker;
use super::record::TransactionRecord;
use crate::connection::ConnectionId;
use crate::error::{Error, ErrorCode};
use crate::ids::{ProducerEpoch, ProducerId, TopicPartition};

/// Names one request until it is answered; the host chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one append until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names the end of one transaction while its markers are written. Two transactions of an old
/// client may carry the same producer epoch, so that nothing else tells a late confirmation of
/// the one from one of the other. It means something to the coordinator that gave it only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkerRound(pub u64);

/// Who writes: a producer id, and which of those that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// How a client ends its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Its epoch stays from one transaction to the next (KIP-98; EndTxn up to version 4).
    First,
    /// Its epoch rises with every transaction, so that nothing of one can land in the next
    /// (KIP-890; EndTxn from version 5, Produce from version 12).
    Second,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A producer takes a transactional id. `expected` is who it was before, if it was
    /// somebody and goes on after an error (KIP-360).
    Init {
        request: RequestId,
        id: String,
        timeout_ms: i64,
        expected: Option<Producer>,
        connection: Option<ConnectionId>,
    },
    /// Partitions become part of the transaction, which begins with the first ones. Old clients
    /// ask for it; for newer ones the broker that was sent a batch does. Offsets are added as
    /// the partition that keeps the group's offsets. No connection: a broker asks.
    Add {
        request: RequestId,
        id: String,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
        connection: Option<ConnectionId>,
    },
    /// Are these partitions part of the transaction? A broker asks that was sent the first
    /// batch of an old client.
    Verify { request: RequestId, id: String, producer: Producer, partitions: BTreeSet<TopicPartition> },
    End {
        request: RequestId,
        id: String,
        producer: Producer,
        commit: bool,
        protocol: Protocol,
        connection: Option<ConnectionId>,
    },
    /// What became of the marker in one partition; see [`Effect::WriteMarkers`].
    Marked { round: MarkerRound, at: TopicPartition, outcome: MarkerOutcome },
    /// The record of this append is on every in-sync replica, or certainly not stored.
    Appended { ticket: Ticket, result: Result<(), Error> },
    /// The next `count` producer ids, from `first` on, are this coordinator's; none: they could
    /// not be had.
    ProducerIds { first: ProducerId, count: u32 },
    /// Time passed; see [`super::TransactionCoordinator::next_deadline_ms`].
    Tick,
    /// This broker does not lead the partition any more, or does not know what became of an append.
    Resigned,
}

/// What became of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkerOutcome {
    /// It is in the partition, on every in-sync replica; or it had been written there before.
    Written,
    /// The topic was deleted.
    Gone,
    /// It has to be tried again.
    Failed,
    /// The partition has heard of a later coordinator.
    Fenced,
}

/// Partitions that were asked about, each with what was found.
pub type ByPartition = Vec<(TopicPartition, Result<(), Error>)>;

/// The answer to a request, once.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Who the producer is from now on.
    Init(Result<Producer, Error>),
    Add(Result<(), Error>),
    Verify(Result<ByPartition, Error>),
    /// Who the producer is in the next transaction.
    End(Result<Producer, Error>),
}

/// What the host has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Answer(RequestId, Answer),
    /// Append the record, and report the outcome by [`Input::Appended`], in the order of the
    /// tickets. Nothing that depends on it is told before.
    Append {
        ticket: Ticket,
        record: TransactionRecord,
    },
    /// Write the marker into these partitions, and report each by [`Input::Marked`]. It is asked
    /// again for those that did not confirm. `raised`: its epoch is above that of the records
    /// that it ends; see [`super::partition::TransactionTable::check_marker`].
    WriteMarkers {
        round: MarkerRound,
        marker: EndMarker,
        raised: bool,
        partitions: BTreeSet<TopicPartition>,
    },
    /// Get a block of producer ids, and hand it over by [`Input::ProducerIds`].
    NeedProducerIds,
    /// A later coordinator is at work: this one has ended, and everybody was told.
    Superseded,
}

/// Which error codes a client's version of a request knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KnownCodes {
    /// InitProducerId from version 4; AddPartitionsToTxn, AddOffsetsToTxn and EndTxn from 2;
    /// never Produce.
    pub producer_fenced: bool,
    /// AddPartitionsToTxn and EndTxn from version 5, AddOffsetsToTxn from 4, Produce from 11.
    pub abortable: bool,
}

impl KnownCodes {
    /// The nearest code that the client knows.
    #[must_use]
    pub fn nearest(self, code: ErrorCode) -> ErrorCode {
        match code {
            ErrorCode::ProducerFenced if !self.producer_fenced => ErrorCode::InvalidProducerEpoch,
            ErrorCode::TransactionAbortable if !self.abortable => ErrorCode::InvalidTransactionState,
            other => other,
        }
    }
}
