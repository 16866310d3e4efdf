//! Consumer groups: a thin layer between the wire and [`crate::group::Groups`].

use async_trait::async_trait;
use baton_core::group::message::{Identity, Join, Joined, Protocol, Sync};
use baton_core::group::{GroupDescription, MemberDescription};
use baton_core::{Error, ErrorCode, Offset};
use baton_proto::v1::groups_server::Groups;
use baton_proto::v1::{self, GroupMember};
use tonic::{Request, Response, Status};

use crate::authorizer::{Resource, Verb};
use crate::context::RequestContext;
use crate::group::{CommittedAt, FetchedAt, JoinRefused, NewOffset, Place, PlaceResult};
use crate::grpc::service::GrpcService;
use crate::net::Peer;

/// Partitions, members or protocols of one request.
const MANY_MAX: usize = 100_000;

type Answered<T> = Result<Response<T>, Status>;

impl GrpcService {
    /// The context of a request about a group, if it is allowed.
    fn about_group<T>(
        &self,
        request: &Request<T>,
        verb: Verb,
        group: &str,
        timeout_ms: u32,
    ) -> Result<RequestContext, Error> {
        let context = self.context(request, timeout_ms);
        self.parts.authorizer.authorize(&context, verb, Resource::Group(group))?;
        Ok(context)
    }

    async fn find_coordinator(&self, request: &Request<v1::FindGroupRequest>) -> Result<(u32, String), Error> {
        let asked = request.get_ref();
        let context = self.about_group(request, Verb::Describe, &asked.group, asked.timeout_ms)?;
        let broker = self.parts.groups.coordinator_of(&asked.group, context.deadline).await?;
        let endpoint = self.grpc_address(broker).ok_or_else(|| {
            let cause = format!("broker {broker}, which coordinates the group, is not registered");
            Error::new(ErrorCode::CoordinatorUnavailable, cause)
        })?;
        Ok((broker.0, endpoint))
    }

    async fn join(&self, request: Request<v1::JoinGroupRequest>) -> Result<Joined, JoinRefused> {
        let host = Peer::of(&request).address.map_or_else(String::new, |address| address.ip().to_string());
        let (group, timeout_ms) = (request.get_ref().group.clone(), request.get_ref().timeout_ms);
        let checked = self.about_group(&request, Verb::Fetch, &group, timeout_ms).and_then(|context| {
            bounded(request.get_ref().protocols.len())?;
            Ok(context)
        });
        let asked = request.into_inner();
        let identity = identity(asked.member);
        let context = checked.map_err(|error| JoinRefused { error, member: identity.member.clone() })?;
        let protocol = |p: v1::GroupProtocol| Protocol { name: p.name, metadata: p.metadata };
        let join = Join {
            identity,
            client_id: context.clone().client_id(&asked.client_id).client_id.to_string(),
            client_host: host,
            session_ms: asked.session_ms,
            rebalance_ms: asked.rebalance_ms,
            protocol_type: asked.protocol_type,
            protocols: asked.protocols.into_iter().map(protocol).collect(),
            fresh_id: String::new(),
            must_know_id: true,
            may_skip_assignment: true,
        };
        self.parts.groups.join(&group, join, context.deadline).await
    }

