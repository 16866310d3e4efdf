//! The in-memory ensemble beside a real server: the same random transactions, the same answers,
//! the same trees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use baton_registry::memory::MemoryEnsemble;
use baton_registry::testing::server::{Ensemble, Version};
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use baton_registry::{CreateMode, MultiError, Op, OpResult, Registry, RegistryError, SessionId};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ROUNDS: usize = 1500;

type Answer = Result<Vec<OpResult>, (Option<usize>, Discriminant<RegistryError>)>;

fn answer(result: Result<Vec<OpResult>, MultiError>) -> Answer {
    result.map_err(|failed| (failed.index, discriminant(&failed.error)))
}

fn random_op(random: &mut StdRng) -> Op {
    const PATHS: [&str; 7] = ["/a", "/b", "/a/b", "/a/b/c", "/a-b", "/b/x", "/c"];
    let path = PATHS[random.random_range(0..PATHS.len())].to_owned();
    // −1 stands for any.
    let version = random.random_bool(0.3).then(|| random.random_range(-1..3));
    let data = Bytes::from(vec![b'x'; random.random_range(0..3)]);
    match random.random_range(0..10) {
        0..3 => Op::Create { path, data, mode: CreateMode::Persistent },
        3 => Op::Create { path, data, mode: CreateMode::Ephemeral },
        4 => Op::Create { path, data, mode: CreateMode::EphemeralSequential },
        5 => Op::Check { path, version },
        6 | 7 => Op::Set { path, data, version },
        _ => Op::Delete { path, version },
    }
}

/// Every node below the root: path, data, version, children, whether this session owns it.
async fn tree(registry: &dyn Registry) -> Vec<(String, Bytes, i32, i32, Option<bool>)> {
    let mut found = Vec::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        for name in registry.children(&path).await.unwrap() {
            open.push(if path == "/" { format!("/{name}") } else { format!("{path}/{name}") });
        }
        let (data, stat) = registry.get(&path).await.unwrap();
        let mine = (stat.ephemeral_owner != SessionId(0)).then(|| Some(stat.ephemeral_owner) == registry.session_id());
        found.push((path, data, stat.version, stat.num_children, mine));
    }
    found
}

async fn connect(ensemble: &Ensemble) -> ZooKeeperRegistry {
    let servers = format!("{}/differential", ensemble.connection_string());
    let registry = ZooKeeperRegistry::start(ZooKeeperConfig::new(servers)).unwrap();
    registry.connected(Duration::from_secs(30)).await.unwrap();
    registry
}

async fn compare(version: Version) {
    let Some(class_path) = version.class_path_or_skip() else { return };
    let ensemble = Ensemble::start(&class_path, 1).await.unwrap();
    let memory = MemoryEnsemble::new();
    let mut real = [connect(&ensemble).await, connect(&ensemble).await];
    let mut model = [memory.connect("0"), memory.connect("1")];
    let mut random = StdRng::seed_from_u64(7);
    let mut done = 0;
    for round in 0..ROUNDS {
        let client = random.random_range(0..2);
        if random.random_bool(0.02) {
            real[client].close().await;
            model[client].close().await;
            real[client] = connect(&ensemble).await;
            model[client] = memory.connect(&client.to_string());
            real[1 - client].sync("/").await.unwrap();
        } else {
            let ops: Vec<Op> = (0..random.random_range(1..4)).map(|_| random_op(&mut random)).collect();
            let expected = answer(real[client].multi(ops.clone()).await);
            let got = answer(model[client].multi(ops.clone()).await);
            assert_eq!(got, expected, "round {round}: {ops:?}");
            done += usize::from(got.is_ok());
        }
        let (expected, got) = (tree(&real[client]).await, tree(&model[client]).await);
        assert_eq!(got, expected, "round {round}");
    }
    eprintln!("differential: {done} of {ROUNDS} transactions took effect, all alike");
    assert!(done > ROUNDS / 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_answers_as_zookeeper_3_8() {
    compare(Version::V3_8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_answers_as_zookeeper_3_9() {
    compare(Version::V3_9).await;
}
