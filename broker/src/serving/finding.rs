//! Topics and partitions by name, and who leads them.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Error, ErrorCode, TopicPartition};

use crate::cluster::TopicView;
use crate::grpc::ListenerParts;
use crate::shard::{Copies, PartitionHandle};

/// How long a question about topics waits for a broker that has just started.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Of a topic that a broker does not know which has not read all of them yet. To say that it is
/// not there would be believed, and make applications fail or topics anew.
pub(crate) fn just_started() -> Error {
    Error::new(ErrorCode::NoLeader, "this broker has just started, and has not read the topics yet")
}

impl ListenerParts {
    /// Whether this broker can say which topics there are; one that has just started is given
    /// some time.
    pub async fn knows_topics(&self, within: Duration) -> bool {
        self.view.is_whole() || self.view.whole(within.min(READ_WITHIN)).await
    }

    /// The topic and the partition's id, by name and number.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC` or `UNKNOWN_PARTITION`.
    pub fn locate(&self, topic: &str, partition: u32) -> Result<(Arc<TopicView>, TopicPartition), Error> {
        let Some(found) = self.view.topic(topic) else {
            if !self.view.is_whole() {
                return Err(just_started().topic(topic));
            }
            let cause = "there is no such topic, or this broker has not heard of it yet";
            return Err(Error::new(ErrorCode::UnknownTopic, cause).topic(topic));
        };
        if partition >= found.partitions {
            let cause = format!("the topic has {} partitions, numbered from 0", found.partitions);
            return Err(Error::new(ErrorCode::UnknownPartition, cause).topic(topic).partition(partition));
        }
        let id = TopicPartition { topic: found.id, partition };
        Ok((found, id))
    }

    /// The local copy, if this broker leads it.
    ///
    /// # Errors
    /// `NOT_LEADER` or `NO_LEADER`.
    pub fn led(&self, topic: &str, id: TopicPartition) -> Result<PartitionHandle, Error> {
        match self.partitions.get(id) {
            Some(handle) if handle.status.now().leads() => Ok(handle),
            _ => Err(self.not_leader(topic, id)),
        }
    }

    /// The local partition for a reader who is content with such copies.
    ///
    /// # Errors
    /// `NOT_LEADER` or `NO_LEADER`.
    pub fn readable(&self, topic: &str, id: TopicPartition, copies: Copies) -> Result<PartitionHandle, Error> {
        match self.partitions.get(id) {
            Some(handle) if handle.status.now().serves(copies) => Ok(handle),
            _ => Err(self.not_leader(topic, id)),
        }
    }

    /// Why this broker does not answer for a partition.
    #[must_use]
    pub fn not_leader(&self, topic: &str, id: TopicPartition) -> Error {
        let (leader, epoch) = self.view.leader(id);
        let error = match leader {
            Some(leader) if leader != self.me => {
                Error::new(ErrorCode::NotLeader, format!("broker {leader} leads the partition"))
            }
            _ => Error::new(ErrorCode::NoLeader, "nobody leads the partition at the moment"),
        };
        error.topic(topic).partition(id.partition).epoch(epoch)
    }
}
