//! Steady load on every partition, and a consumer that follows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use baton_client::admin::At;
use baton_client::{Client, ClientError, ConsumedRecord, ConsumerConfig, Delivery, Offset, Producer};
use baton_client::{ProducerConfig, Record, Start};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::history::{Attempt, History, Outcome, RecordId, Stored};

/// Records of one producer and partition that wait for their acknowledgement.
const WAITING_MAX: usize = 100_000;

/// What the load is.
#[derive(Clone, Debug)]
pub struct LoadShape {
    pub topic: String,
    pub partitions: u32,
    /// Producers that share the rate; each with a producer id of its own.
    pub producers: u32,
    /// Records per second of each partition, of all producers together.
    pub rate: u32,
    /// The first producer's number: unique over all rounds.
    pub first_producer: u32,
}

/// When each partition was last acknowledged, in microseconds since the beginning.
type LastAcknowledged = Arc<Vec<AtomicU64>>;

/// A running load.
pub struct Load {
    shape: LoadShape,
    began: Instant,
    client: Client,
    producers: Vec<Producer>,
    stop: watch::Sender<bool>,
    senders: JoinSet<Vec<Attempt>>,
    collectors: JoinSet<Vec<Attempt>>,
    tail_until: watch::Sender<Option<BTreeMap<u32, u64>>>,
    tail: JoinHandle<Tail>,
    last: LastAcknowledged,
    base: BTreeMap<u32, u64>,
}

/// What the consumer saw.
#[derive(Debug, Default)]
struct Tail {
    read: BTreeMap<u32, Vec<Stored>>,
    times: BTreeMap<u32, Vec<Duration>>,
    errors: Vec<String>,
}

impl Load {
    /// Begins to produce and to consume. `clients` are one for producing and one for consuming.
    ///
    /// # Errors
    /// The topic's ends cannot be asked for.
    pub async fn start(shape: LoadShape, producing: Client, consuming: Client) -> anyhow::Result<Self> {
        let base = ends(&producing, &shape, Duration::from_secs(30)).await?;
        let began = Instant::now();
        let last: LastAcknowledged = Arc::new((0..shape.partitions).map(|_| AtomicU64::new(0)).collect());
        let (stop, stopped) = watch::channel(false);
        let (tail_until, until) = watch::channel(None);
        let tail = tokio::spawn(follow(consuming, shape.clone(), base.clone(), began, until));
        let (mut senders, mut collectors, mut producers) = (JoinSet::new(), JoinSet::new(), Vec::new());
        for number in 0..shape.producers {
            let producer = producing.producer(ProducerConfig::default());
            producers.push(producer.clone());
            let (lanes, received): (Vec<_>, Vec<_>) = (0..shape.partitions).map(|_| mpsc::channel(WAITING_MAX)).unzip();
            for lane in received {
                collectors.spawn(collect(lane, began, last.clone()));
            }
            let sender = Sender { shape: shape.clone(), producer, number: shape.first_producer + number, began, lanes };
            let offset = Duration::from_secs(1) / shape.rate * number;
            senders.spawn(sender.run(offset, stopped.clone()));
        }
        Ok(Self { shape, began, client: producing, producers, stop, senders, collectors, tail_until, tail, last, base })
    }

