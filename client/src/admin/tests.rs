use std::{collections::BTreeMap, time::Duration};

use baton_core::{BrokerId, ErrorCode, Offset};
use tokio::time::timeout;

use crate::{
    Admin, Client, ClientConfig, ProducerConfig, Record,
    admin::{At, TopicSpec},
    fake::Cluster,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn cluster(brokers: u32) -> (Cluster, Client, Admin) {
    let cluster = Cluster::start(brokers).await.unwrap();
    let config = ClientConfig { bootstrap: cluster.bootstrap(), seed: Some(7), ..ClientConfig::default() };
    let client = Client::connect(config).await.unwrap();
    let admin = client.admin();
    (cluster, client, admin)
}

#[tokio::test]
async fn a_topic_is_made_listed_altered_grown_and_deleted() {
    let (_cluster, _client, admin) = cluster(3).await;
    let made = admin.create_topic(TopicSpec::new("t").partitions(2).config("retention.ms", "1000")).await.unwrap();
    assert_eq!((made.partitions, made.replication, made.id.as_str()), (2, 3, "00000001"));
    let again = admin.create_topic(TopicSpec::new("t")).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::TopicExists);
    admin.create_topic(TopicSpec::new("a")).await.unwrap();
    let names: Vec<String> = admin.topics(false).await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "t"]);
    let set = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
    admin.alter_topic("t", set.clone(), vec!["retention.ms".to_owned()]).await.unwrap();
    assert_eq!(admin.describe_topic("t").await.unwrap().config, set);
    assert_eq!(admin.add_partitions("t", 5, false).await.unwrap().partitions, 5);
    assert_eq!(admin.describe_topic("t").await.unwrap().partitions.len(), 5);
    admin.delete_topic("t").await.unwrap();
    for error in [admin.describe_topic("t").await.unwrap_err(), admin.delete_topic("t").await.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::UnknownTopic);
    }
}

#[tokio::test]
async fn commands_wait_for_a_coordinator_and_go_round_dead_brokers() {
    let (cluster, _client, admin) = cluster(3).await;
    cluster.kill(1);
    cluster.kill(3);
    cluster.admin_faults([ErrorCode::NoCoordinator, ErrorCode::FencedCoordinator]);
    admin.create_topic(TopicSpec::new("t")).await.unwrap();
    cluster.kill(2);
    let error = timeout(PATIENCE, admin.create_topic(TopicSpec::new("u"))).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
}

/// A coordinator that was lost in the middle had begun it, and the next one finished it: that is
/// no failure. One that was never there had not.
#[tokio::test]
async fn what_a_lost_coordinator_had_begun_is_done_and_not_refused() {
    let (cluster, _client, admin) = cluster(3).await;
    cluster.create_topic("t", 3);
    cluster.admin_faults([ErrorCode::NoCoordinator]);
    let error = admin.create_topic(TopicSpec::new("t")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TopicExists);
    cluster.admin_faults([ErrorCode::FencedCoordinator]);
    assert_eq!(admin.create_topic(TopicSpec::new("t")).await.unwrap().partitions, 3);
    cluster.admin_faults([ErrorCode::NoCoordinator, ErrorCode::InvalidPartitions]);
    assert_eq!(admin.add_partitions("t", 3, true).await.unwrap_err().code(), ErrorCode::InvalidPartitions);
    cluster.admin_faults([ErrorCode::FencedCoordinator, ErrorCode::InvalidPartitions]);
    assert_eq!(admin.add_partitions("t", 3, true).await.unwrap().partitions, 3);
    cluster.admin_faults([ErrorCode::FencedCoordinator, ErrorCode::InvalidPartitions]);
    assert_eq!(admin.add_partitions("t", 2, true).await.unwrap_err().code(), ErrorCode::InvalidPartitions);
    cluster.admin_faults([ErrorCode::NoCoordinator]);
    assert_eq!(admin.delete_topic("u").await.unwrap_err().code(), ErrorCode::UnknownTopic);
    cluster.admin_faults([ErrorCode::FencedCoordinator]);
    admin.delete_topic("u").await.unwrap();
}

#[tokio::test]
async fn partitions_come_sorted_with_their_offsets_as_far_as_there_are_leaders() {
    let (cluster, client, admin) = cluster(3).await;
    cluster.create_topic("t", 3);
    let producer = client.producer(ProducerConfig::default());
    for n in 0..10 {
        let record = Record { timestamp_ms: Some(n), ..Record::new("v").partition(1) };
        let _ = producer.send("t", record).await.unwrap();
    }
    producer.flush().await.unwrap();
    cluster.lead("t", 2, None);
    let partitions = admin.partitions("t").await.unwrap();
    let ends: Vec<_> = partitions.iter().map(|p| (p.partition, p.high_watermark)).collect();
    assert_eq!(ends, [(0, Some(Offset(0))), (1, Some(Offset(10))), (2, None)]);
    assert_eq!(partitions[1].leader, Some(BrokerId(2)));
    let at = admin.offsets("t", &[0, 1], At::Time(4)).await.unwrap();
    assert_eq!(at, BTreeMap::from([(0, None), (1, Some(Offset(4)))]));
    let error = admin.offsets("t", &[7], At::End).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownPartition);
}

#[tokio::test]
async fn status_says_who_is_there() {
    let (cluster, _client, admin) = cluster(2).await;
    let status = admin.cluster_status().await.unwrap();
    assert!(status.healthy());
    cluster.kill(1);
    let status = admin.cluster_status().await.unwrap();
    assert!(!status.healthy());
    assert_eq!(status.brokers.iter().map(|b| b.state.as_str()).collect::<Vec<_>>(), ["absent", "live"]);
}

#[tokio::test]
async fn history_is_followed_across_a_broken_connection() {
    let (cluster, _client, admin) = cluster(2).await;
    for kind in ["a", "b"] {
        cluster.event(kind);
    }
    let mut past = admin.events(None, false);
    assert_eq!(past.next().await.unwrap().map(|event| event.kind), Some("a".to_owned()));
    assert_eq!(past.next().await.unwrap().map(|event| event.kind), Some("b".to_owned()));
    assert_eq!(past.next().await.unwrap(), None);
    let mut followed = admin.events(Some(1), true);
    assert_eq!(followed.next().await.unwrap().map(|event| event.kind), Some("b".to_owned()));
    cluster.kill(1);
    cluster.event("c");
    let next = timeout(PATIENCE, followed.next()).await.unwrap().unwrap();
    assert_eq!(next.map(|event| event.kind), Some("c".to_owned()));
}

#[tokio::test]
async fn unclean_elections_need_consent() {
    let (cluster, _client, admin) = cluster(1).await;
    cluster.create_topic("t", 1);
    let refused = admin.elect_unclean("t", 0, BrokerId(1), false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidRequest);
    admin.elect_unclean("t", 0, BrokerId(1), true).await.unwrap();
    admin.elect_preferred("t", 0).await.unwrap();
    admin.reassign("t", 0, &[BrokerId(1)]).await.unwrap();
}
