//! An idempotent producer, a group of three that reads what it writes, and one that watches what
//! the group has committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

use super::{GROUP_PARTITIONS, GROUP_TOPIC, SOCKET_MS, Shared, is_informational};

const GROUP: &str = "readers";
const MEMBERS: u32 = 3;
/// One record for each partition.
const SEND_EVERY: Duration = Duration::from_millis(40);
const COMMIT_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_secs(5);
/// Longer than any fault and what follows from it.
const FLUSH: Duration = Duration::from_secs(60);

/// The producer; the members and who watches them.
pub fn start(config: &ClientConfig, shared: &Arc<Shared>) -> anyhow::Result<(JoinHandle<()>, Vec<JoinHandle<()>>)> {
    let deliveries = Deliveries(Arc::clone(shared));
    let mut producing = config.clone();
    producing.set("request.timeout.ms", SOCKET_MS).set("enable.idempotence", "true").set("client.id", "group-producer");
    let producer: ThreadedProducer<Deliveries> = producing.create_with_context(deliveries)?;
    let sender = spawn(shared, move |shared| send(&producer, shared));
    let mut readers = Vec::new();
    for number in 1..=MEMBERS {
        let mut config = config.clone();
        config
            .set("group.id", GROUP)
            .set("client.id", format!("member-{number}"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky");
        let context = Member { shared: Arc::clone(shared), read: Mutex::default() };
        let consumer: BaseConsumer<Member> = config.create_with_context(context)?;
        consumer.subscribe(&[GROUP_TOPIC])?;
        readers.push(spawn(shared, move |shared| read(&consumer, shared)));
    }
    let watcher: BaseConsumer = config.clone().set("group.id", GROUP).set("client.id", "watcher").create()?;
    readers.push(spawn(shared, move |shared| watch(&watcher, shared)));
    Ok((sender, readers))
}

fn spawn(shared: &Arc<Shared>, work: impl FnOnce(&Shared) + Send + 'static) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || work(&shared))
}

/// Writes down how each record went.
struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Self::DeliveryOpaque) {
        let mut book = self.0.group();
        match result {
            Ok(message) => book.acknowledged((message.partition(), message.offset()), *sequence),
            Err((error, message)) => {
                book.violated(format!("record {sequence} of partition {}: {error}", message.partition()));
            }
        }
    }
}

fn send(producer: &ThreadedProducer<Deliveries>, shared: &Shared) {
    let (mut sequence, mut due) = (0_u64, Instant::now());
    while shared.sends() {
        for partition in 0..GROUP_PARTITIONS {
            let value = sequence.to_string();
            let record = BaseRecord::<(), str, Box<u64>>::with_opaque_to(GROUP_TOPIC, Box::new(sequence));
            if let Err((error, _)) = producer.send(record.partition(partition).payload(value.as_str())) {
                shared.group().violated(format!("record {sequence} cannot be sent: {error}"));
            }
            sequence += 1;
        }
        // What was missed is not made up for.
        due = (due + SEND_EVERY).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    if !shared.stopped()
        && let Err(error) = producer.flush(FLUSH)
    {
        shared.group().violated(format!("not everything is acknowledged in the end: {error}"));
    }
}

/// A member of the group.
struct Member {
    shared: Arc<Shared>,
    /// What was read and is not committed: by partition, the next offset.
    read: Mutex<BTreeMap<i32, i64>>,
}

impl Member {
    fn read(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, i64>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.shared.group().rebalanced();
        // What is taken away may be read and committed by another by now: to commit it in the
        // next generation would set the group back.
        if let Rebalance::Revoke(partitions) = rebalance {
            let mut read = self.read();
            for gone in partitions.elements() {
                read.remove(&gone.partition());
            }
        }
    }
}

fn read(consumer: &BaseConsumer<Member>, shared: &Shared) {
    let mut last_commit = Instant::now();
    while !shared.stopped() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let place = (message.partition(), message.offset());
                let value = message.payload().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
                match value {
                    Some(sequence) => shared.group().read(place, sequence),
                    None => shared.group().violated(format!("{place:?} is no record of ours")),
                }
                consumer.context().read().insert(place.0, place.1 + 1);
            }
            Some(Err(error)) if !is_informational(&error) => shared.group().violated(format!("a member: {error}")),
            Some(Err(_)) | None => {}
        }
        if last_commit.elapsed() >= COMMIT_EVERY {
            commit(consumer, shared);
            last_commit = Instant::now();
        }
    }
}

/// Commits; what is refused since the partitions moved on is another member's now.
fn commit(consumer: &BaseConsumer<Member>, shared: &Shared) {
    let read = std::mem::take(&mut *consumer.context().read());
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in &read {
        if let Err(error) = offsets.add_partition_offset(GROUP_TOPIC, *partition, Offset::Offset(*next)) {
            shared.group().violated(format!("partition {partition} cannot be committed: {error}"));
        }
    }
    if !read.is_empty() && consumer.commit(&offsets, CommitMode::Sync).is_ok() {
        shared.group().promised(&read);
    }
}

/// Asks again and again what is committed.
fn watch(watcher: &BaseConsumer, shared: &Shared) {
    while !shared.stopped() {
        let promised = shared.group().promises();
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(GROUP_TOPIC, 0, GROUP_PARTITIONS - 1);
        // Without an answer nothing is known.
        if let Ok(found) = watcher.committed_offsets(asked, ASK) {
            for element in found.elements() {
                if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                    shared.group().committed(element.partition(), offset, &promised);
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
