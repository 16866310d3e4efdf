//! The active coordinator dies in the middle of its work: the other one finishes it, and
//! nothing half-made stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use baton_client::admin::TopicSpec;
use baton_client::{Admin, BrokerId, ErrorCode};
use baton_core::{TopicId, TopicPartition};
use baton_registry::Registry;
use baton_registry::recipes::{partition_state, tombstones, topics};
use baton_registry::znode::{partition, topic};
use baton_registry::zookeeper::ZooKeeperRegistry;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;
use crate::results::RoundResult;
use crate::stage::{Pace, ms};

/// Partitions of the topic that is being made.
pub const PARTITIONS: u32 = 200;
const NAMESPACE: &str = "default";
/// How many moves are asked for at the same time.
const MOVES_AT_ONCE: u32 = 8;

/// What the coordinator is doing when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Creation,
    Deletion,
    Reassignment,
}

/// How far the work is when it is interrupted, in partitions: another point in every round.
fn interrupt_at(round: u32) -> u32 {
    [1, 50, 100, 150, 20][round as usize % 5]
}

struct Scene<'a> {
    cluster: &'a mut Cluster,
    registry: Arc<ZooKeeperRegistry>,
    admin: Admin,
    name: String,
    result: RoundResult,
    pace: Pace,
}

/// One round.
///
/// # Errors
/// What was asked for is not done within the generous deadline, or something half-made stays.
pub async fn round(cluster: &mut Cluster, work: Work, pace: Pace, round: u32) -> anyhow::Result<RoundResult> {
    let client = cluster.client("administrator").await?;
    let active = cluster.active_coordinator(&client).await?;
    let registry = cluster.registry().await?;
    let name = format!("half-{work:?}-{round}-{}", PARTITIONS).to_lowercase();
    let result = RoundResult { round, target: format!("coordinator {}", active + 1), ..RoundResult::default() };
    let mut scene = Scene { cluster, registry, admin: client.admin(), name, result, pace };
    match work {
        Work::Creation => scene.creation(active).await?,
        Work::Deletion => scene.deletion(active).await?,
        Work::Reassignment => scene.reassignment(active).await?,
    }
    scene.nothing_half_made().await?;
    scene.cluster.restore().await?;
    if work != Work::Deletion {
        scene.admin.delete_topic(&scene.name).await.context("cleaning up")?;
    }
    scene.cluster.check_alive()?;
    scene.registry.close().await;
    Ok(scene.result)
}

