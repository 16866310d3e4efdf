//! Names, places and counts that cannot be; frames that are too large; the wrong broker.

use baton_client::admin::TopicSpec;
use baton_core::ErrorCode;
use baton_core::batch::Codec;
use baton_proto::v1::{self, list_offsets_partition::At};
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Cluster, Ledger, Options, shared};
use crate::raw;

fn record() -> Bytes {
    raw::batch(b"x", 1_000, Codec::None)
}

#[test]
fn unknown_topic() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "unknown-topic");
    let address = cluster.address(1, "grpc");
    cluster.run(async {
        let (code, name) = (ErrorCode::UnknownTopic, "no-such-topic");
        let place = (name, None);
        raw::check(raw::produce(&address, name, 0, record()).await.error.as_ref(), code, place);
        // A fetch names the place that was asked for.
        raw::check(raw::fetch(&address, name, 0, 0).await.error.as_ref(), code, (name, Some(0)));
        raw::check(raw::list_offsets(&address, name, 0, At::End(true)).await.error.as_ref(), code, place);
        raw::check(raw::metadata(&address, name).await.error.as_ref(), code, place);
        let error = ledger.client().admin().delete_topic(name).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let spec = [("min.insync.replicas".to_owned(), "1".to_owned())].into();
        let error = ledger.client().admin().alter_topic(name, spec, Vec::new()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    });
    ledger.settle(cluster);
}

#[test]
fn unknown_partition() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "unknown-partition");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        let (code, name) = (ErrorCode::UnknownPartition, "unknown-partition");
        for partition in [1, u32::MAX] {
            let place = (name, Some(partition));
            raw::check(raw::produce(&address, name, partition, record()).await.error.as_ref(), code, place);
            raw::check(raw::fetch(&address, name, partition, 0).await.error.as_ref(), code, place);
            raw::check(raw::list_offsets(&address, name, partition, At::End(true)).await.error.as_ref(), code, place);
        }
    });
    ledger.settle(cluster);
}

/// A name that is refused when a topic is to be made, and when something is produced to it.
#[track_caller]
fn refused_name(test: &str, name: &str) {
    let cluster = shared();
    let ledger = Ledger::open(cluster, test);
    let address = cluster.address(1, "grpc");
    cluster.run(async {
        let request = v1::CreateTopicRequest { name: name.to_owned(), timeout_ms: 10_000, ..Default::default() };
        let error = raw::create_topic(&address, request).await.expect("a refusal");
        assert_eq!(error.code, ErrorCode::InvalidTopicName.number(), "{error:?}");
        assert!(!error.cause.is_empty() && !error.retriable && error.next_step.contains("249"), "{error:?}");
        let error = raw::produce(&address, name, 0, record()).await.error.expect("a refusal");
        assert_eq!(error.code, ErrorCode::InvalidTopicName.number(), "{error:?}");
    });
    let topics = cluster.run(ledger.client().admin().topics(true)).unwrap();
    assert!(topics.iter().all(|topic| topic.name != name), "the topic was made");
    ledger.settle(cluster);
}

#[test]
fn topic_name_empty() {
    refused_name("topic-name-empty", "");
}

#[test]
fn topic_name_dot() {
    refused_name("topic-name-dot", ".");
}

#[test]
fn topic_name_two_dots() {
    refused_name("topic-name-two-dots", "..");
}

#[test]
fn topic_name_internal() {
    refused_name("topic-name-internal", "__mine");
    refused_name("topic-name-internal-2", "__");
}

#[test]
fn topic_name_too_long() {
    refused_name("topic-name-too-long", &"a".repeat(250));
    let cluster = shared();
    let longest = Ledger::open(cluster, &"a".repeat(249));
    longest.settle(cluster);
}

#[test]
fn topic_name_bad_characters() {
    for (n, name) in ["a b", "a/b", "ä", "a:b", "a\0", "a\nb", "💥"].into_iter().enumerate() {
        refused_name(&format!("topic-name-bad-characters-{n}"), name);
    }
}

