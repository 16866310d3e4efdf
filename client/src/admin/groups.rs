//! Consumer groups, as administrators see them.

use std::{collections::BTreeMap, time::Duration};

use baton_core::{Epoch, Error, ErrorCode, Offset, group::consumer::Assignment};
use baton_proto::v1;
use tokio::time::{Instant, timeout};

use super::Admin;
use crate::{
    error::{Attempt, ClientError},
    group::{
        Committed,
        calls::{Coordinator, millis},
        offsets,
    },
    metadata::PartitionName,
    net,
};

/// How long one attempt may take.
const EACH: Duration = Duration::from_secs(5);

/// One line of a list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    pub group: String,
    /// "consumer", or what else its members call themselves; empty if it never had any.
    pub protocol_type: String,
    /// "Empty", "PreparingRebalance", "CompletingRebalance" or "Stable".
    pub state: String,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    pub state: String,
    pub protocol_type: String,
    /// How it divides its partitions; empty unless it is stable.
    pub protocol: String,
    pub generation: i32,
    /// The member id of the leader; empty if there are no members.
    pub leader: String,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// What it reads; none if its bytes are not those of a consumer.
    pub partitions: Option<BTreeMap<String, Vec<u32>>>,
}

impl Admin {
    fn coordinator(&self, group: &str) -> Coordinator {
        Coordinator::new(self.client.shared.clone(), group)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.client.shared.config.request_timeout
    }

    /// All groups, in the order of their names: every broker is asked for those that it
    /// coordinates.
    ///
    /// # Errors
    /// A broker does not answer, or cannot tell of all of its groups yet.
    pub async fn groups(&self) -> Result<Vec<GroupSummary>, ClientError> {
        let shared = &self.client.shared;
        shared.refresh(Vec::new()).await?;
        let addresses: Vec<String> = shared.metadata.view().brokers.values().cloned().collect();
        let mut groups = BTreeMap::new();
        for address in addresses {
            let mut client = shared.pool.groups(&address)?;
            let request = v1::ListGroupsRequest { timeout_ms: millis(EACH) };
            let answer = match timeout(EACH, client.list_groups(request)).await {
                Ok(answer) => answer.map_err(|status| net::status_error(&address, &status))?.into_inner(),
                Err(_) => {
                    let reason = format!("no answer within {EACH:?}");
                    return Err(ClientError::Unreachable(vec![Attempt { address, reason }]));
                }
            };
            if let Some(error) = &answer.error {
                return Err(Error::from(error).into());
            }
            for v1::ListedGroup { group, protocol_type, state } in answer.groups {
                groups.insert(group.clone(), GroupSummary { group, protocol_type, state });
            }
        }
        Ok(groups.into_values().collect())
    }

    /// A group and its members.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, or its coordinator does not answer.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        let coordinator = self.coordinator(group);
        let answer: v1::DescribeGroupResponse = coordinator
            .call("describing", self.deadline(), EACH, |mut client, timeout_ms| {
                let request = v1::DescribeGroupRequest { group: group.to_owned(), timeout_ms };
                async move { client.describe_group(request).await }
            })
            .await?;
        let is_consumers = answer.protocol_type == baton_core::group::consumer::PROTOCOL_TYPE;
        let member = |described: v1::DescribedMember| {
            let v1::GroupMember { member, instance } = described.member.unwrap_or_default();
            let assignment = is_consumers.then(|| Assignment::decode(&described.assignment).ok()).flatten();
            MemberDescription {
                member,
                instance,
                client_id: described.client_id,
                client_host: described.client_host,
                partitions: assignment.map(|assignment| assignment.partitions),
            }
        };
        Ok(GroupDescription {
            group: group.to_owned(),
            state: answer.state,
            protocol_type: answer.protocol_type,
            protocol: answer.protocol,
            generation: answer.generation,
            leader: answer.leader,
            members: answer.members.into_iter().map(member).collect(),
        })
    }

    /// What a group has committed.
    ///
    /// # Errors
    /// The group's coordinator does not answer.
    pub async fn group_offsets(&self, group: &str) -> Result<BTreeMap<PartitionName, Committed>, ClientError> {
        offsets::fetch(&self.coordinator(group), None, self.deadline()).await
    }

    /// Has a group without members go on from these offsets.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID` if the group has members, `UNKNOWN_TOPIC`, or its coordinator does
    /// not answer.
    pub async fn commit_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<PartitionName, Offset>,
    ) -> Result<(), ClientError> {
        let one = |(name, offset): (&PartitionName, &Offset)| (name.clone(), (*offset, None::<Epoch>));
        let offsets = offsets.iter().map(one).collect();
        offsets::commit(&self.coordinator(group), None, &offsets, self.deadline()).await
    }

    /// Forgets what a group has committed of these partitions.
    ///
    /// # Errors
    /// `GROUP_SUBSCRIBED_TO_TOPIC` if members read them, `GROUP_ID_NOT_FOUND`, or its
    /// coordinator does not answer.
    pub async fn delete_group_offsets(&self, group: &str, partitions: &[PartitionName]) -> Result<(), ClientError> {
        let name =
            |(topic, partition): &PartitionName| v1::GroupPartition { topic: topic.to_string(), partition: *partition };
        let named: Vec<_> = partitions.iter().map(name).collect();
        let coordinator = self.coordinator(group);
        let answer: v1::DeleteOffsetsResponse = coordinator
            .call("forgetting offsets", self.deadline(), EACH, |mut client, timeout_ms| {
                let (group, partitions) = (group.to_owned(), named.clone());
                async move { client.delete_offsets(v1::DeleteOffsetsRequest { group, partitions, timeout_ms }).await }
            })
            .await?;
        offsets::all(&answer.results)
    }

    /// Forgets a group without members, and all that it has committed.
    ///
    /// # Errors
    /// `NON_EMPTY_GROUP`, `GROUP_ID_NOT_FOUND`, or its coordinator does not answer. A group
    /// that was gone when the call was repeated is deleted.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let coordinator = self.coordinator(group);
        let attempts = std::sync::atomic::AtomicU32::new(0);
        let deleted: Result<v1::DeleteGroupResponse, ClientError> = coordinator
            .call("deleting", self.deadline(), EACH, |mut client, timeout_ms| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let request = v1::DeleteGroupRequest { group: group.to_owned(), timeout_ms };
                async move { client.delete_group(request).await }
            })
            .await;
        match deleted {
            Err(error)
                if error.code() == ErrorCode::GroupNotFound
                    && attempts.load(std::sync::atomic::Ordering::Relaxed) > 1 =>
            {
                Ok(())
            }
            deleted => deleted.map(|_| ()),
        }
    }
}
