//! Every API in every version about what is not there: refusals are encoded in that version
//! too, where a field of a newer one would end the connection.

use baton_broker::kafka::table::APIS;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::Request;

use crate::wire::{Wire, batch, cluster, produce, text, topic_name};

const NOWHERE: &str = "nowhere";

/// Asks in every version for what is not there; `code` is what the answer has to say.
fn refused<R: Request>(wire: &mut Wire, code: i16, request: impl Fn(i16) -> R, found: impl Fn(&R::Response) -> i16)
where
    R::Response: std::fmt::Debug,
{
    let api = APIS.iter().find(|api| api.key == R::KEY).unwrap();
    for version in api.min..=api.max {
        let response = wire.ask(version, &request(version));
        assert_eq!(found(&response), code, "{} {version}: {response:?}", api.name);
    }
}

#[test]
fn reading_and_writing_what_is_not_there() {
    let wire = &mut cluster().connect();
    let one = || produce(NOWHERE, Some(batch(&["a"])), -1);
    refused(wire, 3, |_| one(), |r| r.responses[0].partition_responses[0].error_code);
    let fetch = |version: i16| {
        let partition = m::fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
        let topic = m::fetch_request::FetchTopic::default().with_partitions(vec![partition]);
        let topic = match version {
            13.. => topic.with_topic_id(uuid::Uuid::from_u128(7)),
            _ => topic.with_topic(topic_name(NOWHERE)),
        };
        m::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_topics(vec![topic])
    };
    let of_fetch = |r: &m::FetchResponse| match r.responses[0].partitions[0].error_code {
        // Of an id, not of a name.
        100 => 3,
        code => code,
    };
    refused(wire, 3, fetch, of_fetch);
    let at = m::list_offsets_request::ListOffsetsTopic::default()
        .with_name(topic_name(NOWHERE))
        .with_partitions(vec![m::list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1)]);
    let list = m::ListOffsetsRequest::default().with_topics(vec![at]);
    refused(wire, 3, |_| list.clone(), |r| r.topics[0].partitions[0].error_code);
    let metadata = |_| {
        let topic = m::metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name("no/name")));
        m::MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    refused(wire, 17, metadata, |r| r.topics[0].error_code);
    let ended = m::offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
        .with_topic(topic_name(NOWHERE))
        .with_partitions(vec![m::offset_for_leader_epoch_request::OffsetForLeaderPartition::default()]);
    let ended = m::OffsetForLeaderEpochRequest::default().with_topics(vec![ended]);
    refused(wire, 3, |_| ended.clone(), |r| r.topics[0].partitions[0].error_code);
    let delete = m::delete_records_request::DeleteRecordsTopic::default()
        .with_name(topic_name(NOWHERE))
        .with_partitions(vec![m::delete_records_request::DeleteRecordsPartition::default()]);
    let delete = m::DeleteRecordsRequest::default().with_topics(vec![delete]).with_timeout_ms(1_000);
    refused(wire, 3, |_| delete.clone(), |r| r.topics[0].partitions[0].error_code);
}

/// The leader is elsewhere: newer versions say where.
#[test]
fn asking_a_broker_that_does_not_lead() {
    let cluster = cluster();
    cluster.create("elsewhere", 1);
    let _ = cluster.leader("elsewhere", 0);
    let metadata = cluster.connect().metadata("elsewhere");
    let leader = metadata.topics[0].partitions[0].leader_id;
    let other = metadata.brokers.iter().find(|broker| broker.node_id != leader).unwrap();
    let wire = &mut Wire::connect(&format!("{}:{}", other.host.as_str(), other.port));
    let one = || produce("elsewhere", Some(batch(&["a"])), -1);
    refused(
        wire,
        6,
        |_| one(),
        |r| {
            let partition = &r.responses[0].partition_responses[0];
            let told = r.node_endpoints.is_empty() || partition.current_leader.leader_id == leader;
            if told { partition.error_code } else { -1 }
        },
    );
    assert_eq!(wire.ask(11, &one()).node_endpoints[0].node_id, leader);
    let fetch = |current_epoch: i32| {
        let partition = m::fetch_request::FetchPartition::default()
            .with_partition_max_bytes(1 << 20)
            .with_current_leader_epoch(current_epoch);
        let topic = m::fetch_request::FetchTopic::default().with_partitions(vec![partition]);
        m::FetchRequest::default().with_max_wait_ms(500).with_topics(vec![topic.with_topic(topic_name("elsewhere"))])
    };
    let response = wire.ask(12, &fetch(-1));
    assert_eq!(response.responses[0].partitions[0].error_code, 6);
    assert_eq!(response.responses[0].partitions[0].current_leader.leader_id, leader);
}

