//! A topic under a load that never ends, and everything that was promised about it.

use std::time::Duration;

use anyhow::Context;
use baton_client::Client;
use baton_client::admin::TopicSpec;
use baton_history::report::Kind as Anomaly;
use tokio::time::Instant;

use crate::campaign::ledger::Line;
use crate::campaign::load::LastingLoad;
use crate::campaign::verdict::{Chains, Judged, compare_replicas, judge, read_whole};
use crate::campaign::{COME_BACK, TOPIC};
use crate::cluster::Cluster;
use crate::gaps::{gaps, recovered};
use crate::observer::Observer;
use crate::plan::Plan;
use crate::stage::ms;

/// What a whole cluster's records may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(180);

/// The load of a cluster, from its first record on.
pub struct Loaded {
    pub load: LastingLoad,
    pub observer: Observer,
    pub reader: Client,
    /// What was read of all windows that were judged.
    pub chains: Chains,
}

impl Loaded {
    /// Makes the topic, and waits until all of its partitions acknowledge.
    ///
    /// # Errors
    /// It does not become whole.
    pub async fn open(plan: &Plan, cluster: &Cluster) -> anyhow::Result<Self> {
        let reader = cluster.client("reader").await?;
        let spec = TopicSpec::new(TOPIC).partitions(plan.partitions).replication(3).config("min.insync.replicas", "2");
        reader.admin().create_topic(spec).await.context("creating the topic")?;
        let observer = Observer::start(cluster.client("observer").await?, TOPIC.to_owned());
        observer.until_whole(plan.partitions, COME_BACK).await.context("a new cluster")?;
        let mut producing = Vec::new();
        for number in 0..plan.producers {
            producing.push(cluster.client(&format!("producer-{number}")).await?);
        }
        let load = LastingLoad::start(plan.load(), producing, cluster.client("consumer").await?).await?;
        load.all_acknowledge(Duration::ZERO, COME_BACK).await.context("a new cluster")?;
        Ok(Self { load, observer, reader, chains: Chains::default() })
    }

    /// Adds to a line what a window showed whose fault came and ended then.
    pub fn enter(&mut self, line: &mut Line, judged: Judged, fault_at: Duration, end_at: Duration) {
        let worst = gaps(&judged.history, fault_at, judged.history.end).first().copied();
        line.outage_ms = worst.map_or(0.0, |gap| ms(gap.length()));
        line.recovered_ms = ms(recovered(&judged.history, end_at));
        count(line, &judged);
        self.chains = judged.chains;
    }

    /// The line that ends the life of a cluster: everything is read again from the first record
    /// on, and from every replica.
    pub async fn whole(&mut self, number: u64, rounds: u64) -> Line {
        let mut line = Line { round: number, faults: vec!["end".to_owned()], ..Line::default() };
        let began = Instant::now();
        match self.compare().await {
            Ok(wrong) => line.failures.extend(wrong),
            Err(error) => line.failures.push(format!("{error:#}")),
        }
        line.cycle_ms = ms(began.elapsed());
        line.targets = vec![format!("{} records, {rounds} rounds", self.chains.records())];
        line
    }

    async fn compare(&mut self) -> anyhow::Result<Vec<String>> {
        let cut = self.load.stop(COME_BACK).await?;
        let shape = self.load.shape().clone();
        let judged = judge(self.reader.clone(), shape.clone(), cut, self.chains.clone(), COME_BACK).await?;
        self.chains = judged.chains;
        let found = judged.report.anomalies.iter();
        let mut wrong: Vec<String> = found.map(|(what, found)| format!("{what}: {:?}", found.examples)).collect();
        wrong.extend(self.chains.broken().iter().map(|p| format!("partition {p} has holes, or its epochs fall")));
        let whole = read_whole(&self.reader, &shape, READ_WITHIN).await.context("reading everything again")?;
        wrong.extend(whole.differing(&self.chains).iter().map(|p| format!("partition {p} is another one now")));
        let compared = compare_replicas(&self.reader, &self.observer, &shape, &self.chains, READ_WITHIN).await;
        wrong.extend(compared.context("comparing the replicas")?);
        Ok(wrong)
    }
}

/// Adds what the checker found.
pub fn count(line: &mut Line, judged: &Judged) {
    let (failed, unknown) = judged.history.failed();
    line.sent = (judged.history.attempts.len() - judged.carried) as u64;
    line.acknowledged = judged.history.acknowledged() as u64;
    (line.failed, line.unknown) = (failed as u64, unknown as u64);
    line.lost = judged.report.count(Anomaly::Lost);
    line.reordered = judged.report.count(Anomaly::Reordered);
    line.duplicates = judged.report.count(Anomaly::Duplicate);
    for (anomaly, found) in &judged.report.anomalies {
        line.anomalies.insert(anomaly.to_string(), found.count);
        line.failures.extend(found.examples.iter().map(|example| format!("{anomaly}: {}", example.what)));
    }
}
