//! What must not be, and the code that Kafka has for it: clients act on codes.

use baton_core::batch::{BatchBuilder, BuildOptions};
use bytes::Bytes;
use kafka_protocol::messages as m;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::Decodable;

use crate::wire::{batch, cluster, produce, text, topic_name};

#[test]
fn what_is_no_request_ends_the_connection() {
    let cases: [(&str, &[u8]); 10] = [
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a frame over the limit", b"\x06\x40\0\x01\0\0\0\0"),
        ("no length", b"\0\0\0\0\0\0\0\0"),
        ("a negative length", b"\xff\xff\xff\xff\0\0\0\0"),
        ("the longest length", b"\x7f\xff\xff\xff\0\0\0\0"),
        ("an API that is not there", b"\0\0\0\x0a\x03\xe7\0\0\0\0\0\x01\xff\xff"),
        ("a version of Metadata that is not there", b"\0\0\0\x0a\0\x03\0\x63\0\0\0\x01\xff\xff"),
        ("Produce of before magic 2", b"\0\0\0\x0a\0\0\0\x02\0\0\0\x01\xff\xff"),
    ];
    for (what, bytes) in cases {
        let mut wire = cluster().connect();
        wire.bytes(bytes);
        assert!(wire.is_closed(), "{what} was answered");
    }
}

#[test]
fn a_request_that_lies_about_its_length_ends_the_connection_only() {
    let mut wire = cluster().connect();
    let mut frame = b"\0\x03\0\x01\0\0\0\x01\xff\xff".to_vec();
    frame.extend(i32::MAX.to_be_bytes());
    wire.raw(&frame);
    assert!(wire.is_closed());
    assert_eq!(cluster().connect().ask(0, &m::ApiVersionsRequest::default()).error_code, 0, "the broker is gone");
}

#[test]
fn a_version_of_api_versions_of_the_future_is_answered_with_the_list() {
    let mut wire = cluster().connect();
    wire.raw(b"\0\x12\0\x63\0\0\0\x2a\xff\xff\0\0\0");
    let mut frame = wire.frame().unwrap();
    assert_eq!(bytes::Buf::get_i32(&mut frame), 42);
    let response = m::ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(response.error_code, 35);
    assert!(response.api_keys.iter().any(|api| api.api_key == 18 && api.max_version >= 3));
    // The connection is kept.
    wire.raw(b"\0\x12\0\0\0\0\0\x01\xff\xff");
    assert!(wire.frame().is_some());
}

#[test]
fn trailing_bytes_are_tolerated() {
    let mut wire = cluster().connect();
    wire.send(3, &m::ApiVersionsRequest::default(), b"and more");
    assert_eq!(wire.answer::<m::ApiVersionsRequest>(3).error_code, 0);
}

/// Requests of one connection that are sent at once are answered in their order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let cluster = cluster();
    cluster.create("pipeline", 1);
    let (mut wire, _) = cluster.leader("pipeline", 0);
    let before = wire.sent();
    for n in 0..50 {
        wire.send(9, &produce("pipeline", Some(batch(&[&n.to_string()])), -1), &[]);
    }
    for n in 0..50 {
        let mut frame = wire.frame().unwrap();
        assert_eq!(bytes::Buf::get_i32(&mut frame), before + n + 1);
        bytes::Buf::advance(&mut frame, 1);
        let response = m::ProduceResponse::decode(&mut frame, 9).unwrap();
        assert_eq!(response.responses[0].partition_responses[0].base_offset, i64::from(n));
    }
}

#[test]
fn batches_that_are_refused() {
    let cluster = cluster();
    cluster.create("refused", 1);
    let (mut wire, _) = cluster.leader("refused", 0);
    let good = batch(&["one"]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= byte;
        Bytes::from(bytes)
    };
    let large = "x".repeat(1_100_000);
    let mut builder = BatchBuilder::new(2 << 20);
    let _ = builder.push(1, None, Some(large.as_bytes()), &[]).unwrap();
    let large = builder.build(&BuildOptions::default()).unwrap();
    let two = Bytes::from([&good[..], &good[..]].concat());
    let cases = [
        ("no batch", None, 87),
        ("two batches", Some(two), 87),
        ("magic 1", Some(changed(16, 3)), 87),
        ("magic 0", Some(changed(16, 2)), 87),
        ("a wrong checksum", Some(changed(20, 1)), 2),
        ("a damaged record", Some(changed(64, 1)), 2),
        ("above max.message.bytes", Some(large), 10),
    ];
    for (what, records, code) in cases {
        for version in [3, 7, 11] {
            assert_eq!(wire.produce(version, "refused", records.clone()).0, code, "{what}, version {version}");
        }
    }
    assert_eq!(wire.produce(9, "no-such-topic", good.clone()).0, 3);
    let acks = wire.ask(9, &produce("refused", Some(good.clone()), 5));
    assert_eq!(acks.responses[0].partition_responses[0].error_code, 21, "acks is none of −1, 0 and 1");
    // What was good before and after is stored, and nothing else.
    assert_eq!(wire.produce(9, "refused", good.clone()), (0, 0));
    assert_eq!(wire.produce(9, "refused", good), (0, 1));
}

