//! Load that never ends, and whose history is cut into windows, so that it needs no more memory
//! after a million rounds than after one.
//!
//! A window ends when nothing is on its way: the producers hold their breath for some ten
//! milliseconds, everything sent gets its outcome, the consumer reaches the end. What stays for
//! the next window are records of unknown outcome (they may still be stored, late) and a hash of
//! everything that was read before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use baton_client::{Client, ConsumerConfig, Delivery, Offset, Producer, ProducerConfig, Record, Start};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::history::{Attempt, History, Outcome, RecordId, Stored};
use crate::load::{LoadShape, ends, outcome, stored};

/// Records of one producer that wait for their acknowledgement.
const WAITING_MAX: usize = 50_000;
/// Records of one producer and partition that are sent together.
const BURST: u64 = 4;

/// Everything since the last cut.
#[derive(Debug, Default)]
struct Window {
    attempts: Vec<Attempt>,
    tail: BTreeMap<u32, Vec<Stored>>,
    tail_times: BTreeMap<u32, Vec<Duration>>,
    tail_errors: Vec<String>,
}

impl Window {
    /// Takes everything below the ends. Beyond them there is at most what was of unknown outcome
    /// and is stored late: it stays for the next window.
    fn split(&mut self, ends: &BTreeMap<u32, u64>) -> Self {
        let mut window = std::mem::take(self);
        for (partition, read) in &mut window.tail {
            let end = ends.get(partition).copied().unwrap_or(0);
            let late = read.split_off(read.partition_point(|record| record.offset < end));
            if !late.is_empty() {
                self.tail.insert(*partition, late);
            }
        }
        window
    }
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    shape: LoadShape,
    began: Instant,
    window: Mutex<Window>,
    paused: AtomicBool,
    resumed: Notify,
    /// Senders that noticed the pause.
    resting: AtomicU64,
    /// Sent, without an outcome.
    waiting: AtomicU64,
    /// By partition: when it last acknowledged, in microseconds since the beginning.
    acknowledged: Vec<AtomicU64>,
    /// By partition: what the consumer reads next.
    position: Vec<AtomicU64>,
}

impl Shared {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running load. Ends when it is dropped.
pub struct LastingLoad {
    shared: Arc<Shared>,
    client: Client,
    /// Where the window began: the time, and the offsets.
    since: Duration,
    base: BTreeMap<u32, u64>,
    unknown: Vec<Attempt>,
    _tasks: JoinSet<()>,
}

impl LastingLoad {
    /// Begins: a client for each producer, one for the consumer.
    ///
    /// # Errors
    /// The topic's ends cannot be asked for.
    pub async fn start(shape: LoadShape, producing: Vec<Client>, consuming: Client) -> anyhow::Result<Self> {
        let base = ends(&consuming, &shape, Duration::from_secs(30)).await?;
        let shared = Arc::new(Shared {
            began: Instant::now(),
            window: Mutex::default(),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            resting: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            acknowledged: (0..shape.partitions).map(|_| AtomicU64::new(0)).collect(),
            position: base.values().map(|offset| AtomicU64::new(*offset)).collect(),
            shape,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(consuming.clone(), base.clone(), shared.clone()));
        for (number, client) in (0..).zip(producing) {
            let producer = client.producer(ProducerConfig::default());
            tasks.spawn(send(producer, number, shared.clone()));
        }
        Ok(Self { shared, client: consuming, since: Duration::ZERO, base, unknown: Vec::new(), _tasks: tasks })
    }

    /// Time since the window began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed() - self.since
    }