    /// Time since the load began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until every partition acknowledged after `since`.
    ///
    /// # Errors
    /// Some did not within `within`: which.
    pub async fn all_acknowledge(&self, since: Duration, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        let since = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        loop {
            let late: Vec<usize> =
                (0..self.last.len()).filter(|p| self.last[*p].load(Ordering::Relaxed) <= since).collect();
            if late.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("partitions {late:?} acknowledged nothing within {within:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops producing, waits for every answer, lets the consumer reach the end, reads
    /// everything again.
    ///
    /// # Errors
    /// The ends cannot be asked for, or not everything can be read, within `within` each.
    pub async fn finish(mut self, within: Duration) -> anyhow::Result<History> {
        let mut history = History { partitions: self.shape.partitions, end: self.now(), ..History::default() };
        self.stop.send_replace(true);
        while let Some(failed) = self.senders.join_next().await {
            history.attempts.extend(failed?);
        }
        let closing = self.producers.iter().map(|producer| producer.close(within));
        // Failures are counted record by record.
        let _ = futures::future::join_all(closing).await;
        let collected = async {
            let mut attempts = Vec::new();
            while let Some(collected) = self.collectors.join_next().await {
                attempts.extend(collected?);
            }
            anyhow::Ok(attempts)
        };
        let collected = timeout(Duration::from_secs(30), collected).await;
        history.attempts.extend(collected.context("records without an outcome although the producer was closed")??);
        let ends = ends(&self.client, &self.shape, within).await.context("the ends of the partitions")?;
        self.tail_until.send_replace(Some(ends.clone()));
        let abort = self.tail.abort_handle();
        match timeout(within, self.tail).await {
            Ok(tail) => {
                let tail = tail?;
                (history.tail, history.tail_times, history.tail_errors) = (tail.read, tail.times, tail.errors);
            }
            Err(_) => {
                abort.abort();
                history.tail_errors.push(format!("the consumer did not reach the end within {within:?}"));
            }
        }
        history.log = read_all(&self.client, &self.shape, &self.base, &ends, within).await?;
        (history.base, history.ends) = (self.base, ends);
        Ok(history)
    }
}

/// One producer.
struct Sender {
    shape: LoadShape,
    producer: Producer,
    number: u32,
    began: Instant,
    lanes: Vec<mpsc::Sender<Sent>>,
}

struct Sent {
    id: RecordId,
    at: Duration,
    delivery: Delivery,
}

impl Sender {
    /// Sends one record to every partition at each tick, and catches up on ticks that it missed.
    /// Returns what could not even be sent.
    async fn run(self, offset: Duration, stop: watch::Receiver<bool>) -> Vec<Attempt> {
        let mut failed = Vec::new();
        let mut ticks = interval(Duration::from_secs(1) / self.shape.rate * self.shape.producers);
        sleep(offset).await;
        for sequence in 0.. {
            ticks.tick().await;
            for partition in 0..self.shape.partitions {
                if *stop.borrow() {
                    return failed;
                }
                let id = RecordId { producer: self.number, partition, sequence };
                let at = self.began.elapsed();
                let record = Record::new(id.to_value()).partition(partition);
                match self.producer.send(&self.shape.topic, record).await {
                    Ok(delivery) => {
                        // The collectors live as long as there are senders.
                        let _ = self.lanes[partition as usize].send(Sent { id, at, delivery }).await;
                    }
                    Err(error) => {
                        let outcome = Outcome::NotStored(error.to_string());
                        failed.push(Attempt { id, sent: at, ended: self.began.elapsed(), outcome });
                    }
                }
            }
        }
        failed
    }
}

async fn collect(mut lane: mpsc::Receiver<Sent>, began: Instant, last: LastAcknowledged) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while let Some(Sent { id, at, delivery }) = lane.recv().await {
        let outcome = outcome(delivery.wait().await);
        let ended = began.elapsed();
        if let (Outcome::Acknowledged { .. }, Some(last)) = (&outcome, last.get(id.partition as usize)) {
            last.fetch_max(u64::try_from(ended.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        attempts.push(Attempt { id, sent: at, ended, outcome });
    }
    attempts
}

/// What an answer of the client promises.
#[must_use]
pub fn outcome(answer: Result<baton_client::RecordMetadata, ClientError>) -> Outcome {
    match answer {
        Ok(stored) => Outcome::Acknowledged { offset: stored.offset.0, epoch: stored.epoch.0 },
        Err(error) => {
            let certain = matches!(
                error,
                ClientError::DeliveryTimeout { maybe_stored: false, .. }
                    | ClientError::Refused { maybe_stored: false, .. }
            );
            let text = error.to_string();
            if certain { Outcome::NotStored(text) } else { Outcome::Unknown(text) }
        }
    }
}

/// The end of every partition, as its leader says.
pub async fn ends(client: &Client, shape: &LoadShape, within: Duration) -> anyhow::Result<BTreeMap<u32, u64>> {
    let partitions: Vec<u32> = (0..shape.partitions).collect();
    let deadline = Instant::now() + within;
    loop {
        match client.admin().offsets(&shape.topic, &partitions, At::End).await {
            Ok(ends) if ends.values().all(Option::is_some) => {
                return Ok(ends.into_iter().map(|(p, end)| (p, end.unwrap_or(Offset::ZERO).0)).collect());
            }
            Ok(_) => {}
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
        if Instant::now() > deadline {
            bail!("some partition has no end");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub fn stored(record: &ConsumedRecord) -> Stored {
    let id = record.value.as_ref().and_then(|value| RecordId::of_value(value));
    Stored { offset: record.offset.0, epoch: record.epoch.0, id }
}

/// Reads every partition from its base on, until all have reached `until`.
async fn follow(
    client: Client,
    shape: LoadShape,
    base: BTreeMap<u32, u64>,
    began: Instant,
    until: watch::Receiver<Option<BTreeMap<u32, u64>>>,
) -> Tail {
    let mut tail = Tail::default();
    let mut consumer = client.consumer(ConsumerConfig::default());
    let starts: Vec<(u32, Start)> = base.iter().map(|(p, offset)| (*p, Start::Offset(Offset(*offset)))).collect();
    if let Err(error) = consumer.assign(&shape.topic, &starts).await {
        tail.errors.push(error.to_string());
        return tail;
    }
    let mut next = base;
    loop {
        match consumer.poll(Duration::from_millis(100)).await {
            Ok(records) => {
                let at = began.elapsed();
                for record in &records {
                    next.insert(record.partition, record.offset.0 + 1);
                    tail.read.entry(record.partition).or_default().push(stored(record));
                    let times = tail.times.entry(record.partition).or_default();
                    if times.last() != Some(&at) {
                        times.push(at);
                    }
                }
            }
            // That partition rests now, so that the end is not reached: a failure in any case.
            Err(error) => tail.errors.push(error.to_string()),
        }
        if let Some(ends) = &*until.borrow()
            && (!tail.errors.is_empty() || ends.iter().all(|(p, end)| next.get(p).is_some_and(|next| next >= end)))
        {
            return tail;
        }
    }
}

/// Everything between `base` and `ends`, with a consumer of its own.
///
/// # Errors
/// Not within `within`.
pub async fn read_all(
    client: &Client,
    shape: &LoadShape,
    base: &BTreeMap<u32, u64>,
    ends: &BTreeMap<u32, u64>,
    within: Duration,
) -> anyhow::Result<BTreeMap<u32, Vec<Stored>>> {
    let deadline = Instant::now() + within;
    let mut consumer = client.consumer(ConsumerConfig::default());
    let starts: Vec<(u32, Start)> = base.iter().map(|(p, offset)| (*p, Start::Offset(Offset(*offset)))).collect();
    consumer.assign(&shape.topic, &starts).await?;
    let mut log: BTreeMap<u32, Vec<Stored>> = (0..shape.partitions).map(|p| (p, Vec::new())).collect();
    let mut next = base.clone();
    while !ends.iter().all(|(p, end)| next.get(p).is_some_and(|next| next >= end)) {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            next.insert(record.partition, record.offset.0 + 1);
            log.entry(record.partition).or_default().push(stored(&record));
        }
        if Instant::now() > deadline {
            let late: Vec<_> = ends.iter().filter(|(p, end)| next.get(p).is_none_or(|next| next < *end)).collect();
            bail!("not everything can be read within {within:?}: {late:?}, read up to {next:?}");
        }
    }
    Ok(log)
}

/// Everything of the whole topic, after the last round.
///
/// # Errors
/// Not within `within`.
pub async fn read_from(
    client: &Client,
    shape: &LoadShape,
    base: &BTreeMap<u32, u64>,
    within: Duration,
) -> anyhow::Result<BTreeMap<u32, Vec<Stored>>> {
    let ends = ends(client, shape, within).await?;
    read_all(client, shape, base, &ends, within).await
}
