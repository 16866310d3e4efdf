//! How long a partition is away for a producer of Kafka's when the broker that leads it dies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::producer::{Sending, Told};
use crate::stage::{Stage, eventually};

const TOPIC: &str = "payments";
const PARTITIONS: i32 = 12;
const EVERY: Duration = Duration::from_millis(10);

/// Until clients have found a broker that was away.
const FOUND_AGAIN: Duration = Duration::from_secs(10);

/// The longest time without an acknowledgement of the worst partition.
fn worst_gap(told: &[Told], from: Instant, to: Instant) -> Duration {
    let mut last: BTreeMap<i32, Instant> = (0..PARTITIONS).map(|partition| (partition, from)).collect();
    let mut worst = Duration::ZERO;
    for told in told.iter().filter(|told| told.at >= from && told.at < to) {
        if let Some(before) = last.insert(told.partition, told.at) {
            worst = worst.max(told.at.duration_since(before));
        }
    }
    last.values().map(|before| to.duration_since(*before)).fold(worst, Duration::max)
}

/// The gap of the worst partition in each round, sorted; none where there is no ZooKeeper.
fn rounds(count: u32) -> Option<Vec<Duration>> {
    let stage = Stage::start()?;
    stage.create(TOPIC, PARTITIONS);
    let sending = Sending::start(stage.config(), TOPIC, PARTITIONS, EVERY);
    eventually("every partition acknowledges", || {
        let told = sending.told();
        (0..PARTITIONS).all(|partition| told.iter().any(|told| told.partition == partition))
    });
    let mut gaps = Vec::new();
    for round in 0..count {
        let broker = round % 3 + 1;
        std::thread::sleep(Duration::from_secs(2));
        let from = Instant::now();
        stage.kill(broker);
        std::thread::sleep(Duration::from_secs(4));
        gaps.push(worst_gap(&sending.told(), from, Instant::now()));
        stage.restart(broker);
        std::thread::sleep(FOUND_AGAIN);
        stage.spread_leaders(TOPIC, PARTITIONS.unsigned_abs());
    }
    let _ = sending.finish();
    gaps.sort();
    Some(gaps)
}

#[test]
fn a_producer_runs_through_the_death_of_each_broker() {
    let Some(gaps) = rounds(3) else { return };
    println!("the worst partition was away for {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(4)), "{gaps:?}");
}

#[test]
#[ignore = "a measurement"]
fn outages_of_twenty_rounds() {
    let Some(gaps) = rounds(20) else { return };
    println!("the worst partition: median {:?}, worst {:?}; {gaps:?}", gaps[gaps.len() / 2], gaps.last());
}
