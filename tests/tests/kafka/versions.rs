//! Every API in every version that is advertised: the answer is encoded in that version, and
//! says what is right.

use std::collections::BTreeSet;

use baton_broker::kafka::table::APIS;
use kafka_protocol::messages as m;
use kafka_protocol::messages::BrokerId;

use crate::wire::{batch, cluster, produce, text, topic_name};

/// Asks in every version; `request` makes it, `check` looks at the answer.
macro_rules! every_version {
    ($seen:ident, $wire:expr, $key:literal, |$version:ident| $request:expr, |$response:ident| $check:expr) => {
        let api = APIS.iter().find(|api| api.key == $key).unwrap();
        for $version in api.min..=api.max {
            let $response = $wire.ask($version, &$request);
            assert!($check, "{} {}: {:?}", api.name, $version, $response);
        }
        $seen.insert($key);
    };
}

#[test]
fn every_version_of_every_api_is_answered() {
    let cluster = cluster();
    cluster.create("versions", 2);
    let (mut wire, epoch) = cluster.leader("versions", 0);
    let mut seen = BTreeSet::new();
    records(&mut wire, epoch, &mut seen);
    clusters(&mut wire, &mut seen);
    groups(&mut wire, &mut seen);
    transactions(&mut seen);
    topics(&mut wire, &mut seen);
    let all: BTreeSet<i16> = APIS.iter().map(|api| api.key).collect();
    assert_eq!(seen, all, "an API is not tested");
}

fn records(wire: &mut crate::wire::Wire, epoch: i32, seen: &mut BTreeSet<i16>) {
    every_version!(seen, wire, 0, |_v| produce("versions", Some(batch(&["a", "b"])), -1), |r| {
        r.responses[0].partition_responses[0].error_code == 0
    });
    let id = wire_topic_id(wire);
    let fetch = |v: i16| {
        let mut partition =
            m::fetch_request::FetchPartition::default().with_fetch_offset(1).with_partition_max_bytes(1 << 20);
        if v >= 9 {
            partition = partition.with_current_leader_epoch(epoch);
        }
        let topic = m::fetch_request::FetchTopic::default().with_partitions(vec![partition]);
        let topic = if v >= 13 { topic.with_topic_id(id) } else { topic.with_topic(topic_name("versions")) };
        m::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_topics(vec![topic])
    };
    every_version!(seen, wire, 1, |v| fetch(v), |r| {
        let partition = &r.responses[0].partitions[0];
        let records = partition.records.as_ref().unwrap();
        // The batch that contains offset 1 begins with offset 0.
        partition.error_code == 0 && partition.high_watermark >= 2 && records[..8] == [0; 8]
    });
    let at = |v: i16, timestamp: i64| {
        let mut partition = m::list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
        if v >= 4 {
            partition = partition.with_current_leader_epoch(epoch);
        }
        let topic = m::list_offsets_request::ListOffsetsTopic::default()
            .with_name(topic_name("versions"))
            .with_partitions(vec![partition]);
        m::ListOffsetsRequest::default().with_topics(vec![topic])
    };
    every_version!(seen, wire, 2, |v| at(v, 1_001), |r| {
        let partition = &r.topics[0].partitions[0];
        (partition.error_code, partition.offset, partition.timestamp) == (0, 1, 1_001)
    });
    every_version!(seen, wire, 2, |v| at(v, -2), |r| r.topics[0].partitions[0].offset == 0);
    every_version!(seen, wire, 2, |v| at(v, -3), |r| r.topics[0].partitions[0].timestamp == 1_001);
    every_version!(seen, wire, 22, |_v| m::InitProducerIdRequest::default().with_transactional_id(None), |r| {
        r.error_code == 0 && r.producer_id.0 >= 0 && r.producer_epoch == 0
    });
    let ended = |leader_epoch: i32| {
        let partition = m::offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
            .with_current_leader_epoch(epoch)
            .with_leader_epoch(leader_epoch);
        let topic = m::offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
            .with_topic(topic_name("versions"))
            .with_partitions(vec![partition]);
        m::OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    };
    every_version!(seen, wire, 23, |_v| ended(epoch), |r| {
        let partition = &r.topics[0].partitions[0];
        partition.error_code == 0 && partition.leader_epoch == epoch && partition.end_offset >= 18
    });
    every_version!(seen, wire, 23, |_v| ended(epoch + 1), |r| r.topics[0].partitions[0].end_offset == -1);
    sizes(wire, seen);
}

