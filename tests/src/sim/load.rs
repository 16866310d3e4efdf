//! The clients: producers, consumers that follow and that go back, an administrator. What they
//! did and were told is the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_client::admin::{At, TopicSpec};
use baton_client::{
    BrokerId, Client, Consumer, ConsumerConfig, Delivery, Offset, OutOfRange, Producer, ProducerConfig, Record, Start,
};
use baton_history::event::{Ack, Event, Final, Outcome, Poll, PollFailed, Seen, Send};
use baton_history::{Recorder, payload_id};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};

use super::plan::{PARTITIONS, Plan, What};
use super::{SimCluster, client_name};

/// The topic that everybody uses.
pub const TOPIC: &str = "orders";

/// A record that is not acknowledged after so long fails.
const DELIVERY: Duration = Duration::from_secs(20);

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Produce and consume.
    Load,
    /// No more is sent; what is under way is waited for, and consumers go on.
    Settle,
    /// Consumers stop, and everything is read from the first record to the end.
    Read,
}

/// What the clients share with the rest of the run.
#[derive(Clone)]
pub struct Load {
    pub cluster: SimCluster,
    pub recorder: Recorder,
    stage: watch::Receiver<Stage>,
    state: Arc<Mutex<State>>,
    seed: u64,
}

#[derive(Debug, Default)]
struct State {
    operations: u64,
    under_way: BTreeSet<(String, u32, u64)>,
    /// The last record of each producer and partition, sent when all was mended.
    last_words: BTreeSet<(String, u32, u64)>,
    /// Producers that still have something to say.
    speaking: BTreeSet<u32>,
    /// After the last acknowledged record of each partition.
    acknowledged: BTreeMap<u32, u64>,
    /// The ends that the last reading has to reach, and whether it did.
    ends: BTreeMap<u32, u64>,
    /// Where the administrator was told that each partition begins.
    deleted: BTreeMap<u32, u64>,
    /// The highest log start that was seen of each partition.
    starts: BTreeMap<u32, u64>,
    read: bool,
}

impl Load {
    #[must_use]
    pub fn new(cluster: SimCluster, stage: watch::Receiver<Stage>) -> Self {
        let seed = cluster.settings.seed;
        Self { cluster, recorder: Recorder::in_memory(), stage, state: Arc::default(), seed }
    }

    /// Adds the hosts of the clients. Changes that are sent here are made by an administrator.
    pub fn add_hosts(&self, sim: &mut turmoil::Sim<'static>, plan: &Plan) -> mpsc::UnboundedSender<What> {
        self.lock().speaking = (0..plan.producers).collect();
        let (changes, orders) = mpsc::unbounded_channel();
        let orders = Arc::new(Mutex::new(Some(orders)));
        for id in 1..=super::nemesis::CLIENTS {
            let (this, plan, orders) = (self.clone(), plan.clone(), Arc::clone(&orders));
            sim.host(client_name(id), move || {
                let (this, plan, orders) = (this.clone(), plan.clone(), Arc::clone(&orders));
                async move {
                    let orders = if id == 1 { orders.lock().expect("nobody panics").take() } else { None };
                    this.run_host(id, &plan, orders).await;
                    Ok(())
                }
            });
        }
        changes
    }

    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Records that were handed to a client and neither acknowledged nor refused: each by its
    /// producer, partition and number.
    #[must_use]
    pub fn under_way(&self) -> BTreeSet<(String, u32, u64)> {
        self.lock().under_way.clone()
    }

    /// Producers that have not sent their last records.
    #[must_use]
    pub fn speaking(&self) -> BTreeSet<u32> {
        self.lock().speaking.clone()
    }

    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<u32, u64> {
        self.lock().acknowledged.clone()
    }

    /// How far the last reading has to come.
    pub fn set_ends(&self, ends: BTreeMap<u32, u64>) {
        self.lock().ends = ends;
    }

    /// Below, nothing may be on any member of the in-sync replicas.
    #[must_use]
    pub fn deleted(&self) -> BTreeMap<u32, u64> {
        self.lock().deleted.clone()
    }

    /// Takes note of where a log begins: records below may go unread.
    pub fn note_start(&self, partition: u32, start: u64) {
        let mut state = self.lock();
        let known = state.starts.entry(partition).or_default();
        *known = start.max(*known);
    }

