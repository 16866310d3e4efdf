//! The registry's contract on real ZooKeeper servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use baton_registry::testing::contract;
use baton_registry::testing::server::{Ensemble, Version};
use baton_registry::testing::zookeeper::ZooKeeperBench;

async fn check(version: Version) {
    let Some(class_path) = version.class_path_or_skip() else { return };
    let ensemble = Ensemble::start(&class_path, 1).await.unwrap();
    contract::run(&ZooKeeperBench::new(ensemble, "/baton/contract")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_3_8_keeps_the_contract() {
    check(Version::V3_8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_3_9_keeps_the_contract() {
    check(Version::V3_9).await;
}