/// How large copies are, and that they get smaller.
fn sizes(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::{delete_records_request as dr, describe_log_dirs_request as dl};
    let asked = dl::DescribableLogDirTopic::default().with_topic(topic_name("versions")).with_partitions(vec![0]);
    for asked in [Some(vec![asked]), None] {
        let describe = m::DescribeLogDirsRequest::default().with_topics(asked);
        every_version!(seen, wire, 35, |_v| describe.clone(), |r| {
            let topic = r.results[0].topics.iter().find(|topic| topic.name == topic_name("versions")).unwrap();
            let partition = topic.partitions.iter().find(|p| p.partition_index == 0).unwrap();
            partition.partition_size > 9 * 61 && partition.offset_lag == 0 && r.results[0].log_dir.len() > 1
        });
    }
    let delete = |before: i64| {
        let partition = dr::DeleteRecordsPartition::default().with_offset(before);
        let topic =
            dr::DeleteRecordsTopic::default().with_name(topic_name("versions")).with_partitions(vec![partition]);
        m::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
    };
    every_version!(seen, wire, 21, |v| delete(i64::from(v) + 1), |r| {
        let partition = &r.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark > 0) == (0, true)
    });
}

/// Each by a producer that nobody knows, which has a code of its own.
fn transactions(seen: &mut BTreeSet<i16>) {
    let id = || m::TransactionalId(text("versions"));
    let mut coordinator = crate::transactions::coordinator("versions");
    let wire = &mut coordinator;
    let topic = || {
        m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(topic_name("versions"))
            .with_partitions(vec![0])
    };
    let add = |v: i16| match v {
        0..4 => m::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_topics(vec![topic()]),
        _ => {
            let one = m::add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id())
                .with_topics(vec![topic()]);
            m::AddPartitionsToTxnRequest::default().with_transactions(vec![one])
        }
    };
    every_version!(seen, wire, 24, |v| add(v), |r| {
        let several = r.results_by_transaction.first().map(|one| &one.topic_results);
        several.unwrap_or(&r.results_by_topic_v3_and_below)[0].results_by_partition[0].partition_error_code == 49
    });
    let group = || m::GroupId(text("versions"));
    let offsets = m::AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group());
    every_version!(seen, wire, 25, |_v| offsets.clone(), |r| r.error_code == 49);
    every_version!(seen, wire, 26, |_v| m::EndTxnRequest::default().with_transactional_id(id()), |r| r.error_code
        == 49);
    // Nothing is asked to be ended.
    let marker = m::write_txn_markers_request::WritableTxnMarker::default().with_producer_id(m::ProducerId(7));
    let markers = m::WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    every_version!(seen, wire, 27, |_v| markers.clone(), |r| r.markers[0].producer_id.0 == 7);
    let asked = m::DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
    every_version!(seen, wire, 65, |_v| asked.clone(), |r| r.transaction_states[0].error_code == 105);
    every_version!(seen, wire, 66, |_v| m::ListTransactionsRequest::default(), |r| r.error_code == 0);
    let partition = m::txn_offset_commit_request::TxnOffsetCommitRequestPartition::default().with_committed_offset(1);
    let topic = m::txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name("versions"))
        .with_partitions(vec![partition]);
    let commit = m::TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(group())
        .with_generation_id(-1)
        .with_topics(vec![topic]);
    let wire = &mut crate::members::coordinator("versions");
    every_version!(seen, wire, 28, |_v| commit.clone(), |r| r.topics[0].partitions[0].error_code == 49);
    let topic = m::describe_producers_request::TopicRequest::default()
        .with_name(topic_name("versions"))
        .with_partition_indexes(vec![0]);
    let producers = m::DescribeProducersRequest::default().with_topics(vec![topic]);
    every_version!(seen, wire, 61, |_v| producers.clone(), |r| r.topics[0].partitions[0].error_code == 0);
}

fn wire_topic_id(wire: &mut crate::wire::Wire) -> uuid::Uuid {
    let topics = vec![m::metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name("versions")))];
    let response = wire.ask(12, &m::MetadataRequest::default().with_topics(Some(topics)));
    response.topics[0].topic_id
}

fn clusters(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    let all = |v: i16| {
        let topics = if v == 0 { Some(Vec::new()) } else { None };
        m::MetadataRequest::default().with_topics(topics)
    };
    every_version!(seen, wire, 3, |v| all(v), |r| {
        let topic = r.topics.iter().find(|topic| topic.name.as_ref().unwrap().as_str() == "versions").unwrap();
        r.brokers.len() == 3 && topic.error_code == 0 && topic.partitions.len() == 2
    });
    every_version!(seen, wire, 18, |v| m::ApiVersionsRequest::default(), |r| {
        let transactions = r.finalized_features.first().map(|feature| feature.max_version_level);
        r.error_code == 0 && r.api_keys.len() == APIS.len() && transactions == (v >= 3).then_some(2)
    });
    every_version!(seen, wire, 60, |_v| m::DescribeClusterRequest::default(), |r| {
        r.error_code == 0 && r.brokers.len() == 3 && r.controller_id.0 > 0
    });
}

