//! What a coordinator has on its way to the log. The core hears of outcomes in the order of
//! its tickets, whatever the order in which they become known.

use std::collections::VecDeque;

use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, ProducerStamp, Pushed, validate_produce};
use baton_core::group::message::Ticket;
use baton_core::group::record::GroupRecord;
use baton_core::replica::Acks;
use baton_core::topic::TopicConfig;
use baton_core::transaction::Producer;
use baton_core::{Epoch, Error, ErrorCode, TopicPartition};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::shard::{InTransaction, ProduceCall, ShardInput, Shards};

const NO_SEQUENCE: i32 = -1;

/// What became of an append.
pub(super) type Outcome = (Ticket, Result<(), Error>);

/// Appends to one partition in one leader epoch.
pub(super) struct Appender {
    shards: Shards,
    id: TopicPartition,
    epoch: Epoch,
    settings: TopicConfig,
    /// In the order of the tickets; none: not known yet.
    under_way: VecDeque<(Ticket, Option<Result<(), Error>>)>,
    /// Not bounded by itself: there is one word for each append, and the core bounds those.
    done: mpsc::UnboundedSender<Outcome>,
}

impl Appender {
    pub(super) fn new(
        shards: Shards,
        id: TopicPartition,
        epoch: Epoch,
        settings: TopicConfig,
    ) -> (Self, mpsc::UnboundedReceiver<Outcome>) {
        let (done, outcomes) = mpsc::unbounded_channel();
        (Self { shards, id, epoch, settings, under_way: VecDeque::new(), done }, outcomes)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Sends one batch; its outcome comes out of the channel.
    pub(super) async fn append(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        records: &[GroupRecord],
        transaction: Option<(Producer, InTransaction)>,
    ) {
        self.under_way.push_back((ticket, None));
        let (producer, transaction) = transaction.unzip();
        let (header, bytes) = match encode(now_ms, records, producer, &self.settings) {
            Ok(batch) => batch,
            // The receiver belongs to the task that calls this.
            Err(error) => return drop(self.done.send((ticket, Err(error)))),
        };
        let done = self.done.clone();
        let reply = Box::new(move |result: Result<_, Error>| drop(done.send((ticket, result.map(|_| ())))));
        let (acks, epoch) = (Acks::All, Some(self.epoch));
        let call = ProduceCall { id: self.id, acks, epoch, transaction, header, bytes, reply };
        self.shards.tell(self.id, ShardInput::Produce(call)).await;
    }

    /// The last of those that are on their way.
    pub(super) fn last(&self) -> Option<Ticket> {
        self.under_way.back().map(|(ticket, _)| *ticket)
    }

    /// Whether this one and all before it were told.
    pub(super) fn is_past(&self, ticket: Ticket) -> bool {
        self.under_way.front().is_none_or(|(first, _)| *first > ticket)
    }

    /// An append of which the core has to hear that it was not taken.
    pub(super) fn refuse(&mut self, ticket: Ticket, error: Error) {
        self.under_way.push_back((ticket, None));
        drop(self.done.send((ticket, Err(error))));
    }

    /// Notes an outcome; returns those that may be told now.
    pub(super) fn outcome(&mut self, (ticket, result): Outcome) -> Vec<Outcome> {
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

/// The records as one batch, as large as the topic allows.
fn encode(
    now_ms: i64,
    records: &[GroupRecord],
    producer: Option<Producer>,
    settings: &TopicConfig,
) -> Result<(BatchHeader, Bytes), Error> {
    let limits = settings.produce_limits();
    let too_large = || {
        let cause = format!("{} records do not fit into {} bytes", records.len(), limits.max_message_bytes);
        Error::new(ErrorCode::BatchTooLarge, cause)
    };
    let mut builder = BatchBuilder::new(limits.max_message_bytes);
    for record in records {
        let (key, value) = (record.key(), record.value());
        match builder.push(now_ms, Some(&key), value.as_deref(), &[]) {
            Ok(Pushed::Added) => {}
            Ok(Pushed::Full) | Err(_) => return Err(too_large()),
        }
    }
    let Some(Producer { id, epoch }) = producer else {
        let bytes = builder.build(&BuildOptions::default())?;
        return Ok((validate_produce(&bytes, limits)?, bytes));
    };
    // The coordinator writes in the producer's name, but knows nothing of its sequence numbers.
    let producer = Some(ProducerStamp { id, epoch, base_sequence: NO_SEQUENCE });
    let bytes = builder.build(&BuildOptions { producer, transactional: true, ..BuildOptions::default() })?;
    Ok((BatchHeader::parse(&bytes)?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::TopicId;
    use baton_core::batch::decode_records;

    fn appender() -> Appender {
        let (sender, _) = mpsc::channel(1);
        let id = TopicPartition { topic: TopicId(1), partition: 0 };
        Appender::new(Shards::new(vec![sender]), id, Epoch(1), TopicConfig::default()).0
    }

    #[test]
    fn outcomes_are_told_in_the_order_of_the_tickets() {
        let mut appender = appender();
        appender.under_way.extend([(Ticket(1), None), (Ticket(2), None), (Ticket(3), None)]);
        assert_eq!(appender.outcome((Ticket(2), Ok(()))), []);
        assert_eq!(appender.outcome((Ticket(1), Ok(()))), [(Ticket(1), Ok(())), (Ticket(2), Ok(()))]);
        assert!(!appender.is_idle());
        assert_eq!(appender.outcome((Ticket(3), Ok(()))).len(), 1);
        assert!(appender.is_idle());
    }

    #[test]
    fn a_batch_has_every_record_with_its_key_or_is_refused() {
        let gone = |group: &str| GroupRecord::Group { group: group.to_owned(), metadata: None };
        let records = [gone("a"), gone("b")];
        let (header, bytes) = encode(7, &records, None, &TopicConfig::default()).unwrap();
        assert_eq!(header.record_count, 2);
        let decoded = decode_records(&bytes, 1 << 20).unwrap();
        let read = decoded.iter().map(|r| GroupRecord::decode(r.key.as_deref().unwrap(), r.value.as_deref()).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), records);
        let many: Vec<_> = (0..200_000).map(|n| gone(&n.to_string())).collect();
        assert_eq!(encode(7, &many, None, &TopicConfig::default()).unwrap_err().code, ErrorCode::BatchTooLarge);
    }
}
