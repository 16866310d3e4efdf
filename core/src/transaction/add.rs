//! Partitions become part of a transaction.

use std::collections::BTreeSet;

use super::Waiting;
use super::entry::{Purpose, Transaction, WaitingAdd};
use super::message::{Answer, ByPartition, Producer, RequestId};
use super::metadata::TransactionState;
use super::out::Out;
use crate::error::{Error, ErrorCode};
use crate::ids::TopicPartition;

impl Transaction {
    pub(super) fn add(
        &mut self,
        request: RequestId,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
        out: &mut Out<'_>,
    ) {
        match self.may_wait(producer, &partitions, out) {
            Ok(true) => {
                self.waiting.push_back(WaitingAdd { request, producer, partitions });
                self.admit_waiting(out);
            }
            Ok(false) => out.answer(request, Answer::Add(Ok(()))),
            Err(error) => out.answer(request, Answer::Add(Err(error))),
        }
    }

    /// Whether there is something to add; not now, if another change is on its way.
    fn may_wait(
        &self,
        producer: Producer,
        partitions: &BTreeSet<TopicPartition>,
        out: &Out<'_>,
    ) -> Result<bool, Error> {
        let metadata = self.of(producer)?;
        if partitions.is_empty() {
            return Err(Error::new(ErrorCode::InvalidRequest, "no partition is named"));
        }
        if self.pending.is_some() && !self.is_adding() || metadata.state.deciding().is_some() {
            return Err(self.concurrent());
        }
        if metadata.state == TransactionState::Ongoing && partitions.is_subset(&metadata.partitions) {
            return Ok(false);
        }
        if self.waiting.len() >= out.settings.waiting_max {
            return Err(self.concurrent());
        }
        out.admit_append()?;
        Ok(true)
    }

    /// All that wait, in one record: brokers ask for one partition each and at the same time.
    pub(super) fn admit_waiting(&mut self, out: &mut Out<'_>) {
        if self.pending.is_some() {
            return;
        }
        let (mut added, mut granted) = (BTreeSet::new(), Vec::new());
        for waiting in std::mem::take(&mut self.waiting) {
            let request = Waiting::Add(waiting.request);
            match self.enlarged(waiting.producer, &added, waiting.partitions, out) {
                Ok(enlarged) => {
                    added = enlarged;
                    granted.push(request);
                }
                Err(error) => request.refuse(error, out),
            }
        }
        let Some(metadata) = self.metadata.as_ref().filter(|_| !granted.is_empty()) else {
            return;
        };
        if metadata.state == TransactionState::Ongoing && added.is_subset(&metadata.partitions) {
            let holder = metadata.holder();
            return granted.into_iter().for_each(|waiting| waiting.grant(holder, out));
        }
        let next = metadata.with(&added, out.now_ms);
        self.append(Some(next), Purpose::Adding(granted), out);
    }

    /// The partitions to add, with these.
    fn enlarged(
        &self,
        producer: Producer,
        added: &BTreeSet<TopicPartition>,
        partitions: BTreeSet<TopicPartition>,
        out: &Out<'_>,
    ) -> Result<BTreeSet<TopicPartition>, Error> {
        let metadata = self.of(producer)?;
        if metadata.state.deciding().is_some() {
            return Err(self.concurrent());
        }
        let enlarged: BTreeSet<_> = added.iter().copied().chain(partitions).collect();
        let (count, max) = (metadata.partitions.union(&enlarged).count(), out.settings.partitions_max);
        if count > max {
            let cause = format!("a transaction over {count} partitions; at most {max} are allowed");
            return Err(Error::new(ErrorCode::PolicyViolation, cause));
        }
        Ok(enlarged)
    }

    /// Which of the partitions are part of the transaction. That it goes on is certain only
    /// while nothing but more partitions is on its way to the log.
    pub(super) fn verify(
        &self,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<ByPartition, Error> {
        let metadata = self.of(producer)?;
        if self.pending.is_some() && !self.is_adding() || metadata.state.deciding().is_some() {
            return Err(self.concurrent());
        }
        let ongoing = metadata.state == TransactionState::Ongoing;
        let one = |at: TopicPartition| {
            if ongoing && metadata.partitions.contains(&at) {
                return (at, Ok(()));
            }
            let cause = format!("{at} is not part of the transaction of {:?}", self.id);
            (at, Err(Error::new(ErrorCode::TransactionAbortable, cause)))
        };
        Ok(partitions.into_iter().map(one).collect())
    }
}
