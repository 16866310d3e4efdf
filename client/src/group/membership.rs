//! Joining a group: from nothing, or after the generation before, to a part of the partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use baton_core::{
    Error, ErrorCode, Offset,
    group::consumer::{Assignment, PROTOCOL_TYPE, Subscription, range},
};
use baton_proto::v1::{self, GroupMember};
use bytes::Bytes;
use tokio::time::Instant;

use super::{GroupConfig, calls::Coordinator, calls::millis, offsets};
use crate::{client::Shared, error::ClientError, metadata::PartitionName};

/// What a join may take beyond the rebalance that it waits for.
const BEYOND: std::time::Duration = std::time::Duration::from_secs(5);

/// Who this consumer is to its group; the id outlives generations.
pub(super) struct Me {
    pub(super) config: GroupConfig,
    pub(super) coordinator: Coordinator,
    member: Mutex<String>,
}

/// A place in a generation.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) generation: i32,
    /// With what the group has committed of them.
    pub(super) partitions: BTreeMap<PartitionName, Option<Offset>>,
    /// What this member, as the leader, divided: it looks whether there is more now.
    pub(super) divided: Option<BTreeMap<String, u32>>,
}

impl Me {
    pub(super) fn new(shared: Arc<Shared>, config: GroupConfig) -> Self {
        let coordinator = Coordinator::new(shared, &config.group);
        Self { config, coordinator, member: Mutex::default() }
    }

