//! Damage at rest: one bit or one block of 4 KiB, anywhere in the files of a stopped broker.
//!
//! Each round says what became of it:
//!
//! - `repaired`: the broker noticed, and its copies are whole again;
//! - `no effect`: it said nothing, and everything that it holds was read from it and is right;
//! - `refused`: it noticed, and the records of which it had the only copy are not served.
//!
//! Anything else is a failure: above all a record that is not the one that was written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use baton_client::BrokerId;
use baton_faultdisk::damage::{Damaged, damage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use super::COME_BACK;
use super::ballast::{Ballast, Held};
use super::site::Site;
use crate::campaign::ledger::Line;
use crate::campaign::verdict::{read_from_one, read_whole};
use crate::cluster::Storage;
use crate::daemon::Signal;
use crate::disk::DiskKind;
use crate::plan::Plan;

/// Small memtables, so that there are tables and blob files to be damaged; and every copy is
/// read once after each start, as fast as can be.
const STORAGE: Storage = Storage {
    disk: DiskKind::Directory,
    log_config: "memtable_bytes = 262144\nscrub_interval_ms = 3600000\nscrub_bytes_per_s = 1073741824\n",
};
const BALLAST_RECORDS: u64 = 250;
const ALONE: &str = "alone";
const PATIENCE: Duration = Duration::from_secs(20);
/// A broker may stop when it meets damage; started again it has to cope with it.
const STARTS_MAX: u32 = 4;
/// More than a broker takes that has nothing to complain about.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// What one says that ends because of what is on its disk.
const ENDS: [&str; 2] = ["the log cannot go on", "does not start"];
/// What a broker says that found something.
const REPORTS: [&str; 5] = ["is damaged", "was set aside", "cannot be read", "Repair {", "written again"];

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// One broker; the others have everything that is replicated.
    One(u32),
    /// Every broker, each somewhere else.
    All,
}

/// Runs the rounds; whatever goes wrong in one is in its line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
pub async fn run(plan: &Plan) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut site: Option<Place> = None;
    for number in plan.first..plan.first + plan.rounds {
        if plan.time_is_up() {
            break;
        }
        let mut current = match site.take() {
            Some(site) => site,
            None => Place::open(plan).await.context("a new cluster")?,
        };
        let mut line = Line { round: number, ..Line::default() };
        let result = current.round(plan, number, &mut line).await;
        let last = current.spent || current.site.rounds + 1 >= plan.cluster_rounds;
        current.site.end_round(&mut line, result);
        let good = plan.keep(&mut line)?;
        lines.push(line);
        if !good {
            eprintln!("    kept: {}", current.site.cluster.keep().display());
        } else if !last {
            site = Some(current);
        }
    }
    Ok(lines)
}

/// A site, and what has one copy only.
struct Place {
    site: Site,
    alone: Ballast,
    /// The next round begins with a new cluster.
    spent: bool,
}

impl Place {
    async fn open(plan: &Plan) -> anyhow::Result<Self> {
        let site = Site::open(plan, STORAGE, BALLAST_RECORDS).await?;
        let alone = Ballast::fill(&site.loaded.reader, ALONE, 1, BALLAST_RECORDS).await?;
        Ok(Self { site, alone, spent: false })
    }

