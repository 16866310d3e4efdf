//! Transactional producers, which speak Kafka's protocol. They commit and abort, give up in the
//! middle, and lose their place to another that takes their transactional id; what each was told
//! of its transactions is held against what a reader of what is committed finds in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_client::Client;
use baton_client::admin::TopicSpec;
use rand::Rng;
use rand::rngs::SmallRng;

use super::committed::{self, Counts, Fate, Log, Seen, Transaction};
use super::kafka::{Failed, Holder, Kafka, Part, Protocol, batch};
use super::load::{Load, Stage};

/// Producers, each with a transactional id of its own.
pub(super) const PRODUCERS: u32 = 2;

const TOPICS: [&str; 2] = ["payments", "refunds"];
const PARTITIONS: u32 = 2;

/// The number of the first producer among those that still have something to say.
pub(super) const SPEAKER: u32 = 2_000;

/// A step of a transaction is given up after so long.
const PATIENCE: Duration = Duration::from_secs(6);

/// When all was mended, nothing may take longer; see the time in which everything has to settle.
const LAST: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Transactions {
    pub(super) log: Log,
    /// The last reading came to the end, and was judged.
    pub(super) read: bool,
    /// What each producer waits for.
    doing: BTreeMap<u32, String>,
    /// What was read, and what keeps the reader from the end of a partition.
    visible: BTreeMap<Part, Vec<Seen>>,
    stuck: BTreeMap<Part, String>,
}

impl Transactions {
    fn of(&mut self, key: (u32, u64)) -> &mut Transaction {
        self.log.entry(key).or_default()
    }
}

/// A producer with its place, and the numbers of its next records.
struct Instance {
    id: u32,
    name: String,
    protocol: Protocol,
    holder: Holder,
    sequences: BTreeMap<Part, i32>,
}

