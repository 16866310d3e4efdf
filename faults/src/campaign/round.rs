//! One round: harm, its end, recovery, the cut.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep, sleep_until};

use super::draw::{self, Drawn, Kind};
use super::harm::{Active, Scene};
use super::kafka::KafkaLoad;
use super::ledger::{Kafka, Line};
use super::verdict::judge;
use super::{COME_BACK, Pending};
use crate::cluster::Cluster;
use crate::loaded::Loaded;
use crate::network::Host;
use crate::network::link::Links;
use crate::network::rules::Rules;
use crate::plan::Plan;
use crate::stage::ms;

/// Load before a fault: long enough that every partition has something to lose.
const WARM: Duration = Duration::from_millis(400);
/// Load after everything is back.
const SETTLE: Duration = Duration::from_millis(300);

/// Starts the load, and Kafka's clients beside it.
async fn open_loads(plan: &Plan, cluster: &Cluster) -> anyhow::Result<(Loaded, KafkaLoad)> {
    let loaded = Loaded::open(plan, cluster).await?;
    let kafka = KafkaLoad::start(&cluster.kafka_bootstrap(), &loaded.reader.admin(), COME_BACK).await?;
    Ok((loaded, kafka))
}

/// A cluster under load.
pub struct Site {
    // Dropped first: its clients say goodbye to brokers that are there.
    kafka: KafkaLoad,
    scene: Scene,
    loaded: Loaded,
    pending: Option<Pending>,
    /// Rounds that it has gone through.
    pub rounds: u64,
    /// When the last round ended.
    since: Instant,
}

impl Site {
    /// Starts a cluster, its topic and the load.
    ///
    /// # Errors
    /// It does not become whole.
    pub async fn open(plan: &Plan) -> anyhow::Result<Self> {
        let began = Instant::now();
        let rules = Rules::none(plan.shape.hosts().into_iter().chain([Host::clients()]).collect())?;
        let mut cluster = Cluster::start(&plan.shape).await?;
        let (loaded, kafka) = match open_loads(plan, &cluster).await {
            Ok(loads) => loads,
            Err(error) => return Err(error.context(format!("kept: {}", cluster.keep().display()))),
        };
        let program = std::env::current_exe()?;
        let (admin, links) = (loaded.reader.admin(), Links::new(program, plan.shape.targets()));
        let scene = Scene { cluster, rules, links, admin, made: 0, working: Vec::new() };
        eprintln!("a cluster after {:.1} s", began.elapsed().as_secs_f64());
        Ok(Self { kafka, scene, loaded, pending: None, rounds: 0, since: Instant::now() })
    }

    /// One round. Its verdict is ready when it is asked for.
    pub async fn round(&mut self, plan: &Plan, only: &[Kind], number: u64) {
        let drawn = draw::round(plan.seed, number, plan.shape.brokers, only);
        sleep(WARM).await;
        let mut line =
            Line { round: number, faults: drawn.iter().map(|fault| fault.kind.name()).collect(), ..Line::default() };
        self.rounds += 1;
        let (fault_at, end_at) = self.harm(&drawn, &mut line).await.unwrap_or_else(|error| {
            line.failures.push(format!("{error:#}"));
            Default::default()
        });
        line.cycle_ms = ms(self.since.elapsed());
        self.since = Instant::now();
        let (kafka, violations) = self.kafka.judge();
        line.kafka.get_or_insert_default().add(&kafka);
        line.failures.extend(violations);
        // Whatever went wrong: what was acknowledged has to be there.
        let judging = match self.loaded.load.cut(COME_BACK).await {
            Ok(cut) => {
                let (client, shape) = (self.loaded.reader.clone(), self.loaded.load.shape().clone());
                Some(tokio::spawn(judge(client, shape, cut, self.loaded.chains.clone(), COME_BACK)))
            }
            Err(error) => {
                line.failures.push(format!("{error:#}"));
                None
            }
        };
        self.pending = Some(Pending { line, fault_at, end_at, judging });
    }

    /// The verdict on the round before.
    pub async fn judged(&mut self) -> Option<Line> {
        let Pending { mut line, fault_at, end_at, judging } = self.pending.take()?;
        let Some(judging) = judging else { return Some(line) };
        match judging.await.map_err(anyhow::Error::from).and_then(|judged| judged) {
            Ok(judged) => self.loaded.enter(&mut line, judged, fault_at, end_at),
            Err(error) => line.failures.push(format!("{error:#}")),
        }
        Some(line)
    }

