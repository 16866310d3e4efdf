//! Transactions by the crate rdkafka: committed, aborted, with offsets, fenced.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::rust::{config, consumer, create, read, send, values};
use crate::wire::PATIENCE;

fn producer(id: &str) -> BaseProducer {
    let producer: BaseProducer =
        config(&[("transactional.id", id), ("transaction.timeout.ms", "30000")]).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// The end of a transaction is told once it is decided: readers see it a moment later.
fn shows(topic: &str, wanted: &[String]) {
    let started = Instant::now();
    loop {
        let found = values(&read(topic, "read_committed"));
        if found == wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{found:?} instead of {wanted:?}");
    }
}

#[test]
fn committed_and_aborted() {
    let topic = "rust-txn";
    create(topic, 1);
    let writer = producer(topic);
    let mut wanted = Vec::new();
    for round in 0..6 {
        writer.begin_transaction().unwrap();
        let written: Vec<String> = (0..20).map(|n| format!("{round}-{n}")).collect();
        written.iter().for_each(|value| send(&writer, topic, value));
        writer.flush(PATIENCE).unwrap();
        if round % 3 == 1 {
            writer.abort_transaction(PATIENCE).unwrap();
        } else {
            writer.commit_transaction(PATIENCE).unwrap();
            wanted.extend(written);
        }
    }
    shows(topic, &wanted);
    assert_eq!(read(topic, "read_uncommitted").len(), 120);
    writer.begin_transaction().unwrap();
    send(&writer, topic, "open");
    writer.flush(PATIENCE).unwrap();
    shows(topic, &wanted);
    writer.commit_transaction(PATIENCE).unwrap();
    wanted.push("open".to_owned());
    shows(topic, &wanted);
}

/// Takes 20 records from a topic of 40, from where the group is.
fn take(reader: &BaseConsumer) -> Vec<OwnedMessage> {
    let (mut taken, started) = (Vec::new(), Instant::now());
    while taken.len() < 20 {
        assert!(started.elapsed() < PATIENCE, "{} records", taken.len());
        match reader.poll(Duration::from_millis(500)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => taken.push(message.detach()),
            Some(Err(error)) => panic!("{error}"),
        }
    }
    taken
}

#[test]
fn offsets_in_the_transaction() {
    let (source, sink) = ("rust-txn-source", "rust-txn-sink");
    create(source, 1);
    create(sink, 1);
    let feeder: BaseProducer = config(&[]).create().unwrap();
    (0..40).for_each(|n| send(&feeder, source, &n.to_string()));
    feeder.flush(PATIENCE).unwrap();
    let writer = producer("rust-txn-pipe");
    let work = |commit: bool| {
        let reader = consumer("rust-txn", &[]);
        reader.subscribe(&[source]).unwrap();
        let taken = values(&take(&reader));
        writer.begin_transaction().unwrap();
        taken.iter().for_each(|value| send(&writer, sink, value));
        let next = taken.last().unwrap().parse::<i64>().unwrap() + 1;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(source, 0, Offset::Offset(next)).unwrap();
        // Whoever does not poll in another thread has to be told of the deliveries first.
        writer.flush(PATIENCE).unwrap();
        let group = reader.group_metadata().unwrap();
        writer.send_offsets_to_transaction(&offsets, &group, PATIENCE).unwrap();
        match commit {
            true => writer.commit_transaction(PATIENCE).unwrap(),
            false => writer.abort_transaction(PATIENCE).unwrap(),
        }
        taken
    };
    let (first, again, last) = (work(true), work(false), work(true));
    assert_eq!(again, last, "an aborted transaction commits no offset");
    let wanted: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!([first, last].concat(), wanted);
    shows(sink, &wanted);
}

#[test]
fn a_second_producer_fences_the_first() {
    let topic = "rust-txn-fence";
    create(topic, 1);
    let first = producer(topic);
    first.begin_transaction().unwrap();
    send(&first, topic, "of the first");
    first.flush(PATIENCE).unwrap();
    let second = producer(topic);
    let refused = first.commit_transaction(PATIENCE).unwrap_err();
    let code = refused.rdkafka_error_code().unwrap();
    assert!([RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced].contains(&code), "{refused}");
    second.begin_transaction().unwrap();
    send(&second, topic, "of the second");
    second.flush(PATIENCE).unwrap();
    second.commit_transaction(PATIENCE).unwrap();
    shows(topic, &["of the second".to_owned()]);
    assert_eq!(values(&read(topic, "read_uncommitted")), ["of the first", "of the second"]);
}
