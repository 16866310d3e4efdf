//! Three brokers whose storage is hurt, a load that never ends, and everything that was promised.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::COME_BACK;
use super::ballast::Ballast;
use crate::campaign::ledger::Line;
use crate::campaign::verdict::judge;
use crate::cluster::{Cluster, Storage};
use crate::loaded::Loaded;
use crate::plan::Plan;
use crate::stage::ms;

const READ_WITHIN: Duration = Duration::from_secs(120);

/// A cluster under load.
pub struct Site {
    pub cluster: Cluster,
    pub loaded: Loaded,
    /// On all three brokers.
    pub ballast: Ballast,
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
        match Self::fill(plan, &cluster, ballast_records).await {
            Ok((ballast, loaded)) => {
                eprintln!("a cluster after {:.1} s", began.elapsed().as_secs_f64());
                Ok(Self { cluster, loaded, ballast, rounds: 0, since: Instant::now() })
            }
            Err(error) => Err(error.context(format!("kept: {}", cluster.keep().display()))),
        }
    }

    async fn fill(plan: &Plan, cluster: &Cluster, records: u64) -> anyhow::Result<(Ballast, Loaded)> {
        let ballast = Ballast::fill(&cluster.client("ballast").await?, "ballast", 3, records).await?;
        Ok((ballast, Loaded::open(plan, cluster).await?))
    }

    /// Starts what does not run and waits until every partition acknowledges and all replicas
    /// are in sync.
    ///
    /// # Errors
    /// Not within the generous deadline.
    pub async fn come_back(&mut self, line: &mut Line) -> anyhow::Result<()> {
        self.cluster.restart()?;
        let began = self.loaded.load.now();
        self.cluster.ready().await?;
        self.loaded.load.all_acknowledge(began, COME_BACK).await?;
        self.loaded.observer.until_whole(self.loaded.load.shape().partitions, COME_BACK).await?;
        line.whole_ms = ms(self.loaded.load.now().saturating_sub(began));
        Ok(())
    }

    /// Ends the window of a round and judges it: everything acknowledged is read again.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn judge(&mut self, line: &mut Line, fault_at: Duration, end_at: Duration) -> anyhow::Result<()> {
        let cut = self.loaded.load.cut(COME_BACK).await?;
        let shape = self.loaded.load.shape().clone();
        let (client, chains) = (self.loaded.reader.clone(), self.loaded.chains.clone());
        let judged = judge(client, shape, cut, chains, COME_BACK).await?;
        self.loaded.enter(line, judged, fault_at, end_at);
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
        let mut line = self.loaded.whole(number, self.rounds).await;
        if let Err(error) = self.ballast.whole(&self.loaded.reader, READ_WITHIN).await {
            line.failures.push(format!("{error:#}"));
        }
        line
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
