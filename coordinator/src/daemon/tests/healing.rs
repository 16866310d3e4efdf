//! What the coordinator does by itself.

use std::time::Duration;

use baton_core::BrokerId;
use baton_core::event::EventKind;
use baton_registry::Registry;
use tokio::time::{Instant, sleep};

use super::harness::{Cluster, brokers_of, create, created, creation, eventually, eventually_so, settled};

/// Long after any reassignment is due.
const VERY_LONG: Duration = Duration::from_secs(3_600);

fn holds(states: &[baton_core::partition::PartitionState], broker: u32) -> bool {
    states.iter().any(|state| brokers_of(state).contains(&broker))
}

#[tokio::test(start_paused = true)]
async fn copies_of_a_broker_that_stays_away_get_new_homes_and_stay_there() {
    let mut cluster = Cluster::start(4).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 120).await;
    cluster.kill_broker(3);
    let died = Instant::now();
    sleep(Duration::from_secs(590)).await;
    assert!(holds(&cluster.states("t").await, 3), "too early");
    eventually_so("everything moved", async || !holds(&cluster.states("t").await, 3)).await;
    assert!(died.elapsed() < Duration::from_secs(660), "{:?}", died.elapsed());
    for state in cluster.states("t").await {
        assert_eq!(state.assignment.replicas.len(), 3);
        assert!(state.assignment.adding.is_empty() && state.assignment.removing.is_empty());
    }
    assert!(cluster.observer.exists("/absent/3").await.unwrap().is_some());
    cluster.start_broker(3).await;
    eventually_so("it is not away any more", async || cluster.observer.exists("/absent/3").await.unwrap().is_none())
        .await;
    sleep(VERY_LONG).await;
    assert!(!holds(&cluster.states("t").await, 3), "what moved stays moved");
    assert_eq!(cluster.recorded(EventKind::BrokerGone).len(), 1);
    eventually("its return is recorded", || cluster.recorded(EventKind::BrokerBack).len() == 1).await;
    assert_eq!(cluster.recorded(EventKind::BrokerBack)[0].broker, Some(BrokerId(3)));
    assert!(!cluster.recorded(EventKind::Reassigned).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_in_time_keeps_its_copies() {
    let mut cluster = Cluster::start(4).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 12).await;
    for _ in 0..3 {
        cluster.kill_broker(3);
        sleep(Duration::from_secs(300)).await;
        cluster.start_broker(3).await;
        sleep(Duration::from_secs(300)).await;
    }
    let states = cluster.states("t").await;
    assert!(holds(&states, 3));
    assert_eq!(cluster.recorded(EventKind::Reassigned).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_coordinator_goes_on_counting_an_absence() {
    let mut cluster = Cluster::start(4).await;
    let first = cluster.active("c1").await;
    created(&first, "t", 12).await;
    cluster.kill_broker(3);
    let died = Instant::now();
    sleep(Duration::from_secs(360)).await;
    first.stop().await;
    let second = cluster.active("c2").await;
    sleep(Duration::from_secs(230)).await;
    assert!(holds(&cluster.states("t").await, 3), "too early");
    eventually_so("everything moved", async || !holds(&cluster.states("t").await, 3)).await;
    let waited = died.elapsed();
    assert!(waited > Duration::from_secs(595) && waited < Duration::from_secs(660), "{waited:?}");
    drop(second);
}

/// Clocks are set; what this coordinator saw with its own eyes is not.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_does_not_make_an_absence_old() {
    let mut cluster = Cluster::start(4).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 12).await;
    cluster.kill_broker(3);
    eventually_so("it is noted", async || cluster.observer.exists("/absent/3").await.unwrap().is_some()).await;
    cluster.clock.set_skew_ms(VERY_LONG.as_millis().try_into().unwrap());
    sleep(Duration::from_secs(50)).await;
    assert!(holds(&cluster.states("t").await, 3), "it has been away for a minute at most");
    cluster.start_broker(3).await;
    sleep(Duration::from_secs(600)).await;
    assert!(holds(&cluster.states("t").await, 3));
    assert_eq!(cluster.recorded(EventKind::Reassigned).len(), 0);
    drop(coordinator);
}