    /// Waits until every partition acknowledged after `since` (in this window's time).
    ///
    /// # Errors
    /// Some did not within `within`: which.
    pub async fn all_acknowledge(&self, since: Duration, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        let since = micros(self.since + since);
        loop {
            let late: Vec<usize> = (0..self.shared.acknowledged.len())
                .filter(|p| self.shared.acknowledged[*p].load(Ordering::Relaxed) <= since)
                .collect();
            if late.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("partitions {late:?} acknowledged nothing within {within:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the window when nothing is on its way, and goes on. Times in the history count from
    /// the window's beginning; what is there (`log`) has to be read yet.
    ///
    /// # Errors
    /// Something stays on its way for longer than `within`.
    pub async fn cut(&mut self, within: Duration) -> anyhow::Result<Cut> {
        self.cut_and(true, within).await
    }

    /// The same for the last time: the producers do not go on.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub async fn stop(&mut self, within: Duration) -> anyhow::Result<Cut> {
        self.cut_and(false, within).await
    }

    async fn cut_and(&mut self, go_on: bool, within: Duration) -> anyhow::Result<Cut> {
        let shared = self.shared.clone();
        let deadline = Instant::now() + within;
        let end = self.now();
        shared.paused.store(true, Ordering::SeqCst);
        let resume = go_on.then(|| Resume(&shared));
        let senders = u64::from(shared.shape.producers);
        while shared.resting.load(Ordering::SeqCst) < senders || shared.waiting.load(Ordering::SeqCst) > 0 {
            if Instant::now() > deadline {
                bail!("{} records without an outcome", shared.waiting.load(Ordering::SeqCst));
            }
            sleep(Duration::from_millis(2)).await;
        }
        let ends = ends(&self.client, &shared.shape, within).await.context("the ends of the partitions")?;
        let reached = |(p, end): (&u32, &u64)| shared.position[*p as usize].load(Ordering::SeqCst) >= *end;
        let mut tail_errors = Vec::new();
        while !ends.iter().all(reached) {
            if Instant::now() > deadline || !shared.window().tail_errors.is_empty() {
                let late: Vec<_> = ends.iter().filter(|entry| !reached(*entry)).collect();
                tail_errors.push(format!("the consumer did not reach the ends {late:?} within {within:?}"));
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        let window = shared.window().split(&ends);
        let next = shared.began.elapsed();
        drop(resume);
        let mut cut = self.history(window, &ends, end);
        cut.history.tail_errors.extend(tail_errors);
        self.since = next;
        self.base.clone_from(&ends);
        Ok(cut)
    }

    fn history(&mut self, window: Window, ends: &BTreeMap<u32, u64>, end: Duration) -> Cut {
        let since = self.since;
        let local = |at: Duration| at.saturating_sub(since);
        let mut attempts = std::mem::take(&mut self.unknown);
        let carried = attempts.len();
        attempts.extend(window.attempts);
        for attempt in &mut attempts {
            (attempt.sent, attempt.ended) = (local(attempt.sent), local(attempt.ended));
        }
        // What was read has shown that it is stored: a second copy would be an anomaly.
        let read: BTreeSet<RecordId> = window.tail.values().flatten().filter_map(|stored| stored.id).collect();
        let open = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::Unknown(_)) && !read.contains(&attempt.id);
        // In the time of all windows again.
        let global =
            |attempt: &Attempt| Attempt { sent: since + attempt.sent, ended: since + attempt.ended, ..attempt.clone() };
        self.unknown = attempts.iter().filter(open).map(global).collect();
        let times = |times: Vec<Duration>| times.into_iter().map(local).collect();
        let history = History {
            partitions: self.shared.shape.partitions,
            attempts,
            tail: window.tail,
            tail_times: window.tail_times.into_iter().map(|(p, all)| (p, times(all))).collect(),
            base: self.base.clone(),
            ends: ends.clone(),
            log: BTreeMap::new(),
            end,
            tail_errors: window.tail_errors,
        };
        Cut { history, carried }
    }

    #[must_use]
    pub fn shape(&self) -> &LoadShape {
        &self.shared.shape
    }
}

/// A window that ended.
#[derive(Debug)]
pub struct Cut {
    pub history: History,
    /// How many of the attempts are of earlier windows: their outcome is still unknown.
    pub carried: usize,
}

/// Lets the producers go on, whatever became of the cut.
struct Resume<'a>(&'a Shared);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.resting.store(0, Ordering::SeqCst);
        self.0.paused.store(false, Ordering::SeqCst);
        self.0.resumed.notify_waiters();
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One producer: at each tick a few records for every partition.
async fn send(producer: Producer, number: u32, shared: Arc<Shared>) {
    let shape = &shared.shape;
    let room = Arc::new(Semaphore::new(WAITING_MAX));
    let every = Duration::from_secs(1) * u32::try_from(BURST).unwrap_or(1) * shape.producers / shape.rate;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcomes = JoinSet::new();
    for tick in 0.. {
        rest(&shared).await;
        ticks.tick().await;
        for partition in 0..shape.partitions {
            let (lane, mut sent) = (RecordId { producer: number, partition, sequence: tick * BURST }, Vec::new());
            for sequence in lane.sequence..lane.sequence + BURST {
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let id = RecordId { sequence, ..lane };
                let at = shared.began.elapsed();
                shared.waiting.fetch_add(1, Ordering::SeqCst);
                let record = Record::new(id.to_value()).partition(partition);
                match producer.send(&shape.topic, record).await {
                    Ok(delivery) => sent.push((id, at, delivery, permit)),
                    Err(error) => note(&shared, id, at, Outcome::NotStored(error.to_string())),
                }
            }
            outcomes.spawn(collect(sent, shared.clone()));
        }
        while outcomes.try_join_next().is_some() {}
    }
}

/// Waits while the load is paused.
async fn rest(shared: &Shared) {
    let resumed = shared.resumed.notified();
    tokio::pin!(resumed);
    resumed.as_mut().enable();
    if shared.paused.load(Ordering::SeqCst) {
        shared.resting.fetch_add(1, Ordering::SeqCst);
        resumed.await;
    }
}

type Sent = (RecordId, Duration, Delivery, tokio::sync::OwnedSemaphorePermit);

async fn collect(sent: Vec<Sent>, shared: Arc<Shared>) {
    for (id, at, delivery, permit) in sent {
        let outcome = outcome(delivery.wait().await);
        note(&shared, id, at, outcome);
        drop(permit);
    }
}

fn note(shared: &Shared, id: RecordId, sent: Duration, outcome: Outcome) {
    let ended = shared.began.elapsed();
    if let (Outcome::Acknowledged { .. }, Some(last)) = (&outcome, shared.acknowledged.get(id.partition as usize)) {
        last.fetch_max(micros(ended), Ordering::Relaxed);
    }
    shared.window().attempts.push(Attempt { id, sent, ended, outcome });
    shared.waiting.fetch_sub(1, Ordering::SeqCst);
}

/// The consumer that reads everything as it comes.
async fn follow(client: Client, base: BTreeMap<u32, u64>, shared: Arc<Shared>) {
    let mut consumer = client.consumer(ConsumerConfig::default());
    let starts: Vec<(u32, Start)> = base.iter().map(|(p, offset)| (*p, Start::Offset(Offset(*offset)))).collect();
    if let Err(error) = consumer.assign(&shared.shape.topic, &starts).await {
        shared.window().tail_errors.push(error.to_string());
        return;
    }
    loop {
        match consumer.poll(Duration::from_millis(100)).await {
            Ok(records) => {
                let at = shared.began.elapsed();
                let mut window = shared.window();
                for record in &records {
                    window.tail.entry(record.partition).or_default().push(stored(record));
                    let times = window.tail_times.entry(record.partition).or_default();
                    if times.last() != Some(&at) {
                        times.push(at);
                    }
                    if let Some(position) = shared.position.get(record.partition as usize) {
                        position.store(record.offset.0 + 1, Ordering::SeqCst);
                    }
                }
            }
            // That partition rests now, so that the end is not reached: a failure in any case.
            Err(error) => shared.window().tail_errors.push(error.to_string()),
        }
    }
}