#[test]
fn groups_that_are_not_there() {
    let wire = &mut crate::members::coordinator(NOWHERE);
    let group = || m::GroupId(text(NOWHERE));
    use m::{offset_commit_request as oc, offset_delete_request as od, offset_fetch_request as of};
    let commit = oc::OffsetCommitRequestTopic::default()
        .with_name(topic_name(NOWHERE))
        .with_partitions(vec![oc::OffsetCommitRequestPartition::default()]);
    let commit = m::OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![commit]);
    refused(wire, 3, |_| commit.clone(), |r| r.topics[0].partitions[0].error_code);
    let fetch = |version: i16| {
        if version >= 8 {
            let one = of::OffsetFetchRequestGroup::default().with_group_id(group());
            let topic =
                of::OffsetFetchRequestTopics::default().with_name(topic_name(NOWHERE)).with_partition_indexes(vec![0]);
            return m::OffsetFetchRequest::default().with_groups(vec![one.with_topics(Some(vec![topic]))]);
        }
        let topic =
            of::OffsetFetchRequestTopic::default().with_name(topic_name(NOWHERE)).with_partition_indexes(vec![0]);
        m::OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]))
    };
    // Nothing was committed: no error.
    let nothing = |r: &m::OffsetFetchResponse| match r.groups.first() {
        Some(group) => i16::try_from(group.topics[0].partitions[0].committed_offset).unwrap(),
        None => i16::try_from(r.topics[0].partitions[0].committed_offset).unwrap(),
    };
    refused(wire, -1, fetch, nothing);
    let forget = od::OffsetDeleteRequestTopic::default()
        .with_name(topic_name(NOWHERE))
        .with_partitions(vec![od::OffsetDeleteRequestPartition::default()]);
    let forget = m::OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![forget]);
    refused(wire, 69, |_| forget.clone(), |r| r.error_code);
    let describe = m::DescribeGroupsRequest::default().with_groups(vec![group()]);
    let dead = |r: &m::DescribeGroupsResponse| {
        assert_eq!(r.groups[0].group_state.as_str(), "Dead");
        // From version 6 on it is an error (KIP-1043).
        if r.groups[0].error_code == 69 { 0 } else { r.groups[0].error_code }
    };
    refused(wire, 0, |_| describe.clone(), dead);
}

#[test]
fn topics_that_are_not_there() {
    let wire = &mut cluster().connect();
    let create = m::create_topics_request::CreatableTopic::default().with_name(topic_name("no/name"));
    let create = create.with_num_partitions(1).with_replication_factor(1);
    let create = m::CreateTopicsRequest::default().with_topics(vec![create]).with_timeout_ms(30_000);
    refused(wire, 17, |_| create.clone(), |r| r.topics[0].error_code);
    let delete = |version: i16| match version {
        0..6 => m::DeleteTopicsRequest::default().with_topic_names(vec![topic_name(NOWHERE)]),
        _ => m::DeleteTopicsRequest::default().with_topics(vec![
            m::delete_topics_request::DeleteTopicState::default().with_name(Some(topic_name(NOWHERE))),
        ]),
    };
    refused(wire, 3, |version| delete(version).with_timeout_ms(30_000), |r| r.responses[0].error_code);
    let grow = m::create_partitions_request::CreatePartitionsTopic::default();
    let grow = grow.with_name(topic_name(NOWHERE)).with_count(2).with_assignments(None);
    let grow = m::CreatePartitionsRequest::default().with_topics(vec![grow]).with_timeout_ms(30_000);
    refused(wire, 3, |_| grow.clone(), |r| r.results[0].error_code);
    let page = m::describe_topic_partitions_request::TopicRequest::default().with_name(topic_name(NOWHERE));
    let page = m::DescribeTopicPartitionsRequest::default().with_topics(vec![page]);
    refused(wire, 3, |_| page.clone(), |r| r.topics[0].error_code);
    settings(wire);
    placements(wire);
}

fn settings(wire: &mut Wire) {
    use m::{alter_configs_request as ac, describe_configs_request as dc, incremental_alter_configs_request as ic};
    let describe = dc::DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(NOWHERE));
    let describe = m::DescribeConfigsRequest::default().with_resources(vec![describe]);
    refused(wire, 3, |_| describe.clone(), |r| r.results[0].error_code);
    let replace = ac::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(NOWHERE));
    let replace = m::AlterConfigsRequest::default().with_resources(vec![replace]);
    refused(wire, 3, |_| replace.clone(), |r| r.responses[0].error_code);
    let change = ic::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(NOWHERE));
    let change = m::IncrementalAlterConfigsRequest::default().with_resources(vec![change]);
    refused(wire, 3, |_| change.clone(), |r| r.responses[0].error_code);
}

fn placements(wire: &mut Wire) {
    use m::{alter_partition_reassignments_request as ar, elect_leaders_request as el};
    let elect = el::TopicPartitions::default().with_topic(topic_name(NOWHERE)).with_partitions(vec![0]);
    let elect = m::ElectLeadersRequest::default().with_topic_partitions(Some(vec![elect])).with_timeout_ms(30_000);
    refused(wire, 3, |_| elect.clone(), |r| r.replica_election_results[0].partition_result[0].error_code);
    let replicas = Some(vec![m::BrokerId(1)]);
    let place = ar::ReassignableTopic::default()
        .with_name(topic_name(NOWHERE))
        .with_partitions(vec![ar::ReassignablePartition::default().with_replicas(replicas)]);
    let place = m::AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![place]);
    refused(wire, 3, |_| place.clone(), |r| r.responses[0].partitions[0].error_code);
}

#[test]
fn questions_that_are_refused_as_a_whole() {
    let wire = &mut cluster().connect();
    let find = |version: i16| match version {
        0 => m::FindCoordinatorRequest::default(),
        1..4 => m::FindCoordinatorRequest::default().with_key(text("k")).with_key_type(9),
        _ => m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("k")]).with_key_type(9),
    };
    let found = |r: &m::FindCoordinatorResponse| match r.coordinators.first() {
        Some(coordinator) => coordinator.error_code,
        None => r.error_code,
    };
    let api = APIS.iter().find(|api| api.key == 10).unwrap();
    for version in api.min..=api.max {
        let code = found(&wire.ask(version, &find(version)));
        assert_eq!(code, if version == 0 { 24 } else { 42 }, "version {version}");
    }
}
