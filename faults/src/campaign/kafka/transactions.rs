//! Transactions one after the other: committed, aborted, and those of a zombie that another
//! producer of the same name has replaced; and a reader of what is committed.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::books::{Fate, RECORDS, Told};
use super::{SOCKET_MS, Shared, TRANSACTION_PARTITIONS, TRANSACTION_TOPIC, is_informational};

type Writer = ThreadedProducer<DefaultProducerContext>;

/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(30);
const POLL: Duration = Duration::from_millis(50);
/// One call; one that has to be called again goes on where it was.
const CALL: Duration = Duration::from_secs(5);

/// The producer and the reader.
pub fn start(config: &ClientConfig, shared: &Arc<Shared>) -> anyhow::Result<(JoinHandle<()>, JoinHandle<()>)> {
    let mut reading = config.clone();
    reading
        .set("group.id", "no-group")
        .set("client.id", "transactions-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        // Nothing is ever deleted here: a position that is out of range would be an anomaly.
        .set("auto.offset.reset", "error");
    let consumer: BaseConsumer = reading.create()?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..TRANSACTION_PARTITIONS {
        assigned.add_partition_offset(TRANSACTION_TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    let mut writing = config.clone();
    writing
        .set("transactional.id", "transfers")
        .set("client.id", "transactions-writer")
        .set("transaction.timeout.ms", "60000")
        .set("request.timeout.ms", SOCKET_MS)
        .set("linger.ms", "1");
    let (of_writer, of_reader) = (Arc::clone(shared), Arc::clone(shared));
    let writer = std::thread::spawn(move || write(&writing, &of_writer));
    let reader = std::thread::spawn(move || read(&consumer, &of_reader));
    Ok((writer, reader))
}

/// How a transaction is meant to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meant {
    Commit,
    Abort,
    /// Another producer of the same name begins before it is committed.
    Zombie,
}

impl Meant {
    fn of(number: u64) -> Self {
        match number % 16 {
            15 => Self::Zombie,
            3 | 7 | 11 => Self::Abort,
            _ => Self::Commit,
        }
    }
}

fn write(config: &ClientConfig, shared: &Shared) {
    let mut writer: Option<Writer> = None;
    while shared.sends() {
        let Some(current) = writer.take().or_else(|| open(config, shared)) else { continue };
        let number = shared.transactions().begin();
        let (fate, next) = match Meant::of(number) {
            Meant::Zombie => replace(config, shared, &current, number),
            meant => one(shared, &current, number, meant == Meant::Commit),
        };
        shared.transactions().ended(number, fate);
        writer = match next {
            Next::Same => Some(current),
            Next::Other(other) => other.map(|other| *other),
        };
        std::thread::sleep(PAUSE);
    }
    // What is open when it ends would hold back the reader until its time is up.
    let _ = writer.or_else(|| open(config, shared));
}

/// Who writes the next transaction.
enum Next {
    Same,
    /// Another one, if it is there already.
    Other(Option<Box<Writer>>),
}

/// A producer whose predecessors are fenced, and their transactions finished.
fn open(config: &ClientConfig, shared: &Shared) -> Option<Writer> {
    let writer: Writer = match config.create() {
        Ok(writer) => writer,
        Err(error) => {
            shared.transactions().violated(format!("no producer: {error}"));
            return None;
        }
    };
    loop {
        match writer.init_transactions(CALL) {
            Ok(()) => return Some(writer),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
            Err(error) => {
                shared.transactions().violated(format!("a producer cannot begin: {error}"));
                return None;
            }
        }
        if shared.stopped() {
            return None;
        }
    }
}

fn send(writer: &Writer, number: u64) -> KafkaResult<()> {
    writer.begin_transaction()?;
    for partition in 0..TRANSACTION_PARTITIONS {
        for record in 0..RECORDS {
            let value = Told { number, record }.to_value();
            let record = BaseRecord::<(), str>::to(TRANSACTION_TOPIC).partition(partition).payload(value.as_str());
            writer.send(record).map_err(|(error, _)| error)?;
        }
    }
    Ok(())
}

/// One transaction of a producer that nobody replaces.
fn one(shared: &Shared, writer: &Writer, number: u64, commit: bool) -> (Fate, Next) {
    let mut ended = send(writer, number);
    if ended.is_ok() && commit {
        ended = until_known(shared, || writer.commit_transaction(CALL));
        if ended.is_ok() {
            return (Fate::Committed, Next::Same);
        }
    }
    // What asks to be aborted is not committed, and what is aborted never was.
    let may_abort = match &ended {
        Ok(()) => true,
        Err(KafkaError::Transaction(error)) => error.txn_requires_abort(),
        Err(_) => false,
    };
    if may_abort {
        ended = until_known(shared, || writer.abort_transaction(CALL));
        if ended.is_ok() {
            return (Fate::Aborted, Next::Same);
        }
    }
    if let Err(error) = ended
        && !shared.stopped()
    {
        shared.transactions().violated(format!("transaction {number}: {error}"));
    }
    (Fate::Unknown, Next::Other(None))
}

/// A transaction whose producer is replaced before it commits: it must not be able to.
fn replace(config: &ClientConfig, shared: &Shared, zombie: &Writer, number: u64) -> (Fate, Next) {
    let sent = send(zombie, number).and_then(|()| zombie.flush(CALL));
    let next = open(config, shared);
    if next.is_none() {
        return (Fate::Unknown, Next::Other(None));
    }
    if sent.is_ok() && zombie.commit_transaction(CALL).is_ok() {
        shared.transactions().violated(format!("transaction {number} of a zombie is committed"));
    }
    shared.transactions().fenced();
    (Fate::Aborted, Next::Other(next.map(Box::new)))
}

/// Calls again as long as the client says that this is right.
fn until_known(shared: &Shared, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        let ended = call();
        let again = match &ended {
            Err(KafkaError::Transaction(error)) => error.is_retriable(),
            // The crate flushes before it commits; records are on their way yet.
            Err(KafkaError::Flush(code)) => *code == RDKafkaErrorCode::OperationTimedOut,
            _ => false,
        };
        if !again || shared.stopped() {
            return ended;
        }
    }
}

fn read(consumer: &BaseConsumer, shared: &Shared) {
    while !shared.stopped() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let told = message.payload().and_then(Told::of_value);
                let (partition, offset) = (message.partition(), message.offset());
                let mut book = shared.transactions();
                match told {
                    Some(told) => book.seen(partition, told),
                    None => book.violated(format!("{partition}/{offset} is no record of ours")),
                }
            }
            Some(Err(error)) if !is_informational(&error) => {
                shared.transactions().violated(format!("the reader of what is committed: {error}"));
            }
            Some(Err(_)) | None => {}
        }
    }
}
