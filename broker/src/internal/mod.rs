//! The host of replicated state machines on internal partitions (`__…`).
//!
//! A machine is a function of the records of one partition. Its leader applies them in order,
//! as far as they are committed, and answers questions from the result; a command is a record
//! that is produced like any other, and so as safe as any other. Another leader begins anew
//! from the log.
//!
//! | module | what it does |
//! |---|---|
//! | [`host`] | one machine: tails its partition while this broker leads it |
//! | [`events`] | the cluster's history, the first user |

pub mod events;
pub mod host;

use std::sync::Arc;
use std::time::Duration;

use baton_core::batch::{BatchBuilder, BuildOptions, Pushed, validate_produce};
use baton_core::replica::Acks;
use baton_core::{Error, ErrorCode, Offset, TopicPartition};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::cluster::ClusterView;
use crate::shard::{Partitions, ProduceCall, ShardInput, Shards};

/// The topic of the cluster's history.
pub const EVENTS_TOPIC: &str = "__events";

/// A command may have so many bytes.
const COMMAND_BYTES_MAX: usize = 256 * 1024;

/// Appends commands to internal partitions that this broker leads.
pub struct InternalHost {
    shards: Shards,
    partitions: Partitions,
    view: ClusterView,
    clock: Arc<dyn Clock>,
}

impl InternalHost {
    #[must_use]
    pub fn new(shards: Shards, partitions: Partitions, view: ClusterView, clock: Arc<dyn Clock>) -> Self {
        Self { shards, partitions, view, clock }
    }

    /// The partition by its topic's name, if the topic is there. Other internal topics have
    /// writers of their own, who have to know all that is in them.
    pub(crate) fn find(&self, topic: &str, partition: u32) -> Option<TopicPartition> {
        let found = (topic == EVENTS_TOPIC).then(|| self.view.topic(topic)).flatten()?;
        (partition < found.partitions).then_some(TopicPartition { topic: found.id, partition })
    }

    /// Appends one command, durable on every in-sync replica when this returns.
    ///
    /// # Errors
    /// Those of a produce; `REQUEST_TIMED_OUT` if whether it was stored is unknown.
    pub async fn append(&self, topic: &str, partition: u32, command: Bytes, within: Duration) -> Result<Offset, Error> {
        let place = |error: Error| error.topic(topic).partition(partition);
        let Some(id) = self.find(topic, partition) else {
            return Err(place(Error::new(ErrorCode::UnknownTopic, "there is no such internal partition")));
        };
        let Some(handle) = self.partitions.get(id) else {
            return Err(place(Error::new(ErrorCode::NotLeader, "this broker has no copy of the partition")));
        };
        let batch = one_record(self.clock.now_ms(), command).map_err(place)?;
        let header = validate_produce(&batch, handle.settings.produce_limits()).map_err(|e| place(e.into()))?;
        let (done, answer) = oneshot::channel();
        let reply = Box::new(move |result| drop(done.send(result)));
        let call = ProduceCall { id, acks: Acks::All, epoch: None, transaction: None, header, bytes: batch, reply };
        self.shards.tell(id, ShardInput::Produce(call)).await;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(result)) => result.map(|produced| produced.base),
            Ok(Err(_)) => Err(place(Error::new(ErrorCode::ShuttingDown, "this broker is stopping"))),
            Err(_) => Err(place(Error::new(ErrorCode::RequestTimedOut, "the command was not acknowledged in time"))),
        }
    }
}

fn one_record(now_ms: i64, command: Bytes) -> Result<Bytes, Error> {
    if command.len() > COMMAND_BYTES_MAX {
        let cause = format!("a command has at most {COMMAND_BYTES_MAX} bytes, not {}", command.len());
        return Err(Error::new(ErrorCode::BatchTooLarge, cause));
    }
    let mut builder = BatchBuilder::new(COMMAND_BYTES_MAX + 1_024);
    let too_large = || Error::new(ErrorCode::BatchTooLarge, "the command does not fit into a batch");
    match builder.push(now_ms, None, Some(&command), &[]) {
        Ok(Pushed::Added) => {}
        Ok(Pushed::Full) | Err(_) => return Err(too_large()),
    }
    builder.build(&BuildOptions::default()).map_err(Error::from)
}
