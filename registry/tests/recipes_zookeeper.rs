//! The recipes on real ZooKeeper servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use baton_registry::testing::recipes;
use baton_registry::testing::server::{Ensemble, Version};
use baton_registry::testing::zookeeper::ZooKeeperBench;

async fn check(version: Version, servers: usize) {
    let Some(class_path) = version.class_path_or_skip() else { return };
    let ensemble = Ensemble::start(&class_path, servers).await.unwrap();
    recipes::run(&ZooKeeperBench::new(ensemble, "/baton")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipes_work_on_zookeeper_3_8() {
    check(Version::V3_8, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipes_work_on_an_ensemble_of_zookeeper_3_9() {
    check(Version::V3_9, 3).await;
}
