//! One round under load: warm up, let a script do its harm, come to rest, judge.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use baton_history::report::Kind as Anomaly;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::events::check;
use crate::gaps::{all_acknowledge_again, gaps, reading_gap};
use crate::history::History;
use crate::load::{Load, LoadShape};
use crate::observer::{Moves, Observer};
use crate::results::RoundResult;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Load before the fault.
    pub warm: Duration,
    /// Load after the fault, before anything is repaired: longer than a ZooKeeper session, so
    /// that its end is seen too.
    pub hurt: Duration,
    /// Load after everything is back.
    pub settle: Duration,
    /// How long a stopped broker stays stopped.
    pub freeze: Duration,
    /// How long the ZooKeeper ensemble is away.
    pub away: Duration,
    /// The generous deadline within which everything has to come back by itself.
    pub come_back: Duration,
}

impl Pace {
    /// As the table of the faults asks.
    #[must_use]
    pub fn full() -> Self {
        Self {
            warm: Duration::from_secs(2),
            hurt: Duration::from_secs(6),
            settle: Duration::from_secs(2),
            freeze: Duration::from_secs(10),
            away: Duration::from_secs(30),
            come_back: Duration::from_secs(60),
        }
    }

    /// For a test of minutes.
    #[must_use]
    pub fn short() -> Self {
        Self {
            warm: Duration::from_secs(1),
            hurt: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            freeze: Duration::from_secs(3),
            away: Duration::from_secs(8),
            ..Self::full()
        }
    }
}

/// What a script works with.
pub struct Stage<'a> {
    pub cluster: &'a mut Cluster,
    pub load: Load,
    pub observer: Observer,
    pub pace: Pace,
    pub shape: LoadShape,
    pub round: u32,
    /// Who is hit.
    pub target: String,
    fault_at: Option<Duration>,
    /// From when on a complete recovery is counted.
    pub recovery_from: Option<Duration>,
    pub recovered: Option<Duration>,
    phases: Vec<(&'static str, Duration)>,
    pub notes: Vec<String>,
    pub failures: Vec<String>,
}

impl<'a> Stage<'a> {
    /// Begins the load and waits until every partition takes it.
    ///
    /// # Errors
    /// The cluster is not whole, or the load does not run.
    pub async fn open(cluster: &'a mut Cluster, shape: LoadShape, pace: Pace, round: u32) -> anyhow::Result<Self> {
        let observer = Observer::start(cluster.client("observer").await?, shape.topic.clone());
        observer.until_whole(shape.partitions, pace.come_back).await.context("before the round")?;
        let (producing, consuming) = (cluster.client("producer").await?, cluster.client("consumer").await?);
        let load = Load::start(shape.clone(), producing, consuming).await?;
        load.all_acknowledge(Duration::ZERO, pace.come_back).await.context("before the fault")?;
        sleep(pace.warm).await;
        Ok(Self {
            cluster,
            load,
            observer,
            pace,
            shape,
            round,
            target: String::new(),
            fault_at: None,
            recovery_from: None,
            recovered: None,
            phases: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// From now on gaps count. Call it right before the harm.
    pub fn fault(&mut self, phase: &'static str) {
        let now = self.load.now();
        self.fault_at.get_or_insert(now);
        self.recovery_from.get_or_insert(now);
        self.phases.push((phase, now));
    }

    /// Another part of the round begins: its gaps are listed apart.
    pub fn phase(&mut self, phase: &'static str) {
        self.phases.push((phase, self.load.now()));
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Which broker this round hits: each in its turn.
    #[must_use]
    pub fn victim(&self) -> u32 {
        self.round % self.cluster.broker_count() + 1
    }

    /// Waits until every partition acknowledges what was sent from now on.
    ///
    /// # Errors
    /// Not within the generous deadline.
    pub async fn acknowledging(&self) -> anyhow::Result<()> {
        self.load.all_acknowledge(self.load.now(), self.pace.come_back).await
    }

    /// Starts whatever does not run and waits until all copies are in sync and all partitions
    /// acknowledge; then a little longer.
    ///
    /// # Errors
    /// Not within the generous deadline.
    pub async fn come_back(&mut self) -> anyhow::Result<()> {
        self.cluster.restore().await?;
        let whole = self.observer.until_whole(self.shape.partitions, self.pace.come_back).await?;
        self.note(format!("whole {:.1} s after the last process was ready", whole.as_secs_f64()));
        self.acknowledging().await?;
        sleep(self.pace.settle).await;
        Ok(())
    }

    /// Ends the load and judges.
    ///
    /// # Errors
    /// The load cannot be brought to its end: nothing can be said about the round then.
    pub async fn close(mut self, fault: &str, before: Moves) -> anyhow::Result<(RoundResult, History)> {
        if let Err(error) = self.cluster.check_alive() {
            self.failures.push(error.to_string());
        }
        let moves = self.observer.moves() - before;
        let mut history = self.load.finish(self.pace.come_back).await?;
        history.disown_strangers();
        let fault_at = self.fault_at.unwrap_or_default();
        let worst = gaps(&history, fault_at, history.end).first().copied();
        let ends = self.phases.iter().skip(1).map(|(_, at)| *at).chain([history.end]);
        let phase = |((name, since), until): (&(&str, Duration), Duration)| {
            let longest = gaps(&history, *since, until).first().map(|gap| ms(gap.length()));
            longest.map(|longest| ((*name).to_owned(), longest))
        };
        let phases_ms: BTreeMap<String, f64> = self.phases.iter().zip(ends).filter_map(phase).collect();
        let recovery_from = self.recovery_from.unwrap_or_default();
        let recovered = self
            .recovered
            .or_else(|| all_acknowledge_again(&history, recovery_from).map(|at| at.saturating_sub(recovery_from)));
        let (failed, unknown) = history.failed();
        let mut result = RoundResult {
            fault: fault.to_owned(),
            round: self.round,
            target: self.target,
            sent: history.attempts.len() as u64,
            acknowledged: history.acknowledged() as u64,
            failed: failed as u64,
            unknown: unknown as u64,
            outage_ms: worst.map(|gap| ms(gap.length())),
            outage_partition: worst.map(|gap| gap.partition),
            phases_ms,
            reading_gap_ms: Some(ms(reading_gap(&history, fault_at))),
            recovered_ms: recovered.map(ms),
            leaders_moved: moves.leaders,
            epochs: moves.epochs,
            notes: self.notes,
            failures: self.failures,
            ..RoundResult::default()
        };
        judge(&history, &mut result)?;
        Ok((result, history))
    }
}

/// Adds what the checker finds.
///
/// # Errors
/// The history contradicts itself: a defect of the harness.
pub fn judge(history: &History, result: &mut RoundResult) -> anyhow::Result<()> {
    let report = check(history)?;
    result.lost = report.count(Anomaly::Lost);
    result.reordered = report.count(Anomaly::Reordered);
    result.duplicates = report.count(Anomaly::Duplicate);
    for (anomaly, found) in &report.anomalies {
        result.anomalies.insert(anomaly.to_string(), found.count);
        result.notes.extend(found.examples.iter().map(|example| format!("{anomaly}: {}", example.what)));
    }
    Ok(())
}

#[must_use]
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
