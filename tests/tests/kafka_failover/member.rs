//! One member of a consumer group: it reads, and commits what it has read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

pub const GROUP: &str = "readers";

/// What was read holds between commits.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// What all members have seen, and what must not be.
#[derive(Default)]
pub struct Seen {
    /// By partition and offset: the record's number, and how often it was read.
    pub read: Mutex<BTreeMap<(i32, i64), (u64, u32)>>,
    /// The next offset of each partition, as it was last committed with success.
    committed: Mutex<BTreeMap<i32, i64>>,
    pub violations: Mutex<Vec<String>>,
    /// Assignments that were changed.
    pub rebalances: AtomicU64,
    pub assigned: Mutex<BTreeMap<u32, usize>>,
    pub stop: AtomicBool,
}

impl Seen {
    fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.committed.lock().unwrap().clone()
    }
}

struct Context {
    number: u32,
    seen: Arc<Seen>,
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        let count = consumer.assignment().map_or(0, |list| list.count());
        self.seen.rebalances.fetch_add(1, Ordering::Relaxed);
        self.seen.assigned.lock().unwrap().insert(self.number, count);
    }
}

/// Starts a member; it leaves when `seen.stop` is set.
pub fn start(mut config: ClientConfig, topic: &str, number: u32, seen: &Arc<Seen>) -> JoinHandle<()> {
    config
        .set("group.id", GROUP)
        .set("client.id", format!("member-{number}"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky");
    let (seen, topic) = (Arc::clone(seen), topic.to_owned());
    let context = Context { number, seen: Arc::clone(&seen) };
    let consumer: BaseConsumer<Context> = config.create_with_context(context).unwrap();
    std::thread::spawn(move || {
        consumer.subscribe(&[&topic]).unwrap();
        let mut read = BTreeMap::new();
        let mut last_commit = Instant::now();
        while !seen.stop.load(Ordering::Relaxed) {
            let before = seen.committed();
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let sequence = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
                    let mut all = seen.read.lock().unwrap();
                    let (known, times) = all.entry((partition, offset)).or_insert((sequence, 0));
                    *times += 1;
                    if *known != sequence {
                        seen.violated(format!("{partition}/{offset} was {known} and is {sequence}"));
                    }
                    if before.get(&partition).is_some_and(|committed| offset < *committed) {
                        seen.violated(format!("{partition}/{offset} is read after {before:?} was committed"));
                    }
                    read.insert(partition, offset + 1);
                }
                // That a connection broke is told as well, and says that nothing is to be done.
                Some(Err(error)) if is_informational(&error) => {}
                Some(Err(error)) => seen.violated(format!("member {number}: {error}")),
                None => {}
            }
            if last_commit.elapsed() >= COMMIT_EVERY && !read.is_empty() {
                commit(&consumer, &topic, &mut read, &seen);
                last_commit = Instant::now();
            }
        }
        commit(&consumer, &topic, &mut read, &seen);
    })
}

/// What librdkafka tells while it connects anew by itself.
fn is_informational(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown))
}

/// Commits; what is refused because the partitions moved on is another member's now.
fn commit(consumer: &BaseConsumer<Context>, topic: &str, read: &mut BTreeMap<i32, i64>, seen: &Seen) {
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in &*read {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next)).unwrap();
    }
    if !read.is_empty() && consumer.commit(&offsets, CommitMode::Sync).is_ok() {
        let mut committed = seen.committed.lock().unwrap();
        for (partition, next) in &*read {
            let known = committed.entry(*partition).or_default();
            *known = (*known).max(*next);
        }
    }
    read.clear();
}