impl Load {
    /// Commits and aborts, until the load ends; then one last transaction has to be committed.
    pub(super) async fn transact(self, id: u32) {
        let mut rng = self.rng(600 + u64::from(id));
        let client = self.connect(600 + u64::from(id)).await;
        for topic in TOPICS {
            create(&client, topic).await;
        }
        let protocol = if rng.random_bool(0.5) { Protocol::Second } else { Protocol::First };
        let mut producer = TransactionalProducer {
            kafka: Kafka::new(self.cluster.settings.brokers, self.rng(620 + u64::from(id))),
            load: self.clone(),
            rng,
            number: 0,
        };
        while self.stage() == Stage::Load {
            let Some(mut instance) = producer.begin(id, protocol, PATIENCE).await else { continue };
            while self.stage() == Stage::Load && producer.one(&mut instance).await.is_ok() {
                let pause = producer.rng.random_range(5..60);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        // Whatever is open is resolved by whoever takes the id.
        loop {
            let Some(mut instance) = producer.begin(id, protocol, LAST).await else { continue };
            if producer.last(&mut instance).await {
                break;
            }
        }
        self.lock().transactions.doing.remove(&id);
        self.hush(SPEAKER + id);
        std::future::pending::<()>().await;
    }

    /// Reads every partition to its end, and judges what is there.
    pub(super) async fn read_committed(self) {
        let mut stage = self.stage.clone();
        if stage.wait_for(|stage| *stage == Stage::Read).await.is_err() {
            return;
        }
        let mut kafka = Kafka::new(self.cluster.settings.brokers, self.rng(640));
        for part in parts() {
            let mut reader = committed::Reader::default();
            loop {
                let Some(answer) = kafka.fetch(part, reader.next).await else {
                    let why = format!("nobody answers for {}/{} from offset {}", part.0, part.1, reader.next);
                    self.lock().transactions.stuck.insert(part, why);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (stable, end) = (answer.last_stable_offset, answer.high_watermark);
                if let Err(why) = reader.take(answer) {
                    return self.cluster.violations.add(format!("{}/{}: {why}", part.0, part.1));
                }
                if reader.next >= end && stable == end {
                    break;
                }
                self.lock().note_stuck(part, stable, end);
            }
            let mut state = self.lock();
            state.transactions.stuck.remove(&part);
            state.transactions.visible.insert(part, reader.seen);
        }
        let judged = {
            let state = self.lock();
            committed::check(&state.transactions.log, &state.transactions.visible)
        };
        if let Err(why) = judged {
            self.cluster.violations.add(why);
        }
        self.lock().transactions.read = true;
        std::future::pending::<()>().await;
    }

    /// What became of the transactions.
    #[must_use]
    pub fn transactions(&self) -> Counts {
        Counts::of(&self.lock().transactions.log)
    }

    /// Everything that is known of the transactions, as text.
    #[must_use]
    pub fn tell_transactions(&self) -> String {
        let state = self.lock();
        if state.transactions.log.is_empty() {
            return String::new();
        }
        format!("{:?} {:?}", state.transactions.log, state.transactions.visible)
    }

    /// What the last reading of the transactions waits for; what their producers wait for.
    #[must_use]
    pub fn transactions_wait_for(&self) -> String {
        let state = self.lock();
        let (doing, stuck) = (&state.transactions.doing, &state.transactions.stuck);
        doing.values().chain(stuck.values()).fold(String::new(), |all, one| format!("{all}; {one}"))
    }
}

impl super::load::State {
    /// What keeps the reader: the transaction that has the record at the last stable offset.
    fn note_stuck(&mut self, part: Part, stable: i64, end: i64) {
        let there = |transaction: &Transaction| transaction.records.contains(&(part, Some(stable)));
        let whose = self.transactions.log.iter().find(|(_, transaction)| there(transaction));
        let whose = whose.map_or("of nobody who was answered".to_owned(), |((producer, number), transaction)| {
            format!("of transaction {producer}/{number}, {:?}", transaction.fate)
        });
        let why =
            format!("{}/{} ends at {end} and is stable below {stable}: the record there is {whose}", part.0, part.1);
        self.transactions.stuck.insert(part, why);
    }
}

/// One transactional id's life: instance after instance.
struct TransactionalProducer {
    load: Load,
    kafka: Kafka,
    rng: SmallRng,
    number: u64,
}

impl TransactionalProducer {
    fn waits(&self, id: u32, what: String) {
        self.load.lock().transactions.doing.insert(id, format!("transactional producer {id}: {what}"));
    }

    async fn begin(&mut self, id: u32, protocol: Protocol, patience: Duration) -> Option<Instance> {
        let name = format!("payer-{id}");
        self.waits(id, format!("InitProducerId after transaction {}", self.number));
        match self.kafka.init(&name, patience).await {
            Ok(holder) => Some(Instance { id, name, protocol, holder, sequences: BTreeMap::new() }),
            Err(failed) => {
                self.waits(id, format!("after transaction {}, {}", self.number, failed.why));
                None
            }
        }
    }

    /// One transaction; an error says that the instance is at its end.
    async fn one(&mut self, instance: &mut Instance) -> Result<(), Failed> {
        self.number += 1;
        let (number, key) = (self.number, (instance.id, self.number));
        let mut added = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            self.write(instance, number, &mut added, PATIENCE).await?;
        }
        match self.rng.random_range(0..100) {
            0..8 => return self.overtaken(instance, number, &mut added).await,
            8..14 => return self.raced(instance, number).await,
            // It says nothing more.
            14..17 => {
                self.load.lock().transactions.of(key).fate = Fate::Aborted;
                return Err(Failed { why: "it was dropped".to_owned(), refused: false, doubt: false });
            }
            _ => {}
        }
        let commit = self.rng.random_bool(0.7);
        // Some do not wait for the answer, and never hear of it.
        let hurried = Duration::from_millis(self.rng.random_range(1..30));
        let patience = if self.rng.random_bool(0.05) { hurried } else { PATIENCE };
        self.end(instance, number, commit, patience).await
    }

    async fn end(
        &mut self,
        instance: &mut Instance,
        number: u64,
        commit: bool,
        patience: Duration,
    ) -> Result<(), Failed> {
        let speaker = (instance.name.as_str(), instance.protocol);
        self.waits(instance.id, format!("EndTxn of transaction {number}"));
        let ending = self.kafka.end(speaker, instance.holder, commit, PATIENCE);
        let ended = tokio::time::timeout(patience, ending).await;
        let gone = |_| Err(Failed { why: "EndTxn was not waited for".to_owned(), refused: false, doubt: true });
        let ended = ended.unwrap_or_else(gone);
        self.load.lock().transactions.of((instance.id, number)).fate = fate(&ended, commit);
        let next = ended?;
        if next != instance.holder {
            instance.sequences.clear();
        }
        instance.holder = next;
        Ok(())
    }

    /// A batch to any partition.
    async fn write(
        &mut self,
        instance: &mut Instance,
        number: u64,
        added: &mut Vec<Part>,
        patience: Duration,
    ) -> Result<(), Failed> {
        let part = any_part(&mut self.rng);
        let speaker = (instance.name.as_str(), instance.protocol);
        self.waits(instance.id, format!("Produce of transaction {number} to {}/{}", part.0, part.1));
        if instance.protocol == Protocol::First && !added.contains(&part) {
            let adding = self.kafka.add(&instance.name, instance.holder, part, patience).await;
            adding.inspect_err(|_| self.gives_up(instance.id, number))?;
            added.push(part);
        }
        let count = self.rng.random_range(1..4);
        let first = self.sends(instance.id, number, part, count);
        let filler = "x".repeat(self.rng.random_range(0..100));
        let values: Vec<_> = (first..first + count).map(|n| format!("{}/{number}/{n}/{filler}", instance.id)).collect();
        let sequence = instance.sequences.entry(part).or_default();
        let Some(records) = batch(instance.holder, *sequence, &values) else { return Ok(()) };
        let written = self.kafka.produce(speaker, part, records, patience).await;
        let offset = written.inspect_err(|_| self.gives_up(instance.id, number))?;
        *sequence += i32::try_from(count).unwrap_or(0);
        let mut state = self.load.lock();
        let records = state.transactions.of((instance.id, number)).records.iter_mut();
        for (at, record) in (offset..).zip(records.skip(first)) {
            record.1 = (offset >= 0).then_some(at);
        }
        Ok(())
    }

    /// Notes records before they are sent; returns the number of the first one.
    fn sends(&self, id: u32, number: u64, part: Part, count: usize) -> usize {
        let mut state = self.load.lock();
        state.operations += count as u64;
        let records = &mut state.transactions.of((id, number)).records;
        records.extend(std::iter::repeat_n((part, None), count));
        records.len() - count
    }

    /// A transaction that is never asked to be committed.
    fn gives_up(&self, id: u32, number: u64) {
        let mut state = self.load.lock();
        let transaction = state.transactions.of((id, number));
        if transaction.fate == Fate::Open {
            transaction.fate = Fate::Aborted;
        }
    }

    /// Another takes the id in the middle; the one before does not know, and goes on.
    async fn overtaken(&mut self, old: &mut Instance, number: u64, added: &mut Vec<Part>) -> Result<(), Failed> {
        let Some(mut new) = self.begin(old.id, old.protocol, PATIENCE).await else {
            self.gives_up(old.id, number);
            return Err(Failed { why: "nobody could take over".to_owned(), refused: false, doubt: true });
        };
        // What it is answered here is judged by what readers see.
        self.load.lock().transactions.of((old.id, number)).fate = Fate::Fenced;
        let short = Duration::from_millis(500);
        let _ = self.write(old, number, added, short).await;
        let ended = self.kafka.end((&old.name, old.protocol), old.holder, true, short).await;
        if let Ok(next) = ended {
            self.load.cluster.violations.add(format!(
                "transaction {}/{number} was committed by {:?}, answered {next:?}, after {:?} had taken its place",
                old.id, old.holder, new.holder
            ));
        }
        self.number += 1;
        let number = self.number;
        self.write(&mut new, number, &mut Vec::new(), PATIENCE).await?;
        self.end(&mut new, number, true, PATIENCE).await?;
        *old = new;
        Ok(())
    }

    /// Another takes the id while the transaction is being committed.
    async fn raced(&mut self, instance: &mut Instance, number: u64) -> Result<(), Failed> {
        let mut other = Kafka::new(self.load.cluster.settings.brokers, self.load.rng(number << 16 | 660));
        let speaker = (instance.name.as_str(), instance.protocol);
        let later = Duration::from_millis(self.rng.random_range(0..20));
        let (ended, taken) = tokio::join!(self.kafka.end(speaker, instance.holder, true, PATIENCE), async {
            tokio::time::sleep(later).await;
            other.init(&instance.name, PATIENCE).await
        });
        self.load.lock().transactions.of((instance.id, number)).fate = fate(&ended, true);
        instance.holder = taken?;
        instance.sequences.clear();
        Ok(())
    }

    /// All is mended: whoever cannot commit any more has not noticed it.
    async fn last(&mut self, instance: &mut Instance) -> bool {
        self.number += 1;
        let number = self.number;
        self.load.lock().transactions.of((instance.id, number)).last = true;
        let mut added = Vec::new();
        for _ in 0..3 {
            if self.write(instance, number, &mut added, LAST).await.is_err() {
                return false;
            }
        }
        self.end(instance, number, true, LAST).await.is_ok()
    }
}

fn fate<T>(ended: &Result<T, Failed>, commit: bool) -> Fate {
    match ended {
        _ if !commit => Fate::Aborted,
        Ok(_) => Fate::Committed,
        Err(failed) if failed.refused && !failed.doubt => Fate::Fenced,
        Err(_) => Fate::Unknown,
    }
}

fn parts() -> impl Iterator<Item = Part> {
    let numbers = || 0..i32::try_from(PARTITIONS).unwrap_or(0);
    TOPICS.into_iter().flat_map(move |topic| numbers().map(move |partition| (topic, partition)))
}

fn any_part(rng: &mut SmallRng) -> Part {
    let (topic, partition) = (rng.random_range(0..TOPICS.len()), rng.random_range(0..PARTITIONS));
    (TOPICS[topic], i32::try_from(partition).unwrap_or(0))
}

async fn create(client: &Client, name: &str) {
    let config = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
    let spec = TopicSpec { partitions: Some(PARTITIONS), replication: Some(3), ..TopicSpec::new(name) };
    let spec = TopicSpec { config, timeout: Duration::from_secs(10), ..spec };
    while client.admin().create_topic(spec.clone()).await.is_err() {
        // Another may have made it, or an attempt whose answer was late.
        if client.partitions(name).await.is_ok_and(|n| n == PARTITIONS) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
