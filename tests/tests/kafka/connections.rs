//! What many connections cost: memory, and the latency of those that are busy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};

use crate::wire::{Wire, batch, cluster, produce, topic_name};

const HELD: usize = 2_000;
const ACTIVE: usize = 200;
/// Requests of all active connections together.
const PER_SECOND: usize = 400;
const FOR: Duration = Duration::from_secs(15);

/// Resident memory of this process (the brokers and the connections' other ends), in MB.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_000
}

/// Produces at the same rate over all of them together; the times, sorted.
fn produce_on(wires: &mut [Wire], topic: &str) -> Vec<Duration> {
    let pause = Duration::from_secs(1) * u32::try_from(wires.len()).unwrap() / u32::try_from(PER_SECOND).unwrap();
    let stop = AtomicBool::new(false);
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let running: Vec<_> = wires
            .iter_mut()
            .enumerate()
            .map(|(n, wire)| {
                let stop = &stop;
                scope.spawn(move || {
                    let request = produce(topic, Some(batch(&["x"])), -1);
                    let mut times = Vec::new();
                    std::thread::sleep(pause * u32::try_from(n).unwrap() / u32::try_from(ACTIVE).unwrap());
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let answer = wire.ask(9, &request);
                        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
                        times.push(asked.elapsed());
                        std::thread::sleep(pause.saturating_sub(asked.elapsed()));
                    }
                    times
                })
            })
            .collect();
        std::thread::sleep(FOR);
        stop.store(true, Ordering::Relaxed);
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    times.sort();
    times
}

#[test]
#[ignore = "a measurement"]
fn two_thousand_connections() {
    cluster().create("busy", 1);
    let leader = cluster().leader("busy", 0).0.address();
    let mut few: Vec<Wire> = (0..10).map(|_| Wire::connect(&leader)).collect();
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let median = |times: &[Duration]| times[times.len() / 2];
    produce_on(&mut few, "busy");
    let idle = resident_mb();
    let with_few = produce_on(&mut few, "busy");
    let mut held: Vec<Wire> = (0..HELD).map(|_| Wire::connect(&leader)).collect();
    let with_many = produce_on(&mut held[..ACTIVE], "busy");
    let held_mb = resident_mb() - idle;
    let bar = p99(&with_few) * 2;
    println!(
        "10 connections: median {:?}, p99 {:?}; {ACTIVE} busy of {HELD}: median {:?}, p99 {:?}; {held_mb} MB more",
        median(&with_few),
        p99(&with_few),
        median(&with_many),
        p99(&with_many),
    );
    assert!(held_mb < 200, "{held_mb} MB for {HELD} connections");
    assert!(p99(&with_many) < bar, "{:?} is not below {bar:?}", p99(&with_many));
}

/// A hundred readers ask for 16 MiB each, and take none of it.
#[test]
#[ignore = "a measurement"]
fn answers_that_nobody_takes() {
    const READERS: usize = 100;
    cluster().create("unread", 1);
    let (mut leader, _) = cluster().leader("unread", 0);
    let value = "x".repeat(900 << 10);
    for _ in 0..24 {
        assert_eq!(leader.produce(9, "unread", batch(&[&value])).0, 0);
    }
    let address = leader.address();
    let before = resident_mb();
    let mut readers: Vec<Wire> = (0..READERS).map(|_| Wire::connect(&address)).collect();
    let partition = FetchPartition::default().with_fetch_offset(0).with_partition_max_bytes(16 << 20);
    let topic = FetchTopic::default().with_topic(topic_name("unread")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_min_bytes(1)
        .with_max_bytes(16 << 20)
        .with_topics(vec![topic]);
    for reader in &mut readers {
        reader.send(11, &request, &[]);
    }
    std::thread::sleep(Duration::from_secs(3));
    let held = resident_mb().saturating_sub(before);
    let began = Instant::now();
    let answer = Wire::connect(&address).ask(11, &request);
    let bytes = answer.responses[0].partitions[0].records.as_ref().map_or(0, |records| records.len());
    println!("{READERS} unread answers: {held} MB; another reader gets {bytes} bytes within {:?}", began.elapsed());
    assert!(bytes > 0);
}