fn groups(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::{offset_commit_request as oc, offset_delete_request as od, offset_fetch_request as of};
    let group = || m::GroupId(text("versions"));
    let find = |v: i16| match v {
        0..4 => m::FindCoordinatorRequest::default().with_key(text("versions")),
        _ => m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("versions")]),
    };
    every_version!(seen, wire, 10, |v| find(v), |r| {
        let several = r.coordinators.first().map_or((r.error_code, r.port), |one| (one.error_code, one.port));
        several.0 == 0 && several.1 > 0
    });
    let mut coordinator = crate::members::coordinator("versions");
    let wire = &mut coordinator;
    let offset = oc::OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text("seven")));
    let topic = oc::OffsetCommitRequestTopic::default().with_name(topic_name("versions")).with_partitions(vec![offset]);
    let commit = m::OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    every_version!(seen, wire, 8, |_v| commit.clone(), |r| r.topics[0].partitions[0].error_code == 0);
    let fetch = |v: i16| {
        if v >= 8 {
            let topic = of::OffsetFetchRequestTopics::default()
                .with_name(topic_name("versions"))
                .with_partition_indexes(vec![0, 1]);
            let one = of::OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
            return m::OffsetFetchRequest::default().with_groups(vec![one]);
        }
        let topic =
            of::OffsetFetchRequestTopic::default().with_name(topic_name("versions")).with_partition_indexes(vec![0, 1]);
        m::OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]))
    };
    every_version!(seen, wire, 9, |v| fetch(v), |r| {
        let found: Vec<(i64, String)> = match r.groups.first() {
            Some(group) => group.topics[0]
                .partitions
                .iter()
                .map(|p| (p.committed_offset, p.metadata.clone().unwrap().to_string()))
                .collect(),
            None => r.topics[0]
                .partitions
                .iter()
                .map(|p| (p.committed_offset, p.metadata.clone().unwrap().to_string()))
                .collect(),
        };
        found == [(7, "seven".to_owned()), (-1, String::new())]
    });
    memberships(wire, seen);
    let forget = od::OffsetDeleteRequestTopic::default()
        .with_name(topic_name("versions"))
        .with_partitions(vec![od::OffsetDeleteRequestPartition::default()]);
    let forget = m::OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![forget]);
    every_version!(seen, wire, 47, |_v| forget.clone(), |r| r.error_code == 0
        && r.topics[0].partitions[0].error_code == 0);
    let gone = m::DeleteGroupsRequest::default().with_groups_names(vec![m::GroupId(text("never-was"))]);
    let wire = &mut crate::members::coordinator("never-was");
    every_version!(seen, wire, 42, |_v| gone.clone(), |r| r.results[0].error_code == 69);
}

fn memberships(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::join_group_request as jg;
    let group = || m::GroupId(text("versions"));
    let short = m::JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(1)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![jg::JoinGroupRequestProtocol::default().with_name(text("range"))]);
    let join = |v: i16| if v >= 1 { short.clone().with_rebalance_timeout_ms(1_000) } else { short.clone() };
    every_version!(seen, wire, 11, |v| join(v), |r| r.error_code == 26);
    let nobody = text("nobody");
    let beat =
        m::HeartbeatRequest::default().with_group_id(group()).with_generation_id(3).with_member_id(nobody.clone());
    every_version!(seen, wire, 12, |_v| beat.clone(), |r| r.error_code == 25);
    let leave = |v: i16| match v {
        0..3 => m::LeaveGroupRequest::default().with_group_id(group()).with_member_id(text("nobody")),
        _ => m::LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![m::leave_group_request::MemberIdentity::default().with_member_id(text("nobody"))]),
    };
    every_version!(seen, wire, 13, |v| leave(v), |r| r.members.first().map_or(r.error_code, |m| m.error_code) == 25);
    let sync = m::SyncGroupRequest::default().with_group_id(group()).with_generation_id(3).with_member_id(nobody);
    every_version!(seen, wire, 14, |_v| sync.clone(), |r| r.error_code == 25);
    every_version!(seen, wire, 15, |_v| m::DescribeGroupsRequest::default().with_groups(vec![group()]), |r| {
        r.groups[0].error_code == 0 && r.groups[0].group_state.as_str() == "Empty"
    });
    every_version!(seen, wire, 16, |_v| m::ListGroupsRequest::default(), |r| {
        r.error_code == 0 && r.groups.iter().any(|listed| listed.group_id == group())
    });
}

