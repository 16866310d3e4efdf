//! Consumer groups: members read disjoint parts of topics, and remember how far they got.
//!
//! Any broker names a group's coordinator; members join there, one of them divides the
//! partitions by Kafka's range strategy, and heartbeats keep them in. The bytes are Kafka's, so
//! that consumers of both kinds can be in one group.
//!
//! | module | what it does |
//! |---|---|
//! | [`consumer`] | a consumer in a group |
//! | `membership` | joining, and dividing partitions |
//! | `heartbeat` | staying in |
//! | `offsets` | commits |
//! | `calls` | finds the coordinator, and asks it until it answers |

pub(crate) mod calls;
pub mod consumer;
mod heartbeat;
mod membership;
pub(crate) mod offsets;

use std::{fmt, sync::Arc, time::Duration};

pub use self::consumer::GroupConsumer;
pub use self::offsets::Committed;
use crate::{config::ConsumerConfig, consumer::Start};

/// What happens to the partitions of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// They are given up; what was handed out of them has been committed if that is automatic.
    Revoked(Vec<(Arc<str>, u32)>),
    /// The group went on without this consumer: others may read them already.
    Lost(Vec<(Arc<str>, u32)>),
    /// They are read from now on.
    Assigned(Vec<(Arc<str>, u32)>),
}

/// Called from within `poll` and `close`.
pub type OnRebalance = Arc<dyn Fn(&Rebalance) + Send + Sync>;

/// How a consumer is in its group.
#[derive(Clone)]
pub struct GroupConfig {
    pub group: String,
    pub topics: Vec<String>,
    /// The name of a static member (KIP-345): it keeps its part while its process is restarted.
    pub instance: Option<String>,
    /// Silent for so long, it is taken for dead.
    pub session: Duration,
    /// How often it shows that it is alive; a third of the session or less.
    pub heartbeat: Duration,
    /// How long a rebalance waits for this consumer: it has to poll that often.
    pub rebalance: Duration,
    /// Where to begin if the group has committed nothing.
    pub start: Start,
    /// How often what `poll` has handed out is committed; none: the application commits.
    pub commit_every: Option<Duration>,
    /// How often the leader looks whether the topics have more partitions.
    pub look_every: Duration,
    pub on_rebalance: Option<OnRebalance>,
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// The defaults, which are those of Kafka's clients where these have the same.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance: None,
            session: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            rebalance: Duration::from_secs(60),
            start: Start::End,
            commit_every: Some(Duration::from_secs(5)),
            look_every: Duration::from_secs(30),
            on_rebalance: None,
            consumer: ConsumerConfig::default(),
        }
    }
}

impl fmt::Debug for GroupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConfig")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
