//! Coordinators die, hand over and come back: no committed offset goes back, and no member
//! that is alive is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_tests::sim::{SimCluster, broker_name};

use crate::stage::{Seen, member, observe, power_off, produce, run};

const RECORDS: u32 = 1_500;
const LIMIT: Duration = Duration::from_secs(300);

/// A cluster in which three members read what is produced for 45 seconds.
fn start(seed: u64) -> (SimCluster, turmoil::Sim<'static>, Arc<Seen>) {
    let (cluster, seen) = (SimCluster::new(3, seed), Arc::<Seen>::default());
    let mut sim = cluster.start();
    let pause = Duration::from_millis(30);
    sim.client("producer", produce(cluster.clone(), Arc::clone(&seen), RECORDS, pause));
    for n in 1..=3 {
        sim.client(format!("member-{n}"), member(cluster.clone(), Arc::clone(&seen), n + 10, None));
    }
    sim.client("observer", observe(cluster.clone(), Arc::clone(&seen), RECORDS));
    (cluster, sim, seen)
}

/// What must hold in the end. `settled`: the generation before the first fault.
fn judge(seen: &Seen, settled: Option<i32>) {
    assert_eq!(seen.read_count(), RECORDS as usize, "every record is read");
    assert_eq!(seen.lost.load(Ordering::Relaxed), 0, "the group never went on without a member that is alive");
    assert!(settled.is_some());
    assert_eq!(seen.last_generation(), settled, "a coordinator that moves disturbs nobody");
    assert_eq!(seen.repeated(), [], "without a rebalance nothing is read twice");
}

fn power_goes(seed: u64) {
    let (cluster, sim, seen) = start(seed);
    let at = |broker, seconds| (broker, Duration::from_secs(seconds));
    let times = vec![at(1, 20), at(2, 30), at(3, 40)];
    let mut faults = power_off(&cluster, times, Duration::from_secs(5));
    let mut settled = None;
    run(&cluster, sim, LIMIT, |sim| {
        if sim.elapsed() < Duration::from_secs(20) {
            settled = seen.last_generation();
        }
        faults(sim);
    });
    judge(&seen, settled);
}

#[test]
fn every_broker_loses_its_power_once() {
    for seed in 0..4 {
        power_goes(seed);
    }
}

#[test]
fn every_broker_is_restarted_well() {
    let (cluster, sim, seen) = start(11);
    let (mut settled, mut next) = (None, 1);
    run(&cluster, sim, LIMIT, |sim| {
        let at = Duration::from_secs(10 + 10 * u64::from(next));
        if sim.elapsed() < Duration::from_secs(20) {
            settled = seen.last_generation();
        }
        if next <= 3 && sim.elapsed() >= at {
            cluster.drain(next);
            next += 1;
        }
        for broker in 1..next {
            if !sim.is_host_running(broker_name(broker)) {
                sim.bounce(broker_name(broker));
            }
        }
    });
    judge(&seen, settled);
}

#[test]
fn clocks_that_jump_end_no_session() {
    let (cluster, sim, seen) = start(23);
    let (mut settled, mut jumped) = (None, false);
    run(&cluster, sim, LIMIT, |sim| {
        if sim.elapsed() < Duration::from_secs(20) {
            settled = seen.last_generation();
        } else if !jumped {
            jumped = true;
            for broker in 1..=3 {
                cluster.jump(&broker_name(broker), 3_600_000 * (i64::from(broker) - 2));
            }
        }
    });
    judge(&seen, settled);
}
