//! What administrators ask for.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use baton_core::event::EventKind;
use baton_core::{BrokerId, Epoch, ErrorCode, Generation, TopicPartition};
use baton_proto::v1;
use baton_proto::v1::admin_server::Admin as _;
use baton_registry::recipes::{tombstones, topics};
use tonic::Request;

use super::harness::{
    Cluster, brokers_of, code, create, created, creation, delete, eventually, eventually_so, reassign,
};
use crate::daemon::plan::fixtures::member;

#[tokio::test(start_paused = true)]
async fn a_topic_is_created_led_and_recorded() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    let reply = create(&coordinator, creation("t", 12)).await;
    assert_eq!((reply.error, reply.partitions, reply.replication), (None, 12, 3));
    let states = cluster.states("t").await;
    assert_eq!(states.len(), 12);
    for state in &states {
        assert_eq!(state.leader.unwrap().broker, state.assignment.replicas[0], "the preferred one leads");
        assert_eq!(state.isr.len(), 3);
        assert!(state.isr.iter().all(|m| *m == member(m.broker.0)));
    }
    cluster.assert_whole().await;
    eventually("it is recorded", || cluster.recorded(EventKind::TopicCreated).len() == 2).await;
    let event = &cluster.recorded(EventKind::TopicCreated)[1];
    assert_eq!((event.topic.as_deref(), event.who.as_str()), (Some("t"), "tester"));
    assert_eq!(cluster.recorded(EventKind::CoordinatorElected).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_partitions_are_created_and_led() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "big", 1_000).await;
    let states = cluster.states("big").await;
    assert_eq!(states.iter().filter(|state| state.leader.is_some()).count(), 1_000);
    assert_eq!(delete(&coordinator, "big").await.error, None);
    cluster.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn bad_requests_change_nothing() {
    let cluster = Cluster::start(2).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "there", 1).await;
    let rows = [
        (creation("", 1), ErrorCode::InvalidTopicName),
        (creation("..", 1), ErrorCode::InvalidTopicName),
        (creation("__events2", 1), ErrorCode::InvalidTopicName),
        (creation("there", 1), ErrorCode::TopicExists),
        (creation("t", 0), ErrorCode::InvalidPartitions),
        (creation("t", 1_000_000), ErrorCode::InvalidPartitions),
        (v1::CreateTopicRequest { replication: Some(3), ..creation("t", 1) }, ErrorCode::InvalidReplication),
        (
            v1::CreateTopicRequest {
                config: [("min.insync.replicas".to_owned(), "3".to_owned())].into(),
                ..creation("t", 1)
            },
            ErrorCode::InvalidConfig,
        ),
    ];
    let before = topics::list(&cluster.observer).await.unwrap();
    for (request, expected) in rows {
        let reply = create(&coordinator, request.clone()).await;
        assert_eq!(code(reply.error.as_ref()), Some(expected), "{request:?}");
    }
    let validated = create(&coordinator, v1::CreateTopicRequest { validate_only: true, ..creation("v", 7) }).await;
    assert_eq!((validated.error, validated.partitions, validated.replication), (None, 7, 2));
    assert_eq!(code(delete(&coordinator, "nope").await.error.as_ref()), Some(ErrorCode::UnknownTopic));
    assert_eq!(code(delete(&coordinator, "__events").await.error.as_ref()), Some(ErrorCode::InvalidTopicName));
    // Who may alter the groups' topic may lose the groups.
    let set = [("retention.ms".to_owned(), "1000".to_owned())].into();
    let altered = v1::AlterTopicRequest { name: "__events".to_owned(), set, ..Default::default() };
    let altered = coordinator.admin().alter_topic(Request::new(altered)).await.unwrap().into_inner();
    assert_eq!(code(altered.error.as_ref()), Some(ErrorCode::InvalidTopicName));
    assert_eq!(topics::list(&cluster.observer).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_leads_stays_and_the_answer_says_how_many_are_led() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    for id in 1..=3 {
        // They stay registered, and elect nobody.
        cluster.ensemble.set_linked(&format!("broker-{id}"), false);
    }
    let reply = create(&coordinator, v1::CreateTopicRequest { timeout_ms: 1_000, ..creation("t", 5) }).await;
    let error = reply.error.unwrap();
    assert_eq!(code(Some(&error)), Some(ErrorCode::RequestTimedOut));
    assert!(error.cause.contains("0 of its 5"), "{}", error.cause);
    assert_eq!(cluster.states("t").await.len(), 5);
    cluster.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_a_tombstone_and_its_name() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 3).await;
    assert_eq!(delete(&coordinator, "t").await.error, None);
    let graves = tombstones::list(&cluster.observer).await.unwrap();
    assert_eq!(graves.len(), 1);
    assert_eq!(graves[0].1.brokers, [BrokerId(1), BrokerId(2), BrokerId(3)]);
    created(&coordinator, "t", 2).await;
    assert_eq!(cluster.states("t").await.len(), 2);
    cluster.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_altered() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 1).await;
    let alter = async |key: &str, value: &str| {
        let set = [(key.to_owned(), value.to_owned())].into();
        let request = v1::AlterTopicRequest { name: "t".to_owned(), set, ..Default::default() };
        let reply = coordinator.admin().alter_topic(Request::new(request)).await.unwrap().into_inner();
        code(reply.error.as_ref())
    };
    assert_eq!(alter("max.message.bytes", "2000").await, None);
    assert_eq!(alter("max.message.bytes", "2000").await, None, "again");
    assert_eq!(alter("min.insync.replicas", "4").await, Some(ErrorCode::InvalidConfig));
    assert_eq!(alter("nope", "1").await, Some(ErrorCode::InvalidConfig));
    let all = topics::list(&cluster.observer).await.unwrap();
    let topic = all.iter().find(|topic| topic.node.name == "t").unwrap();
    assert_eq!(topic.node.config, BTreeMap::from([("max.message.bytes".to_owned(), "2000".to_owned())]));
}

