//! What the tests have in common: a cluster with a topic, a producer, members and an observer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_client::admin::TopicSpec;
use baton_client::{Client, GroupConfig, ProducerConfig, Rebalance, Record, Start};
use baton_tests::sim::{SimCluster, broker_name};
use turmoil::Sim;

pub const TOPIC: &str = "orders";
pub const GROUP: &str = "shop";
pub const PARTITIONS: u32 = 6;

/// Where a record lies.
pub type At = (u32, u64);

/// What happened, seen from outside.
#[derive(Default)]
pub struct Seen {
    /// How often each record was handed out.
    pub read: Mutex<BTreeMap<At, u32>>,
    /// What is committed, by partition.
    pub committed: Mutex<BTreeMap<u32, u64>>,
    /// The generations that members were in, in their order.
    pub generations: Mutex<Vec<i32>>,
    /// How often a member was told that the group went on without it.
    pub lost: AtomicU32,
    pub produced: AtomicU32,
    pub all_produced: AtomicBool,
    pub done: AtomicBool,
}

impl Seen {
    pub fn read_count(&self) -> usize {
        self.read.lock().unwrap().len()
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    pub fn last_generation(&self) -> Option<i32> {
        self.generations.lock().unwrap().iter().max().copied()
    }

    /// Records that were handed out more than once.
    pub fn repeated(&self) -> Vec<At> {
        let read = self.read.lock().unwrap();
        read.iter().filter(|(_, times)| **times > 1).map(|(at, _)| *at).collect()
    }
}

pub async fn connect(cluster: &SimCluster, seed: u64) -> Client {
    loop {
        match cluster.client(seed).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

pub async fn with_topic(cluster: &SimCluster, seed: u64) -> Client {
    let client = connect(cluster, seed).await;
    let spec = TopicSpec { partitions: Some(PARTITIONS), replication: Some(3), ..TopicSpec::new(TOPIC) };
    while client.partitions(TOPIC).await.is_err() {
        if client.admin().create_topic(spec.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    client
}

/// Produces so many records, evenly.
pub async fn produce(cluster: SimCluster, seen: Arc<Seen>, count: u32, pause: Duration) -> turmoil::Result {
    let client = with_topic(&cluster, 1).await;
    let producer = client.producer(ProducerConfig::default());
    for n in 0..count {
        let record = Record::new(n.to_string()).partition(n % PARTITIONS);
        producer.send(TOPIC, record).await?.await?;
        seen.produced.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
    seen.all_produced.store(true, Ordering::Relaxed);
    Ok(())
}

pub fn member_config(seen: &Arc<Seen>) -> GroupConfig {
    let told = Arc::clone(seen);
    let on_rebalance = move |rebalance: &Rebalance| {
        if let Rebalance::Lost(_) = rebalance {
            told.lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    GroupConfig {
        session: Duration::from_secs(6),
        heartbeat: Duration::from_secs(1),
        rebalance: Duration::from_secs(20),
        commit_every: Some(Duration::from_millis(300)),
        start: Start::First,
        on_rebalance: Some(Arc::new(on_rebalance)),
        ..GroupConfig::new(GROUP, [TOPIC])
    }
}

/// A member that reads until everybody is done, or `stays` has passed.
pub async fn member(cluster: SimCluster, seen: Arc<Seen>, seed: u64, stays: Option<Duration>) -> turmoil::Result {
    let client = with_topic(&cluster, seed).await;
    let mut consumer = client.group_consumer(member_config(&seen));
    let began = tokio::time::Instant::now();
    while !seen.is_done() && stays.is_none_or(|stays| began.elapsed() < stays) {
        let records = consumer.poll(Duration::from_millis(200)).await?;
        for record in records {
            *seen.read.lock().unwrap().entry((record.partition, record.offset.0)).or_default() += 1;
        }
        let mut generations = seen.generations.lock().unwrap();
        if let Some(generation) = consumer.generation()
            && generations.last() != Some(&generation)
        {
            generations.push(generation);
        }
    }
    consumer.close().await?;
    Ok(())
}

/// Looks at what is committed until all that was produced is; nothing may go back.
pub async fn observe(cluster: SimCluster, seen: Arc<Seen>, count: u32) -> turmoil::Result {
    let client = with_topic(&cluster, 99).await;
    loop {
        if let Ok(offsets) = client.admin().group_offsets(GROUP).await {
            let mut known = seen.committed.lock().unwrap();
            for ((_, partition), committed) in offsets {
                let before = known.insert(partition, committed.offset.0).unwrap_or(0);
                assert!(committed.offset.0 >= before, "partition {partition} went back from {before}");
            }
            if seen.all_produced.load(Ordering::Relaxed) && known.values().sum::<u64>() == u64::from(count) {
                seen.done.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs to the end; `step` is called after every step.
pub fn run(cluster: &SimCluster, mut sim: Sim<'static>, limit: Duration, mut step: impl FnMut(&mut Sim<'static>)) {
    while !sim.step().unwrap() {
        cluster.after_step(&sim);
        assert!(sim.elapsed() < limit, "it does not end: {:?}", cluster.violations.found());
        step(&mut sim);
    }
    assert!(cluster.violations.is_empty(), "{:?}", cluster.violations.found());
}

/// Has brokers lose their power at these times, and come back so much later.
pub fn power_off(cluster: &SimCluster, times: Vec<(u32, Duration)>, away: Duration) -> impl FnMut(&mut Sim<'static>) {
    let cluster = cluster.clone();
    let mut off = vec![false; times.len()];
    move |sim| {
        for ((broker, at), off) in times.iter().zip(&mut off) {
            let name = broker_name(*broker);
            let is_away = (*at..*at + away).contains(&sim.elapsed());
            if is_away && !*off {
                cluster.disk(*broker).power_off();
                sim.crash(name);
                *off = true;
            } else if !is_away && *off && !sim.is_host_running(name.as_str()) {
                sim.bounce(name);
            }
        }
    }
}
