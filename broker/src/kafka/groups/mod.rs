//! Consumer groups: a thin layer between the wire and [`crate::group::Groups`].

mod delete_groups;
mod describe_groups;
mod find_coordinator;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod sync_group;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::group::message::Identity;
use baton_core::topic::NAME_LEN_MAX;
use baton_core::{Error, ErrorCode};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::service::{Call, Hangup, in_time};
use crate::authorizer::{Resource, Verb};
use crate::group::{Place, PlaceResult};
use crate::serving::PARTITIONS_MAX;

pub(super) use delete_groups::serve as delete_groups;
pub(super) use describe_groups::serve as describe_groups;
pub(super) use find_coordinator::serve as find_coordinator;
pub(super) use heartbeat::serve as heartbeat;
pub(super) use join_group::serve as join_group;
pub(super) use leave_group::serve as leave_group;
pub(super) use list_groups::serve as list_groups;
pub(super) use offset_commit::serve as offset_commit;
pub(super) use offset_delete::serve as offset_delete;
pub(super) use offset_fetch::serve as offset_fetch;
pub(super) use sync_group::serve as sync_group;

/// The code of a group's error. What concerns the group's log is said in terms that make a
/// member ask again, or look for the coordinator anew; others would end it.
pub(super) fn code_of(error: &Error) -> i16 {
    /// `COORDINATOR_NOT_AVAILABLE`
    const NOT_AVAILABLE: i16 = 15;
    /// `NOT_COORDINATOR`
    const NOT_COORDINATOR: i16 = 16;
    /// `GROUP_AUTHORIZATION_FAILED`
    const NOT_ALLOWED: i16 = 30;
    match error.code {
        ErrorCode::Unauthorized => NOT_ALLOWED,
        ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicas | ErrorCode::DiskFull | ErrorCode::Throttled => {
            NOT_AVAILABLE
        }
        ErrorCode::NotLeader | ErrorCode::NoLeader | ErrorCode::ShuttingDown | ErrorCode::Storage => NOT_COORDINATOR,
        code => code.kafka(),
    }
}

pub(super) fn allowed(call: &Call, verb: Verb, group: &str) -> Result<(), Error> {
    call.authorize(verb, Resource::Group(group))
}

pub(super) fn identity(member: &str, instance: Option<&StrBytes>) -> Identity {
    Identity { member: member.to_owned(), instance: instance.map(|name| name.to_string()) }
}

/// A topic's name, once for all of its partitions. What is too long to be one is cut to
/// nothing, which no topic is called: a request may have ten thousand partitions of it.
pub(super) fn shared(topic: &str) -> Arc<str> {
    if topic.len() > NAME_LEN_MAX { Arc::from("") } else { Arc::from(topic) }
}

/// What became of a commit, unless its connection was replaced: then all of it was refused.
pub(super) fn whole_in_time(
    committed: Result<Vec<PlaceResult>, Error>,
) -> Result<Result<Vec<PlaceResult>, Error>, Hangup> {
    let Ok(results) = committed else { return Ok(committed) };
    let in_time = |(place, result): PlaceResult| Ok((place, in_time(result)?));
    Ok(Ok(results.into_iter().map(in_time).collect::<Result<_, Hangup>>()?))
}

/// Refuses what names too many partitions.
pub(super) fn bounded<T>(places: &[T]) -> Result<(), Error> {
    if places.len() > PARTITIONS_MAX {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("a request has at most {PARTITIONS_MAX} partitions"),
        ));
    }
    Ok(())
}

/// Groups of one request.
const GROUPS_MAX: usize = 1_000;

/// Whether a request's group of this number is still looked at.
fn within(index: usize) -> Result<(), Error> {
    if index >= GROUPS_MAX {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("a request has at most {GROUPS_MAX} groups")));
    }
    Ok(())
}

fn wire_text(text: Option<&String>) -> Option<StrBytes> {
    text.map(|text| super::names::text(text))
}

impl Call {
    /// The deadline of what waits for other members: as long as a rebalance may take, and a
    /// little more, so that the coordinator's own answer comes first.
    fn rebalance_deadline(&self, rebalance_ms: u32) -> Instant {
        const BEYOND: Duration = Duration::from_secs(10);
        let most = Duration::from_millis(self.parts().timing.request_ms_max);
        Instant::now() + Duration::from_millis(u64::from(rebalance_ms)).max(most) + BEYOND
    }
}

/// Places in the order of a request's topics, with what became of each.
pub(super) struct ByPlace<T>(BTreeMap<Place, T>);

impl<T> ByPlace<T> {
    pub(super) fn new(results: impl IntoIterator<Item = (Place, T)>) -> Self {
        Self(results.into_iter().collect())
    }

    /// A request may name a place twice.
    pub(super) fn get(&self, topic: &Arc<str>, partition: i32) -> Option<T>
    where
        T: Clone,
    {
        self.0.get(&Place::new(Arc::clone(topic), u32::try_from(partition).ok()?)).cloned()
    }
}
