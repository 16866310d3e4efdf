//! Seeded walks of whole worlds.

use std::collections::BTreeMap;

use super::world::{Anomaly, Mode, World};
use crate::transaction::message::Protocol;

/// `BATON_STEPS` makes the walks longer, `BATON_SEEDS` lets there be more of them.
const STEPS: u64 = 1_200;

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn walk(seed: u64, mode: Mode) -> World {
    let mut world = World::new(seed, mode);
    for _ in 0..set("BATON_STEPS").unwrap_or(STEPS) {
        world.step();
    }
    world.finish();
    world
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    set("BATON_SEED").map_or(0..set("BATON_SEEDS").unwrap_or(count), |seed| seed..seed + 1)
}

/// Walks of many seeds, in which nothing but `expected` may be found.
fn check(name: &str, count: u64, mode: Mode, expected: &[Anomaly]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds(count) {
        let outcome = std::panic::catch_unwind(|| {
            let world = walk(seed, mode);
            let bad: Vec<_> = world.anomalies().iter().filter(|(anomaly, _)| !expected.contains(anomaly)).collect();
            assert!(bad.is_empty(), "{bad:#?}");
            world.counts().clone()
        });
        let Ok(here) = outcome else { panic!("BATON_SEED={seed} cargo test -p baton-core {name}") };
        here.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    println!("{name}: {counts:?}");
    if seeds(count).count() > 100 {
        for what in ["committed", "aborted", "coordinator fails over", "partition fails over", "epochs are used up"] {
            assert!(counts.contains_key(what), "no walk reached {what:?}: {counts:?}");
        }
    }
}

/// Some walk finds this.
fn finds(anomaly: Anomaly, count: u64, mode: Mode) {
    let found = (0..set("BATON_SEEDS").unwrap_or(count))
        .find_map(|seed| Some((seed, walk(seed, mode).anomalies().get(&anomaly)?.clone())));
    println!("{mode:?}: {anomaly:?} by seed and cause {found:?}");
    assert!(found.is_some(), "{count} walks in {mode:?} did not find {anomaly:?}");
}

#[test]
fn the_second_protocol_keeps_every_promise() {
    check("the_second_protocol_keeps_every_promise", 3_000, Mode::of(Protocol::Second), &[]);
}

/// Late batches and late requests of old clients look like those of their next transaction:
/// so it is with Kafka, and why there is a second protocol. Nothing hangs, though.
#[test]
fn the_first_protocol_never_hangs() {
    let expected = [Anomaly::Torn, Anomaly::Strayed];
    check("the_first_protocol_never_hangs", 1_500, Mode::of(Protocol::First), &expected);
}

#[test]
fn the_first_protocol_tears_transactions() {
    finds(Anomaly::Torn, 1_000, Mode::of(Protocol::First));
    finds(Anomaly::Strayed, 1_000, Mode::of(Protocol::First));
}

#[test]
fn without_verification_transactions_hang() {
    for protocol in [Protocol::First, Protocol::Second] {
        let mode = Mode { verifies: false, ..Mode::of(protocol) };
        finds(Anomaly::Hanging, 1_000, mode);
        finds(Anomaly::Torn, 1_000, mode);
        finds(Anomaly::Unfenced, 1_000, mode);
    }
}

#[test]
fn a_late_marker_would_end_the_next_transaction() {
    finds(Anomaly::Torn, 3_000, Mode { strict_markers: false, ..Mode::of(Protocol::Second) });
}
