//! The crate rdkafka: what Rust's users of librdkafka do. Its own librdkafka is built with it.

use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::wire::{PATIENCE, cluster};

/// What every client is configured with, and these settings more.
pub fn config(settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster().bootstrap());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// Readers that commit nothing by themselves, and that are told when they are at an end.
pub fn consumer(group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let own = [
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("check.crcs", "true"),
    ];
    config(&[&own[..], settings].concat()).create().unwrap()
}

/// Everything of partition 0 up to the end that a reader of this isolation sees.
pub fn read(topic: &str, isolation: &str) -> Vec<OwnedMessage> {
    let reader = consumer("nobody", &[("isolation.level", isolation)]);
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    reader.assign(&from).unwrap();
    let (mut found, started) = (Vec::new(), Instant::now());
    loop {
        assert!(started.elapsed() < PATIENCE, "{topic}: no end after {} records", found.len());
        match reader.poll(Duration::from_millis(500)) {
            None => {}
            Some(Ok(message)) => found.push(message.detach()),
            Some(Err(KafkaError::PartitionEOF(0))) => return found,
            Some(Err(error)) => panic!("{topic}: {error}"),
        }
    }
}

/// The values, as text.
pub fn values(messages: &[OwnedMessage]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8_lossy(m.payload().unwrap()).into_owned()).collect()
}

pub fn send(producer: &BaseProducer, topic: &str, value: &str) {
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(value.as_bytes());
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

pub fn create(topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(&[]).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(3));
    let created = wait(admin.create_topics([&new], &options())).unwrap();
    assert_eq!(created, [Ok(topic.to_owned())]);
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

fn wait<T>(asked: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(asked)
}

/// Names are not unique, and values need not be text, nor be there.
fn headers() -> OwnedHeaders {
    let one = |value: Option<&'static [u8]>| Header { key: "h", value };
    OwnedHeaders::new().insert(one(Some(b"\xff\xfe"))).insert(one(Some(b""))).insert(one(None))
}

#[test]
fn records_with_every_codec() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("rust-{codec}");
        create(&topic, 1);
        let settings = [("compression.type", codec), ("enable.idempotence", "true"), ("linger.ms", "20")];
        let producer: BaseProducer = config(&settings).create().unwrap();
        let payloads: Vec<String> = (0..500).map(|n| format!("{n:060}")).collect();
        for payload in &payloads {
            let record = BaseRecord::to(&topic).partition(0).key(payload).payload(payload).headers(headers());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        let (none, empty, key): (Option<&[u8]>, _, Option<&[u8]>) = (None, Some(&b""[..]), Some(b"k"));
        let odd = [(none, empty), (empty, empty), (key, none), (none, none)];
        for (key, payload) in odd {
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0);
            (record.key, record.payload) = (key, payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let found = read(&topic, "read_committed");
        assert_eq!(found.len(), 504, "{codec}");
        assert!(found.iter().zip(0..).all(|(message, offset)| message.offset() == offset), "{codec}");
        for (message, payload) in found.iter().zip(&payloads) {
            assert_eq!((message.key(), message.payload()), (Some(payload.as_bytes()), Some(payload.as_bytes())));
            let headers: Vec<_> = message.headers().unwrap().iter().map(|h| (h.key, h.value)).collect();
            assert_eq!(headers, [("h", Some(&b"\xff\xfe"[..])), ("h", Some(b"")), ("h", None)], "{codec}");
        }
        let last: Vec<_> = found[500..].iter().map(|message| (message.key(), message.payload())).collect();
        assert_eq!(last, odd, "{codec}");
    }
}

/// Polls both until they hold this many partitions; whatever is read comes back.
fn settle(members: &[&BaseConsumer], held: &[usize]) -> Vec<OwnedMessage> {
    let (mut found, started) = (Vec::new(), Instant::now());
    loop {
        for member in members {
            match member.poll(Duration::from_millis(100)) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Ok(message)) => found.push(message.detach()),
                Some(Err(error)) => panic!("{error}"),
            }
        }
        let holds: Vec<_> = members.iter().map(|member| member.assignment().unwrap().count()).collect();
        if holds == held {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{holds:?} of {held:?}");
    }
}

