//! Three brokers in one simulated network: a leader dies, nothing acknowledged is lost, and the
//! same seed gives the same run.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use baton_client::admin::TopicSpec;
use baton_client::{Client, ConsumerConfig, ProducerConfig, Record, Start};
use baton_tests::sim::{SimCluster, Trace, broker_name};

const RECORDS: u32 = 300;

/// Waits until the cluster is there and makes the topic.
async fn connect_and_create(cluster: &SimCluster) -> Client {
    let client = loop {
        match cluster.client(1).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let spec = TopicSpec { partitions: Some(2), replication: Some(3), ..TopicSpec::new("orders") };
    // The first brokers may not be registered yet, and the first coordinator not elected.
    while client.admin().create_topic(spec.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client
}

async fn produce_and_read_back(cluster: SimCluster, trace: Trace) -> turmoil::Result {
    let client = connect_and_create(&cluster).await;
    trace.note("topic there");
    let producer = client.producer(ProducerConfig::default());
    let mut acknowledged = Vec::new();
    for n in 0..RECORDS {
        let record = Record::new(n.to_string()).partition(n % 2);
        let stored = producer.send("orders", record).await?.await?;
        trace.note(format!("{n} at {}/{}", stored.partition, stored.offset));
        acknowledged.push((n, stored.partition, stored.offset));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign("orders", &[(0, Start::First), (1, Start::First)]).await?;
    let mut read = Vec::new();
    while read.len() < RECORDS as usize {
        for record in consumer.poll(Duration::from_secs(5)).await? {
            let n: u32 = std::str::from_utf8(&record.value.unwrap())?.parse()?;
            trace.note(format!("read {n} at {}/{}", record.partition, record.offset));
            read.push((n, record.partition, record.offset));
        }
    }
    read.sort_unstable();
    assert_eq!(read, acknowledged, "every acknowledged record once, where it was acknowledged");
    Ok(())
}

/// Runs one seed; broker 1 crashes in the middle and comes back.
fn run(seed: u64) -> Vec<String> {
    let cluster = SimCluster::new(3, seed);
    let trace = Trace::default();
    let mut sim = cluster.start();
    sim.client("client", produce_and_read_back(cluster.clone(), trace.clone()));
    let (crash, back) = (Duration::from_millis(2_500), Duration::from_millis(7_000));
    while !sim.step().unwrap() {
        cluster.after_step(&sim);
        if (crash..back).contains(&sim.elapsed()) && sim.is_host_running(broker_name(1)) {
            cluster.disk(1).power_off();
            sim.crash(broker_name(1));
        }
        if sim.elapsed() >= back && !sim.is_host_running(broker_name(1)) {
            sim.bounce(broker_name(1));
        }
    }
    trace.lines()
}

#[test]
fn a_dead_leader_loses_nothing_and_the_run_repeats() {
    let first = run(7);
    let reads = first.iter().filter(|line| line.contains("read")).count();
    assert_eq!(reads, RECORDS as usize);
    assert_eq!(first, run(7), "the same seed gives the same run");
}