/// What is compacted needs keys; and it is not deleted by offset.
#[test]
fn a_compacted_topic_takes_records_with_keys_only() {
    use m::{create_topics_request as ct, delete_records_request as dr};
    let cluster = cluster();
    let config =
        ct::CreatableTopicConfig::default().with_name(text("cleanup.policy")).with_value(Some(text("compact")));
    let topic = ct::CreatableTopic::default()
        .with_name(topic_name("compacted"))
        .with_num_partitions(1)
        .with_replication_factor(3)
        .with_configs(vec![config]);
    let create = m::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    assert_eq!(cluster.connect().ask(7, &create).topics[0].error_code, 0);
    let (mut wire, _) = cluster.leader("compacted", 0);
    let mut builder = BatchBuilder::new(1 << 20);
    let _ = builder.push(1, Some(b"k"), Some(b"v"), &[]).unwrap();
    let _ = builder.push(1, None, Some(b"v"), &[]).unwrap();
    let keyless = builder.build(&BuildOptions::default()).unwrap();
    for (version, told) in [(7, &[][..]), (9, &[1])] {
        let response = wire.ask(version, &produce("compacted", Some(keyless.clone()), -1));
        let partition = &response.responses[0].partition_responses[0];
        let records: Vec<i32> = partition.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!((partition.error_code, &records[..]), (87, told), "version {version}");
    }
    assert_eq!(wire.produce(9, "compacted", batch(&["one", "two"])), (0, 0));
    let delete = |topic: &str, partition: i32, before: i64| {
        let partition = dr::DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = dr::DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        m::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
    };
    assert_eq!(wire.ask(2, &delete("compacted", 0, 1)).topics[0].partitions[0].error_code, 44);
    cluster.create("deleted", 1);
    let (mut wire, _) = cluster.leader("deleted", 0);
    assert_eq!(wire.produce(9, "deleted", batch(&["one", "two"])), (0, 0));
    for (what, request, code) in [
        ("an unknown topic", delete("no-such-topic", 0, 0), 3),
        ("an unknown partition", delete("deleted", 7, 0), 3),
        ("beyond the high watermark", delete("deleted", 0, 3), 1),
        ("a negative offset", delete("deleted", 0, -2), 1),
    ] {
        let response = wire.ask(2, &request);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (code, -1), "{what}");
    }
    let all = wire.ask(2, &delete("deleted", 0, -1));
    assert_eq!((all.topics[0].partitions[0].error_code, all.topics[0].partitions[0].low_watermark), (0, 2));
    let again = wire.ask(2, &delete("deleted", 0, 1));
    assert_eq!((again.topics[0].partitions[0].error_code, again.topics[0].partitions[0].low_watermark), (0, 2));
}

/// A producer that wants no acknowledgement learns of a refusal by the end of its connection.
#[test]
fn without_acknowledgements_nothing_is_answered() {
    let cluster = cluster();
    cluster.create("unacknowledged", 1);
    let (mut wire, _) = cluster.leader("unacknowledged", 0);
    wire.send(9, &produce("unacknowledged", Some(batch(&["a"])), 0), &[]);
    assert_eq!(wire.produce(9, "unacknowledged", batch(&["b"])), (0, 1));
    wire.send(9, &produce("no-such-topic", Some(batch(&["a"])), 0), &[]);
    assert!(wire.is_closed());
}

