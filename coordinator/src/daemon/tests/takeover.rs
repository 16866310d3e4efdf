//! One coordinator dies, is cut off, or is paused; the other goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_core::ErrorCode;
use baton_core::event::EventKind;
use baton_registry::{CreateMode, Registry};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::harness::{
    Cluster, brokers_of, code, create, created, creation, delete, eventually, eventually_so, reassign, settled,
};
use crate::daemon::admin as verbs;
use crate::daemon::plan::create::Creation;

/// The writes of creating or deleting a topic of 200 partitions, with a few to spare.
const WRITES_MAX: usize = 14;

#[tokio::test(start_paused = true)]
async fn one_works_and_the_other_names_it() {
    let cluster = Cluster::start(3).await;
    let first = cluster.active("c1").await;
    let second = cluster.coordinator("c2").await;
    sleep(Duration::from_secs(5)).await;
    assert!(first.is_active() && !second.is_active());
    let error = create(&second, creation("t", 1)).await.error.unwrap();
    assert_eq!(code(Some(&error)), Some(ErrorCode::NoCoordinator));
    assert!(error.retriable && error.cause.contains("c1 at 127.0.0.1:7450"), "{}", error.cause);
    let stopped = Instant::now();
    first.stop().await;
    settled(&second).await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    created(&second, "t", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_cut_off_anywhere_is_finished_by_the_other() {
    for writes in 0..WRITES_MAX {
        let cluster = Cluster::start(3).await;
        let first = cluster.active("c1").await;
        let second = cluster.coordinator("c2").await;
        eventually_so("the history is there", async || cluster.states("__events").await.len() == 1).await;
        sleep(Duration::from_millis(100)).await;
        cluster.faults.cut_after("c1", writes);
        let asked = timeout(Duration::from_secs(2), create(&first, creation("t", 200))).await;
        drop(first);
        settled(&second).await;
        let there = cluster.states("t").await.len();
        assert!(there == 200 || (there == 0 && writes == 0), "{there} partitions after {writes} writes");
        if let Ok(reply) = asked
            && reply.error.is_none()
        {
            assert_eq!(there, 200, "it was promised");
        }
        cluster.assert_whole().await;
        if there > 0 {
            eventually_so("all are led", async || cluster.states("t").await.iter().all(|state| state.leader.is_some()))
                .await;
            let again = create(&second, creation("t", 200)).await;
            assert_eq!(code(again.error.as_ref()), Some(ErrorCode::TopicExists));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_cut_off_anywhere_is_finished_by_the_other() {
    for writes in 0..WRITES_MAX {
        let cluster = Cluster::start(3).await;
        let first = cluster.active("c1").await;
        let second = cluster.coordinator("c2").await;
        created(&first, "t", 200).await;
        sleep(Duration::from_millis(100)).await;
        cluster.faults.cut_after("c1", writes);
        let _ = timeout(Duration::from_secs(2), delete(&first, "t")).await;
        drop(first);
        settled(&second).await;
        let there = cluster.states("t").await.len();
        assert!(there == 0 || (there == 200 && writes == 0), "{there} partitions after {writes} writes");
        cluster.assert_whole().await;
        if there == 0 {
            let again = delete(&second, "t").await;
            assert_eq!(code(again.error.as_ref()), Some(ErrorCode::UnknownTopic));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_growth_cut_off_is_finished_by_the_other() {
    use baton_proto::v1::admin_server::Admin as _;
    for writes in 0..6 {
        let cluster = Cluster::start(3).await;
        let first = cluster.active("c1").await;
        let second = cluster.coordinator("c2").await;
        created(&first, "t", 10).await;
        sleep(Duration::from_millis(100)).await;
        cluster.faults.cut_after("c1", writes);
        let request = baton_proto::v1::AddPartitionsRequest { name: "t".to_owned(), total: 120, ..Default::default() };
        let admin = first.admin();
        let _ = timeout(Duration::from_secs(2), admin.add_partitions(tonic::Request::new(request))).await;
        drop(first);
        drop(admin);
        settled(&second).await;
        let there = cluster.states("t").await.len();
        assert!(there == 120 || (there == 10 && writes == 0), "{there} partitions after {writes} writes");
        cluster.assert_whole().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reassignment_outlives_its_coordinator() {
    let cluster = Cluster::start(4).await;
    let first = cluster.active("c1").await;
    let second = cluster.coordinator("c2").await;
    let list = baton_proto::v1::ReplicaList { brokers: vec![1, 2, 3] };
    let request = baton_proto::v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) };
    assert_eq!(create(&first, request).await.error, None);
    for broker in cluster.brokers.values() {
        broker.copying.store(false, Ordering::Relaxed);
    }
    assert_eq!(reassign(&first, "t", 0, &[1, 2, 4]).await, None);
    drop(first);
    settled(&second).await;
    let other = reassign(&second, "t", 0, &[1, 4]).await;
    assert_eq!(code(other.as_ref()), Some(ErrorCode::ReassignmentInProgress));
    for broker in cluster.brokers.values() {
        broker.copying.store(true, Ordering::Relaxed);
    }
    eventually_so("it is finished", async || brokers_of(&cluster.states("t").await[0]) == [1, 2, 4]).await;
    eventually("the other records it", || !cluster.recorded(EventKind::ReassignmentFinished).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_coordinator_that_wakes_up_cannot_write() {
    let cluster = Cluster::start(3).await;
    let first = cluster.active("c1").await;
    let old = first.active().await.unwrap();
    created(&first, "t", 3).await;
    cluster.ensemble.set_linked("c1", false);
    cluster.ensemble.expire_client("c1");
    let second = cluster.active("c2").await;
    let before = cluster.ensemble.dump();
    cluster.ensemble.set_linked("c1", true);
    // What it was about to do when it was paused.
    let wanted = Creation { name: "zombie".to_owned(), ..Creation::default() };
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = verbs::create(&old, &wanted, "tester", deadline).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::FencedCoordinator, "{error}");
    assert!(cluster.states("zombie").await.is_empty());
    assert!(second.is_active());
    let topics_of =
        |dump: &str| dump.lines().filter(|line| line.contains("/t/")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(topics_of(&cluster.ensemble.dump()), topics_of(&before));
    eventually("the old one stands by", || !first.is_active()).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_registry_is_away_it_says_so_and_goes_on_afterwards() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    cluster.ensemble.stop();
    let request = baton_proto::v1::CreateTopicRequest { timeout_ms: 3_000, ..creation("t", 3) };
    let error = create(&coordinator, request).await.error.unwrap();
    let retriable = [ErrorCode::RegistryUnavailable, ErrorCode::RequestTimedOut, ErrorCode::NoCoordinator];
    assert!(retriable.contains(&code(Some(&error)).unwrap()) && error.retriable, "{error:?}");
    cluster.ensemble.start();
    settled(&coordinator).await;
    let reply = create(&coordinator, creation("t", 3)).await;
    // The lost attempt may have been carried out after all.
    assert!(matches!(code(reply.error.as_ref()), None | Some(ErrorCode::TopicExists)), "{reply:?}");
    eventually_so("it is led", async || {
        let states = cluster.states("t").await;
        states.len() == 3 && states.iter().all(|state| state.leader.is_some())
    })
    .await;
    cluster.assert_whole().await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_waits_for_a_registry_that_is_not_there_yet() {
    let cluster = Cluster::start(3).await;
    cluster.ensemble.stop();
    let coordinator = cluster.coordinator("c1").await;
    sleep(Duration::from_secs(60)).await;
    assert!(!coordinator.is_active());
    let error = create(&coordinator, creation("t", 1)).await.error.unwrap();
    assert_eq!(code(Some(&error)), Some(ErrorCode::NoCoordinator));
    cluster.ensemble.start();
    settled(&coordinator).await;
    created(&coordinator, "t", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_during_a_change_of_coordinators_is_recorded_by_the_new_one() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.active("c1").await;
    let second = cluster.coordinator("c2").await;
    let list = baton_proto::v1::ReplicaList { brokers: vec![1, 2, 3] };
    let request = baton_proto::v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) };
    assert_eq!(create(&first, request).await.error, None);
    sleep(Duration::from_secs(20)).await;
    let before = cluster.recorded(EventKind::LeaderMoved).len();
    // One machine dies with a coordinator and a broker on it.
    drop(first);
    cluster.kill_broker(1);
    settled(&second).await;
    eventually("the new one records it", || cluster.recorded(EventKind::LeaderMoved).len() > before).await;
    eventually("and who is gone", || !cluster.recorded(EventKind::BrokerGone).is_empty()).await;
    assert!(cluster.observer.exists("/absent/1").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_cannot_be_finished_holds_nobody_up() {
    let cluster = Cluster::start(3).await;
    let first = cluster.active("c1").await;
    created(&first, "t", 3).await;
    created(&first, "u", 3).await;
    let id = first.shared().view.read(|snapshot| snapshot.topic("t").unwrap().id);
    let junk = format!("/p/{id}/junk");
    cluster.observer.create(&junk, Bytes::new(), CreateMode::Persistent).await.unwrap();
    let refused = delete(&first, "t").await;
    assert!(refused.error.is_some(), "{refused:?}");
    first.stop().await;
    let second = cluster.active("c2").await;
    created(&second, "v", 3).await;
    assert_eq!(delete(&second, "u").await.error, None);
    cluster.observer.delete(&junk, None).await.unwrap();
    eventually_so("it is finished in the end", async || {
        cluster.observer.exists(&format!("/t/{id}")).await.unwrap().is_none()
    })
    .await;
}
