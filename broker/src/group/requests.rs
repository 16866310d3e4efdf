//! What is asked about offsets, with topics by their names: the core knows them by their ids.

use std::sync::Arc;

use baton_core::connection::ConnectionId;
use baton_core::group::message::Identity;
use baton_core::group::offsets::Committed;
use baton_core::{Error, ErrorCode, Offset, TopicPartition};

use crate::cluster::ClusterView;

/// A partition, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: u32,
}

impl Place {
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The partition's id, if there is one.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC` or `UNKNOWN_PARTITION`.
    pub fn find(&self, view: &ClusterView) -> Result<TopicPartition, Error> {
        let Some(topic) = view.topic(&self.topic) else {
            let cause = "there is no such topic, or this broker has not heard of it yet";
            return Err(Error::new(ErrorCode::UnknownTopic, cause).topic(&*self.topic));
        };
        if self.partition >= topic.partitions {
            let cause = format!("the topic has {} partitions, numbered from 0", topic.partitions);
            return Err(Error::new(ErrorCode::UnknownPartition, cause).topic(&*self.topic).partition(self.partition));
        }
        Ok(TopicPartition { topic: topic.id, partition: self.partition })
    }

    /// The name behind an id; none if the topic is gone.
    pub(super) fn of(id: TopicPartition, view: &ClusterView) -> Option<Self> {
        let topic = view.topic_by_id(id.topic).filter(|topic| !topic.deleting)?;
        Some(Self { topic: Arc::clone(&topic.name), partition: id.partition })
    }
}

/// An offset to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOffset {
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if the client says it (KIP-320).
    pub leader_epoch: Option<i32>,
    /// The client's own text.
    pub metadata: String,
}

/// A commit: by a member, or, with generation −1 and no member, by somebody from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedAt {
    pub identity: Identity,
    pub generation: i32,
    pub offsets: Vec<(Place, NewOffset)>,
    /// Where it came in, if the order of the client's connections is known.
    pub connection: Option<ConnectionId>,
}

/// What became of one partition of a request.
pub type PlaceResult = (Place, Result<(), Error>);

/// An offset that was asked for; none if nothing is committed.
pub type FetchedAt = (Place, Result<Option<Committed>, Error>);

/// Why a join was refused, with the member id that the client is to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: Error,
    pub member: String,
}
