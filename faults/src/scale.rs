//! Many partitions, many topics, many candidates.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use baton_client::admin::TopicSpec;
use baton_client::{Admin, ProducerConfig, Record};
use baton_core::ids::{BrokerId, DiskId, Generation, Incarnation, Member, TopicId, TopicPartition};
use baton_registry::pool::SessionPool;
use baton_registry::recipes::{candidates, layout};
use baton_registry::testing::server::Ensemble;
use baton_registry::znode::{Candidate, candidate, partition};
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use baton_registry::{CreateMode, Op, Registry};
use clap::ValueEnum;
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::observer::Observer;
use crate::results::RoundResult;
use crate::series::Plan;
use crate::stage::ms;

const WIDE: u32 = 1_000;
const WITHIN: Duration = Duration::from_secs(120);
/// Brokers × partitions of each: 30,000 candidates.
const HOLDERS: u32 = 3;
const COPIES: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// A topic of 1,000 partitions is created and led
    #[value(name = "topic1000")]
    Topic1000,
    /// 200 topics are listed
    #[value(name = "topics200")]
    Topics200,
    /// A broker with 1,000 partitions is killed, starts and follows
    #[value(name = "restart1000")]
    Restart1000,
    /// 30,000 candidates, a lost broker, then every ZooKeeper server restarted
    #[value(name = "candidates30000")]
    Candidates30000,
}

impl Scale {
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs rounds of one kind, each on a cluster of its own.
///
/// # Errors
/// A result cannot be kept. Failed rounds are results.
pub async fn run(plan: &Plan, scale: Scale, rounds: u32) -> anyhow::Result<Vec<RoundResult>> {
    let mut results = Vec::new();
    for round in 1..=rounds {
        let mut result = RoundResult { target: "scale".to_owned(), ..RoundResult::default() };
        let done = match scale {
            Scale::Candidates30000 => candidates30000(plan, &mut result).await,
            _ => on_cluster(plan, scale, &mut result).await,
        };
        if let Err(error) = done {
            result.failures.push(format!("{error:#}"));
        }
        (result.fault, result.round) = (scale.name(), round);
        plan.record(&mut result)?;
        results.push(result);
    }
    Ok(results)
}

async fn on_cluster(plan: &Plan, scale: Scale, result: &mut RoundResult) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&plan.shape).await?;
    let admin = cluster.client("administrator").await?.admin();
    let done = match scale {
        Scale::Topic1000 => create_wide(&admin, result).await,
        Scale::Topics200 => list_topics(&cluster, &admin, result).await,
        Scale::Restart1000 | Scale::Candidates30000 => restart_wide(&mut cluster, &admin, result).await,
    };
    if done.is_err() {
        result.notes.push(format!("kept: {}", cluster.keep().display()));
    }
    done
}

fn wide() -> TopicSpec {
    let mut spec = TopicSpec::new("wide").partitions(WIDE).replication(3).config("min.insync.replicas", "2");
    spec.timeout = WITHIN;
    spec
}

async fn create_wide(admin: &Admin, result: &mut RoundResult) -> anyhow::Result<()> {
    let began = Instant::now();
    admin.create_topic(wide()).await?;
    result.recovered_ms = Some(ms(began.elapsed()));
    let described = admin.describe_topic("wide").await?;
    let led = described.partitions.iter().filter(|partition| partition.leader.is_some()).count();
    result.notes.push(format!("{led} of {WIDE} led as the answering broker knows"));
    Ok(())
}

async fn list_topics(cluster: &Cluster, admin: &Admin, result: &mut RoundResult) -> anyhow::Result<()> {
    for number in 0..200 {
        admin.create_topic(TopicSpec::new(format!("topic-{number:03}")).partitions(1).replication(3)).await?;
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let admin = cluster.client("lister").await?.admin();
        let began = Instant::now();
        let topics = admin.topics(false).await?;
        slowest = slowest.max(began.elapsed());
        ensure!(topics.len() == 200, "{} topics are listed", topics.len());
    }
    result.recovered_ms = Some(ms(slowest));
    result.notes.push("the slowest of 20 listings of a new client".to_owned());
    Ok(())
}

async fn restart_wide(cluster: &mut Cluster, admin: &Admin, result: &mut RoundResult) -> anyhow::Result<()> {
    admin.create_topic(wide()).await?;
    let client = cluster.client("producer").await?;
    let producer = client.producer(ProducerConfig::default());
    for number in 0..WIDE * 10 {
        let record = Record::new(vec![b'x'; 200]).partition(number % WIDE);
        drop(producer.send("wide", record).await?);
    }
    producer.flush().await?;
    let observer = Observer::start(client, "wide".to_owned());
    observer.until_whole(WIDE, WITHIN).await.context("before the kill")?;
    let began = Instant::now();
    cluster.broker(1).kill();
    let dead = baton_client::BrokerId(1);
    let led = |seen: &super::observer::Seen| seen.leader.is_some_and(|leader| leader != dead);
    observer.until(WIDE, WITHIN, led).await.context("new leaders")?;
    result.notes.push(format!("led by others {:.2} s after the kill", began.elapsed().as_secs_f64()));
    sleep(Duration::from_secs(6)).await;
    let began = Instant::now();
    cluster.broker(1).start()?;
    cluster.broker(1).ready(WITHIN).await?;
    result.notes.push(format!("ready {:.2} s after its start", began.elapsed().as_secs_f64()));
    observer.until_whole(WIDE, WITHIN).await.context("in sync again")?;
    result.recovered_ms = Some(ms(began.elapsed()));
    Ok(())
}

