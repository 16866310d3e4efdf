//! A real ensemble that fails: servers killed, partitions, nobody there at first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::time::Duration;

use baton_registry::testing::proxy::Proxy;
use baton_registry::testing::server::{Ensemble, Version};
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use baton_registry::{CreateMode, Event, Registry, RegistryError, SessionState};
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(servers: impl Into<String>) -> ZooKeeperRegistry {
    let mut config = ZooKeeperConfig::new(servers);
    config.session_timeout = Duration::from_secs(4);
    ZooKeeperRegistry::start(config).unwrap()
}

async fn create(zk: &dyn Registry, path: &str) -> Result<(), RegistryError> {
    zk.create(path, Bytes::new(), CreateMode::Persistent).await.map(|_| ())
}

async fn insist(zk: &dyn Registry, path: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match create(zk, path).await {
            Ok(()) | Err(RegistryError::NodeExists(_)) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The leader of three is killed: no acknowledged write is lost, the session goes on, the watch
/// is reset, and what failed says that it is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_the_ensemble_dies() {
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    let mut ensemble = Ensemble::start(&class_path, 3).await.unwrap();
    let zk = start(ensemble.connection_string());
    let session = zk.connected(PATIENCE).await.unwrap();
    create(&zk, "/k").await.unwrap();
    let mut watch = zk.watch("/k", true).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Reset));
    zk.create("/k/e", Bytes::new(), CreateMode::Ephemeral).await.unwrap();

    let leader = ensemble.leader().unwrap();
    let paths: Vec<String> = (0..3000).map(|n| format!("/k/n{n:04}")).collect();
    let creates: Vec<_> = paths.iter().map(|path| create(&zk, path)).collect();
    ensemble.kill(leader);
    let results = join_all(creates).await;
    let began = Instant::now();
    insist(&zk, "/k/after").await;
    eprintln!("ensemble: writes again {:?} after the last one failed", began.elapsed());
    let there = zk.children("/k").await.unwrap();
    let mut acknowledged = 0;
    for (path, result) in paths.iter().zip(&results) {
        match result {
            Ok(()) => {
                let name = path.trim_start_matches("/k/").to_owned();
                assert!(there.contains(&name), "{path} was acknowledged and is lost");
                acknowledged += 1;
            }
            Err(error) => assert!(error.outcome_unknown(), "{error}"),
        }
    }
    eprintln!("ensemble: {acknowledged} of 3000 acknowledged, {} there", there.len());
    assert_eq!(zk.session_id(), Some(session));
    assert!(zk.exists("/k/e").await.unwrap().is_some(), "the session was lost");
    let mut reset = false;
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), watch.next()).await {
        reset |= event == Event::Reset;
    }
    assert!(reset, "no reset after the reconnection");

    // Closing leaves nothing behind, at once.
    let other = start(ensemble.connection_string());
    other.connected(PATIENCE).await.unwrap();
    zk.close().await;
    other.sync("/k").await.unwrap();
    assert!(other.exists("/k/e").await.unwrap().is_none(), "close did not wait for the end");
    other.close().await;
}

/// A silent partition: calls end by their deadlines, the session is over on the server, and a
/// new one comes by itself when the network is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_partition_ends_the_session_and_a_new_one_comes() {
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    let ensemble = Ensemble::start(&class_path, 1).await.unwrap();
    let observer = start(ensemble.connection_string());
    let proxy = Proxy::start(ensemble.addresses()[0]).await.unwrap();
    let zk = start(proxy.address().to_string());
    let before = zk.connected(PATIENCE).await.unwrap();
    zk.create("/e", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    proxy.hold_all(true);
    let began = Instant::now();
    let lost = create(&zk, "/lost").await;
    assert!(lost.as_ref().is_err_and(RegistryError::outcome_unknown), "{lost:?}");
    assert!(began.elapsed() < Duration::from_millis(4500), "{:?}", began.elapsed());
    while observer.exists("/e").await.unwrap().is_some() {
        assert!(began.elapsed() < PATIENCE, "the session does not end");
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("ensemble: the server dropped the ephemeral after {:?}", began.elapsed());
    proxy.hold_all(false);
    let mut states = zk.session();
    let renewed = |state: &SessionState| matches!(state, SessionState::Connected(s) if *s != before);
    timeout(PATIENCE, states.wait_for(renewed)).await.unwrap().unwrap();
    eprintln!("ensemble: a new session after {:?}", began.elapsed());
    insist(&zk, "/again").await;
}

/// Nobody answers at first: calls fail by their deadlines, and everything works when somebody
/// does. Closing does not wait for a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_answers_at_first() {
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    let mut ensemble = Ensemble::start(&class_path, 1).await.unwrap();
    ensemble.kill(0);
    let zk = start(ensemble.connection_string());
    let early = create(&zk, "/early").await;
    assert!(early.is_err_and(|e| e.outcome_unknown()));
    assert!(zk.connected(Duration::from_millis(100)).await.is_err());
    assert_eq!(zk.session_id(), None);
    let never = start(ensemble.connection_string());
    let began = Instant::now();
    never.close().await;
    assert!(began.elapsed() < Duration::from_secs(1), "closing waited for a server");
    assert_eq!(*never.session().borrow(), SessionState::Closed);
    ensemble.restart().await.unwrap();
    zk.connected(PATIENCE).await.unwrap();
    assert!(zk.exists("/early").await.unwrap().is_none(), "a call was made after its deadline");
    create(&zk, "/late").await.unwrap();
    zk.close().await;
}
