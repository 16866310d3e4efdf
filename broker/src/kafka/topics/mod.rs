//! What administrators ask about topics: the elected coordinator does it, any broker passes it
//! on.

mod alter_configs;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_configs;
mod describe_topic_partitions;
mod elect_leaders;
mod reassignments;
mod turns;

use baton_core::partition::PartitionState;
use baton_core::topic::{ConfigKey, TopicConfig};
use baton_core::{Error, ErrorCode};
use kafka_protocol::protocol::StrBytes;

use super::errors;

pub(super) use alter_configs::{incremental as incremental_alter_configs, replace as alter_configs};
pub(super) use create_partitions::serve as create_partitions;
pub(super) use create_topics::serve as create_topics;
pub(super) use delete_topics::serve as delete_topics;
pub(super) use describe_configs::serve as describe_configs;
pub(super) use describe_topic_partitions::serve as describe_topic_partitions;
pub(super) use elect_leaders::serve as elect_leaders;
pub(super) use reassignments::{alter as alter_partition_reassignments, list as list_partition_reassignments};

/// Topics or partitions of one request.
const MANY_MAX: usize = 10_000;

/// Why something was not done: the code, and the words for people.
struct Refusal {
    code: i16,
    error: Error,
}

impl Refusal {
    fn invalid(cause: impl Into<String>) -> Self {
        Error::new(ErrorCode::InvalidRequest, cause).into()
    }

    fn message(&self) -> Option<StrBytes> {
        errors::message(&self.error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: errors::of_admin(&error), error }
    }
}

/// Code and message of a result.
fn told(result: &Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (errors::NONE, None),
        Err(refusal) => (refusal.code, refusal.message()),
    }
}

/// A value that the topic was given: a setting that is as without being set is not told apart
/// from one that was set to the same.
fn is_set(key: &ConfigKey, config: &TopicConfig) -> bool {
    key.value(config) != key.default
}

/// Replicas are on their way to or from brokers.
fn is_moving(state: &PartitionState) -> bool {
    !state.assignment.adding.is_empty() || !state.assignment.removing.is_empty()
}
