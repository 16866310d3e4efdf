//! Whole clusters under seeded faults: what was acknowledged is there, once, where it was
//! acknowledged, in the order of each producer; and when the faults end, everything goes on.
//!
//! `BATON_SEED=n` replays one seed, `BATON_SEEDS=a..b` runs a range; `RUST_LOG` shows the inside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_client::admin::TopicSpec;
use baton_client::{Client, ConsumerConfig, Delivery, ProducerConfig, Record, Start};
use baton_tests::sim::{COORDINATORS, SimCluster, Trace, broker_name, coordinator_name};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const BROKERS: u32 = 3;
const PARTITIONS: u32 = 4;
const PRODUCERS: u64 = 2;

/// Faults come for so long, then everything is mended.
const FAULTS: Duration = Duration::from_secs(30);

/// After the last fault, everything has to be delivered within this.
const MENDED_WITHIN: Duration = Duration::from_secs(60);

/// (partition, offset) of every acknowledged record, by its text.
type Acknowledged = Arc<Mutex<BTreeMap<String, (u32, u64)>>>;

async fn connect(cluster: &SimCluster, seed: u64) -> Client {
    loop {
        match cluster.client(seed).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn create_topic(client: &Client) {
    let spec = TopicSpec { partitions: Some(PARTITIONS), replication: Some(3), ..TopicSpec::new("orders") };
    while client.admin().create_topic(spec.clone()).await.is_err() {
        // It may be there from an attempt whose answer was late.
        if client.partitions("orders").await.is_ok_and(|n| n == PARTITIONS) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends to every partition in turn, many in flight, until the faults are over.
async fn produce(cluster: SimCluster, id: u64, acknowledged: Acknowledged) -> turmoil::Result {
    let client = connect(&cluster, 100 + id).await;
    if id == 0 {
        create_topic(&client).await;
    }
    while client.partitions("orders").await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let producer = client.producer(ProducerConfig::default());
    let mut waiting: Vec<(String, Delivery)> = Vec::new();
    let mut number = 0_u32;
    while turmoil::sim_elapsed().unwrap() < FAULTS + Duration::from_secs(5) {
        let partition = number % PARTITIONS;
        let text = format!("{id}/{partition}/{number}");
        let delivery = producer.send("orders", Record::new(text.clone()).partition(partition)).await?;
        waiting.push((text, delivery));
        number += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let deliveries = async {
        for (text, delivery) in waiting {
            let stored = delivery.await?;
            acknowledged.lock().unwrap().insert(text, (stored.partition, stored.offset.0));
        }
        Ok::<_, baton_client::ClientError>(())
    };
    tokio::time::timeout(MENDED_WITHIN, deliveries).await??;
    Ok(())
}

/// Reads everything and compares.
async fn check(cluster: SimCluster, acknowledged: Acknowledged, trace: Trace) -> turmoil::Result {
    let client = connect(&cluster, 7).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign_all("orders", Start::First).await?;
    let mut ends = BTreeMap::new();
    for partition in client.admin().partitions("orders").await? {
        ends.insert(partition.partition, partition.high_watermark.map_or(0, |end| end.0));
    }
    let mut found: BTreeMap<String, (u32, u64)> = BTreeMap::new();
    let mut last: BTreeMap<(String, u32), u32> = BTreeMap::new();
    while ends.iter().any(|(p, end)| consumer.position("orders", *p).is_none_or(|at| at.0 < *end)) {
        for record in consumer.poll(Duration::from_secs(5)).await? {
            let text = String::from_utf8(record.value.unwrap().to_vec())?;
            trace.note(format!("{} at {}/{}", text, record.partition, record.offset));
            let mut parts = text.split('/');
            let producer = parts.next().unwrap().to_owned();
            let number: u32 = parts.nth(1).unwrap().parse()?;
            let before = last.insert((producer, record.partition), number);
            assert!(before < Some(number), "{text} comes after {before:?}: reordered or stored twice");
            found.insert(text, (record.partition, record.offset.0));
        }
    }
    let acknowledged = acknowledged.lock().unwrap();
    assert!(!acknowledged.is_empty());
    for (text, place) in acknowledged.iter() {
        assert_eq!(found.get(text), Some(place), "{text} was acknowledged at {place:?}");
    }
    Ok(())
}

/// What a fault does, and what mends it.
#[derive(Debug)]
enum Fault {
    Crash(String),
    PowerOff(usize),
    Partition(String, String),
    OneWay(String, String),
    NoRegistry(String),
    Expire(String),
}

fn draw(rng: &mut StdRng) -> Fault {
    let broker = |rng: &mut StdRng| broker_name(rng.random_range(1..=BROKERS));
    let one = broker(rng);
    let other = loop {
        let other = broker(rng);
        if other != one {
            break other;
        }
    };
    match rng.random_range(0..7) {
        0 => Fault::Crash(coordinator_name(rng.random_range(1..=COORDINATORS))),
        1 | 2 => Fault::PowerOff(rng.random_range(0..BROKERS as usize)),
        3 => Fault::Partition(one, other),
        4 => Fault::OneWay(one, other),
        5 => Fault::NoRegistry(one),
        _ => Fault::Expire(one),
    }
}

fn strike(sim: &mut turmoil::Sim<'_>, cluster: &SimCluster, fault: &Fault) {
    match fault {
        Fault::Crash(host) => sim.crash(host.as_str()),
        Fault::PowerOff(index) => {
            cluster.disks[*index].power_off();
            sim.crash(broker_name(*index as u32 + 1));
        }
        Fault::Partition(a, b) => sim.partition(a.as_str(), b.as_str()),
        Fault::OneWay(a, b) => sim.partition_oneway(a.as_str(), b.as_str()),
        Fault::NoRegistry(name) => cluster.ensemble.set_linked(name, false),
        Fault::Expire(name) => cluster.ensemble.expire_client(name),
    }
}

fn mend(sim: &mut turmoil::Sim<'_>, cluster: &SimCluster, fault: &Fault) {
    match fault {
        Fault::Crash(host) => sim.bounce(host.as_str()),
        Fault::PowerOff(index) => sim.bounce(broker_name(*index as u32 + 1)),
        Fault::Partition(a, b) | Fault::OneWay(a, b) => sim.repair(a.as_str(), b.as_str()),
        Fault::NoRegistry(name) => cluster.ensemble.set_linked(name, true),
        Fault::Expire(_) => {}
    }
}

/// One cluster, one fault after another, each for one to six seconds.
fn run(seed: u64) -> Vec<String> {
    let cluster = SimCluster::new(BROKERS, seed);
    let (trace, acknowledged) = (Trace::default(), Acknowledged::default());
    let mut sim = cluster.start();
    for id in 0..PRODUCERS {
        sim.client(format!("producer-{id}"), produce(cluster.clone(), id, acknowledged.clone()));
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut next = Duration::from_millis(3_000 + rng.random_range(0..2_000));
    let mut under_way: Option<(Duration, Fault)> = None;
    let faults_end = FAULTS;
    while !sim.step().unwrap_or_else(|error| panic!("BATON_SEED={seed}: {error}")) {
        let now = sim.elapsed();
        if under_way.as_ref().is_some_and(|(until, _)| now >= *until)
            && let Some((_, fault)) = under_way.take()
        {
            tracing::info!(?now, ?fault, "mended");
            mend(&mut sim, &cluster, &fault);
            next = now + Duration::from_millis(rng.random_range(500..3_000));
        }
        if under_way.is_none() && now >= next && now < faults_end {
            let fault = draw(&mut rng);
            tracing::info!(?now, ?fault, "strikes");
            strike(&mut sim, &cluster, &fault);
            under_way = Some((now + Duration::from_millis(rng.random_range(1_000..6_000)), fault));
        }
    }
    sim.client("checker", check(cluster.clone(), acknowledged, trace.clone()));
    sim.run().unwrap_or_else(|error| panic!("BATON_SEED={seed}: {error}"));
    trace.lines()
}

#[test]
fn seeded_faults_lose_nothing() {
    let range = match (std::env::var("BATON_SEED"), std::env::var("BATON_SEEDS")) {
        (Ok(seed), _) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        (_, Ok(range)) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        _ => 1..13,
    };
    for seed in range {
        let records = run(seed).len();
        println!("seed {seed}: {records} records read back");
    }
}
