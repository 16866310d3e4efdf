//! Three brokers whose storage is hurt, a load that never ends, and everything that was promised.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use baton_client::Client;
use baton_client::admin::TopicSpec;
use tokio::time::Instant;

use super::ballast::Ballast;
use super::{COME_BACK, Plan};
use crate::campaign::ledger::Line;
use crate::campaign::load::LastingLoad;
use crate::campaign::verdict::{Chains, compare_replicas, judge, read_whole};
use crate::campaign::{TOPIC, enter};
use crate::cluster::{Cluster, Storage};
use crate::gaps::{gaps, recovered};
use crate::load::LoadShape;
use crate::observer::Observer;
use crate::stage::ms;

const READ_WITHIN: Duration = Duration::from_secs(120);

/// A cluster under load.
pub struct Site {
    pub cluster: Cluster,
    pub load: LastingLoad,
    pub observer: Observer,
    pub reader: Client,
    /// On all three brokers.
    pub ballast: Ballast,
    pub chains: Chains,
    /// Rounds that it has gone through.
    pub rounds: u64,
    since: Instant,
}

impl Site {
    /// Starts a cluster, its topics and the load.
    ///
    /// # Errors
    /// It does not become whole.
    pub async fn open(plan: &Plan, storage: Storage, ballast_records: u64) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut cluster = Cluster::start_on(&plan.shape, storage).await?;
        match Self::load(plan, &cluster, ballast_records).await {
            Ok((load, observer, reader, ballast)) => {
                eprintln!("a cluster after {:.1} s", began.elapsed().as_secs_f64());
                let (chains, since) = (Chains::default(), Instant::now());
                Ok(Self { cluster, load, observer, reader, ballast, chains, rounds: 0, since })
            }
            Err(error) => Err(error.context(format!("kept: {}", cluster.keep().display()))),
        }
    }

    async fn load(
        plan: &Plan,
        cluster: &Cluster,
        ballast_records: u64,
    ) -> anyhow::Result<(LastingLoad, Observer, Client, Ballast)> {
        let reader = cluster.client("reader").await?;
        let spec = TopicSpec::new(TOPIC).partitions(plan.partitions).replication(3).config("min.insync.replicas", "2");
        reader.admin().create_topic(spec).await.context("creating the topic")?;
        let ballast = Ballast::fill(&reader, "ballast", 3, ballast_records).await?;
        let observer = Observer::start(cluster.client("observer").await?, TOPIC.to_owned());
        observer.until_whole(plan.partitions, COME_BACK).await.context("a new cluster")?;
        let shape = LoadShape {
            topic: TOPIC.to_owned(),
            partitions: plan.partitions,
            producers: plan.producers,
            rate: plan.rate,
            first_producer: 0,
        };
        let mut producing = Vec::new();
        for number in 0..plan.producers {
            producing.push(cluster.client(&format!("producer-{number}")).await?);
        }
        let load = LastingLoad::start(shape, producing, cluster.client("consumer").await?).await?;
        load.all_acknowledge(Duration::ZERO, COME_BACK).await.context("a new cluster")?;
        Ok((load, observer, reader, ballast))
    }

    /// Starts what does not run and waits until every partition acknowledges and all replicas
    /// are in sync.
    ///
    /// # Errors
    /// Not within the generous deadline.
    pub async fn come_back(&mut self, line: &mut Line) -> anyhow::Result<()> {
        self.cluster.restart()?;
        let began = self.load.now();
        self.cluster.ready().await?;
        self.load.all_acknowledge(began, COME_BACK).await?;
        self.observer.until_whole(self.load.shape().partitions, COME_BACK).await?;
        line.whole_ms = ms(self.load.now().saturating_sub(began));
        Ok(())
    }

    /// Ends the window of a round and judges it: everything acknowledged is read again.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn judge(&mut self, line: &mut Line, fault_at: Duration, end_at: Duration) -> anyhow::Result<()> {
        let cut = self.load.cut(COME_BACK).await?;
        let shape = self.load.shape().clone();
        let judged = judge(self.reader.clone(), shape, cut, self.chains.clone(), COME_BACK).await?;
        let worst = gaps(&judged.history, fault_at, judged.history.end).first().copied();
        line.outage_ms = worst.map_or(0.0, |gap| ms(gap.length()));
        line.recovered_ms = ms(recovered(&judged.history, end_at));
        enter(line, &judged);
        self.chains = judged.chains;
        Ok(())
    }

    /// Where a round began and ended, whatever became of it.
    pub fn end_round(&mut self, line: &mut Line, result: anyhow::Result<()>) {
        if let Err(error) = result {
            line.failures.push(format!("{error:#}"));
        }
        if let Err(error) = self.cluster.check_alive() {
            line.failures.push(error.to_string());
        }
        line.cycle_ms = ms(self.since.elapsed());
        self.since = Instant::now();
        self.rounds += 1;
    }

    /// Everything from the first record on, from every replica.
    pub async fn finish(&mut self, number: u64) -> Line {
        let mut line = Line { round: number, faults: vec!["end".to_owned()], ..Line::default() };
        let began = Instant::now();
        match self.compare().await {
            Ok(wrong) => line.failures.extend(wrong),
            Err(error) => line.failures.push(format!("{error:#}")),
        }
        line.cycle_ms = ms(began.elapsed());
        line.targets = vec![format!("{} records, {} rounds", self.chains.records(), self.rounds)];
        line
    }

    async fn compare(&mut self) -> anyhow::Result<Vec<String>> {
        let cut = self.load.stop(COME_BACK).await?;
        let shape = self.load.shape().clone();
        let judged = judge(self.reader.clone(), shape.clone(), cut, self.chains.clone(), COME_BACK).await?;
        self.chains = judged.chains;
        let found = judged.report.anomalies.iter();
        let mut wrong: Vec<String> = found.map(|(what, found)| format!("{what}: {:?}", found.examples)).collect();
        let whole = read_whole(&self.reader, &shape, READ_WITHIN).await.context("reading everything again")?;
        wrong.extend(whole.differing(&self.chains).iter().map(|p| format!("partition {p} is another one now")));
        let compared = compare_replicas(&self.reader, &self.observer, &shape, &self.chains, READ_WITHIN).await;
        wrong.extend(compared.context("comparing the replicas")?);
        self.ballast.whole(&self.reader, READ_WITHIN).await?;
        Ok(wrong)
    }

    /// The log of a broker, from `from` bytes on.
    #[must_use]
    pub fn log_since(&self, broker: u32, from: u64) -> String {
        let text = std::fs::read(self.log_file(broker)).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[from..]).into_owned()
    }

    /// How long the log of a broker is.
    #[must_use]
    pub fn log_length(&self, broker: u32) -> u64 {
        std::fs::metadata(self.log_file(broker)).map_or(0, |found| found.len())
    }

    fn log_file(&self, broker: u32) -> PathBuf {
        self.cluster.dir().join(format!("broker-{broker}.log"))
    }
}