    async fn sync(&self, request: Request<v1::SyncGroupRequest>) -> Result<bytes::Bytes, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Fetch, &asked.group, asked.timeout_ms)?;
        bounded(asked.assignments.len())?;
        let asked = request.into_inner();
        let sync = Sync {
            identity: identity(asked.member),
            generation: asked.generation,
            protocol_type: (!asked.protocol_type.is_empty()).then_some(asked.protocol_type),
            protocol: (!asked.protocol.is_empty()).then_some(asked.protocol),
            assignments: asked.assignments.into_iter().map(|a| (a.member, a.assignment)).collect(),
        };
        Ok(self.parts.groups.sync(&asked.group, sync, context.deadline).await?.assignment)
    }

    async fn leave(&self, request: Request<v1::LeaveGroupRequest>) -> Result<Vec<v1::LeftMember>, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Fetch, &asked.group, asked.timeout_ms)?;
        bounded(asked.members.len())?;
        let asked = request.into_inner();
        let members = asked.members.into_iter().map(|member| identity(Some(member))).collect();
        let results = self.parts.groups.leave(&asked.group, members, context.deadline).await?;
        let one = |(identity, result): (Identity, Result<(), Error>)| v1::LeftMember {
            member: Some(member(&identity)),
            error: result.err().map(Into::into),
        };
        Ok(results.into_iter().map(one).collect())
    }

    async fn commit(&self, request: Request<v1::CommitOffsetsRequest>) -> Result<Vec<v1::OffsetOutcome>, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Fetch, &asked.group, asked.timeout_ms)?;
        bounded(asked.offsets.len())?;
        let asked = request.into_inner();
        let from_outside = asked.member.is_none();
        let offsets = asked.offsets.into_iter().map(new_offset).collect::<Result<Vec<_>, _>>()?;
        let commit = CommittedAt {
            identity: identity(asked.member),
            generation: if from_outside { -1 } else { asked.generation },
            offsets,
            connection: context.connection_id,
        };
        let results = self.parts.groups.commit(&asked.group, commit, context.deadline).await?;
        Ok(results.into_iter().map(outcome).collect())
    }

    async fn fetch_committed(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Vec<v1::CommittedOffset>, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Describe, &asked.group, asked.timeout_ms)?;
        bounded(asked.partitions.len())?;
        let named = (!asked.all).then(|| places(&asked.partitions));
        let found = self.parts.groups.fetch(&asked.group, named, asked.require_stable, context.deadline).await?;
        Ok(found.into_iter().map(committed).collect())
    }

    async fn delete_committed(
        &self,
        request: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Vec<v1::OffsetOutcome>, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Delete, &asked.group, asked.timeout_ms)?;
        bounded(asked.partitions.len())?;
        let results =
            self.parts.groups.delete_offsets(&asked.group, places(&asked.partitions), context.deadline).await?;
        Ok(results.into_iter().map(outcome).collect())
    }

    async fn describe_one(&self, request: Request<v1::DescribeGroupRequest>) -> Result<GroupDescription, Error> {
        let asked = request.get_ref();
        let context = self.about_group(&request, Verb::Describe, &asked.group, asked.timeout_ms)?;
        let found = self.parts.groups.describe(&asked.group, context.deadline).await?;
        found.ok_or_else(|| Error::new(ErrorCode::GroupNotFound, format!("there is no group {}", asked.group)))
    }
}

