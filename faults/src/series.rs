//! Rounds of one fault, one after the other, on one cluster; a round that fails gets a new one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use baton_client::admin::TopicSpec;
use clap::ValueEnum;

use crate::cluster::{Cluster, Shape};
use crate::coordination::{self, Work};
use crate::history::History;
use crate::load::{LoadShape, read_from};
use crate::results::RoundResult;
use crate::rows;
use crate::stage::{Pace, Stage, judge};

const TOPIC: &str = "orders";
/// Rounds of one fault never have the same producer twice.
const PRODUCERS_PER_ROUND: u32 = 16;

/// The faults, as the table of the project names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// `kill -9` of a broker
    #[value(name = "kill9")]
    Kill9,
    /// `SIGSTOP` of a broker, then `SIGCONT`
    Sigstop,
    /// `kill -9` of all brokers at once, restart
    KillAll,
    /// The leader of the ZooKeeper ensemble killed
    ZkLeader,
    /// The whole ZooKeeper ensemble away
    ZkAway,
    /// A broker restarted on an empty disk with its old id
    EmptyDisk,
    /// Two of three brokers gone; the first to go comes back first
    BelowMinFirst,
    /// Two of three brokers gone; the last to go comes back first
    BelowMinLast,
    /// `SIGTERM` of each broker in turn
    Sigterm,
    /// The active coordinator killed while it creates a topic of 200 partitions
    CoordinatorCreate,
    /// The same while it deletes one
    CoordinatorDelete,
    /// The same while it moves partitions
    CoordinatorReassign,
}

impl Row {
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many rounds the table asks for.
    #[must_use]
    pub fn rounds(self) -> u32 {
        match self {
            Self::Kill9 => 20,
            Self::Sigstop | Self::KillAll => 10,
            Self::Sigterm => 3,
            _ => 5,
        }
    }

    fn work(self) -> Option<Work> {
        match self {
            Self::CoordinatorCreate => Some(Work::Creation),
            Self::CoordinatorDelete => Some(Work::Deletion),
            Self::CoordinatorReassign => Some(Work::Reassignment),
            _ => None,
        }
    }
}

/// Whose data and logs are kept for inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    Failed,
    All,
    None,
}

/// What a campaign is run with.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub pace: Pace,
    pub partitions: u32,
    pub producers: u32,
    /// Records per second of each partition.
    pub rate: u32,
    /// Where every round is added; none: nowhere.
    pub results: Option<PathBuf>,
    /// Whose data and logs are kept.
    pub keep: Keep,
    /// The commit that is tested: the tree may move on while rounds run.
    pub revision: String,
}

impl Plan {
    #[must_use]
    pub fn new(shape: Shape, pace: Pace) -> Self {
        Self {
            shape,
            pace,
            partitions: 30,
            producers: 2,
            rate: 100,
            results: None,
            keep: Keep::Failed,
            revision: revision(),
        }
    }

    /// Stamps a round with what was tested, prints it, keeps it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, result: &mut RoundResult) -> anyhow::Result<()> {
        result.revision.clone_from(&self.revision);
        let release = self.shape.program.components().any(|part| part.as_os_str() == "release");
        result.profile = if release { "release" } else { "dev" }.to_owned();
        result.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let say = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        eprintln!(
            "{} round {} ({}): {} acknowledged, outage {} (partition {}), back {}, phases {:?}{}",
            result.fault,
            result.round,
            result.target,
            result.acknowledged,
            say(result.outage_ms),
            result.outage_partition.map_or("-".to_owned(), |p| p.to_string()),
            say(result.recovered_ms),
            result.phases_ms,
            if result.correct() {
                String::new()
            } else {
                format!(": FAILED {:?} {:?}", result.failures, result.anomalies)
            }
        );
        for note in &result.notes {
            eprintln!("    {note}");
        }
        self.results.as_deref().map_or(Ok(()), |file| result.append_to(file))
    }
}

