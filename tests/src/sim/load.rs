//! The clients and what they share; the idempotent producers. What they did and were told is the
//! history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_client::{Client, Delivery, Producer, ProducerConfig, Record};
use baton_core::TopicPartition;
use baton_history::event::{Ack, Event, Outcome, Send};
use baton_history::{Recorder, payload_id};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};

use super::group::Group;
use super::keyed::{self, Keyed};
use super::plan::{Plan, What};
use super::topic::{Place, Topic};
use super::transactions::{self, Transactions};
use super::{SimCluster, client_name};

/// A record that is not acknowledged after so long fails.
pub(super) const DELIVERY: Duration = Duration::from_secs(20);

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
    pub(super) stage: watch::Receiver<Stage>,
    state: Arc<Mutex<State>>,
    seed: u64,
    /// Old records of the orders go by size.
    sized: bool,
}

/// One record: its producer, where it goes, and its number.
pub type Key = (String, Place, u64);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) operations: u64,
    pub(super) under_way: BTreeSet<Key>,
    /// The last record of each producer and partition, sent when all was mended.
    last_words: BTreeSet<Key>,
    /// Producers that still have something to say.
    speaking: BTreeSet<u32>,
    /// After the last acknowledged record of each partition, by the epoch that acknowledged it.
    acknowledged: BTreeMap<Place, BTreeMap<u32, u64>>,
    /// Where the administrator was told that each partition begins.
    pub(super) deleted: BTreeMap<Place, u64>,
    /// Below which offset each partition may begin, since it was asked for.
    asked: BTreeMap<Place, u64>,
    /// The highest log start that was seen of each partition.
    starts: BTreeMap<Place, u64>,
    /// Whose copies these are.
    ids: BTreeMap<TopicPartition, Place>,
    /// The ends that the last reading has to reach, and whether it did.
    pub(super) ends: BTreeMap<Place, u64>,
    pub(super) read: bool,
    pub(super) keyed: Keyed,
    pub(super) group: Group,
    pub(super) transactions: Transactions,
}

impl State {
    /// Records below are about to be deleted.
    pub(super) fn note_asked(&mut self, place: Place, before: u64) {
        let asked = self.asked.entry(place).or_default();
        *asked = before.max(*asked);
    }
}

impl Load {
    #[must_use]
    pub fn new(cluster: SimCluster, stage: watch::Receiver<Stage>, plan: &Plan) -> Self {
        let (seed, sized) = (cluster.settings.seed, plan.retention_bytes.is_some());
        Self { cluster, recorder: Recorder::in_memory(), stage, state: Arc::default(), seed, sized }
    }