fn session(servers: &str) -> Result<Arc<dyn Registry>, baton_registry::RegistryError> {
    Ok(Arc::new(ZooKeeperRegistry::start(ZooKeeperConfig::new(servers))?))
}

fn copy(number: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(1 + number / 1_000), partition: number % 1_000 }
}

/// ZOOKEEPER-4306: ephemerals that end in one transaction have to fit into it.
async fn candidates30000(plan: &Plan, result: &mut RoundResult) -> anyhow::Result<()> {
    let mut ensemble = Ensemble::start(&plan.shape.class_path, 3).await?;
    let servers = format!("{}/baton", ensemble.connection_string());
    let mut pools = Vec::new();
    for _ in 0..HOLDERS {
        let servers = servers.clone();
        pools.push(SessionPool::new(64, Box::new(move |_| session(&servers)))?);
    }
    let registry = session(&servers)?;
    let deadline = Instant::now() + WITHIN;
    while let Err(error) = layout::prepare(&*registry).await {
        ensure!(Instant::now() < deadline, "ZooKeeper does not take the layout: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    make_partitions(&*registry).await?;
    for (holder, pool) in (1..).zip(&pools) {
        queue_all(pool, BrokerId(holder)).await?;
    }
    let sessions: usize = pools.iter().map(|pool| pool.sessions().len()).sum();
    ensure!(count(&*registry).await? == HOLDERS * COPIES, "not all candidates are there");
    result.notes.push(format!("{} candidates in {sessions} sessions", HOLDERS * COPIES));
    // A crash: nobody closes the sessions.
    drop(pools.remove(0));
    let deadline = Instant::now() + WITHIN;
    while count(&*registry).await.ok() != Some((HOLDERS - 1) * COPIES) {
        ensure!(Instant::now() < deadline, "the dead broker's candidates stay");
        sleep(Duration::from_millis(200)).await;
    }
    let began = Instant::now();
    ensemble.restart().await?;
    ensure!(ensemble.leader().is_some(), "the ensemble has no leader");
    let deadline = Instant::now() + WITHIN;
    loop {
        let written = registry.create("/alive", bytes::Bytes::new(), CreateMode::Persistent).await;
        match written {
            Ok(_) | Err(baton_registry::RegistryError::NodeExists(_)) => break,
            Err(error) => ensure!(Instant::now() < deadline, "the ensemble takes no writes: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    result.recovered_ms = Some(ms(began.elapsed()));
    result.notes.push(format!("{} candidates after the restart", count(&*registry).await?));
    // Whatever expired meanwhile is deleted now: the servers have to survive that as well.
    sleep(Duration::from_secs(6)).await;
    ensemble.serving().await.context("after the sessions' ends")?;
    ensemble.restart().await.context("a second restart")?;
    Ok(())
}

async fn make_partitions(registry: &dyn Registry) -> anyhow::Result<()> {
    let empty = |path: String| Op::Create { path, data: bytes::Bytes::new(), mode: CreateMode::Persistent };
    let topics = (0..COPIES / 1_000).map(|topic| empty(partition::topic_path(TopicId(1 + topic))));
    registry.multi(topics.collect()).await.map_err(|error| error.error)?;
    let all: Vec<Op> = (0..COPIES).map(|number| empty(partition::path(copy(number)))).collect();
    for some in all.chunks(50) {
        registry.multi(some.to_vec()).await.map_err(|error| error.error)?;
    }
    Ok(())
}

/// As a broker queues: each candidate in the session that has room for it.
async fn queue_all(pool: &SessionPool, broker: BrokerId) -> anyhow::Result<()> {
    let member = Member { broker, disk: DiskId(u128::from(broker.0)), generation: Generation(0) };
    let queue = |number: u32| async move {
        let id = copy(number);
        let path = candidate::prefix(id);
        let registry = pool.reserve(&path, "/baton".len() + path.len() + 10)?;
        let mine = Candidate { member, incarnation: Incarnation(1), nonce: u64::from(number) };
        candidates::queue(&*registry, id, &mine).await?;
        anyhow::Ok(())
    };
    let mut queueing = futures::stream::iter((0..COPIES).map(queue)).buffer_unordered(200);
    while let Some(queued) = queueing.next().await {
        queued?;
    }
    Ok(())
}

async fn count(registry: &dyn Registry) -> anyhow::Result<u32> {
    let paths: Vec<String> = (0..COPIES).map(|number| partition::path(copy(number))).collect();
    let mut counting = futures::stream::iter(paths.iter().map(|path| registry.children(path))).buffer_unordered(200);
    let mut sum = 0;
    while let Some(children) = counting.next().await {
        sum += u32::try_from(children?.len())?;
    }
    Ok(sum)
}
