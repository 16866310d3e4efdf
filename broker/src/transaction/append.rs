//! What a coordinator has on its way to the log. The core hears of outcomes in the order of
//! its tickets, whatever the order in which they become known.

use std::collections::VecDeque;

use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, Pushed, validate_produce};
use baton_core::replica::Acks;
use baton_core::topic::TopicConfig;
use baton_core::transaction::message::Ticket;
use baton_core::transaction::record::TransactionRecord;
use baton_core::{Epoch, Error, ErrorCode, TopicPartition};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::shard::{ProduceCall, ShardInput, Shards};

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

    /// Sends one record; its outcome comes out of the channel.
    pub(super) async fn append(&mut self, now_ms: i64, ticket: Ticket, record: &TransactionRecord) {
        self.under_way.push_back((ticket, None));
        let (header, bytes) = match encode(now_ms, record, &self.settings) {
            Ok(batch) => batch,
            // The receiver belongs to the task that calls this.
            Err(error) => return drop(self.done.send((ticket, Err(error)))),
        };
        let done = self.done.clone();
        let reply = Box::new(move |result: Result<_, Error>| drop(done.send((ticket, result.map(|_| ())))));
        let (acks, epoch, transaction) = (Acks::All, Some(self.epoch), None);
        let call = ProduceCall { id: self.id, acks, epoch, transaction, header, bytes, reply };
        self.shards.tell(self.id, ShardInput::Produce(call)).await;
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

fn encode(now_ms: i64, record: &TransactionRecord, settings: &TopicConfig) -> Result<(BatchHeader, Bytes), Error> {
    let limits = settings.produce_limits();
    let mut builder = BatchBuilder::new(limits.max_message_bytes);
    let (key, value) = (record.key(), record.value());
    match builder.push(now_ms, Some(&key), value.as_deref(), &[]) {
        Ok(Pushed::Added) => {}
        Ok(Pushed::Full) | Err(_) => {
            let cause = format!("the record of {:?} does not fit into {} bytes", record.id, limits.max_message_bytes);
            return Err(Error::new(ErrorCode::BatchTooLarge, cause));
        }
    }
    let bytes = builder.build(&BuildOptions::default())?;
    let header = validate_produce(&bytes, limits)?;
    Ok((header, bytes))
}