    /// Adds the hosts of the clients. Changes that are sent here are made by an administrator.
    pub fn add_hosts(&self, sim: &mut turmoil::Sim<'static>, plan: &Plan) -> mpsc::UnboundedSender<What> {
        let keyed = plan.compacts.then_some(keyed::SPEAKER);
        let payers = (0..transactions::PRODUCERS).filter(|_| plan.transactions).map(|id| transactions::SPEAKER + id);
        self.lock().speaking = (0..plan.producers).chain(keyed).chain(payers).collect();
        self.lock().keyed.read = keyed.is_none();
        self.lock().group.read = !plan.groups;
        self.lock().transactions.read = !plan.transactions;
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
    pub fn under_way(&self) -> BTreeSet<Key> {
        self.lock().under_way.clone()
    }

    /// Producers that have not sent their last records.
    #[must_use]
    pub fn speaking(&self) -> BTreeSet<u32> {
        self.lock().speaking.clone()
    }

    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<Place, BTreeMap<u32, u64>> {
        self.lock().acknowledged.clone()
    }

    /// How far the last reading has to come.
    pub fn set_ends(&self, ends: BTreeMap<Place, u64>) {
        self.lock().ends = ends;
    }

    /// Below, nothing may be on any member of the in-sync replicas.
    #[must_use]
    pub fn deleted(&self) -> BTreeMap<Place, u64> {
        self.lock().deleted.clone()
    }

    /// Takes note of where each log begins: records below may go unread. The disks say so, as
    /// the leader that moved the start may be dead already.
    pub fn note_starts(&self) {
        let mut state = self.lock();
        for handle in self.cluster.live().values().flat_map(|live| live.partitions.all()) {
            if let Some(topic) = Topic::named(&handle.topic) {
                state.ids.insert(handle.id, Place { topic, partition: handle.id.partition });
            }
        }
        for broker in 1..=self.cluster.settings.brokers {
            for (id, _, start, _) in self.cluster.disk(broker).bounds() {
                let Some(place) = state.ids.get(&id).copied() else { continue };
                let known = state.starts.entry(place).or_default();
                *known = start.0.max(*known);
            }
        }
    }

    /// The highest log start of a partition that any copy has had.
    pub(super) fn highest_start(&self, place: Place) -> u64 {
        self.note_starts();
        self.lock().starts.get(&place).copied().unwrap_or(0)
    }

    /// A partition that begins later than anybody asked for. What is given up by size is not
    /// known here.
    pub fn begins_too_late(&self) -> Option<String> {
        self.note_starts();
        let state = self.lock();
        let (place, start) = state.starts.iter().find(|(place, start)| {
            let by_size = self.sized && place.topic == Topic::Orders;
            !by_size && **start > state.asked.get(place).copied().unwrap_or(0)
        })?;
        Some(format!("{place} begins at {start}, and only {:?} was asked for", state.asked.get(place)))
    }

    #[must_use]
    pub fn has_read(&self) -> bool {
        let state = self.lock();
        state.read && state.keyed.read && state.group.read && state.transactions.read
    }

    /// A producer has sent its last record.
    pub(super) fn hush(&self, id: u32) {
        self.lock().speaking.remove(&id);
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    async fn run_host(self, host: u32, plan: &Plan, orders: Option<mpsc::UnboundedReceiver<What>>) {
        let mine = |n: &u32| n % super::nemesis::CLIENTS == host - 1;
        // Half of the operations are records, the other half polls.
        let each = plan.producers.max(1) * 2_000 / plan.operations_per_second.max(1);
        for id in (0..plan.producers).filter(mine) {
            tokio::spawn(self.clone().produce(id, each));
        }
        for id in (0..plan.plain_producers).filter(mine) {
            tokio::spawn(self.clone().produce_plainly(id, each));
        }
        let each = plan.consumers.max(1) * 2_000 / plan.operations_per_second.max(1);
        for id in (0..plan.consumers).filter(mine) {
            tokio::spawn(self.clone().consume(id, each));
        }
        for id in (0..super::group::MEMBERS).filter(|id| plan.groups && mine(id)) {
            tokio::spawn(self.clone().be_member(id));
        }
        for id in (0..transactions::PRODUCERS).filter(|id| plan.transactions && mine(id)) {
            tokio::spawn(self.clone().transact(id));
        }
        if let Some(orders) = orders {
            tokio::spawn(self.clone().administer(orders, plan.retention_bytes));
            tokio::spawn(self.clone().read_everything());
            if plan.groups {
                tokio::spawn(self.clone().watch_group());
            }
            if plan.transactions {
                tokio::spawn(self.clone().read_committed());
            }
            if plan.compacts {
                tokio::spawn(self.clone().write_keys());
            }
        }
        std::future::pending().await
    }

    pub(super) async fn connect(&self, label: u64) -> Client {
        loop {
            match self.cluster.client(label).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    pub(super) fn rng(&self, label: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ label)
    }

    pub(super) async fn partitions(&self, client: &Client, topic: Topic) -> u32 {
        loop {
            match client.partitions(topic.name()).await {
                Ok(n) if n >= topic.partitions() => return n,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Sends records of different lengths to every partition, until the load ends.
    async fn produce(self, id: u32, every_ms: u32) {
        let client = self.connect(100 + u64::from(id)).await;
        let orders = self.partitions(&client, Topic::Orders).await;
        self.partitions(&client, Topic::Drafts).await;
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
            let place = draw_place(&mut rng, orders);
            let burst = if rng.random_bool(0.1) { rng.random_range(2..6) } else { 1 };
            for _ in 0..burst {
                let filler = if rng.random_bool(0.02) { 20_000 } else { rng.random_range(0..200) };
                let value = format!("p{id}/{place}/{sequence}/{}", "x".repeat(filler));
                self.send(&producer, id, place, sequence, value).await;
                sequence += 1;
            }
        }
        // All is mended now: whoever cannot write any more has not noticed it.
        for place in all_places(orders) {
            let value = format!("p{id}/{place}/{sequence}/last");
            self.lock().last_words.insert((format!("p{id}"), place, sequence));
            self.send(&producer, id, place, sequence, value).await;
            sequence += 1;
        }
        self.hush(id);
        // A producer that is dropped gives up what it has not sent; each delivery says how it went.
        let _ = producer.flush().await;
        std::future::pending::<()>().await;
    }

    async fn send(&self, producer: &Producer, id: u32, place: Place, sequence: u64, value: String) {
        let key = (format!("p{id}"), place, sequence);
        self.sends(&key, value.as_bytes());
        let record = Record::new(value).partition(place.partition);
        match producer.send(place.topic.name(), record).await {
            Ok(delivery) => {
                let this = self.clone();
                tokio::spawn(async move {
                    let outcome = delivered(delivery, &key).await;
                    let last = this.lock().last_words.contains(&key);
                    if let (true, Event::Fail(failed) | Event::Unknown(failed)) = (last, &outcome) {
                        let why = format!("{key:?} was sent when all was mended, and failed: {}", failed.reason);
                        this.cluster.violations.add(why);
                    }
                    this.ended(&key, outcome);
                });
            }
            Err(error) => {
                let outcome = Event::Fail(failed(&key, &error.to_string()));
                self.ended(&key, outcome);
            }
        }
    }

    /// A record is handed to a client.
    pub(super) fn sends(&self, key: &Key, value: &[u8]) {
        let (producer, place, sequence) = key;
        {
            let mut state = self.lock();
            state.operations += 1;
            state.under_way.insert(key.clone());
        }
        self.recorder.record(Event::Send(Send {
            producer: producer.clone().into(),
            partition: place.to_string().into(),
            sequence: *sequence,
            payload: payload_id(value),
            sent_us: now_us(),
        }));
    }

    /// It was acknowledged, or refused, or nobody knows.
    pub(super) fn ended(&self, key: &Key, outcome: Event<'static>) {
        let mut state = self.lock();
        if let Event::Ack(ack) = &outcome {
            let by_epoch = state.acknowledged.entry(key.1).or_default();
            let end = by_epoch.entry(ack.epoch.unwrap_or(0)).or_default();
            *end = (*end).max(ack.offset + 1);
        }
        state.under_way.remove(key);
        drop(state);
        self.recorder.record(outcome);
    }
}

/// Any partition, the last one of the drafts seldom: it is idle when something befalls it.
pub(super) fn draw_place(rng: &mut SmallRng, orders: u32) -> Place {
    if rng.random_bool(0.7) {
        return Place { topic: Topic::Orders, partition: rng.random_range(0..orders) };
    }
    let seldom = rng.random_bool(0.1);
    Place { topic: Topic::Drafts, partition: if seldom { Topic::Drafts.partitions() - 1 } else { 0 } }
}

pub(super) fn all_places(orders: u32) -> impl Iterator<Item = Place> {
    let all = (0..orders).map(|partition| Place { topic: Topic::Orders, partition });
    all.chain((0..Topic::Drafts.partitions()).map(|partition| Place { topic: Topic::Drafts, partition }))
}

async fn delivered(delivery: Delivery, key: &Key) -> Event<'static> {
    match delivery.await {
        Ok(stored) => acknowledged(key, stored.offset.0, stored.epoch.0),
        Err(error) if error.maybe_stored() => Event::Unknown(failed(key, &error.to_string())),
        Err(error) => Event::Fail(failed(key, &error.to_string())),
    }
}

pub(super) fn acknowledged((producer, place, sequence): &Key, offset: u64, epoch: u32) -> Event<'static> {
    Event::Ack(Ack {
        producer: producer.clone().into(),
        partition: place.to_string().into(),
        sequence: *sequence,
        offset,
        epoch: Some(epoch),
        received_us: now_us(),
    })
}

pub(super) fn failed((producer, place, sequence): &Key, reason: &str) -> Outcome<'static> {
    Outcome {
        producer: producer.clone().into(),
        partition: place.to_string().into(),
        sequence: *sequence,
        received_us: now_us(),
        reason: reason.to_owned().into(),
    }
}

/// Simulated microseconds.
#[must_use]
pub fn now_us() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}
