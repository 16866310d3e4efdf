//! Writes markers into partitions that this broker leads, for coordinators here and elsewhere.

use baton_core::transaction::partition::EndMarker;
use baton_core::{Error, ErrorCode, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::group::{GROUPS_TOPIC, Groups};
use crate::shard::{MarkCall, ShardInput, Shards};

/// The way of a marker into a local partition. Cloning it is cheap.
#[derive(Clone)]
pub struct Marking {
    shards: Shards,
    groups: Groups,
}

impl Marking {
    #[must_use]
    pub fn new(shards: Shards, groups: Groups) -> Self {
        Self { shards, groups }
    }

    /// Writes the marker into each partition, in the order of which the results stand: it is on
    /// every in-sync replica, or was there before.
    pub async fn write(
        &self,
        marker: EndMarker,
        raised: bool,
        partitions: &[TopicPartition],
        deadline: Instant,
    ) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(partitions.len());
        for at in partitions {
            answers.push(self.begin(*at, marker, raised).await);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => {
                    timeout_at(deadline, answer).await.map_or_else(|_| Err(late()), |a| a.unwrap_or_else(gone))
                }
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn begin(
        &self,
        at: TopicPartition,
        marker: EndMarker,
        raised: bool,
    ) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let of_groups = self.groups.keeps(at);
        if of_groups {
            // It has to hear of the end in the order of the log.
            self.groups.is_coordinating(at.partition)?;
        }
        let (reply, answer) = oneshot::channel();
        let groups = self.groups.clone();
        let reply = Box::new(move |result: Result<_, Error>| {
            let told = result.and_then(|_| match of_groups {
                true => groups.transaction_ended(at.partition, marker.producer, marker.commit),
                false => Ok(()),
            });
            // Whoever asked may have given up.
            drop(reply.send(told));
        });
        let call = MarkCall { id: at, marker, raised, reply };
        self.shards.tell(at, ShardInput::Mark(call)).await;
        Ok(answer)
    }
}

fn late() -> Error {
    Error::new(ErrorCode::RequestTimedOut, "the marker was not acknowledged in time; whether it is stored is unknown")
}

fn gone(_: oneshot::error::RecvError) -> Result<(), Error> {
    Err(Error::new(
        ErrorCode::ShuttingDown,
        format!("this broker is stopping; ask the next leader, also of {GROUPS_TOPIC}"),
    ))
}