#[test]
fn replication_above_live_brokers() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "replication");
    let address = cluster.address(2, "grpc");
    cluster.run(async {
        for replication in [4, u32::MAX] {
            let name = "replicated-too-often".to_owned();
            let request = v1::CreateTopicRequest { name, replication: Some(replication), ..Default::default() };
            let error = raw::create_topic(&address, request).await;
            raw::check(error.as_ref(), ErrorCode::InvalidReplication, ("replicated-too-often", None));
            assert!(error.unwrap().cause.contains('3'), "it says how many brokers live");
        }
        let name = "not-replicated".to_owned();
        let request = v1::CreateTopicRequest { name, replication: Some(0), ..Default::default() };
        let error = raw::create_topic(&address, request).await;
        raw::check(error.as_ref(), ErrorCode::InvalidReplication, ("not-replicated", None));
    });
    ledger.settle(cluster);
}

#[test]
fn min_insync_above_replication() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "min-insync");
    let address = cluster.address(3, "grpc");
    cluster.run(async {
        let config = [("min.insync.replicas".to_owned(), "3".to_owned())].into();
        let request =
            v1::CreateTopicRequest { name: "strict".to_owned(), replication: Some(2), config, ..Default::default() };
        let error = raw::create_topic(&address, request).await;
        raw::check(error.as_ref(), ErrorCode::InvalidConfig, ("strict", None));
        let set = [("min.insync.replicas".to_owned(), "4".to_owned())].into();
        let error = ledger.client().admin().alter_topic("min-insync", set, Vec::new()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
    });
    ledger.settle(cluster);
}

#[test]
fn fetch_beyond_the_end() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "fetch-beyond");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        for offset in [6, i64::MAX] {
            let result = raw::fetch(&address, "fetch-beyond", 0, offset).await;
            raw::check(result.error.as_ref(), ErrorCode::OffsetOutOfRange, ("fetch-beyond", Some(0)));
            assert_eq!((result.log_start, result.high_watermark), (0, 5), "the answer says what there is");
        }
        let end = raw::fetch(&address, "fetch-beyond", 0, 5).await;
        assert!(end.error.is_none() && end.batches.is_empty(), "the end itself is no error: {end:?}");
    });
    ledger.settle(cluster);
}

#[test]
fn fetch_negative() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "fetch-negative");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        for offset in [-1, i64::MIN] {
            let result = raw::fetch(&address, "fetch-negative", 0, offset).await;
            raw::check(result.error.as_ref(), ErrorCode::OffsetOutOfRange, ("fetch-negative", Some(0)));
        }
    });
    ledger.settle(cluster);
}

#[test]
fn frame_over_the_limit() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "frame");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        let large = Bytes::from(vec![0; 17 << 20]);
        let status = raw::produce_as_is(&address, raw::produce_request("frame", 0, large)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        for words in ["FRAME_TOO_LARGE", "16777216", "send less"] {
            assert!(status.message().contains(words), "{status:?}");
        }
        let request = v1::FetchRequest { client_id: "c".repeat(17 << 20), ..raw::fetch_request("frame", 0, 0) };
        let mut client = raw::broker(&address).await;
        let status = client.fetch(request).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        // The connection is as good as before.
        let answer = client.fetch(raw::fetch_request("frame", 0, 0)).await.unwrap().into_inner();
        assert!(answer.results[0].error.is_none(), "{answer:?}");
        // The broker takes what its coordinator does not: that one is not lost because of it.
        let config = [("a".repeat(5 << 20), String::new())].into();
        let request = v1::CreateTopicRequest { name: "large".to_owned(), config, ..Default::default() };
        let error = raw::create_topic(&address, request).await.expect("a refusal");
        assert_eq!(error.code, ErrorCode::FrameTooLarge.number(), "{} {}", error.name, error.cause);
    });
    ledger.settle(cluster);
}