    pub(super) fn id(&self) -> String {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The group does not know this member any more: it comes back as another one.
    pub(super) fn forget_id(&self) {
        self.set_id(String::new());
    }

    fn set_id(&self, id: String) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    pub(super) fn identity(&self) -> GroupMember {
        GroupMember { member: self.id(), instance: self.config.instance.clone() }
    }

    /// Joins until there is a place. May take as long as the slowest member needs.
    ///
    /// # Errors
    /// The group does not take this member.
    pub(super) async fn join(&self) -> Result<Place, ClientError> {
        loop {
            let Some(joined) = self.join_once().await? else { continue };
            let Some(place) = self.sync(joined).await? else { continue };
            match self.with_committed(place).await {
                Err(error) if error.retriable() => {
                    tracing::warn!(group = self.config.group, %error, "joins again");
                }
                placed => return placed,
            }
        }
    }

    /// Where the group is, before anything is read. It has to be known before the session ends:
    /// nobody sends heartbeats yet.
    async fn with_committed(&self, mut place: Place) -> Result<Place, ClientError> {
        let names: Vec<PartitionName> = place.partitions.keys().cloned().collect();
        if names.is_empty() {
            return Ok(place);
        }
        let deadline = Instant::now() + self.config.session / 2;
        let committed = offsets::fetch(&self.coordinator, Some(&names), deadline).await?;
        for (name, offset) in &mut place.partitions {
            *offset = committed.get(name).map(|found| found.offset);
        }
        Ok(place)
    }

    /// None: join again.
    async fn join_once(&self) -> Result<Option<v1::JoinGroupResponse>, ClientError> {
        let config = &self.config;
        let subscription = Subscription { topics: config.topics.clone(), ..Subscription::default() };
        let request = v1::JoinGroupRequest {
            group: config.group.clone(),
            member: Some(self.identity()),
            client_id: self.coordinator.shared.config.client_id.clone(),
            session_ms: millis(config.session),
            rebalance_ms: millis(config.rebalance),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: vec![v1::GroupProtocol { name: range::NAME.to_owned(), metadata: subscription.encode() }],
            timeout_ms: 0,
        };
        let each = config.rebalance + BEYOND;
        let answer = self.coordinator.call("joining", Instant::now() + each * 2, each, |mut client, timeout_ms| {
            let request = v1::JoinGroupRequest { timeout_ms, ..request.clone() };
            async move { client.join_group(request).await }
        });
        let answer = match answer.await {
            Err(ClientError::TimedOut { last, .. }) => {
                tracing::debug!(group = config.group, ?last, "joins again");
                return Ok(None);
            }
            answer => answer?,
        };
        let Some(error) = &answer.error else {
            self.set_id(answer.member.clone());
            return Ok(Some(answer));
        };
        let error = Error::from(error);
        match error.code {
            ErrorCode::MemberIdRequired => self.set_id(answer.member),
            ErrorCode::UnknownMember => self.forget_id(),
            ErrorCode::RebalanceInProgress => {}
            _ => return Err(error.into()),
        }
        Ok(None)
    }

    /// None: join again.
    async fn sync(&self, joined: v1::JoinGroupResponse) -> Result<Option<Place>, ClientError> {
        let leads = joined.leader == joined.member && !joined.members.is_empty();
        let (assignments, divided) = if leads && !joined.skip_assignment {
            let (assignments, divided) = self.divide(&joined.members).await?;
            (assignments, Some(divided))
        } else if leads {
            (Vec::new(), Some(self.counts(&self.subscribed(&joined.members)).await?))
        } else {
            (Vec::new(), None)
        };
        let request = v1::SyncGroupRequest {
            group: self.config.group.clone(),
            member: Some(self.identity()),
            generation: joined.generation,
            protocol_type: joined.protocol_type,
            protocol: joined.protocol,
            assignments,
            timeout_ms: 0,
        };
        let each = self.config.rebalance + BEYOND;
        let answer =
            self.coordinator.call("asking for a part", Instant::now() + each, each, |mut client, timeout_ms| {
                let request = v1::SyncGroupRequest { timeout_ms, ..request.clone() };
                async move { client.sync_group(request).await }
            });
        let assignment = match answer.await {
            Ok(answer) => Assignment::decode(&answer.assignment).map_err(|e| ClientError::Protocol(e.to_string()))?,
            Err(error) => return self.join_again(error).map(|()| None),
        };
        let flat = |(topic, numbers): (String, Vec<u32>)| {
            let topic: Arc<str> = topic.into();
            numbers.into_iter().map(move |number| ((topic.clone(), number), None))
        };
        let partitions = assignment.partitions.into_iter().flat_map(flat).collect();
        Ok(Some(Place { generation: joined.generation, partitions, divided }))
    }

    /// Whether a new join cures it.
    fn join_again(&self, error: ClientError) -> Result<(), ClientError> {
        match error.code() {
            ErrorCode::UnknownMember => self.forget_id(),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::RequestTimedOut => {}
            _ => return Err(error),
        }
        Ok(())
    }

    /// Members whose bytes are not understood read nothing.
    fn subscribed(&self, members: &[v1::JoinedMember]) -> Vec<range::Candidate> {
        let candidate = |joined: &v1::JoinedMember| {
            let GroupMember { member, instance } = joined.member.clone().unwrap_or_default();
            let topics = match Subscription::decode(&joined.metadata) {
                Ok(subscription) => subscription.topics,
                Err(error) => {
                    tracing::warn!(group = self.config.group, member, %error, "a member reads nothing");
                    Vec::new()
                }
            };
            range::Candidate { member, instance, topics }
        };
        members.iter().map(candidate).collect()
    }

    async fn divide(
        &self,
        members: &[v1::JoinedMember],
    ) -> Result<(Vec<v1::GroupAssignment>, BTreeMap<String, u32>), ClientError> {
        let candidates = self.subscribed(members);
        let counts = self.counts(&candidates).await?;
        let one = |(member, partitions)| {
            let assignment: Bytes = Assignment { partitions, user_data: None }.encode();
            v1::GroupAssignment { member, assignment }
        };
        let assignments = range::divide(&candidates, &counts).into_iter().map(one).collect();
        Ok((assignments, counts))
    }

    /// The partitions of all topics that somebody wants; those that are not there have none.
    async fn counts(&self, candidates: &[range::Candidate]) -> Result<BTreeMap<String, u32>, ClientError> {
        let topics: BTreeSet<&String> = candidates.iter().flat_map(|candidate| &candidate.topics).collect();
        let mut counts = BTreeMap::new();
        for topic in topics {
            let count = match self.coordinator.shared.topic(topic).await {
                Ok(count) => u32::try_from(count).unwrap_or(u32::MAX),
                Err(error) if error.code() == ErrorCode::UnknownTopic => 0,
                Err(error) if error.code() == ErrorCode::InvalidTopicName => 0,
                Err(error) => return Err(error),
            };
            counts.insert(topic.clone(), count);
        }
        Ok(counts)
    }

    /// Whether there is something else to divide than when it was divided.
    pub(super) async fn changed(&self, divided: &BTreeMap<String, u32>) -> bool {
        let topics: Vec<String> = divided.keys().cloned().collect();
        if self.coordinator.shared.refresh(topics).await.is_err() {
            return false;
        }
        let view = self.coordinator.shared.metadata.view();
        divided.iter().any(|(topic, count)| {
            let now = view.topics.get(topic.as_str()).map_or(0, |topic| topic.partitions.len());
            u32::try_from(now).unwrap_or(u32::MAX) != *count
        })
    }
}
