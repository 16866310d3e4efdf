//! What a coordinator has on its way to the log. The core hears of outcomes in the order of
//! its tickets, whatever the order in which they become known.

use std::collections::VecDeque;

use baton_core::batch::BatchHeader;
use baton_core::replica::Acks;
use baton_core::topic::TopicConfig;
use baton_core::{Epoch, Error, ErrorCode, TopicPartition};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::shard::{InTransaction, ProduceCall, ShardInput, Shards};

/// What became of an append.
pub(crate) type Outcome<T> = (T, Result<(), Error>);

/// A batch that may be appended, or why its records do not make one.
pub(crate) type Encoded = Result<(BatchHeader, Bytes), Error>;

/// Appends to one partition in one leader epoch. `T` is what the core calls an append: its
/// tickets rise.
pub(crate) struct Appender<T> {
    shards: Shards,
    id: TopicPartition,
    epoch: Epoch,
    settings: TopicConfig,
    /// In the order of the tickets; none: not known yet.
    under_way: VecDeque<(T, Option<Result<(), Error>>)>,
    /// Not bounded by itself: there is one word for each append, and the core bounds those.
    done: mpsc::UnboundedSender<Outcome<T>>,
}

impl<T: Copy + Ord + Send + 'static> Appender<T> {
    pub(crate) fn new(
        shards: Shards,
        id: TopicPartition,
        epoch: Epoch,
        settings: TopicConfig,
    ) -> (Self, mpsc::UnboundedReceiver<Outcome<T>>) {
        let (done, outcomes) = mpsc::unbounded_channel();
        (Self { shards, id, epoch, settings, under_way: VecDeque::new(), done }, outcomes)
    }

    pub(crate) fn settings(&self) -> &TopicConfig {
        &self.settings
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Sends one batch; its outcome comes out of the channel.
    pub(crate) async fn append(&mut self, ticket: T, batch: Encoded, transaction: Option<InTransaction>) {
        let (header, bytes) = match batch {
            Ok(batch) => batch,
            Err(error) => return self.refuse(ticket, error),
        };
        self.under_way.push_back((ticket, None));
        let done = self.done.clone();
        let reply = Box::new(move |result: Result<_, Error>| drop(done.send((ticket, result.map(|_| ())))));
        let (acks, epoch) = (Acks::All, Some(self.epoch));
        let call = ProduceCall { id: self.id, acks, epoch, transaction, header, bytes, reply };
        self.shards.tell(self.id, ShardInput::Produce(call)).await;
    }

    /// The last of those that are on their way.
    pub(crate) fn last(&self) -> Option<T> {
        self.under_way.back().map(|(ticket, _)| *ticket)
    }

    /// Whether this one and all before it were told.
    pub(crate) fn is_past(&self, ticket: T) -> bool {
        self.under_way.front().is_none_or(|(first, _)| *first > ticket)
    }

    /// An append of which the core has to hear that it was not taken.
    pub(crate) fn refuse(&mut self, ticket: T, error: Error) {
        self.under_way.push_back((ticket, None));
        // The receiver belongs to the task that calls this.
        drop(self.done.send((ticket, Err(error))));
    }

    /// Notes an outcome; returns those that may be told now.
    pub(crate) fn outcome(&mut self, (ticket, result): Outcome<T>) -> Vec<Outcome<T>> {
        if let Some(waiting) = self.under_way.iter_mut().find(|(waiting, _)| *waiting == ticket) {
            waiting.1 = Some(result);
        }
        let mut known = Vec::new();
        while let Some((ticket, result)) = self.under_way.pop_front_if(|(_, result)| result.is_some()) {
            known.extend(result.map(|result| (ticket, result)));
        }
        known
    }
}

/// Whether the records are certainly not in the log, and never will be: the coordinator may go
/// on. Of anything else it cannot know, and has to read again what became of it.
pub(crate) fn certainly_not_stored(error: &Error) -> bool {
    use ErrorCode as E;
    matches!(
        error.code,
        E::InvalidProducerEpoch
            | E::InvalidProducerMapping
            | E::InvalidTransactionState
            | E::ConcurrentTransactions
            | E::TransactionAbortable
            | E::NotEnoughReplicas
            | E::DiskFull
            | E::Throttled
            | E::BatchTooLarge
            | E::FrameTooLarge
            | E::InvalidBatch
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::TopicId;

    #[test]
    fn outcomes_are_told_in_the_order_of_the_tickets() {
        let (sender, _) = mpsc::channel(1);
        let id = TopicPartition { topic: TopicId(1), partition: 0 };
        let (mut appender, _outcomes) =
            Appender::<u64>::new(Shards::new(vec![sender]), id, Epoch(1), TopicConfig::default());
        appender.under_way.extend([(1, None), (2, None), (3, None)]);
        assert_eq!(appender.outcome((2, Ok(()))), []);
        assert_eq!(appender.outcome((1, Ok(()))), [(1, Ok(())), (2, Ok(()))]);
        assert!(!appender.is_idle());
        assert_eq!(appender.outcome((3, Ok(()))).len(), 1);
        assert!(appender.is_idle());
    }
}
