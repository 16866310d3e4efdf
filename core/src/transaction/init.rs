//! A producer takes a transactional id.

use super::entry::{Purpose, Transaction};
use super::message::{Answer, Producer, RequestId};
use super::metadata::{CLIENT_EPOCH_MAX, TransactionMetadata, TransactionState};
use super::out::Out;
use super::{TransactionCoordinator, Waiting};
use crate::connection::ConnectionId;
use crate::error::{Error, ErrorCode};
use crate::ids::{ProducerEpoch, ProducerId};

impl TransactionCoordinator {
    pub(super) fn init(
        &mut self,
        request: RequestId,
        id: &str,
        timeout_ms: i64,
        (expected, connection): (Option<Producer>, Option<ConnectionId>),
        out: &mut Out<'_>,
    ) {
        let timeout_ms = match self.admit(id, timeout_ms, out) {
            Ok(timeout_ms) => timeout_ms,
            Err(error) => return out.answer(request, Answer::Init(Err(error))),
        };
        let entry = self.entries.entry(id.to_owned()).or_insert_with_key(|id| Transaction::new(id.clone()));
        let in_time = match expected {
            // Who is fenced anyway does not hang up on the one that has the id.
            Some(expected) if !entry.may_be(expected) => Ok(()),
            _ => entry.inits_on.admit(connection),
        };
        if let Err(error) = in_time.and_then(|()| entry.init(request, timeout_ms, expected, out)) {
            out.answer(request, Answer::Init(Err(error)));
        }
    }

    /// Whether the id may be used at all; the time-out in range.
    fn admit(&self, id: &str, timeout_ms: i64, out: &Out<'_>) -> Result<u32, Error> {
        if id.is_empty() || id.len() > out.settings.id_bytes_max {
            let max = out.settings.id_bytes_max;
            let cause = format!("a transactional id of {} bytes; 1 to {max} are allowed", id.len());
            return Err(Error::new(ErrorCode::InvalidRequest, cause));
        }
        let max = out.settings.timeout_ms_max;
        let timeout_ms = u32::try_from(timeout_ms).ok().filter(|ms| (1..=max).contains(ms)).ok_or_else(|| {
            let cause = format!("a transaction time-out of {timeout_ms} ms; from 1 to {max} ms are allowed");
            Error::new(ErrorCode::InvalidTransactionTimeout, cause)
        })?;
        if !self.entries.contains_key(id) && self.entries.len() >= out.settings.ids_max {
            let cause =
                format!("this coordinator has {} transactional ids, and no more are allowed", self.entries.len());
            return Err(Error::new(ErrorCode::PolicyViolation, cause));
        }
        out.admit_append()?;
        Ok(timeout_ms)
    }
}

impl Transaction {
    fn init(
        &mut self,
        request: RequestId,
        timeout_ms: u32,
        expected: Option<Producer>,
        out: &mut Out<'_>,
    ) -> Result<(), Error> {
        if self.pending.is_some() {
            return Err(self.concurrent());
        }
        let waiting = Waiting::Init(request);
        let Some(metadata) = &self.metadata else {
            let first = TransactionMetadata::new(out.fresh_id()?, timeout_ms, out.now_ms);
            self.append(Some(first), Purpose::Granted(vec![waiting]), out);
            return Ok(());
        };
        let holder = metadata.holder();
        if let Some(expected) = expected.filter(|e| *e != holder && Some(*e) != metadata.previous) {
            return Err(self.fenced(expected, holder));
        }
        match metadata.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => Err(self.concurrent()),
            TransactionState::Ongoing => {
                let aborted = metadata.decided_and_raised(false, expected, spare_id(metadata, out), out.now_ms);
                self.append(Some(aborted), Purpose::Fenced(waiting), out);
                Ok(())
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                let successor = successor(metadata, expected, out)?;
                let taken = metadata.taken(successor, expected, timeout_ms, out.now_ms);
                self.append(Some(taken), Purpose::Granted(vec![waiting]), out);
                Ok(())
            }
        }
    }
}

/// An id for the case that raising the epoch uses up the last one. If there is none at hand,
/// the next producer takes one when it comes.
pub(super) fn spare_id(metadata: &TransactionMetadata, out: &mut Out<'_>) -> Option<ProducerId> {
    metadata.is_exhausted().then(|| out.fresh_id().ok()).flatten()
}

/// Who the producer is that comes next.
fn successor(metadata: &TransactionMetadata, expected: Option<Producer>, out: &mut Out<'_>) -> Result<Producer, Error> {
    let holder = metadata.holder();
    // It asks again, or was raised by its coordinator: nobody but this producer was told or
    // will be told of the holder's epoch, so that it need not rise once more.
    if expected.is_some_and(|expected| expected != holder) && holder.epoch <= CLIENT_EPOCH_MAX {
        return Ok(holder);
    }
    if metadata.is_exhausted() {
        return Ok(Producer { id: out.fresh_id()?, epoch: ProducerEpoch(0) });
    }
    Ok(Producer { epoch: ProducerEpoch(holder.epoch.0 + 1), ..holder })
}