#[async_trait]
impl Groups for GrpcService {
    async fn find_group(&self, request: Request<v1::FindGroupRequest>) -> Answered<v1::FindGroupResponse> {
        Ok(Response::new(match self.find_coordinator(&request).await {
            Ok((broker, endpoint)) => v1::FindGroupResponse { broker, endpoint, error: None },
            Err(error) => v1::FindGroupResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn join_group(&self, request: Request<v1::JoinGroupRequest>) -> Answered<v1::JoinGroupResponse> {
        Ok(Response::new(match self.join(request).await {
            Ok(joined) => joined_to_wire(joined),
            Err(JoinRefused { error, member }) => {
                v1::JoinGroupResponse { generation: -1, member, error: Some(error.into()), ..Default::default() }
            }
        }))
    }

    async fn sync_group(&self, request: Request<v1::SyncGroupRequest>) -> Answered<v1::SyncGroupResponse> {
        Ok(Response::new(match self.sync(request).await {
            Ok(assignment) => v1::SyncGroupResponse { assignment, error: None },
            Err(error) => v1::SyncGroupResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn group_heartbeat(
        &self,
        request: Request<v1::GroupHeartbeatRequest>,
    ) -> Answered<v1::GroupHeartbeatResponse> {
        let asked = request.get_ref();
        let result = match self.about_group(&request, Verb::Fetch, &asked.group, asked.timeout_ms) {
            Ok(context) => {
                let v1::GroupHeartbeatRequest { group, member, generation, .. } = request.into_inner();
                self.parts.groups.heartbeat(&group, identity(member), generation, context.deadline).await
            }
            Err(error) => Err(error),
        };
        Ok(Response::new(v1::GroupHeartbeatResponse { error: result.err().map(Into::into) }))
    }

    async fn leave_group(&self, request: Request<v1::LeaveGroupRequest>) -> Answered<v1::LeaveGroupResponse> {
        Ok(Response::new(match self.leave(request).await {
            Ok(results) => v1::LeaveGroupResponse { results, error: None },
            Err(error) => v1::LeaveGroupResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn commit_offsets(&self, request: Request<v1::CommitOffsetsRequest>) -> Answered<v1::CommitOffsetsResponse> {
        Ok(Response::new(match self.commit(request).await {
            Ok(results) => v1::CommitOffsetsResponse { results, error: None },
            Err(error) => v1::CommitOffsetsResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn fetch_offsets(&self, request: Request<v1::FetchOffsetsRequest>) -> Answered<v1::FetchOffsetsResponse> {
        Ok(Response::new(match self.fetch_committed(request).await {
            Ok(offsets) => v1::FetchOffsetsResponse { offsets, error: None },
            Err(error) => v1::FetchOffsetsResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn delete_offsets(&self, request: Request<v1::DeleteOffsetsRequest>) -> Answered<v1::DeleteOffsetsResponse> {
        Ok(Response::new(match self.delete_committed(request).await {
            Ok(results) => v1::DeleteOffsetsResponse { results, error: None },
            Err(error) => v1::DeleteOffsetsResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn list_groups(&self, request: Request<v1::ListGroupsRequest>) -> Answered<v1::ListGroupsResponse> {
        let context = self.context(&request, request.get_ref().timeout_ms);
        let (groups, problem) = self.parts.groups.list(context.deadline).await;
        let may_see =
            |group: &str| self.parts.authorizer.authorize(&context, Verb::Describe, Resource::Group(group)).is_ok();
        let seen = groups.into_iter().filter(|listing| may_see(&listing.group));
        let line = |listing: baton_core::group::GroupListing| v1::ListedGroup {
            group: listing.group,
            protocol_type: listing.protocol_type,
            state: listing.state.to_owned(),
        };
        Ok(Response::new(v1::ListGroupsResponse { groups: seen.map(line).collect(), error: problem.map(Into::into) }))
    }

    async fn describe_group(&self, request: Request<v1::DescribeGroupRequest>) -> Answered<v1::DescribeGroupResponse> {
        Ok(Response::new(match self.describe_one(request).await {
            Ok(group) => description_to_wire(group),
            Err(error) => v1::DescribeGroupResponse { error: Some(error.into()), ..Default::default() },
        }))
    }

    async fn delete_group(&self, request: Request<v1::DeleteGroupRequest>) -> Answered<v1::DeleteGroupResponse> {
        let asked = request.get_ref();
        let result = match self.about_group(&request, Verb::Delete, &asked.group, asked.timeout_ms) {
            Ok(context) => self.parts.groups.delete_group(&asked.group, context.deadline).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(v1::DeleteGroupResponse { error: result.err().map(Into::into) }))
    }
}

fn bounded(count: usize) -> Result<(), Error> {
    if count > MANY_MAX {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("{count} parts; a request has at most {MANY_MAX}")));
    }
    Ok(())
}

fn identity(member: Option<GroupMember>) -> Identity {
    let GroupMember { member, instance } = member.unwrap_or_default();
    Identity { member, instance }
}

fn member(identity: &Identity) -> GroupMember {
    GroupMember { member: identity.member.clone(), instance: identity.instance.clone() }
}

fn places(partitions: &[v1::GroupPartition]) -> Vec<Place> {
    partitions.iter().map(|at| Place::new(at.topic.as_str(), at.partition)).collect()
}

fn new_offset(wire: v1::OffsetToCommit) -> Result<(Place, NewOffset), Error> {
    let place = Place::new(wire.topic.as_str(), wire.partition);
    let offset = Offset::from_wire(wire.offset).ok_or_else(|| {
        let cause = format!("{} is no offset", wire.offset);
        Error::new(ErrorCode::InvalidRequest, cause).topic(&wire.topic).partition(wire.partition)
    })?;
    let leader_epoch = wire.epoch.and_then(|epoch| i32::try_from(epoch).ok());
    Ok((place, NewOffset { offset, leader_epoch, metadata: wire.metadata }))
}

fn outcome((place, result): PlaceResult) -> v1::OffsetOutcome {
    v1::OffsetOutcome {
        topic: place.topic.to_string(),
        partition: place.partition,
        error: result.err().map(Into::into),
    }
}

fn committed((place, found): FetchedAt) -> v1::CommittedOffset {
    let mut wire = v1::CommittedOffset {
        topic: place.topic.to_string(),
        partition: place.partition,
        offset: -1,
        ..Default::default()
    };
    match found {
        Ok(Some(found)) => {
            wire.offset = found.offset.to_wire();
            wire.epoch = found.leader_epoch.and_then(|epoch| u32::try_from(epoch).ok());
            wire.metadata = found.metadata;
            wire.committed_ms = found.committed_ms;
        }
        Ok(None) => {}
        Err(error) => wire.error = Some(error.into()),
    }
    wire
}

fn joined_to_wire(joined: Joined) -> v1::JoinGroupResponse {
    let one =
        |(member, instance, metadata)| v1::JoinedMember { member: Some(GroupMember { member, instance }), metadata };
    v1::JoinGroupResponse {
        generation: joined.generation,
        protocol_type: joined.protocol_type,
        protocol: joined.protocol,
        leader: joined.leader,
        member: joined.member,
        skip_assignment: joined.skip_assignment,
        members: joined.members.into_iter().map(one).collect(),
        error: None,
    }
}

fn description_to_wire(group: GroupDescription) -> v1::DescribeGroupResponse {
    let one = |m: MemberDescription| v1::DescribedMember {
        member: Some(GroupMember { member: m.member, instance: m.instance }),
        client_id: m.client_id,
        client_host: m.client_host,
        metadata: m.metadata,
        assignment: m.assignment,
    };
    v1::DescribeGroupResponse {
        state: group.state.to_owned(),
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        generation: group.generation,
        leader: group.leader.unwrap_or_default(),
        members: group.members.into_iter().map(one).collect(),
        error: None,
    }
}
