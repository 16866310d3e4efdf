//! Who leads what, and who is in sync, sampled while a round goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use baton_client::{BrokerId, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const EVERY: Duration = Duration::from_millis(100);

/// One partition at one moment, as some broker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub leader: Option<BrokerId>,
    pub epoch: u32,
    pub isr: Vec<BrokerId>,
    pub replicas: usize,
}

/// By partition.
pub type Sample = BTreeMap<u32, Seen>;

/// How leaders moved since the observation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Partitions whose leader became another broker, every time counted.
    pub leaders: u64,
    /// By how much the epochs rose, over all partitions.
    pub epochs: u64,
}

/// Samples a topic until it is dropped.
pub struct Observer {
    samples: watch::Receiver<(Instant, Sample, Moves)>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    #[must_use]
    pub fn start(client: Client, topic: String) -> Self {
        let (sender, samples) = watch::channel((Instant::now(), Sample::new(), Moves::default()));
        let task = tokio::spawn(observe(client, topic, sender));
        Self { samples, task }
    }

    #[must_use]
    pub fn moves(&self) -> Moves {
        self.samples.borrow().2
    }

    #[must_use]
    pub fn sample(&self) -> Sample {
        self.samples.borrow().1.clone()
    }

    /// How many partitions each broker leads.
    #[must_use]
    pub fn led_by(&self, broker: u32) -> usize {
        let sample = self.sample();
        sample.values().filter(|seen| seen.leader == Some(BrokerId(broker))).count()
    }

    /// Waits until a sample taken from now on satisfies `is` in every partition.
    ///
    /// # Errors
    /// None within `within`; the text says which partitions do not.
    pub async fn until(
        &self,
        partitions: u32,
        within: Duration,
        is: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut samples = self.samples.clone();
        loop {
            let (at, sample, _) = samples.borrow_and_update().clone();
            if at >= began && sample.len() == partitions as usize && sample.values().all(&is) {
                return Ok(began.elapsed());
            }
            let left = within.saturating_sub(began.elapsed());
            if timeout(left, samples.changed()).await.is_err() {
                let late: Vec<_> = sample.iter().filter(|(_, seen)| !is(seen)).take(5).collect();
                bail!("not so in all partitions within {within:?}: {late:?}");
            }
        }
    }

    /// Waits until every partition has a leader and all its replicas are in sync.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_whole(&self, partitions: u32, within: Duration) -> anyhow::Result<Duration> {
        self.until(partitions, within, |seen| seen.leader.is_some() && seen.isr.len() == seen.replicas).await
    }
}

async fn observe(client: Client, topic: String, samples: watch::Sender<(Instant, Sample, Moves)>) {
    let admin = client.admin();
    let mut moves = Moves::default();
    let mut known = Sample::new();
    loop {
        let at = Instant::now();
        if let Ok(Ok(described)) = timeout(Duration::from_secs(2), admin.describe_topic(&topic)).await {
            let seen = described.partitions.into_iter().map(|p| {
                (p.partition, Seen { leader: p.leader, epoch: p.epoch.0, isr: p.isr, replicas: p.replicas.len() })
            });
            let sample: Sample = seen.collect();
            for (partition, seen) in &sample {
                moves.note(known.get(partition), seen);
                // A broker that lags behind answers with what was before.
                if known.get(partition).is_none_or(|known| known.epoch <= seen.epoch) {
                    let leader = seen.leader.or_else(|| known.get(partition).and_then(|known| known.leader));
                    known.insert(*partition, Seen { leader, ..seen.clone() });
                }
            }
            samples.send_replace((at, sample, moves));
        }
        sleep(EVERY).await;
    }
}

impl Moves {
    fn note(&mut self, before: Option<&Seen>, now: &Seen) {
        let Some(before) = before.filter(|before| before.epoch < now.epoch) else { return };
        self.epochs += u64::from(now.epoch - before.epoch);
        if before.leader.is_some() && now.leader.is_some() && before.leader != now.leader {
            self.leaders += 1;
        }
    }
}

impl std::ops::Sub for Moves {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { leaders: self.leaders - before.leaders, epochs: self.epochs - before.epochs }
    }
}