/// The commit that is tested.
fn revision() -> String {
    let git = |arguments: &[&str]| {
        let out = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    if changed { format!("{commit}+") } else { commit }
}

/// Runs rounds `first`, `first + 1`, … of one fault.
///
/// # Errors
/// A cluster cannot be started, or a result not be kept. Failed rounds are results.
pub async fn run(plan: &Plan, row: Row, first: u32, rounds: u32) -> anyhow::Result<Vec<RoundResult>> {
    let mut results = Vec::new();
    let mut site: Option<Site> = None;
    for round in first..first + rounds {
        let mut current = match site.take() {
            Some(site) => site,
            None => Site::open(plan, row).await?,
        };
        let mut result = current.round(plan, row, round).await;
        result.fault = row.name();
        result.round = round;
        if plan.keep == Keep::All || (!result.correct() && plan.keep == Keep::Failed) {
            result.notes.push(format!("kept: {}", current.cluster.keep().display()));
        }
        plan.record(&mut result)?;
        if result.correct() {
            site = Some(current);
        }
        results.push(result);
    }
    if let Some(mut site) = site
        && row.work().is_none()
        && let Some(mut result) = site.whole(plan, row, rounds).await
    {
        result.notes.push(format!("kept: {}", site.cluster.keep().display()));
        plan.record(&mut result)?;
        results.push(result);
    }
    Ok(results)
}

/// A cluster, and all that its topic was promised.
struct Site {
    cluster: Cluster,
    history: History,
}

impl Site {
    async fn open(plan: &Plan, row: Row) -> anyhow::Result<Self> {
        let cluster = Cluster::start(&plan.shape).await?;
        if row.work().is_none() {
            create_topic(&cluster, TOPIC, plan.partitions).await?;
        }
        Ok(Self { cluster, history: History::default() })
    }

    /// One round; whatever goes wrong is in the result.
    async fn round(&mut self, plan: &Plan, row: Row, round: u32) -> RoundResult {
        let failed =
            |error: anyhow::Error| RoundResult { failures: vec![format!("{error:#}")], ..RoundResult::default() };
        match row.work() {
            Some(work) => coordination::round(&mut self.cluster, work, plan.pace, round).await.unwrap_or_else(failed),
            None => self.loaded_round(plan, row, round).await.unwrap_or_else(failed),
        }
    }

    async fn loaded_round(&mut self, plan: &Plan, row: Row, round: u32) -> anyhow::Result<RoundResult> {
        let shape = LoadShape {
            topic: TOPIC.to_owned(),
            partitions: plan.partitions,
            producers: plan.producers,
            rate: plan.rate,
            first_producer: round * PRODUCERS_PER_ROUND,
        };
        let mut stage = Stage::open(&mut self.cluster, shape, plan.pace, round).await?;
        let before = stage.observer.moves();
        let script = match row {
            Row::Kill9 => rows::kill9(&mut stage).await,
            Row::Sigstop => rows::sigstop(&mut stage).await,
            Row::KillAll => rows::kill_all(&mut stage).await,
            Row::ZkLeader => rows::zk_leader(&mut stage).await,
            Row::ZkAway => rows::zk_away(&mut stage).await,
            Row::EmptyDisk => rows::empty_disk(&mut stage).await,
            Row::BelowMinFirst => rows::below_min_first(&mut stage).await,
            Row::BelowMinLast => rows::below_min_last(&mut stage).await,
            Row::Sigterm => rows::sigterm(&mut stage).await,
            Row::CoordinatorCreate | Row::CoordinatorDelete | Row::CoordinatorReassign => Ok(()),
        };
        if let Err(error) = script {
            stage.failures.push(format!("{error:#}"));
        }
        let (mut result, history) = stage.close(&row.name(), before).await?;
        if row == Row::Sigterm && result.failed + result.unknown > 0 {
            result.failures.push(format!("{} produces failed", result.failed + result.unknown));
        }
        self.history.absorb(&history);
        Ok(result)
    }

    /// After the last round: every record of every round is still there. None if it is.
    async fn whole(&mut self, plan: &Plan, row: Row, rounds: u32) -> Option<RoundResult> {
        let mut result = RoundResult {
            fault: row.name(),
            target: format!("everything of {rounds} rounds, read again at the end"),
            acknowledged: self.history.acknowledged() as u64,
            ..RoundResult::default()
        };
        let shape = LoadShape {
            topic: TOPIC.to_owned(),
            partitions: plan.partitions,
            producers: 0,
            rate: plan.rate,
            first_producer: 0,
        };
        let read = async {
            let client = self.cluster.client("reader").await?;
            read_from(&client, &shape, &self.history.base, Duration::from_secs(120)).await
        };
        match read.await {
            Ok(log) => {
                self.history.log = log;
                if let Err(error) = judge(&self.history, &mut result) {
                    result.failures.push(format!("{error:#}"));
                }
            }
            Err(error) => result.failures.push(format!("{error:#}")),
        }
        (!result.correct()).then_some(result)
    }
}

/// A topic of replication 3 and min in-sync 2.
///
/// # Errors
/// It is not led in time.
pub async fn create_topic(cluster: &Cluster, name: &str, partitions: u32) -> anyhow::Result<()> {
    let client = cluster.client("administrator").await?;
    let spec = TopicSpec::new(name).partitions(partitions).replication(3).config("min.insync.replicas", "2");
    client.admin().create_topic(spec).await.with_context(|| format!("creating {name}"))?;
    Ok(())
}

/// Where cargo puts the binary `baton` when it builds with the profile of the running test.
#[must_use]
pub fn default_program() -> PathBuf {
    if let Some(program) = std::env::var_os("BATON_BIN") {
        return PathBuf::from(program);
    }
    let here = std::env::current_exe().unwrap_or_default();
    // target/PROFILE/faults, or target/PROFILE/deps/faults-0123.
    let dir = here.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).unwrap_or(Path::new("."));
    dir.join("baton")
}

/// The same, built if it is not there: for tests, of which each may run alone.
///
/// # Errors
/// It cannot be built.
pub fn built_program() -> anyhow::Result<PathBuf> {
    let program = default_program();
    if program.exists() {
        return Ok(program);
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-p", "baton-coordinator", "--bin", "baton"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = program.ancestors().nth(2).filter(|dir| *dir != Path::new("")) {
        build.env("CARGO_TARGET_DIR", target);
    }
    if program.parent().is_some_and(|dir| dir.ends_with("release")) {
        build.arg("--release");
    }
    anyhow::ensure!(build.status()?.success(), "the binary baton cannot be built");
    Ok(program)
}
