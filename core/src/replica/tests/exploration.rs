//! Random walks through everything that can happen, from fixed seeds.
//!
//! `BATON_SEED=17 cargo test -p baton-core replica::tests::exploration::replay -- --nocapture`
//! prints what happened in one of them.

use std::collections::BTreeMap;

use crate::branches;
use crate::replica::Mutation;
use crate::replica::tests::checks::Checked;
use crate::replica::tests::cluster::Cluster;
use crate::replica::tests::rng::Rng;

pub const WALKS: u64 = 20_000;

/// What a walk is made of; derived from its seed.
pub fn cluster(seed: u64) -> Cluster {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let replicas = if rng.percent(15) { 2 } else { 3 };
    let min = 1 + rng.below(if replicas == 2 { 2 } else { 3 });
    Cluster::new(replicas, min, seed)
}

pub fn walk(cluster: &mut Cluster, seed: u64) -> Checked {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let (steps, faults) = (100 + rng.below(300), [2, 4, 8, 16][rng.below(4)]);
    for broker in cluster.brokers() {
        cluster.start(broker)?;
    }
    for broker in cluster.brokers() {
        for about in cluster.brokers().into_iter().filter(|b| *b != broker) {
            cluster.judge(broker, about, cluster.truth(broker, about))?;
        }
    }
    for _ in 0..steps {
        cluster.event(faults)?;
    }
    cluster.heal()?;
    cluster.settle()
}

pub fn violation(seed: u64, rule: Option<Mutation>) -> Option<String> {
    let run = || walk(&mut cluster(seed).without(rule), seed).err();
    std::panic::catch_unwind(run).unwrap_or_else(|_| Some("a panic".into()))
}

/// What the walks have to reach.
const BRANCHES: &[&str] = &[
    "append refused for space",
    "append of the high watermark",
    "append to catch up",
    "copy damaged",
    "copy emptied",
    "damage found while running",
    "disk replaced",
    "duplicate acknowledged",
    "elects: candidate gone",
    "elects: detector",
    "elects: no leader",
    "elects: own session",
    "hello accepted",
    "hello: fenced",
    "hello: not yet",
    "hello: restart",
    "ineligible candidate leaves",
    "isolated leader steps down",
    "isr grows",
    "isr member replaced",
    "isr shrinks",
    "isr written again",
    "link reset",
    "log start everywhere",
    "log start moved",
    "lost write takes effect late",
    "min changed",
    "reassignment settled",
    "resigned",
    "storage failed",
    "unclean choice",
    "write conflicts",
    "write done",
    "write of unknown outcome",
    "write refused",
];

/// The walks have no failure detector, and too few producers to forget any: tests of their own
/// reach these.
fn elsewhere(name: &str) -> bool {
    name.starts_with("detector.") || name.starts_with("producer.")
}

#[test]
fn walks() {
    branches::reset();
    let first: u64 = std::env::var("BATON_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("BATON_WALKS").ok().and_then(|s| s.parse().ok()).unwrap_or(WALKS);
    let mut coverage: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut found: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    for seed in first..first + count {
        let mut cluster = cluster(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk(&mut cluster, seed)));
        let result = result.unwrap_or_else(|_| Err("0: a panic".into()));
        for (what, times) in &cluster.coverage {
            *coverage.entry(what).or_default() += times;
        }
        if let Err(why) = result {
            let entry = found.entry(why.chars().take(9).collect()).or_insert((seed, 0, why));
            entry.1 += 1;
        }
    }
    let unnamed: Vec<_> = branches::unreached().into_iter().filter(|name| !elsewhere(name)).collect();
    println!("named branches never reached: {unnamed:#?}");
    let unreached: Vec<_> = BRANCHES.iter().filter(|b| !coverage.contains_key(*b)).collect();
    println!("{coverage:#?}");
    assert!(found.is_empty(), "replay with BATON_SEED=<seed> and the test `replay`: {found:#?}");
    assert!(unreached.is_empty() || count < WALKS, "never reached: {unreached:?}");
}

#[test]
fn replay() {
    let Some(seed) = std::env::var("BATON_SEED").ok().and_then(|s| s.parse().ok()) else {
        return;
    };
    let mut cluster = cluster(seed);
    cluster.trace = Some(Vec::new());
    let result = walk(&mut cluster, seed);
    for line in cluster.trace.iter().flatten() {
        println!("{line}");
    }
    result.unwrap();
}