impl Scene<'_> {
    fn spec(&self, replication: u32) -> TopicSpec {
        let mut spec = TopicSpec::new(&self.name).partitions(PARTITIONS).replication(replication);
        spec.timeout = self.pace.come_back;
        spec
    }

    async fn creation(&mut self, active: usize) -> anyhow::Result<()> {
        let (admin, spec) = (self.admin.clone(), self.spec(3));
        let call = tokio::spawn(async move { admin.create_topic(spec).await });
        let wanted = interrupt_at(self.result.round);
        let made = self.watch_nodes(|made| made >= wanted).await?;
        let began = self.kill(active, &format!("{made} of {PARTITIONS} partitions made"));
        self.answered("creation", call).await?;
        self.all_led(3).await?;
        self.result.recovered_ms = Some(ms(began.elapsed()));
        Ok(())
    }

    async fn deletion(&mut self, active: usize) -> anyhow::Result<()> {
        self.admin.create_topic(self.spec(3)).await?;
        self.all_led(3).await?;
        let id = self.id().await?.context("the topic has no id")?;
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let call = tokio::spawn(async move { admin.delete_topic(&name).await });
        let wanted = PARTITIONS - interrupt_at(self.result.round);
        let left = self.watch_deletion(id, wanted).await?;
        let began = self.kill(active, &format!("{left} of {PARTITIONS} partitions left"));
        self.answered("deletion", call).await?;
        let deadline = Instant::now() + self.pace.come_back;
        while self.node_count(id).await?.is_some() || topics::read(&*self.registry, id).await?.is_some() {
            ensure!(Instant::now() < deadline, "nodes of the deleted topic stay");
            sleep(Duration::from_millis(20)).await;
        }
        self.result.recovered_ms = Some(ms(began.elapsed()));
        ensure!(self.id().await?.is_none(), "the name is still taken");
        self.data_removed(id).await
    }

    /// Every broker has to confirm that it removed the data.
    async fn data_removed(&self, id: TopicId) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.pace.come_back;
        loop {
            match tombstones::read(&*self.registry, id).await? {
                None => return Ok(()),
                Some((grave, _)) if grave.brokers.is_empty() => return Ok(()),
                Some((grave, _)) if Instant::now() > deadline => {
                    bail!("brokers {:?} have not removed the data of the deleted topic", grave.brokers)
                }
                Some(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn reassignment(&mut self, active: usize) -> anyhow::Result<()> {
        self.admin.create_topic(self.spec(2)).await?;
        self.all_led(2).await?;
        let targets = self.targets().await?;
        let done = Arc::new(AtomicU32::new(0));
        let call = tokio::spawn(move_all(self.admin.clone(), self.name.clone(), targets.clone(), done.clone()));
        let wanted = interrupt_at(self.result.round);
        let deadline = Instant::now() + self.pace.come_back;
        while done.load(Ordering::Relaxed) < wanted && !call.is_finished() {
            ensure!(Instant::now() < deadline, "the moves do not begin");
            sleep(Duration::from_millis(1)).await;
        }
        let accepted = done.load(Ordering::Relaxed);
        let began = self.kill(active, &format!("{accepted} of {PARTITIONS} moves accepted"));
        timeout(self.pace.come_back * 2, call).await.context("the moves are not accepted")??.context("moves")?;
        self.moved(&targets).await?;
        self.result.recovered_ms = Some(ms(began.elapsed()));
        Ok(())
    }

    /// The second replica of each partition goes to the broker that has none.
    async fn targets(&self) -> anyhow::Result<BTreeMap<u32, Vec<BrokerId>>> {
        let described = self.admin.describe_topic(&self.name).await?;
        let brokers: Vec<BrokerId> = (1..=self.cluster.broker_count()).map(BrokerId).collect();
        let target = |replicas: &[BrokerId]| {
            let other = brokers.iter().find(|id| !replicas.contains(id)).copied();
            replicas.first().copied().into_iter().chain(other).collect::<Vec<_>>()
        };
        Ok(described.partitions.iter().map(|p| (p.partition, target(&p.replicas))).collect())
    }

    async fn moved(&self, targets: &BTreeMap<u32, Vec<BrokerId>>) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.pace.come_back;
        loop {
            let described = self.admin.describe_topic(&self.name).await?;
            let late: Vec<_> = described
                .partitions
                .iter()
                .filter(|p| {
                    let mut target = targets.get(&p.partition).cloned().unwrap_or_default();
                    target.sort_unstable();
                    let mut replicas = p.replicas.clone();
                    replicas.sort_unstable();
                    replicas != target || p.isr != target || !p.adding.is_empty() || !p.removing.is_empty()
                })
                .collect();
            if late.is_empty() && described.partitions.len() == targets.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} partitions are not where they should be, the first: {:?}", late.len(), late.first());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(&mut self, active: usize, point: &str) -> Instant {
        self.cluster.coordinator(active).kill();
        self.result.notes.push(format!("killed with {point}"));
        Instant::now()
    }

    /// The call that was under way succeeds: its answer comes from the other coordinator.
    async fn answered<T, E>(&mut self, what: &str, call: JoinHandle<Result<T, E>>) -> anyhow::Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let answer = timeout(self.pace.come_back * 2, call).await;
        answer.with_context(|| format!("the {what} is never answered"))??.with_context(|| what.to_owned())?;
        Ok(())
    }

    async fn id(&self) -> anyhow::Result<Option<TopicId>> {
        Ok(topics::find(&*self.registry, NAMESPACE, &self.name).await?)
    }

    /// How many partitions of a topic have a node; none: the topic has none at all.
    async fn node_count(&self, id: TopicId) -> anyhow::Result<Option<u32>> {
        match self.registry.children(&partition::topic_path(id)).await {
            Ok(names) => Ok(Some(u32::try_from(names.len()).unwrap_or(u32::MAX))),
            Err(baton_registry::RegistryError::NoNode(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn watch_nodes(&self, far_enough: impl Fn(u32) -> bool) -> anyhow::Result<u32> {
        let deadline = Instant::now() + self.pace.come_back;
        let mut id = None;
        while Instant::now() < deadline {
            if id.is_none() {
                id = self.id().await?;
            }
            if let Some(id) = id
                && let Some(count) = self.node_count(id).await?
                && far_enough(count)
            {
                return Ok(count);
            }
        }
        bail!("the work does not begin")
    }

    /// Until at most so many partitions are left, or the intent is written in the first round.
    async fn watch_deletion(&self, id: TopicId, wanted: u32) -> anyhow::Result<u32> {
        let deadline = Instant::now() + self.pace.come_back;
        while Instant::now() < deadline {
            match self.node_count(id).await? {
                Some(count) if count > wanted => {}
                count => return Ok(count.unwrap_or(0)),
            }
        }
        bail!("the work does not begin")
    }

    async fn all_led(&self, replication: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.pace.come_back;
        loop {
            let described = self.admin.describe_topic(&self.name).await;
            let led = |p: &baton_client::admin::PartitionDescription| {
                p.leader.is_some() && p.isr.len() == replication && p.replicas.len() == replication
            };
            match &described {
                Ok(topic) if topic.partitions.len() == PARTITIONS as usize && topic.partitions.iter().all(led) => {
                    return Ok(());
                }
                _ if Instant::now() > deadline => {
                    let late = described.map(|topic| topic.partitions.iter().filter(|p| !led(p)).count());
                    bail!("the topic is not whole: {late:?} partitions");
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Looks at every node: no intent, no partition without its topic or the reverse.
    async fn nothing_half_made(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.pace.come_back;
        loop {
            let found = leftovers(&*self.registry).await?;
            if found.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "half-made things stay: {found:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn leftovers(registry: &dyn Registry) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let all = topics::list(registry).await?;
    for unfinished in topics::unfinished(registry).await? {
        found.push(format!("topic {} is unfinished", unfinished.node.name));
    }
    let known: BTreeMap<TopicId, u32> = all.iter().map(|topic| (topic.id, topic.node.partitions)).collect();
    for name in registry.children(partition::ROOT).await? {
        let id: Option<TopicId> = name.parse().ok();
        let Some((id, count)) = id.and_then(|id| known.get(&id).map(|count| (id, *count))) else {
            found.push(format!("partitions of {name}, which is no topic"));
            continue;
        };
        let there = registry.children(&partition::topic_path(id)).await?.len();
        if there != count as usize {
            found.push(format!("topic {id} has {there} of {count} partitions"));
        }
        let ids: Vec<_> = (0..count).map(|partition| TopicPartition { topic: id, partition }).collect();
        for (partition, state) in ids.iter().zip(partition_state::read_many(registry, &ids).await) {
            let assignment = state?.map(|known| known.state.assignment);
            if assignment.is_some_and(|a| !a.adding.is_empty() || !a.removing.is_empty()) {
                found.push(format!("{partition} is still being moved"));
            }
        }
    }
    for link in registry.children(topic::LINKS).await? {
        let name = link.split_once(':').map_or(link.as_str(), |(_, name)| name);
        if !all.iter().any(|topic| topic.node.name == name) {
            found.push(format!("the name {name} points to nothing"));
        }
    }
    Ok(found)
}

/// Asks for all moves, several at once, each until it is accepted.
async fn move_all(
    admin: Admin,
    name: String,
    targets: BTreeMap<u32, Vec<BrokerId>>,
    done: Arc<AtomicU32>,
) -> anyhow::Result<()> {
    let targets = Arc::new(targets);
    let mut workers = JoinSet::new();
    for worker in 0..MOVES_AT_ONCE {
        let (admin, name, targets, done) = (admin.clone(), name.clone(), targets.clone(), done.clone());
        workers.spawn(async move {
            for (partition, target) in targets.iter().filter(|(p, _)| **p % MOVES_AT_ONCE == worker) {
                let deadline = Instant::now() + Duration::from_secs(60);
                while let Err(error) = admin.reassign(&name, *partition, target).await {
                    let again = error.retriable() || error.code() == ErrorCode::Unreachable;
                    ensure!(again && Instant::now() < deadline, "partition {partition}: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}