#[test]
fn readers_are_told_what_is_wrong() {
    let cluster = cluster();
    cluster.create("read", 1);
    let (mut wire, epoch) = cluster.leader("read", 0);
    assert_eq!(wire.produce(9, "read", batch(&["a"])).0, 0);
    let fetch = |offset: i64, epoch: i32| {
        let partition = m::fetch_request::FetchPartition::default()
            .with_fetch_offset(offset)
            .with_current_leader_epoch(epoch)
            .with_partition_max_bytes(1 << 20);
        let topic =
            m::fetch_request::FetchTopic::default().with_topic(topic_name("read")).with_partitions(vec![partition]);
        m::FetchRequest::default().with_max_wait_ms(30_000).with_min_bytes(1 << 20).with_topics(vec![topic])
    };
    let started = std::time::Instant::now();
    for (what, request, code) in [
        ("beyond the end", fetch(99, epoch), 1),
        ("a negative offset", fetch(-5, epoch), 1),
        ("an older epoch", fetch(0, epoch - 1), 74),
        ("a newer epoch", fetch(0, epoch + 1), 75),
    ] {
        let response = wire.ask(12, &request);
        assert_eq!(response.responses[0].partitions[0].error_code, code, "{what}");
    }
    assert!(started.elapsed().as_secs() < 20, "errors are not waited with");
    let session = wire.ask(12, &fetch(0, epoch).with_session_id(7).with_session_epoch(1));
    assert_eq!(session.error_code, 70);
    // A fetch waits for its time only, and then says how it stands.
    let response = wire.ask(12, &fetch(1, epoch).with_max_wait_ms(200));
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert_eq!(partition.records.as_ref().map(Bytes::len), Some(0));
}

#[test]
fn a_coordinator_of_nothing_is_not_found() {
    let mut wire = cluster().connect();
    let find = |key, kind| m::FindCoordinatorRequest::default().with_key(text(key)).with_key_type(kind);
    assert_eq!(wire.ask(3, &find("", 1)).error_code, 42);
    assert_eq!(wire.ask(3, &find("t", 2)).error_code, 42);
}

#[test]
fn administrators_are_told_what_is_wrong() {
    let cluster = cluster();
    cluster.create("administered", 2);
    let mut wire = cluster.connect();
    creations(&mut wire);
    use m::{alter_partition_reassignments_request as ar, incremental_alter_configs_request as ic};
    for (key, value, code) in
        [("no.such.key", "1", 40), ("max.message.bytes", "many", 40), ("min.insync.replicas", "9", 40)]
    {
        let config = ic::AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
        let resource = ic::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("administered"))
            .with_configs(vec![config]);
        let request = m::IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(wire.ask(1, &request).responses[0].error_code, code, "{key} = {value}");
    }
    for (replicas, code) in [(vec![1, 99], 39), (vec![], 39), (vec![1, 1], 39), (vec![-1], 39)] {
        let partition =
            ar::ReassignablePartition::default().with_replicas(Some(replicas.iter().copied().map(BrokerId).collect()));
        let topic =
            ar::ReassignableTopic::default().with_name(topic_name("administered")).with_partitions(vec![partition]);
        let request = m::AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        assert_eq!(wire.ask(0, &request).responses[0].partitions[0].error_code, code, "{replicas:?}");
    }
    let grow = m::create_partitions_request::CreatePartitionsTopic::default()
        .with_name(topic_name("administered"))
        .with_count(2)
        .with_assignments(None);
    let grow = m::CreatePartitionsRequest::default().with_topics(vec![grow]).with_timeout_ms(30_000);
    assert_eq!(wire.ask(3, &grow).results[0].error_code, 37, "a topic does not shrink");
    for (replicas, code) in
        [(vec![1, 99, 2], 39), (vec![1], 39), (vec![1, 1, 2], 39), (vec![-1], 39), (vec![3, 1, 2], 0)]
    {
        assert_eq!(grow_to(&mut wire, &replicas), code, "{replicas:?}");
    }
    let grown = wire.metadata("administered");
    let last = grown.topics[0].partitions.iter().find(|partition| partition.partition_index == 2);
    assert_eq!(last.unwrap().replica_nodes, [3, 1, 2].map(BrokerId), "the partition is where it was asked for");
    let gone =
        m::DeleteTopicsRequest::default().with_topic_names(vec![topic_name("no-such-topic")]).with_timeout_ms(30_000);
    assert_eq!(wire.ask(5, &gone).responses[0].error_code, 3);
}

/// Asks for a third partition on these brokers.
fn grow_to(wire: &mut crate::wire::Wire, replicas: &[i32]) -> i16 {
    use m::create_partitions_request as cp;
    let new =
        cp::CreatePartitionsAssignment::default().with_broker_ids(replicas.iter().copied().map(BrokerId).collect());
    let topic = cp::CreatePartitionsTopic::default()
        .with_name(topic_name("administered"))
        .with_count(3)
        .with_assignments(Some(vec![new]));
    let request = m::CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    wire.ask(3, &request).results[0].error_code
}

