//! One transactional id: what is durable of it, and what is on its way.

use std::collections::{BTreeSet, VecDeque};

use super::markers::Marking;
use super::message::{Producer, RequestId};
use super::metadata::TransactionMetadata;
use super::out::Out;
use super::record::TransactionRecord;
use super::{Waiting, moved, unavailable};
use crate::connection::LatestConnection;
use crate::error::{Error, ErrorCode};
use crate::ids::TopicPartition;

/// A transactional id. At most one record of it is on its way to the log, so that each change
/// is made to what is durable.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub(super) id: String,
    /// None until its first record is durable, and after its last.
    pub(super) metadata: Option<TransactionMetadata>,
    pub(super) pending: Option<Pending>,
    /// Partitions that wait for others, on their way to the log, to be added.
    pub(super) waiting: VecDeque<WaitingAdd>,
    pub(super) marking: Option<Marking>,
    /// The log refused a record that nobody asked for: it is tried again at this time.
    pub(super) retry_at_ms: Option<i64>,
    /// Where producers took the id.
    pub(super) inits_on: LatestConnection,
    /// Where partitions were added and transactions ended: clients may have a connection for it
    /// beside the one for the former.
    pub(super) steps_on: LatestConnection,
}

/// A record on its way to the log.
#[derive(Clone, Debug)]
pub struct Pending {
    /// None: the id is forgotten.
    next: Option<TransactionMetadata>,
    purpose: Purpose,
}

/// Who hears of it.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Those who asked for it.
    Granted(Vec<Waiting>),
    /// Partitions are added, for those who asked.
    Adding(Vec<Waiting>),
    /// The one before had an open transaction, which ends first: it has to ask again.
    Fenced(Waiting),
    /// Nobody: time passed, or all markers are there.
    Own,
}

/// A request that waits for others of the same kind.
#[derive(Clone, Debug)]
pub struct WaitingAdd {
    pub request: RequestId,
    pub producer: Producer,
    pub partitions: BTreeSet<TopicPartition>,
}

impl Transaction {
    pub fn new(id: String) -> Self {
        Self {
            id,
            metadata: None,
            pending: None,
            waiting: VecDeque::new(),
            marking: None,
            retry_at_ms: None,
            inits_on: LatestConnection::default(),
            steps_on: LatestConnection::default(),
        }
    }

    pub fn is_forgotten(&self) -> bool {
        self.metadata.is_none() && self.pending.is_none()
    }

    /// Whether the record on its way adds partitions: more may wait behind it.
    pub fn is_adding(&self) -> bool {
        matches!(&self.pending, Some(Pending { purpose: Purpose::Adding(_), .. }))
    }

    /// Whether this is the producer that has the id, or that had it before in the same process.
    pub fn may_be(&self, producer: Producer) -> bool {
        self.metadata.as_ref().is_some_and(|m| m.holder() == producer || m.previous == Some(producer))
    }

    /// What is durable, if this producer may speak for the id.
    pub fn of(&self, producer: Producer) -> Result<&TransactionMetadata, Error> {
        let Some(metadata) = &self.metadata else {
            return Err(Error::new(ErrorCode::InvalidProducerMapping, format!("{:?} is being initialised", self.id)));
        };
        let holder = metadata.holder();
        if producer.id != holder.id {
            let cause = format!("{:?} belongs to producer {}, not {}", self.id, holder.id, producer.id);
            return Err(Error::new(ErrorCode::InvalidProducerMapping, cause));
        }
        if producer.epoch != holder.epoch {
            return Err(self.fenced(producer, holder));
        }
        Ok(metadata)
    }

    pub fn fenced(&self, producer: Producer, holder: Producer) -> Error {
        let cause = format!(
            "{:?} has producer {} in epoch {}, and {} in epoch {} asks",
            self.id, holder.id, holder.epoch, producer.id, producer.epoch
        );
        Error::new(ErrorCode::ProducerFenced, cause)
    }

    pub fn concurrent(&self) -> Error {
        let cause = format!("a change of {:?} is on its way, or its transaction is being ended", self.id);
        Error::new(ErrorCode::ConcurrentTransactions, cause)
    }

    pub fn append(&mut self, next: Option<TransactionMetadata>, purpose: Purpose, out: &mut Out<'_>) {
        debug_assert!(self.pending.is_none(), "two records of {:?} on their way", self.id);
        out.append(TransactionRecord { id: self.id.clone(), metadata: next.clone() });
        self.pending = Some(Pending { next, purpose });
        self.retry_at_ms = None;
    }

    /// The record on its way is durable, or was not taken.
    pub fn appended(&mut self, result: Result<(), Error>, out: &mut Out<'_>) {
        let Some(Pending { next, purpose }) = self.pending.take() else {
            return;
        };
        match result {
            Ok(()) => {
                self.metadata = next;
                self.tell(purpose, out);
                self.begin_marking(out);
            }
            Err(error) => self.refused(purpose, unavailable(error), out),
        }
        self.admit_waiting(out);
    }

    fn tell(&self, purpose: Purpose, out: &mut Out<'_>) {
        match (purpose, &self.metadata) {
            (Purpose::Granted(waiting) | Purpose::Adding(waiting), Some(metadata)) => {
                let holder = metadata.holder();
                waiting.into_iter().for_each(|waiting| waiting.grant(holder, out));
            }
            (Purpose::Fenced(waiting), _) => waiting.refuse(self.concurrent(), out),
            (Purpose::Granted(_) | Purpose::Adding(_) | Purpose::Own, _) => {}
        }
    }

    fn refused(&mut self, purpose: Purpose, error: Error, out: &mut Out<'_>) {
        match purpose {
            Purpose::Granted(waiting) | Purpose::Adding(waiting) => {
                waiting.into_iter().for_each(|waiting| waiting.refuse(error.clone(), out));
            }
            Purpose::Fenced(waiting) => waiting.refuse(error, out),
            Purpose::Own => self.retry_at_ms = Some(out.now_ms.saturating_add(out.settings.retry_ms)),
        }
    }

    /// Whoever waits hears that the coordinator moved.
    pub fn resign(&mut self, out: &mut Out<'_>) {
        if let Some(Pending { purpose, .. }) = self.pending.take() {
            self.refused(purpose, moved(), out);
        }
        for waiting in std::mem::take(&mut self.waiting) {
            Waiting::Add(waiting.request).refuse(moved(), out);
        }
    }
}
