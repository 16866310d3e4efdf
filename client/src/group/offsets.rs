//! Committed offsets: by members, and from outside.

use std::{collections::BTreeMap, time::Duration};

use baton_core::{Epoch, Error, Offset};
use baton_proto::v1::{self, GroupMember};
use tokio::time::Instant;

use super::calls::Coordinator;
use crate::{error::ClientError, metadata::PartitionName};

/// How long one attempt may take: an answer waits for the log of all in-sync replicas.
const EACH: Duration = Duration::from_secs(5);

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if it was said.
    pub epoch: Option<Epoch>,
    /// The text that was kept beside it.
    pub metadata: String,
    /// When it was committed, in ms since 1970 by the coordinator's clock.
    pub committed_ms: i64,
}

/// Who commits: a member of a generation, or nobody, while the group has no members.
pub(crate) type By = Option<(GroupMember, i32)>;

/// Commits offsets.
///
/// # Errors
/// The first refusal of a partition, or of all.
pub(crate) async fn commit(
    coordinator: &Coordinator,
    by: By,
    offsets: &BTreeMap<PartitionName, (Offset, Option<Epoch>)>,
    deadline: Instant,
) -> Result<(), ClientError> {
    let (member, generation) = by.map_or((None, -1), |(member, generation)| (Some(member), generation));
    let one = |((topic, partition), (offset, epoch)): (&PartitionName, &(Offset, Option<Epoch>))| v1::OffsetToCommit {
        topic: topic.to_string(),
        partition: *partition,
        offset: offset.to_wire(),
        epoch: epoch.map(|epoch| epoch.0),
        metadata: String::new(),
    };
    let request = v1::CommitOffsetsRequest {
        group: coordinator.group.clone(),
        member,
        generation,
        offsets: offsets.iter().map(one).collect(),
        timeout_ms: 0,
    };
    let answer: v1::CommitOffsetsResponse = coordinator
        .call("committing offsets", deadline, EACH, |mut client, timeout_ms| {
            let request = v1::CommitOffsetsRequest { timeout_ms, ..request.clone() };
            async move { client.commit_offsets(request).await }
        })
        .await?;
    all(&answer.results)
}

/// The first refusal, if there is one.
pub(crate) fn all(results: &[v1::OffsetOutcome]) -> Result<(), ClientError> {
    let place = |outcome: &v1::OffsetOutcome| {
        let error = Error::from(outcome.error.as_ref()?);
        Some(error.topic(&outcome.topic).partition(outcome.partition))
    };
    results.iter().find_map(place).map_or(Ok(()), |error| Err(error.into()))
}

/// Committed offsets: of these partitions, or of all.
///
/// # Errors
/// The group's coordinator does not answer, or refuses.
pub(crate) async fn fetch(
    coordinator: &Coordinator,
    partitions: Option<&[PartitionName]>,
    deadline: Instant,
) -> Result<BTreeMap<PartitionName, Committed>, ClientError> {
    let name =
        |(topic, partition): &PartitionName| v1::GroupPartition { topic: topic.to_string(), partition: *partition };
    let request = v1::FetchOffsetsRequest {
        group: coordinator.group.clone(),
        partitions: partitions.unwrap_or_default().iter().map(name).collect(),
        all: partitions.is_none(),
        require_stable: true,
        timeout_ms: 0,
    };
    let answer: v1::FetchOffsetsResponse = coordinator
        .call("asking for offsets", deadline, EACH, |mut client, timeout_ms| {
            let request = v1::FetchOffsetsRequest { timeout_ms, ..request.clone() };
            async move { client.fetch_offsets(request).await }
        })
        .await?;
    let mut found = BTreeMap::new();
    for wire in answer.offsets {
        if let Some(error) = &wire.error {
            return Err(Error::from(error).topic(&wire.topic).partition(wire.partition).into());
        }
        if let Some(offset) = Offset::from_wire(wire.offset) {
            let (epoch, metadata, committed_ms) = (wire.epoch.map(Epoch), wire.metadata, wire.committed_ms);
            let committed = Committed { offset, epoch, metadata, committed_ms };
            found.insert((wire.topic.into(), wire.partition), committed);
        }
    }
    Ok(found)
}
