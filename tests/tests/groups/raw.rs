//! A member that says exactly what a test wants it to say.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use baton_broker::net::NetConnector;
use baton_core::ErrorCode;
use baton_proto::v1::{self, GroupMember, groups_client::GroupsClient};
use baton_tests::net::SimulatedNetwork;
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub async fn client(address: &str) -> GroupsClient<Channel> {
    let connector = NetConnector::new(Arc::new(SimulatedNetwork), Duration::from_secs(1));
    let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
    loop {
        match endpoint.connect_with_connector(connector.clone()).await {
            Ok(channel) => return GroupsClient::new(channel),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Where a group's coordinator is, once it is there.
pub async fn find(group: &str) -> String {
    loop {
        for broker in 1..=3 {
            let asking = async {
                let mut client = client(&format!("broker-{broker}:7400")).await;
                let request = v1::FindGroupRequest { group: group.to_owned(), timeout_ms: 1_000 };
                client.find_group(request).await
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), asking).await {
                let answer = answer.into_inner();
                if answer.error.is_none() && !answer.endpoint.is_empty() {
                    return answer.endpoint;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks the coordinator, wherever it is, until it is there and has read its state.
pub async fn ask<T, F>(
    group: &str,
    error: impl Fn(&T) -> Option<&v1::Error>,
    call: impl Fn(GroupsClient<Channel>) -> F,
) -> T
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    loop {
        let client = client(&find(group).await).await;
        if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(30), call(client)).await {
            let answer = answer.into_inner();
            let moved = [ErrorCode::NotCoordinator, ErrorCode::CoordinatorLoading, ErrorCode::CoordinatorUnavailable];
            if !error(&answer).is_some_and(|e| moved.iter().any(|code| code.number() == e.code)) {
                return answer;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The code of an error on the wire.
pub fn code(error: Option<&v1::Error>) -> Option<ErrorCode> {
    error.map(|error| ErrorCode::from_number(error.code).expect("a known code"))
}

pub fn identity(member: &str, instance: Option<&str>) -> GroupMember {
    GroupMember { member: member.to_owned(), instance: instance.map(str::to_owned) }
}

pub fn join_request(group: &str, member: GroupMember) -> v1::JoinGroupRequest {
    let metadata = Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x06orders\xff\xff\xff\xff");
    v1::JoinGroupRequest {
        group: group.to_owned(),
        member: Some(member),
        client_id: "raw".to_owned(),
        session_ms: 30_000,
        rebalance_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![v1::GroupProtocol { name: "range".to_owned(), metadata }],
        timeout_ms: 20_000,
    }
}

pub async fn join(request: v1::JoinGroupRequest) -> v1::JoinGroupResponse {
    let group = request.group.clone();
    ask(
        &group,
        |a: &v1::JoinGroupResponse| a.error.as_ref(),
        |mut client| {
            let request = request.clone();
            async move { client.join_group(request).await }
        },
    )
    .await
}

/// Joins, with the round trip for an id that a new member has to make.
pub async fn join_well(group: &str, member: GroupMember) -> v1::JoinGroupResponse {
    let answer = join(join_request(group, member.clone())).await;
    if code(answer.error.as_ref()) != Some(ErrorCode::MemberIdRequired) {
        return answer;
    }
    join(join_request(group, GroupMember { member: answer.member, ..member })).await
}

pub async fn sync(request: v1::SyncGroupRequest) -> v1::SyncGroupResponse {
    let group = request.group.clone();
    ask(
        &group,
        |a: &v1::SyncGroupResponse| a.error.as_ref(),
        |mut client| {
            let request = request.clone();
            async move { client.sync_group(request).await }
        },
    )
    .await
}

/// Joins alone and gives itself a part.
pub async fn settle(group: &str, member: GroupMember, part: &'static [u8]) -> (GroupMember, i32) {
    let joined = join_well(group, member.clone()).await;
    assert_eq!(code(joined.error.as_ref()), None);
    let me = GroupMember { member: joined.member.clone(), ..member };
    let assignments = vec![v1::GroupAssignment { member: joined.member, assignment: Bytes::from_static(part) }];
    let answer = sync(sync_request(group, me.clone(), joined.generation, assignments)).await;
    assert_eq!((code(answer.error.as_ref()), &answer.assignment[..]), (None, part));
    (me, joined.generation)
}

pub fn sync_request(
    group: &str,
    member: GroupMember,
    generation: i32,
    assignments: Vec<v1::GroupAssignment>,
) -> v1::SyncGroupRequest {
    let (group, protocol_type, protocol) = (group.to_owned(), "consumer".to_owned(), "range".to_owned());
    let member = Some(member);
    v1::SyncGroupRequest { group, member, generation, protocol_type, protocol, assignments, timeout_ms: 20_000 }
}

pub async fn heartbeat(group: &str, member: GroupMember, generation: i32) -> Option<ErrorCode> {
    let answer = ask(
        group,
        |a: &v1::GroupHeartbeatResponse| a.error.as_ref(),
        |mut client| {
            let (group, member) = (group.to_owned(), Some(member.clone()));
            let request = v1::GroupHeartbeatRequest { group, member, generation, timeout_ms: 5_000 };
            async move { client.group_heartbeat(request).await }
        },
    );
    code(answer.await.error.as_ref())
}

/// Commits one offset of `orders`; the code for all or for this partition.
pub async fn commit(
    group: &str,
    member: Option<GroupMember>,
    generation: i32,
    offset: v1::OffsetToCommit,
) -> Option<ErrorCode> {
    let answer = ask(
        group,
        |a: &v1::CommitOffsetsResponse| {
            a.error.as_ref().or_else(|| a.results.first().and_then(|result| result.error.as_ref()))
        },
        |mut client| {
            let (group, member, offsets) = (group.to_owned(), member.clone(), vec![offset.clone()]);
            let request = v1::CommitOffsetsRequest { group, member, generation, offsets, timeout_ms: 5_000 };
            async move { client.commit_offsets(request).await }
        },
    );
    let answer = answer.await;
    code(answer.error.as_ref()).or_else(|| code(answer.results.first().and_then(|result| result.error.as_ref())))
}

pub fn offset(offset: i64) -> v1::OffsetToCommit {
    v1::OffsetToCommit { topic: "orders".to_owned(), partition: 0, offset, ..Default::default() }
}
