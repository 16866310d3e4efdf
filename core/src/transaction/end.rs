//! A producer ends its transaction.

use super::Mutation;
use super::Waiting;
use super::entry::{Purpose, Transaction};
use super::message::{Answer, Producer, Protocol, RequestId};
use super::metadata::{CLIENT_EPOCH_MAX, TransactionMetadata, TransactionState as State};
use super::out::Out;
use crate::error::{Error, ErrorCode};

/// What comes of a request.
enum Ending {
    /// It had its effect before.
    Already(Producer),
    Decide(TransactionMetadata),
}

impl Transaction {
    pub(super) fn end(
        &mut self,
        request: RequestId,
        producer: Producer,
        commit: bool,
        protocol: Protocol,
        out: &mut Out<'_>,
    ) {
        let ending = match protocol {
            Protocol::First => self.ending_first(producer, commit, out),
            Protocol::Second => self.ending_second(producer, commit, out),
        };
        match ending {
            Ok(Ending::Already(producer)) => out.answer(request, Answer::End(Ok(producer))),
            Ok(Ending::Decide(next)) if out.settings.lacks(Mutation::AnswerBeforeDecided) => {
                out.answer(request, Answer::End(Ok(next.holder())));
                self.append(Some(next), Purpose::Granted(Vec::new()), out);
            }
            Ok(Ending::Decide(next)) => self.append(Some(next), Purpose::Granted(vec![Waiting::End(request)]), out),
            Err(error) => out.answer(request, Answer::End(Err(error))),
        }
    }

    /// The epoch stays, so that a repeated request looks like one for the next transaction:
    /// it is taken for what the state makes likely, as Kafka does.
    fn ending_first(&self, producer: Producer, commit: bool, out: &Out<'_>) -> Result<Ending, Error> {
        let metadata = self.of(producer)?;
        if self.pending.is_some() {
            return Err(self.concurrent());
        }
        match metadata.state {
            State::Ongoing => {
                out.admit_append()?;
                Ok(Ending::Decide(metadata.decided(commit, out.now_ms)))
            }
            state if state.deciding() == Some(commit) => Err(self.concurrent()),
            state if state.decided() == Some(commit) => Ok(Ending::Already(producer)),
            state => Err(self.not_now(state, commit)),
        }
    }

    /// The epoch rises, so that whoever still says the previous one asks again.
    fn ending_second(&self, producer: Producer, commit: bool, out: &mut Out<'_>) -> Result<Ending, Error> {
        if let Some(metadata) = self.metadata.as_ref().filter(|m| m.previous == Some(producer)) {
            return self.ended_before(metadata, producer, commit);
        }
        let metadata = self.of(producer)?;
        if self.pending.is_some() || metadata.state.deciding().is_some() {
            return Err(self.concurrent());
        }
        if metadata.state.is_idle() && commit {
            return Err(self.not_now(metadata.state, commit));
        }
        out.admit_append()?;
        let next_id = if metadata.is_exhausted() { Some(out.fresh_id()?) } else { None };
        let ended = metadata.decided_and_raised(commit, Some(producer), next_id, out.now_ms);
        // A transaction without partitions may still have batches on their way: raising the
        // epoch keeps them out, and there is nobody else to tell.
        Ok(Ending::Decide(if metadata.state.is_idle() { ended.completed(out.now_ms) } else { ended }))
    }

    fn ended_before(&self, metadata: &TransactionMetadata, producer: Producer, commit: bool) -> Result<Ending, Error> {
        let holder = metadata.holder();
        match metadata.state.decided() {
            None => Err(self.fenced(producer, holder)),
            Some(_) if self.pending.is_some() && metadata.state.is_idle() => Err(self.concurrent()),
            Some(decided) if decided == commit && holder.epoch <= CLIENT_EPOCH_MAX => Ok(Ending::Already(holder)),
            Some(decided) if decided == commit => Err(self.fenced(producer, holder)),
            Some(_) => Err(self.not_now(metadata.state, commit)),
        }
    }

    fn not_now(&self, state: State, commit: bool) -> Error {
        let what = if commit { "committed" } else { "aborted" };
        let cause = format!("the transaction of {:?} is in state {}, and cannot be {what}", self.id, state.name());
        Error::new(ErrorCode::InvalidTransactionState, cause)
    }
}