#[tokio::test(start_paused = true)]
async fn without_room_copies_stay_and_that_is_said_once() {
    let mut cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 12).await;
    cluster.kill_broker(3);
    sleep(VERY_LONG).await;
    let states = cluster.states("t").await;
    assert!(states.iter().all(|state| brokers_of(state).len() == 3 && brokers_of(state).contains(&3)));
    let said = cluster.recorded(EventKind::NoRoom);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].broker, Some(BrokerId(3)));
    // A new broker is room.
    cluster.start_broker(4).await;
    eventually_so("everything moved", async || !holds(&cluster.states("t").await, 3)).await;
    drop(coordinator);
}

#[tokio::test(start_paused = true)]
async fn the_history_is_made_with_what_is_there_and_grows() {
    let mut cluster = Cluster::start(1).await;
    let coordinator = cluster.active("c1").await;
    sleep(Duration::from_secs(3)).await;
    assert!(cluster.states("__events").await.is_empty(), "others may come");
    eventually_so("it is made for one", async || cluster.states("__events").await.len() == 1).await;
    assert_eq!(cluster.states("__events").await[0].isr.len(), 1);
    cluster.start_broker(2).await;
    cluster.start_broker(3).await;
    eventually_so("it has three copies", async || cluster.states("__events").await[0].isr.len() == 3).await;
    let view = &coordinator.shared().view;
    let min_insync = || view.read(|snapshot| snapshot.min_insync_of(snapshot.topic("__events").unwrap().id));
    eventually("two have to be in sync", || min_insync() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn with_three_brokers_the_history_is_made_at_once() {
    let cluster = Cluster::start(3).await;
    let started = Instant::now();
    let coordinator = cluster.active("c1").await;
    eventually_so("it is there", async || cluster.states("__events").await.len() == 1).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(cluster.states("__events").await[0].isr.len(), 3);
    drop(coordinator);
}

#[tokio::test(start_paused = true)]
async fn leaders_hand_over_when_the_preferred_one_has_been_back_for_a_while() {
    let cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    let list = baton_proto::v1::ReplicaList { brokers: vec![1, 2, 3] };
    let request = baton_proto::v1::CreateTopicRequest { assignment: vec![list], ..creation("t", 1) };
    assert_eq!(create(&coordinator, request).await.error, None);
    let leader = async || cluster.states("t").await[0].leader.map(|leader| leader.broker);
    // The order of the replicas changes who is preferred, and not who leads.
    assert_eq!(super::harness::reassign(&coordinator, "t", 0, &[2, 1, 3]).await, None);
    sleep(Duration::from_secs(55)).await;
    assert_eq!(leader().await, Some(BrokerId(1)));
    eventually_so("it handed over", async || leader().await == Some(BrokerId(2))).await;
    // Once moved, it stays for five minutes, whatever is preferred.
    assert_eq!(super::harness::reassign(&coordinator, "t", 0, &[3, 2, 1]).await, None);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(leader().await, Some(BrokerId(2)));
    eventually_so("it handed over", async || leader().await == Some(BrokerId(3))).await;
}

#[tokio::test(start_paused = true)]
async fn the_death_of_a_broker_with_many_partitions_does_not_drown_the_history() {
    let mut cluster = Cluster::start(3).await;
    let coordinator = cluster.active("c1").await;
    created(&coordinator, "t", 600).await;
    sleep(Duration::from_secs(5)).await;
    let before = cluster.history().len();
    cluster.kill_broker(1);
    eventually_so("all are led again", async || {
        let states = cluster.states("t").await;
        states.iter().all(|state| state.leader.is_some_and(|leader| leader.broker != BrokerId(1)))
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    let events = &cluster.history()[before..];
    assert!(events.iter().any(|event| event.kind == EventKind::LeaderMoved));
    assert!(events.len() < 400, "{} events", events.len());
    settled(&coordinator).await;
}