    /// The highest log start of a partition that any leader has shown.
    fn highest_start(&self, partition: u32) -> u64 {
        for (id, status) in self.cluster.live().values().flat_map(|live| live.partitions.all()).filter_map(|handle| {
            let status = *handle.status.borrow();
            (&*handle.topic == TOPIC && status.leads()).then_some((handle.id, status))
        }) {
            self.note_start(id.partition, status.log_start.0);
        }
        self.lock().starts.get(&partition).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn has_read(&self) -> bool {
        self.lock().read
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    async fn run_host(self, host: u32, plan: &Plan, orders: Option<mpsc::UnboundedReceiver<What>>) {
        let mine = |n: &u32| n % super::nemesis::CLIENTS == host - 1;
        // Half of the operations are records, the other half polls.
        let each = plan.producers.max(1) * 2_000 / plan.operations_per_second.max(1);
        for id in (0..plan.producers).filter(mine) {
            tokio::spawn(self.clone().produce(id, each));
        }
        let each = plan.consumers.max(1) * 2_000 / plan.operations_per_second.max(1);
        for id in (0..plan.consumers).filter(mine) {
            tokio::spawn(self.clone().consume(id, each));
        }
        if let Some(orders) = orders {
            tokio::spawn(self.clone().administer(orders, plan.retention_bytes));
            tokio::spawn(self.clone().read_everything());
        }
        std::future::pending().await
    }

    async fn connect(&self, label: u64) -> Client {
        loop {
            match self.cluster.client(label).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn rng(&self, label: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ label)
    }

    async fn partitions(&self, client: &Client) -> u32 {
        loop {
            match client.partitions(TOPIC).await {
                Ok(n) if n >= PARTITIONS => return n,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Sends records of different lengths to every partition, until the load ends.
    async fn produce(self, id: u32, every_ms: u32) {
        let client = self.connect(100 + u64::from(id)).await;
        let partitions = self.partitions(&client).await;
        let mut rng = self.rng(100 + u64::from(id));
        let config = ProducerConfig { delivery_timeout: DELIVERY, ..ProducerConfig::default() };
        let producer = client.producer(config);
        let mut sequence = 0;
        while self.stage() == Stage::Load {
            let pause = rng.random_range(every_ms / 2..=every_ms * 3 / 2);
            tokio::time::sleep(Duration::from_millis(u64::from(pause))).await;
            if self.stage() > Stage::Load {
                break;
            }
            // Records that go to one partition in a burst share a batch.
            let partition = rng.random_range(0..partitions);
            let burst = if rng.random_bool(0.1) { rng.random_range(2..6) } else { 1 };
            for _ in 0..burst {
                let filler = if rng.random_bool(0.02) { 20_000 } else { rng.random_range(0..200) };
                let value = format!("p{id}/{partition}/{sequence}/{}", "x".repeat(filler));
                self.send(&producer, id, partition, sequence, value).await;
                sequence += 1;
            }
        }
        // All is mended now: whoever cannot write any more has not noticed it.
        for partition in 0..partitions {
            let value = format!("p{id}/{partition}/{sequence}/last");
            self.lock().last_words.insert((format!("p{id}"), partition, sequence));
            self.send(&producer, id, partition, sequence, value).await;
            sequence += 1;
        }
        self.lock().speaking.remove(&id);
        // A producer that is dropped gives up what it has not sent; each delivery says how it went.
        let _ = producer.flush().await;
        std::future::pending::<()>().await;
    }

    async fn send(&self, producer: &Producer, id: u32, partition: u32, sequence: u64, value: String) {
        let (name, place) = (format!("p{id}"), place(partition));
        let payload = payload_id(value.as_bytes());
        {
            let mut state = self.lock();
            state.operations += 1;
            state.under_way.insert((name.clone(), partition, sequence));
        }
        let sent = Send {
            producer: name.clone().into(),
            partition: place.clone().into(),
            sequence,
            payload,
            sent_us: now_us(),
        };
        self.recorder.record(Event::Send(sent));
        match producer.send(TOPIC, Record::new(value).partition(partition)).await {
            Ok(delivery) => {
                let this = self.clone();
                tokio::spawn(async move {
                    let key = (name.clone(), partition, sequence);
                    let outcome = this.outcome(delivery, name, place, partition, sequence).await;
                    let mut state = this.lock();
                    if let (true, Event::Fail(failed) | Event::Unknown(failed)) =
                        (state.last_words.contains(&key), &outcome)
                    {
                        let why = format!("{key:?} was sent when all was mended, and failed: {}", failed.reason);
                        this.cluster.violations.add(why);
                    }
                    state.under_way.remove(&key);
                    drop(state);
                    this.recorder.record(outcome);
                });
            }
            Err(error) => {
                let outcome = failed(name.clone(), place, sequence, &error);
                self.recorder.record(Event::Fail(outcome));
                self.lock().under_way.remove(&(name, partition, sequence));
            }
        }
    }

    async fn outcome(
        &self,
        delivery: Delivery,
        name: String,
        place: String,
        partition: u32,
        sequence: u64,
    ) -> Event<'static> {
        match delivery.await {
            Ok(stored) => {
                let mut state = self.lock();
                let end = state.acknowledged.entry(partition).or_default();
                *end = (*end).max(stored.offset.0 + 1);
                Event::Ack(Ack {
                    producer: name.into(),
                    partition: place.into(),
                    sequence,
                    offset: stored.offset.0,
                    epoch: Some(stored.epoch.0),
                    received_us: now_us(),
                })
            }
            Err(error) if error.maybe_stored() => Event::Unknown(failed(name, place, sequence, &error)),
            Err(error) => Event::Fail(failed(name, place, sequence, &error)),
        }
    }

    /// Reads everything as it comes; the second half of the consumers also goes back, now and
    /// then, to where it was before.
    async fn consume(self, id: u32, every_ms: u32) {
        let client = self.connect(200 + u64::from(id)).await;
        self.partitions(&client).await;
        let mut rng = self.rng(200 + u64::from(id));
        let mut reader = Reader::start(self.clone(), &client, format!("c{id}")).await;
        while self.stage() < Stage::Read {
            tokio::time::sleep(Duration::from_millis(u64::from(every_ms))).await;
            reader.poll(Duration::from_millis(200)).await;
            reader.follow_growth(&client).await;
            if id % 2 == 1 && rng.random_bool(0.01) {
                reader.go_back(&mut rng);
            }
        }
    }

    /// When told to, reads every partition from its first record to the end.
    async fn read_everything(self) {
        let mut stage = self.stage.clone();
        if stage.wait_for(|stage| *stage == Stage::Read).await.is_err() {
            return;
        }
        let client = self.connect(300).await;
        let mut reader = Reader::start(self.clone(), &client, "last".to_owned()).await;
        loop {
            reader.poll(Duration::from_millis(500)).await;
            reader.follow_growth(&client).await;
            let ends = self.lock().ends.clone();
            let reached = |(partition, end): (&u32, &u64)| {
                let next = reader.next.get(partition).copied().unwrap_or(0);
                next.max(self.highest_start(*partition)) >= *end
            };
            if ends.iter().all(reached) {
                for (partition, end) in ends {
                    let log_start = self.highest_start(partition);
                    let last = Final { partition: place(partition).into(), log_start, end, at_us: now_us() };
                    self.recorder.record(Event::Final(last));
                }
                self.lock().read = true;
                return;
            }
        }
    }

    /// Makes the topic, and then what the plan says.
    async fn administer(self, mut orders: mpsc::UnboundedReceiver<What>, retention_bytes: Option<u64>) {
        let client = self.connect(1).await;
        let spec = TopicSpec { partitions: Some(PARTITIONS), replication: Some(3), ..TopicSpec::new(TOPIC) };
        let mut config = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
        config.extend(retention_bytes.map(|bytes| ("retention.bytes".to_owned(), bytes.to_string())));
        let spec = TopicSpec { config, timeout: Duration::from_secs(10), ..spec };
        while client.admin().create_topic(spec.clone()).await.is_err() {
            // It may be there from an attempt whose answer was late.
            if client.partitions(TOPIC).await.is_ok_and(|n| n == PARTITIONS) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while let Some(what) = orders.recv().await {
            let (client, this) = (client.clone(), self.clone());
            tokio::spawn(async move {
                if let Err(error) = this.change(&client, &what).await {
                    tracing::info!(?what, %error, "the change was refused, or its answer was lost");
                }
            });
        }
    }
}

impl Load {
    async fn change(&self, client: &Client, what: &What) -> Result<(), baton_client::ClientError> {
        match what {
            What::DeleteRecords { partition, percent } => self.delete_records(client, *partition, *percent).await,
            _ => change(client, what).await,
        }
    }

    async fn delete_records(
        &self,
        client: &Client,
        partition: u32,
        percent: u32,
    ) -> Result<(), baton_client::ClientError> {
        let admin = client.admin();
        let at = async |at| admin.offsets(TOPIC, &[partition], at).await.map(|found| found.get(&partition).copied());
        let (start, end) = (at(At::Start).await?.flatten(), at(At::End).await?.flatten());
        let (Some(Offset(start)), Some(Offset(end))) = (start, end) else { return Ok(()) };
        let before = start + end.saturating_sub(start) * u64::from(percent) / 100;
        let starts = admin.delete_records(TOPIC, &[partition], Some(Offset(before))).await?;
        let told = starts.get(&partition).map_or(0, |start| start.0);
        if told < before {
            self.cluster.violations.add(format!("records below {before} were deleted, and the log begins at {told}"));
        }
        let mut state = self.lock();
        let deleted = state.deleted.entry(partition).or_default();
        *deleted = told.max(*deleted);
        Ok(())
    }
}

async fn change(client: &Client, what: &What) -> Result<(), baton_client::ClientError> {
    let admin = client.admin();
    match what {
        What::CreateTopic { number, partitions, replication } => {
            let spec = TopicSpec::new(format!("t{number}")).partitions(*partitions).replication(*replication);
            admin.create_topic(TopicSpec { timeout: Duration::from_secs(10), ..spec }).await.map(drop)
        }
        What::DeleteTopic { number } => admin.delete_topic(&format!("t{number}")).await,
        What::AddPartition => {
            let known = client.partitions(TOPIC).await?;
            admin.add_partitions(TOPIC, known + 1, true).await.map(drop)
        }
        What::MinInsync { replicas } => {
            let set = BTreeMap::from([("min.insync.replicas".to_owned(), replicas.to_string())]);
            admin.alter_topic(TOPIC, set, Vec::new()).await.map(drop)
        }
        What::Reassign { partition, replicas } => {
            let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
            admin.reassign(TOPIC, *partition, &replicas).await
        }
        What::ElectPreferred { partition } => admin.elect_preferred(TOPIC, *partition).await,
        _ => Ok(()),
    }
}

/// A consumer with what it expects next.
struct Reader {
    load: Load,
    name: String,
    consumer: Consumer,
    next: BTreeMap<u32, u64>,
    sought: BTreeMap<u32, bool>,
}

impl Reader {
    async fn start(load: Load, client: &Client, name: String) -> Self {
        let (fetch_wait, out_of_range) = (Duration::from_millis(300), OutOfRange::Start);
        let consumer = client.consumer(ConsumerConfig { fetch_wait, out_of_range, ..ConsumerConfig::default() });
        let mut reader = Self { load, name, consumer, next: BTreeMap::new(), sought: BTreeMap::new() };
        while reader.next.is_empty() {
            reader.follow_growth(client).await;
        }
        reader
    }

    /// Reads partitions that were added, too.
    async fn follow_growth(&mut self, client: &Client) {
        let Ok(count) = client.partitions(TOPIC).await else {
            return tokio::time::sleep(Duration::from_millis(100)).await;
        };
        for partition in 0..count {
            if self.next.contains_key(&partition) {
                continue;
            }
            if self.consumer.assign(TOPIC, &[(partition, Start::Offset(Offset(0)))]).await.is_ok() {
                self.next.insert(partition, 0);
                self.sought.insert(partition, true);
            }
        }
    }

    fn go_back(&mut self, rng: &mut SmallRng) {
        let Some((partition, next)) = self.next.iter_mut().nth(rng.random_range(0..4)) else { return };
        let to = rng.random_range(0..=*next);
        if self.consumer.seek(TOPIC, *partition, Start::Offset(Offset(to))).is_ok() {
            *next = to;
            self.sought.insert(*partition, true);
        }
    }

    async fn poll(&mut self, wait: Duration) {
        self.load.lock().operations += 1;
        let sent_us = now_us();
        let records = match self.consumer.poll(wait).await {
            Ok(records) => records,
            Err(error) => {
                let failed = PollFailed {
                    consumer: self.name.clone().into(),
                    partition: place(0).into(),
                    received_us: now_us(),
                    reason: error.to_string().into(),
                };
                return self.load.recorder.record(Event::PollFailed(failed));
            }
        };
        let mut by_partition: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
        for record in records {
            let payload = record.value.as_ref().map(|value| payload_id(value));
            let seen = Seen { offset: record.offset.0, payload, epoch: Some(record.epoch.0) };
            by_partition.entry(record.partition).or_default().push(seen);
        }
        for (partition, records) in by_partition {
            let next = self.next.entry(partition).or_default();
            // What was deleted is not there to be read: the consumer begins again at the start.
            let first = records.first().map_or(*next, |first| first.offset);
            if first > *next && first <= self.load.highest_start(partition) {
                *next = first;
                self.sought.insert(partition, true);
            }
            let from = *next;
            *next = records.last().map_or(from, |last| last.offset + 1);
            let poll = Poll {
                consumer: self.name.clone().into(),
                partition: place(partition).into(),
                from,
                seek: self.sought.insert(partition, false).unwrap_or(false),
                high_watermark: self.consumer.high_watermark(TOPIC, partition).map(|end| end.0),
                sent_us,
                received_us: now_us(),
                records,
            };
            self.load.recorder.record(Event::Poll(poll));
        }
    }
}

fn failed(name: String, place: String, sequence: u64, error: &baton_client::ClientError) -> Outcome<'static> {
    Outcome {
        producer: name.into(),
        partition: place.into(),
        sequence,
        received_us: now_us(),
        reason: error.to_string().into(),
    }
}

/// A partition's name in a history.
#[must_use]
pub fn place(partition: u32) -> String {
    format!("{TOPIC}/{partition}")
}

/// Simulated microseconds.
#[must_use]
pub fn now_us() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}