    async fn round(&mut self, plan: &Plan, number: u64, line: &mut Line) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(plan.seed_of(number));
        sleep(Duration::from_millis(random.random_range(100..600))).await;
        let brokers = self.site.cluster.broker_count();
        let victim = random.random_range(1..=brokers);
        let scope = if random.random_bool(0.15) { Scope::All } else { Scope::One(victim) };
        line.faults = vec![if scope == Scope::All { "damage-all" } else { "damage-one" }.to_owned()];
        // In order, or killed: the journals are in another state then.
        let killed = random.random_bool(0.4);
        match scope {
            Scope::One(victim) => self.one(victim, killed, &mut random, line).await,
            Scope::All => self.all(&mut random, line).await,
        }
    }

    async fn one(&mut self, victim: u32, killed: bool, random: &mut StdRng, line: &mut Line) -> anyhow::Result<()> {
        let fault_at = self.site.loaded.load.now();
        self.stop(victim, killed).await?;
        let from = self.site.log_length(victim);
        let done = self.hurt(victim, random)?;
        let how = if killed { "killed" } else { "stopped" };
        line.targets = vec![format!("broker {victim}, {how}, {}", describe(&done))];
        let end_at = self.site.loaded.load.now();
        let mut starts = 1;
        let (noticed, alone) = loop {
            match self.repaired(victim, from, line).await {
                Ok(found) => break found,
                Err(error) if starts == STARTS_MAX || !self.started_again(line).await? => return Err(error),
                Err(_) => starts += 1,
            }
        };
        self.site.judge(line, fault_at, end_at).await?;
        let outcome = match (noticed, alone) {
            (Some(what), true) => format!("repaired ({what})"),
            (Some(what), false) => format!("repaired, and the only copy refused ({what})"),
            (None, _) => "no effect".to_owned(),
        };
        line.targets[0] += &format!(": {outcome}");
        self.started_again(line).await?;
        Ok(())
    }

    /// Everything is in sync, what is served is right, and the broker holds it. What was
    /// noticed, and whether the only copies are served.
    async fn repaired(&mut self, victim: u32, from: u64, line: &mut Line) -> anyhow::Result<(Option<String>, bool)> {
        let noticed = self.until_repaired(victim, from, line).await?;
        self.site.ballast.whole(&self.site.loaded.reader, COME_BACK).await?;
        // One that ended has said why, whichever it was.
        let told = noticed.is_some() || !line.ended.is_empty();
        let alone = self.check_alone(told, line).await?;
        self.compare(victim).await.context("what the broker holds")?;
        Ok((noticed, alone))
    }

    /// Whether a broker ended because of what is on its disk: its supervisor starts it again, as
    /// it would start any process. The store reads some damage only when it rewrites its tables,
    /// which may be rounds later, and a broker whose store has stopped cannot go on.
    async fn started_again(&mut self, line: &mut Line) -> anyhow::Result<bool> {
        for (_, how) in self.site.cluster.ended() {
            ensure!(ENDS.iter().any(|end| how.contains(end)), "{how}");
        }
        let all = 1..=self.site.cluster.broker_count();
        let down: Vec<u32> = all.filter(|id| !self.site.cluster.broker(*id).runs()).collect();
        line.ended.extend(down.iter().map(|id| format!("broker-{id}")));
        self.site.cluster.restart()?;
        Ok(!down.is_empty())
    }

    /// Starts the broker, and waits until it has read every copy and everything is in sync.
    async fn until_repaired(&mut self, id: u32, from: u64, line: &mut Line) -> anyhow::Result<Option<String>> {
        self.site.come_back(line).await.context("after the damage")?;
        let noticed = self.scrubbed(id, from).await?;
        // What was noticed late is refilled now.
        self.site.come_back(line).await.context("after the repair")?;
        Ok(noticed)
    }

    /// All brokers are stopped in order and damaged, each somewhere else. What is served
    /// afterwards is right; what is not served was reported.
    async fn all(&mut self, random: &mut StdRng, line: &mut Line) -> anyhow::Result<()> {
        self.spent = true;
        let cut = self.site.loaded.load.stop(COME_BACK).await?;
        let shape = self.site.loaded.load.shape().clone();
        let history = crate::campaign::verdict::judge(
            self.site.loaded.reader.clone(),
            shape.clone(),
            cut,
            self.site.loaded.chains.clone(),
            COME_BACK,
        );
        let judged = history.await?;
        crate::loaded::count(line, &judged);
        let brokers: Vec<u32> = (1..=self.site.cluster.broker_count()).collect();
        let mut from = Vec::new();
        for id in &brokers {
            self.stop(*id, false).await?;
        }
        let mut told = Vec::new();
        for id in &brokers {
            from.push(self.site.log_length(*id));
            told.push(describe(&self.hurt(*id, random)?));
        }
        self.site.cluster.restart()?;
        for id in &brokers {
            // Where every copy in sync is damaged, its brokers are not ready, and say why.
            let _ = self.site.cluster.broker(*id).ready(READY_WITHIN).await;
        }
        let mut noticed = 0;
        for (id, from) in brokers.iter().zip(from) {
            noticed += u32::from(self.scrubbed(*id, from).await?.is_some());
        }
        // Refills take a moment; what is refused stays so.
        let (mut refused, began) = (Vec::new(), Instant::now());
        while began.elapsed() < PATIENCE {
            refused.clear();
            for ballast in [&self.site.ballast, &self.alone] {
                for held in ballast.check(&self.site.loaded.reader, Duration::from_secs(3)).await {
                    match held {
                        Held::Whole => {}
                        Held::Refused { why, .. } => refused.push(why),
                        Held::Wrong(what) => bail!("served wrong: {what}"),
                    }
                }
            }
            if refused.is_empty() {
                break;
            }
        }
        ensure!(refused.is_empty() || noticed > 0, "refused without a report: {refused:?}");
        // Every record that is served is one that was there; all of them, or it says so.
        match read_whole(&self.site.loaded.reader, &shape, Duration::from_secs(10)).await {
            Ok(held) => {
                let differing = held.differing(&judged.chains);
                ensure!(differing.is_empty(), "partitions {differing:?} are others now");
            }
            Err(error) => {
                ensure!(noticed > 0, "refused without a report: {error:#}");
                refused.push(format!("{error:#}"));
            }
        }
        let outcome = if refused.is_empty() { "all served" } else { "some refused" };
        line.targets = vec![format!("{}: noticed by {noticed}, {outcome}", told.join(", "))];
        Ok(())
    }

    async fn stop(&mut self, id: u32, killed: bool) -> anyhow::Result<()> {
        let broker = self.site.cluster.broker(id);
        if killed {
            broker.kill();
            return Ok(());
        }
        broker.signal(Signal::Terminate)?;
        broker.ended(COME_BACK).await?;
        Ok(())
    }

    fn hurt(&self, id: u32, random: &mut StdRng) -> anyhow::Result<Damaged> {
        let among = |file: &Path| file.file_name().is_none_or(|name| name != "lock");
        let done = damage(&self.site.cluster.disk(id).data(), random.random(), among)?;
        done.context("there is nothing to be damaged")
    }

    /// Waits until the broker has read every copy, or found it damaged. What it reported, if
    /// anything.
    async fn scrubbed(&mut self, id: u32, from: u64) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + COME_BACK;
        loop {
            self.site.cluster.check_alive()?;
            let broker = self.site.cluster.broker(id);
            let held = broker.metric("baton_partitions").await.unwrap_or(f64::MAX);
            let scrubbed = broker.metric("baton_scrubbed_copies_total").await.unwrap_or(0.0);
            let damaged = broker.metric("baton_damaged_copies_total").await.unwrap_or(0.0);
            if held > 0.0 && scrubbed + damaged >= held {
                let text = self.site.log_since(id, from);
                let report = text.lines().find(|line| REPORTS.iter().any(|report| line.contains(report)));
                let told = report.map(|line| line.chars().take(160).collect::<String>());
                return Ok(told.or((damaged > 0.0).then(|| format!("{damaged} copies"))));
            }
            ensure!(Instant::now() < deadline, "broker {id} has read {scrubbed} of {held} copies, {damaged} damaged");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Of what has one copy: whole, or refused after a report. Makes it anew if it is refused.
    async fn check_alone(&mut self, noticed: bool, line: &mut Line) -> anyhow::Result<bool> {
        let held = self.alone.check(&self.site.loaded.reader, Duration::from_secs(4)).await;
        if let Some(Held::Wrong(what)) = held.iter().find(|held| matches!(held, Held::Wrong(_))) {
            bail!("served wrong: {what}");
        }
        let whole = held.iter().all(|held| *held == Held::Whole);
        ensure!(whole || noticed, "refused without a report: {held:?}");
        if !whole {
            line.targets.iter_mut().for_each(|target| target.push_str(&refusals(&held)));
            self.spent = true;
        }
        Ok(whole)
    }

    /// Everything that this broker holds of what is replicated, read from it.
    async fn compare(&mut self, id: u32) -> anyhow::Result<()> {
        let (reader, observer) = (&self.site.loaded.reader, &self.site.loaded.observer);
        let shape = self.site.loaded.load.shape();
        read_from_one(reader, observer, shape, BrokerId(id), &self.site.loaded.chains, COME_BACK).await
    }
}

fn refusals(held: &[Held]) -> String {
    let why = held.iter().find_map(|held| match held {
        Held::Refused { read, why } => Some(format!(" (refused after {read}: {why})")),
        _ => None,
    });
    why.unwrap_or_default()
}

fn describe(done: &Damaged) -> String {
    let Damaged { file, offset, kind, length } = done;
    let file: PathBuf = file.clone();
    format!("{kind:?} of {length} at {offset} of {}", file.display())
}