#[tokio::test(start_paused = true)]
async fn partitions_are_added_unless_keys_would_move() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 2).await;
    let add = async |total: u32, accept_moved_keys: bool| {
        let name = "t".to_owned();
        let request = v1::AddPartitionsRequest { name, total, accept_moved_keys, ..Default::default() };
        let reply = coordinator.admin().add_partitions(Request::new(request)).await.unwrap().into_inner();
        (code(reply.error.as_ref()), reply.partitions)
    };
    assert_eq!(add(4, false).await, (None, 4), "it has no records");
    cluster.calls.with_records.lock().unwrap().insert("t".to_owned());
    assert_eq!(add(6, false).await.0, Some(ErrorCode::KeysWouldMove));
    assert_eq!(add(6, true).await, (None, 6));
    for total in [0, 3, 6] {
        assert_eq!(add(total, true).await.0, Some(ErrorCode::InvalidPartitions), "{total}");
    }
    assert!(cluster.states("t").await.iter().all(|state| state.leader.is_some()));
    cluster.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_reassigned_once_at_a_time() {
    let cluster = Cluster::start(4).await;
    let coordinator = cluster.active("c1").await;
    let brokers = |list: &[u32]| v1::ReplicaList { brokers: list.to_vec() };
    let request = v1::CreateTopicRequest { assignment: vec![brokers(&[1, 2, 3])], ..creation("t", 1) };
    assert_eq!(create(&coordinator, request).await.error, None);
    let rows = [
        ("t", 0, &[1, 2, 9][..], ErrorCode::UnknownBroker),
        ("t", 0, &[1, 1, 2], ErrorCode::InvalidRequest),
        ("t", 7, &[1, 2, 3], ErrorCode::UnknownPartition),
        ("nope", 0, &[1, 2, 3], ErrorCode::UnknownTopic),
    ];
    for (topic, partition, replicas, expected) in rows {
        let error = reassign(&coordinator, topic, partition, replicas).await;
        assert_eq!(code(error.as_ref()), Some(expected), "{topic} {partition} {replicas:?}");
    }
    for broker in cluster.brokers.values() {
        broker.copying.store(false, Ordering::Relaxed);
    }
    assert_eq!(reassign(&coordinator, "t", 0, &[4, 2, 3]).await, None);
    assert_eq!(reassign(&coordinator, "t", 0, &[4, 2, 3]).await, None, "a repeated request");
    let other = reassign(&coordinator, "t", 0, &[4, 1]).await;
    assert_eq!(code(other.as_ref()), Some(ErrorCode::ReassignmentInProgress));
    assert_eq!(reassign(&coordinator, "t", 0, &[]).await, None, "called off");
    for broker in cluster.brokers.values() {
        broker.copying.store(true, Ordering::Relaxed);
    }
    let replicas = async || brokers_of(&cluster.states("t").await[0]);
    eventually_so("back where it was", async || replicas().await == [2, 3, 1]).await;
    assert_eq!(reassign(&coordinator, "t", 0, &[4, 2, 3]).await, None);
    eventually_so("it moved", async || replicas().await == [4, 2, 3]).await;
    eventually("it is recorded", || !cluster.recorded(EventKind::ReassignmentFinished).is_empty()).await;
    assert_eq!(cluster.recorded(EventKind::Reassigned).len(), 2);
    assert_eq!(cluster.recorded(EventKind::ReassignmentCancelled).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_to_the_preferred_leader() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    let list = v1::ReplicaList { brokers: vec![1, 2, 3] };
    create(&coordinator, v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) }).await;
    let elect = async || {
        let request = v1::ElectPreferredRequest { topic: "t".to_owned(), ..Default::default() };
        code(coordinator.admin().elect_preferred(Request::new(request)).await.unwrap().into_inner().error.as_ref())
    };
    assert_eq!(elect().await, None, "it leads already");
    assert_eq!(reassign(&coordinator, "t", 0, &[2, 1, 3]).await, None);
    assert_eq!(elect().await, None);
    assert_eq!(cluster.states("t").await[0].leader.unwrap().broker, BrokerId(2));
    assert_eq!(cluster.calls.resignations.lock().unwrap().len(), 1);
    // A leader that cannot yet is asked again.
    assert_eq!(reassign(&coordinator, "t", 0, &[3, 1, 2]).await, None);
    cluster.calls.passed_over.store(2, Ordering::Relaxed);
    assert_eq!(elect().await, None);
    assert_eq!(cluster.states("t").await[0].leader.unwrap().broker, BrokerId(3));
    assert_eq!(cluster.calls.resignations.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unclean_election_needs_consent_fences_and_is_recorded() {
    let mut cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    let list = v1::ReplicaList { brokers: vec![1, 2, 3] };
    create(&coordinator, v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) }).await;
    let before = cluster.states("t").await.remove(0);
    cluster.kill_broker(1);
    let elect = async |broker: u32, accept_data_loss: bool| {
        let topic = "t".to_owned();
        let request = v1::ElectUncleanRequest { topic, broker, accept_data_loss, ..Default::default() };
        code(coordinator.admin().elect_unclean(Request::new(request)).await.unwrap().into_inner().error.as_ref())
    };
    assert_eq!(elect(3, false).await, Some(ErrorCode::InvalidRequest));
    assert_eq!(elect(9, true).await, Some(ErrorCode::UnknownBroker));
    eventually("its end is seen", || {
        coordinator.shared().view.read(|snapshot| !snapshot.brokers.contains_key(&BrokerId(1)))
    })
    .await;
    assert_eq!(elect(1, true).await, Some(ErrorCode::UnknownBroker), "it is not alive");
    assert_eq!(elect(3, true).await, None);
    let state = cluster.states("t").await.remove(0);
    assert!(state.last_unclean_epoch > before.epoch);
    assert_eq!(state.isr.len(), 1);
    assert_eq!((state.isr[0].broker, state.isr[0].generation), (BrokerId(3), Generation(4)));
    let fenced = cluster.calls.fenced.lock().unwrap().clone();
    assert_eq!(fenced.iter().map(|(peer, _)| peer.as_str()).collect::<Vec<_>>(), ["b2:1", "b3:1"]);
    assert!(fenced.iter().all(|(_, epoch)| *epoch >= before.epoch && *epoch < state.epoch.max(Epoch(1))));
    eventually("it is recorded", || !cluster.recorded(EventKind::UncleanElection).is_empty()).await;
    let event = &cluster.recorded(EventKind::UncleanElection)[0];
    assert!(event.result.ends_with("reached: 1"), "{}", event.result);
}

/// Whoever is elected between the fence and the write was not fenced: what it acknowledged since
/// is not given up with what the operator saw.
#[tokio::test(start_paused = true)]
async fn an_unclean_election_gives_way_to_one_that_came_before_it() {
    let mut cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    let list = v1::ReplicaList { brokers: vec![1, 2, 3] };
    create(&coordinator, v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) }).await;
    cluster.kill_broker(1);
    let elect = async || {
        let (topic, broker, accept_data_loss) = ("t".to_owned(), 3, true);
        let request = v1::ElectUncleanRequest { topic, broker, accept_data_loss, ..Default::default() };
        code(coordinator.admin().elect_unclean(Request::new(request)).await.unwrap().into_inner().error.as_ref())
    };
    let topic = coordinator.shared().view.read(|snapshot| snapshot.topic("t").unwrap().id);
    *cluster.calls.elected_meanwhile.lock().unwrap() = Some(TopicPartition { topic, partition: 0 });
    assert_eq!(elect().await, Some(ErrorCode::FencedEpoch));
    assert_eq!(cluster.states("t").await[0].last_unclean_epoch, Epoch(0));
    assert_eq!(elect().await, None);
    assert_eq!(cluster.states("t").await[0].isr.len(), 1);
}