fn topics(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::{create_partitions_request as cp, create_topics_request as ct};
    let name = |v: i16| topic_name(&format!("made-{v}"));
    let create = |v: i16| {
        let topic = ct::CreatableTopic::default().with_name(name(v)).with_num_partitions(1).with_replication_factor(3);
        m::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
    };
    every_version!(seen, wire, 19, |v| create(v), |r| r.topics[0].error_code == 0);
    let grow = |v: i16| {
        let topic = cp::CreatePartitionsTopic::default().with_name(name(v + 2)).with_count(2).with_assignments(None);
        m::CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
    };
    every_version!(seen, wire, 37, |v| grow(v), |r| r.results[0].error_code == 0);
    settings(wire, seen);
    placements(wire, seen);
    let delete = |v: i16| match v {
        0..6 => m::DeleteTopicsRequest::default().with_topic_names(vec![name(v + 1)]),
        _ => m::DeleteTopicsRequest::default()
            .with_topics(vec![m::delete_topics_request::DeleteTopicState::default().with_name(Some(name(v + 1)))]),
    };
    every_version!(seen, wire, 20, |v| delete(v).with_timeout_ms(30_000), |r| r.responses[0].error_code == 0);
}

fn settings(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::{alter_configs_request as ac, describe_configs_request as dc, incremental_alter_configs_request as ic};
    let topic = || text("versions");
    let describe = dc::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(topic())
        .with_configuration_keys(None);
    let describe = m::DescribeConfigsRequest::default().with_resources(vec![describe]).with_include_synonyms(true);
    every_version!(seen, wire, 32, |_v| describe.clone(), |r| {
        let found = r.results[0].configs.iter().find(|config| config.name.as_str() == "max.message.bytes");
        r.results[0].error_code == 0 && found.unwrap().value.as_ref().unwrap().as_str() == "1048588"
    });
    let set = ac::AlterableConfig::default().with_name(text("max.message.bytes")).with_value(Some(text("900000")));
    let replace =
        ac::AlterConfigsResource::default().with_resource_type(2).with_resource_name(topic()).with_configs(vec![set]);
    let replace = m::AlterConfigsRequest::default().with_resources(vec![replace]);
    every_version!(seen, wire, 33, |_v| replace.clone(), |r| r.responses[0].error_code == 0);
    let unset =
        ic::AlterableConfig::default().with_name(text("max.message.bytes")).with_config_operation(1).with_value(None);
    let change =
        ic::AlterConfigsResource::default().with_resource_type(2).with_resource_name(topic()).with_configs(vec![unset]);
    let change = m::IncrementalAlterConfigsRequest::default().with_resources(vec![change]);
    every_version!(seen, wire, 44, |_v| change.clone(), |r| r.responses[0].error_code == 0);
    every_version!(seen, wire, 32, |_v| describe.clone(), |r| {
        let found = r.results[0].configs.iter().find(|config| config.name.as_str() == "max.message.bytes");
        found.unwrap().value.as_ref().unwrap().as_str() == "1048588"
    });
}

fn placements(wire: &mut crate::wire::Wire, seen: &mut BTreeSet<i16>) {
    use m::{alter_partition_reassignments_request as ar, elect_leaders_request as el};
    let asked = el::TopicPartitions::default().with_topic(topic_name("versions")).with_partitions(vec![0, 1]);
    let elect = m::ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked])).with_timeout_ms(30_000);
    every_version!(seen, wire, 43, |_v| elect.clone(), |r| {
        // It leads already, or it does now.
        r.replica_election_results[0].partition_result.iter().all(|p| [0, 84].contains(&p.error_code))
    });
    let cancel = ar::ReassignableTopic::default()
        .with_name(topic_name("versions"))
        .with_partitions(vec![ar::ReassignablePartition::default().with_replicas(None)]);
    let cancel = m::AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![cancel]);
    every_version!(seen, wire, 45, |_v| cancel.clone(), |r| r.responses[0].partitions[0].error_code == 85);
    every_version!(seen, wire, 46, |_v| m::ListPartitionReassignmentsRequest::default().with_topics(None), |r| {
        r.error_code == 0 && r.topics.is_empty()
    });
    let first = m::describe_topic_partitions_request::TopicRequest::default().with_name(topic_name("versions"));
    let page = m::DescribeTopicPartitionsRequest::default().with_topics(vec![first]).with_response_partition_limit(1);
    every_version!(seen, wire, 75, |_v| page.clone(), |r| {
        let cursor = r.next_cursor.as_ref().unwrap();
        r.topics[0].partitions.len() == 1
            && cursor.partition_index == 1
            && r.topics[0].partitions[0].leader_id != BrokerId(-1)
    });
}
