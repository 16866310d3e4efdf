//! Whole clusters, simulated: fixed seeds are clean, a seed gives the same run in every process,
//! and every planted bug is found by the seed that found it first.
//!
//! `BATON_SEED=n` replays one seed, `BATON_SEEDS=a..b` runs a range; `RUST_LOG` shows the inside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use baton_tests::sim::mutation::Planted;
use baton_tests::sim::process::Runner;
use baton_tests::sim::{Outcome, Plan, unreached};

/// Simulated seconds of load and faults.
const SECONDS: u64 = 60;

/// The seeds of the test run: about four minutes of one core.
const SEEDS: std::ops::Range<u64> = 1..241;

/// One for all tests: they run at the same time, and it builds a library.
fn runner() -> Runner {
    static RUNNER: LazyLock<Runner> = LazyLock::new(|| Runner::new(Path::new(env!("CARGO_BIN_EXE_simulate"))).unwrap());
    RUNNER.clone()
}

/// Seeds that failed once, whatever they are made of today.
const FAILED_BEFORE: &[u64] = &[300];

fn seeds() -> Vec<u64> {
    let parse = |text: &str| text.parse::<u64>().unwrap();
    match (std::env::var("BATON_SEED"), std::env::var("BATON_SEEDS")) {
        (Ok(seed), _) => vec![parse(&seed)],
        (_, Ok(range)) => {
            let (from, to) = range.split_once("..").unwrap();
            (parse(from)..parse(to)).collect()
        }
        _ => SEEDS.chain(FAILED_BEFORE.iter().copied()).collect(),
    }
}

/// Runs every seed, as many at a time as there are cores: each in a process of its own.
fn each(seeds: &[u64], judge: impl Fn(u64, Outcome) + Sync) {
    let next = AtomicUsize::new(0);
    let (runner, threads) = (runner(), std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    judge(*seed, runner.run(&Plan::of_seed(*seed, SECONDS), None).unwrap());
                }
            });
        }
    });
}

#[test]
fn fixed_seeds_are_clean() {
    let failed: Mutex<Vec<String>> = Mutex::default();
    let sum: Mutex<(f64, u64, usize)> = Mutex::default();
    let branches: Mutex<BTreeMap<String, u64>> = Mutex::default();
    each(&seeds(), |seed, outcome| {
        let mut sum = sum.lock().unwrap();
        sum.0 += outcome.simulated.as_secs_f64() / 3_600.0;
        sum.1 += outcome.operations;
        sum.2 += outcome.faults;
        let mut branches = branches.lock().unwrap();
        for (name, count) in &outcome.branches {
            *branches.entry(name.clone()).or_default() += count;
        }
        if let Some(first) = outcome.violations.first() {
            let replay = format!("BATON_SEED={seed} cargo test -p baton-tests --test simulation fixed_seeds");
            failed.lock().unwrap().push(format!("seed {seed}: {first}\n  replay: {replay}"));
        }
    });
    let (hours, operations, faults) = sum.into_inner().unwrap();
    println!("{hours:.2} simulated hours, {operations} operations, {faults} faults");
    let branches = branches.into_inner().unwrap();
    println!("never taken by these seeds: {:?}", unreached::surprising(&branches));
    for (name, why) in unreached::UNREACHABLE {
        println!("unreachable: {name}, because {why}");
    }
    let after_all = unreached::reached_after_all(&branches);
    assert!(after_all.is_empty(), "listed as unreachable, and taken: {after_all:?}");
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run_in_every_process() {
    let dir = tempfile::tempdir().unwrap();
    for seed in [3, 6, 8, 21] {
        let plan = Plan::of_seed(seed, 20);
        let [one, other] = ["one", "other"].map(|name| {
            let path = dir.path().join(format!("{name}-{seed}.jsonl"));
            let outcome = runner().run(&plan, Some(&path)).unwrap();
            (outcome.digest, outcome.branches, std::fs::read(path).unwrap())
        });
        assert!(one == other, "seed {seed}: {:016x} and {:016x}", one.0, other.0);
        assert!(one.2.len() > 10_000, "the history is empty");
    }
}

/// A failure can be looked into: the log does not change what happens.
#[test]
fn the_log_changes_nothing() {
    let plan = Plan::of_seed(8, 8);
    let [silent, telling] = ["off", "baton_broker=debug,baton_core=debug,baton_coordinator=debug"].map(|filter| {
        let outcome = runner().logging(filter).run(&plan, None).unwrap();
        (outcome.digest, outcome.branches)
    });
    assert!(silent == telling, "{:016x} and {:016x}", silent.0, telling.0);
}

include!("simulation/found.rs");

/// Without them the same seeds are clean: they are among those of the test above.
#[test]
fn every_planted_bug_is_found_by_its_seed() {
    let next = AtomicUsize::new(0);
    let missed: Mutex<Vec<&str>> = Mutex::default();
    let (runner, threads) = (runner(), std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((seed, mutation)) = FOUND.get(next.fetch_add(1, Ordering::Relaxed)) {
                    assert!(Planted::named(mutation).is_some(), "there is no {mutation}");
                    assert!(SEEDS.contains(seed), "seed {seed} is not run without {mutation}");
                    let plan = Plan { mutation: Some((*mutation).to_owned()), ..Plan::of_seed(*seed, SECONDS) };
                    if runner.run(&plan, None).unwrap().is_clean() {
                        missed.lock().unwrap().push(mutation);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