#[test]
fn groups() {
    create("rust-group", 4);
    let producer: BaseProducer = config(&[]).create().unwrap();
    for n in 0..200 {
        let (key, partition) = (n.to_string(), n % 4);
        let record = BaseRecord::to("rust-group").key(&key).payload(&key).partition(partition);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    for strategy in ["range", "cooperative-sticky"] {
        let group = format!("rust-{strategy}");
        let member = || {
            let member = consumer(&group, &[("partition.assignment.strategy", strategy)]);
            member.subscribe(&["rust-group"]).unwrap();
            member
        };
        let first = member();
        let started = Instant::now();
        let mut found = 0;
        while found < 200 {
            assert!(started.elapsed() < PATIENCE, "{found} records");
            found += match first.poll(Duration::from_millis(500)) {
                Some(Ok(_)) => 1,
                None | Some(Err(KafkaError::PartitionEOF(_))) => 0,
                Some(Err(error)) => panic!("{error}"),
            };
        }
        first.commit_consumer_state(CommitMode::Sync).unwrap();
        let second = member();
        let again = settle(&[&first, &second], &[2, 2]);
        assert_eq!(values(&again), Vec::<String>::new(), "what was committed is not read again");
        let committed = second.committed(PATIENCE).unwrap();
        assert!(committed.elements().iter().all(|part| part.offset() == Offset::Offset(50)), "{committed:?}");
        // librdkafka waits for the list, which keeps the partitions, before it lets go of the client.
        drop(committed);
        drop(second);
        let _ = settle(&[&first], &[4]);
        let mut told = TopicPartitionList::new();
        let mut part = told.add_partition("rust-group", 3);
        part.set_offset(Offset::Offset(7)).unwrap();
        part.set_metadata("what I know");
        first.commit(&told, CommitMode::Sync).unwrap();
        let committed = first.committed_offsets(told, PATIENCE).unwrap();
        let part = &committed.elements()[0];
        assert_eq!((part.offset(), part.metadata()), (Offset::Offset(7), "what I know"));
        let groups = first.fetch_group_list(Some(&group), PATIENCE).unwrap();
        let listed: Vec<_> = groups.groups().iter().map(|one| (one.state(), one.members().len())).collect();
        assert_eq!(listed, [("Stable", 1)]);
    }
}

#[test]
fn administration() {
    let admin: AdminClient<DefaultClientContext> = config(&[]).create().unwrap();
    let topic = "rust-admin";
    create(topic, 1);
    let again = NewTopic::new(topic, 1, TopicReplication::Fixed(3));
    let refused = wait(admin.create_topics([&again], &options())).unwrap();
    assert_eq!(refused[0].as_ref().unwrap_err().1, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists);
    let producer: BaseProducer = config(&[]).create().unwrap();
    (0..10).for_each(|n| send(&producer, topic, &n.to_string()));
    producer.flush(PATIENCE).unwrap();
    let grown = wait(admin.create_partitions([&NewPartitions::new(topic, 3)], &options())).unwrap();
    assert_eq!(grown, [Ok(topic.to_owned())]);
    let resource = ResourceSpecifier::Topic(topic);
    let alter = AlterConfig::new(resource).set("max.message.bytes", "600000");
    assert!(wait(admin.alter_configs([&alter], &options())).unwrap()[0].is_ok());
    let described = wait(admin.describe_configs([&resource], &options())).unwrap().remove(0).unwrap();
    assert_eq!(described.get("max.message.bytes").unwrap().value.as_deref(), Some("600000"));
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(4)).unwrap();
    let deleted = wait(admin.delete_records(&before, &options())).unwrap();
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(4));
    assert_eq!(values(&read(topic, "read_committed")), ["4", "5", "6", "7", "8", "9"]);
    let reader = consumer("rust-admin", &[]);
    assert_eq!(reader.fetch_watermarks(topic, 0, PATIENCE).unwrap(), (4, 10));
    let mut commit = TopicPartitionList::new();
    commit.add_partition_offset(topic, 0, Offset::Offset(5)).unwrap();
    reader.commit(&commit, CommitMode::Sync).unwrap();
    drop(reader);
    assert_eq!(wait(admin.delete_groups(&["rust-admin"], &options())).unwrap(), [Ok("rust-admin".to_owned())]);
    assert_eq!(wait(admin.delete_topics(&[topic], &options())).unwrap(), [Ok(topic.to_owned())]);
}