    /// Lets the faults begin and end as they were drawn, and waits until all is well again.
    /// Returns when the first one began and when the last one ended.
    async fn harm(&mut self, drawn: &[Drawn], line: &mut Line) -> anyhow::Result<(Duration, Duration)> {
        let began = Instant::now();
        let fault_at = self.loaded.load.now();
        // (when, whether it is an end, which fault)
        let mut steps: Vec<(Duration, bool, usize)> = Vec::new();
        for (index, fault) in drawn.iter().enumerate() {
            steps.push((fault.after, false, index));
            steps.push((fault.after + fault.lasts, true, index));
        }
        steps.sort_unstable();
        let mut active: Vec<Option<Active>> = drawn.iter().map(|_| None).collect();
        line.targets = vec![String::new(); drawn.len()];
        for (when, ends, index) in steps {
            sleep_until(began + when).await;
            let Some(fault) = drawn.get(index) else { continue };
            if !ends {
                let begun = self.scene.begin(fault).await.with_context(|| fault.kind.name())?;
                line.targets[index] = format!("{} {} ms", begun.target, fault.lasts.as_millis());
                active[index] = Some(begun);
            } else if let Some(begun) = active[index].take() {
                self.scene.end(begun).await?;
            }
            self.who_ended(drawn, line);
        }
        let zookeeper = drawn
            .iter()
            .any(|fault| matches!(fault.kind, Kind::KillZookeeper | Kind::KillZookeeperLeader | Kind::QuorumLost));
        if zookeeper {
            // Its start is not ours: the fault ends when it serves.
            self.scene.cluster.ensemble.serving().await?;
        }
        self.scene.cluster.restart()?;
        let end_at = self.loaded.load.now();
        self.kafka.mark();
        let going_on = tokio::spawn(self.kafka.recovers());
        let recovered = self.recover(drawn, line).await;
        let went_on = going_on.await.map_err(anyhow::Error::from).and_then(|went_on| went_on);
        recovered?;
        let (group, transactions) = went_on?;
        line.kafka = Some(Kafka { group_ms: ms(group), transactions_ms: ms(transactions), ..Kafka::default() });
        Ok((fault_at, end_at))
    }

    async fn recover(&mut self, drawn: &[Drawn], line: &mut Line) -> anyhow::Result<()> {
        let began = self.loaded.load.now();
        if let Err(error) = self.loaded.load.all_acknowledge(began, COME_BACK).await {
            self.who_ended(drawn, line);
            return Err(error.context("after the fault"));
        }
        // A broker that ended at the last moment is started by whoever looks after it.
        self.who_ended(drawn, line);
        self.scene.cluster.restore().await?;
        self.scene.finish_work().await?;
        let partitions = self.loaded.load.shape().partitions;
        self.loaded.observer.until_whole(partitions, COME_BACK).await.context("after the fault")?;
        line.whole_ms = ms(self.loaded.load.now().saturating_sub(began));
        sleep(SETTLE).await;
        self.who_ended(drawn, line);
        Ok(())
    }

    /// Notes who ended by itself: a failure, unless the fault is one of storage.
    fn who_ended(&mut self, drawn: &[Drawn], line: &mut Line) {
        let may = drawn.iter().any(|fault| fault.kind.may_end_a_broker());
        for (name, how) in self.scene.cluster.ended() {
            if may && name.starts_with("broker") {
                line.ended.push(name);
            } else if drawn.iter().all(|fault| fault.kind != Kind::TermBroker) || !how.contains("exit code 0") {
                line.failures.push(how);
            }
        }
    }

    /// The last round's line, and one for everything: read again from the first record on, and
    /// from every replica.
    pub async fn finish(&mut self, number: u64) -> (Option<Line>, Line) {
        let before = self.judged().await;
        let kafka = self.kafka.finish(COME_BACK).await;
        let mut whole = self.loaded.whole(number, self.rounds).await;
        match kafka {
            Ok((kafka, violations)) => {
                whole.kafka = Some(kafka);
                whole.failures.extend(violations);
            }
            Err(error) => whole.failures.push(format!("{error:#}")),
        }
        (before, whole)
    }

    /// Keeps the data and the logs; says where they are.
    pub fn keep(&mut self) -> std::path::PathBuf {
        self.scene.cluster.keep()
    }
}