/// What is well-formed and against the protocol.
#[test]
fn produce_against_the_protocol() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "protocol");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        let nothing = v1::ProduceRequest { correlation: 1, ..Default::default() };
        let status = raw::produce_as_is(&address, nothing).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let mut empty = raw::produce_request("protocol", 0, Bytes::new());
        empty.partitions[0].payload = None;
        let answer = raw::produce_as_is(&address, empty).await.unwrap();
        raw::check(answer.results[0].error.as_ref(), ErrorCode::InvalidRequest, ("protocol", Some(0)));
        let no_records = v1::ProducePartition {
            topic: "protocol".to_owned(),
            partition: 0,
            payload: Some(v1::produce_partition::Payload::Records(v1::Records::default())),
        };
        let request = v1::ProduceRequest { correlation: 1, partitions: vec![no_records], ..Default::default() };
        let answer = raw::produce_as_is(&address, request).await.unwrap();
        raw::check(answer.results[0].error.as_ref(), ErrorCode::InvalidBatch, ("protocol", Some(0)));
        let undecided = v1::ListOffsetsPartition { topic: "protocol".to_owned(), partition: 0, at: None };
        let request = v1::ListOffsetsRequest { partitions: vec![undecided] };
        let answer = raw::broker(&address).await.list_offsets(request).await.unwrap().into_inner();
        raw::check(answer.results[0].error.as_ref(), ErrorCode::InvalidRequest, ("protocol", Some(0)));
    });
    ledger.settle(cluster);
}

#[test]
fn not_the_leader() {
    let cluster = shared();
    let ledger = Ledger::open(cluster, "not-the-leader");
    let (leader, partition, _) = cluster.leader(&ledger.topic);
    let follower = cluster.address(leader % 3 + 1, "grpc");
    let leads = cluster.address(leader, "grpc");
    cluster.run(async {
        let place = ("not-the-leader", Some(0));
        let produced = raw::produce(&follower, place.0, 0, record()).await.error;
        let fetched = raw::fetch(&follower, place.0, 0, 0).await.error;
        let listed = raw::list_offsets(&follower, place.0, 0, At::End(true)).await.error;
        for error in [produced, fetched, listed] {
            raw::check(error.as_ref(), ErrorCode::NotLeader, place);
            let error = error.unwrap();
            assert_eq!(error.epoch, Some(partition.epoch), "{error:?}");
            let named = error.leader.expect("the answer names the leader");
            assert_eq!((named.broker, named.endpoint.as_str()), (leader, leads.as_str()));
        }
    });
    ledger.settle(cluster);
}

#[test]
fn fetch_below_the_start() {
    use baton_broker::log::Log;
    use baton_broker::log::fjall::{DataDirectory, FjallLog, FjallOptions};
    use std::sync::Arc;

    let cluster = Cluster::start(Options { brokers: 1, ..Options::default() });
    let ledger = Ledger::open_with(&cluster, TopicSpec::new("fetch-below").partitions(1).replication(1));
    let (_, _, id) = cluster.leader("fetch-below");
    cluster.stop(1);
    // As if retention had removed the first two records.
    let directory = Arc::new(DataDirectory::lock(&cluster.broker_dir(1)).unwrap());
    let identity = directory.identity().unwrap().clone();
    let log = FjallLog::open(directory, identity.cluster, identity.broker, FjallOptions::default()).unwrap();
    let partition = log.recovered().into_values().find(|found| found.id.topic == id).unwrap().partition;
    cluster.run(log.set_start(partition, baton_core::Offset(2), None)).unwrap();
    cluster.run(log.close()).unwrap();
    drop(log);
    cluster.start_broker(1);
    cluster.wait_ready();
    let address = cluster.leader_address("fetch-below");
    cluster.run(async {
        let result = raw::fetch(&address, "fetch-below", 0, 1).await;
        raw::check(result.error.as_ref(), ErrorCode::OffsetOutOfRange, ("fetch-below", Some(0)));
        assert_eq!((result.log_start, result.high_watermark), (2, 5), "the answer says what there is");
        let result = raw::fetch(&address, "fetch-below", 0, 2).await;
        assert!(result.error.is_none() && !result.batches.is_empty(), "{result:?}");
    });
    drop(ledger);
    Ledger::open_with(&cluster, TopicSpec::new("after").partitions(1).replication(1)).settle(&cluster);
}