#[test]
fn a_broker_tells_how_it_is_configured() {
    use m::describe_configs_request as dc;
    let cluster = cluster();
    let mut wire = cluster.connect();
    let address = wire.address();
    let me =
        wire.metadata("").brokers.iter().find(|node| address.ends_with(&format!(":{}", node.port))).unwrap().node_id;
    let resource = dc::DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text(&me.0.to_string()))
        .with_configuration_keys(None);
    let response = wire.ask(4, &m::DescribeConfigsRequest::default().with_resources(vec![resource]));
    for (key, value) in [
        ("advertised.listeners", format!("KAFKA://{address}").as_str()),
        ("auto.create.topics.enable", "true"),
        ("default.replication.factor", "3"),
        ("log.retention.ms", "604800000"),
        ("min.insync.replicas", "2"),
        ("node.id", me.0.to_string().as_str()),
        ("num.partitions", "1"),
    ] {
        let found = response.results[0].configs.iter().find(|config| config.name.as_str() == key).unwrap();
        assert_eq!((found.value.as_ref().map(|value| value.as_str()), found.read_only), (Some(value), true), "{key}");
    }
}

fn creations(wire: &mut crate::wire::Wire) {
    use m::create_topics_request as ct;
    let topic = |name: &str, partitions, replicas| {
        ct::CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    let config = ct::CreatableTopicConfig::default().with_name(text("no.such.key")).with_value(Some(text("1")));
    let assigned = ct::CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(99)]);
    let cases = [
        ("there already", topic("administered", 1, 1), 36),
        ("a bad name", topic("a/b", 1, 1), 17),
        ("a reserved name", topic("__mine", 1, 1), 17),
        ("no partitions", topic("new", 0, 1), 37),
        ("more replicas than brokers", topic("new", 1, 9), 38),
        ("an unknown setting", topic("new", 1, 1).with_configs(vec![config]), 40),
        ("an unknown broker", topic("new", -1, -1).with_assignments(vec![assigned.clone()]), 39),
        ("an assignment and numbers", topic("new", 1, 1).with_assignments(vec![assigned]), 42),
    ];
    for (what, topic, code) in cases {
        for validate_only in [true, false] {
            let request = m::CreateTopicsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_timeout_ms(30_000)
                .with_validate_only(validate_only);
            let response = wire.ask(7, &request);
            assert_eq!(response.topics[0].error_code, code, "{what}: {response:?}");
        }
    }
    let valid = m::CreateTopicsRequest::default()
        .with_topics(vec![topic("only-validated", -1, -1)])
        .with_timeout_ms(30_000)
        .with_validate_only(true);
    assert_eq!(wire.ask(7, &valid).topics[0].error_code, 0);
    assert_eq!(wire.metadata("only-validated").topics[0].error_code, 3, "it was made");
}

#[test]
fn offsets_of_what_is_not_there() {
    let mut wire = crate::members::coordinator("bad-offsets");
    use m::offset_commit_request as oc;
    let commit = |topic: &str, partition: i32, member: &str, generation: i32| {
        let offset =
            oc::OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(1);
        let topic = oc::OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![offset]);
        m::OffsetCommitRequest::default()
            .with_group_id(m::GroupId(text("bad-offsets")))
            .with_member_id(text(member))
            .with_generation_id_or_member_epoch(generation)
            .with_topics(vec![topic])
    };
    cluster().create("offsets", 1);
    for (what, request, code) in [
        ("an unknown topic", commit("no-such-topic", 0, "", -1), 3),
        ("a name that no topic may have", commit(&"x".repeat(30_000), 0, "", -1), 3),
        ("an unknown partition", commit("offsets", 7, "", -1), 3),
        ("a generation of no group", commit("offsets", 0, "nobody", 1), 22),
        ("an offset of a group without members", commit("offsets", 0, "", -1), 0),
        ("a name without a generation", commit("offsets", 0, "nobody", -1), 0),
        ("a member that is none", commit("offsets", 0, "nobody", 1), 25),
    ] {
        let response = wire.ask(8, &request);
        assert_eq!(response.topics[0].partitions[0].error_code, code, "{what}");
    }
    let stranger = commit("offsets", 0, "nobody", 1).with_group_id(m::GroupId(text("never-seen")));
    for (version, code) in [(8, 22), (9, 69)] {
        let response = crate::members::coordinator("never-seen").ask(version, &stranger);
        assert_eq!(response.topics[0].partitions[0].error_code, code, "no group, version {version}");
    }
    let nameless = m::JoinGroupRequest::default().with_session_timeout_ms(10_000).with_rebalance_timeout_ms(1_000);
    assert_eq!(wire.ask(5, &nameless).error_code, 24, "a group without a name");
}
