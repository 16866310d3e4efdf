//! Transactions of the second protocol (KIP-890), which librdkafka does not speak yet: partitions
//! join by the first batch, and the producer's epoch rises with every transaction.

use baton_core::batch::{BatchBuilder, BuildOptions, ProducerStamp};
use baton_core::{ProducerEpoch, ProducerId};
use bytes::Bytes;
use kafka_protocol::messages as m;

use crate::members;
use crate::wire::{PATIENCE, Wire, cluster, produce, text, topic_name};

/// A connection to the coordinator of a transactional id.
pub fn coordinator(id: &str) -> Wire {
    let started = std::time::Instant::now();
    loop {
        let find = m::FindCoordinatorRequest::default().with_key(text(id)).with_key_type(1);
        let found = cluster().connect().ask(3, &find);
        if found.error_code == 0 {
            let mut wire = Wire::connect(&format!("{}:{}", found.host.as_str(), found.port));
            let ids = vec![m::TransactionalId(text(id))];
            let asked = wire.ask(0, &m::DescribeTransactionsRequest::default().with_transactional_ids(ids));
            // It may still be reading what is stored.
            if [0, 105].contains(&asked.transaction_states[0].error_code) {
                return wire;
            }
        }
        assert!(started.elapsed() < PATIENCE, "{found:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// A producer, its coordinator, and the leader of its topic.
pub struct Client {
    name: &'static str,
    coordinator: Wire,
    pub leader: Wire,
    leader_epoch: i32,
}

impl Client {
    pub fn new(name: &'static str) -> Self {
        cluster().create(name, 1);
        let (leader, leader_epoch) = cluster().leader(name, 0);
        Self { name, coordinator: coordinator(name), leader, leader_epoch }
    }

    fn id(&self) -> m::TransactionalId {
        m::TransactionalId(text(self.name))
    }

    pub fn init(&mut self, timeout_ms: i32) -> Result<Producer, i16> {
        let id = Some(self.id());
        let request = m::InitProducerIdRequest::default()
            .with_transactional_id(id)
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(m::ProducerId(-1))
            .with_producer_epoch(-1);
        let started = std::time::Instant::now();
        loop {
            let answer = self.coordinator.ask(5, &request);
            match answer.error_code {
                0 => return Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch }),
                // No ids yet, or what was open is being aborted.
                15 | 51 => {}
                code => return Err(code),
            }
            assert!(started.elapsed() < PATIENCE, "{answer:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    pub fn write(&mut self, version: i16, producer: Producer, sequence: i32, value: &str) -> i16 {
        let records = batch(producer, sequence, value);
        let request = produce(self.name, Some(records), -1).with_transactional_id(Some(self.id()));
        let started = std::time::Instant::now();
        loop {
            let code = self.leader.ask(version, &request).responses[0].partition_responses[0].error_code;
            // The transaction before is still being ended.
            if code != 51 {
                return code;
            }
            assert!(started.elapsed() < PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    pub fn end(&mut self, producer: Producer, commit: bool) -> (i16, Producer) {
        let request = m::EndTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(m::ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        let started = std::time::Instant::now();
        loop {
            let answer = self.coordinator.ask(5, &request);
            if answer.error_code != 51 {
                let next = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                return (answer.error_code, next);
            }
            assert!(started.elapsed() < PATIENCE, "{answer:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// High watermark, last stable offset and the aborted transactions' first offsets, for a
    /// reader of what is committed.
    pub fn read(&mut self) -> (i64, i64, Vec<i64>) {
        let partition = m::fetch_request::FetchPartition::default()
            .with_current_leader_epoch(self.leader_epoch)
            .with_partition_max_bytes(1 << 20);
        let topic =
            m::fetch_request::FetchTopic::default().with_topic(topic_name(self.name)).with_partitions(vec![partition]);
        let request = m::FetchRequest::default().with_isolation_level(1).with_topics(vec![topic]);
        let answer = self.leader.ask(12, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
        let aborted = partition.aborted_transactions.as_ref().expect("told to readers of what is committed");
        (partition.high_watermark, partition.last_stable_offset, aborted.iter().map(|one| one.first_offset).collect())
    }

    /// Until the markers are written.
    pub fn settled(&mut self) -> (i64, Vec<i64>) {
        let started = std::time::Instant::now();
        loop {
            let (high, stable, aborted) = self.read();
            if high == stable {
                return (stable, aborted);
            }
            assert!(started.elapsed() < PATIENCE, "the transaction is still open: {high}, {stable}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn batch(producer: Producer, base_sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    let _ = builder.push(1_000, Some(b"k"), Some(value.as_bytes()), &[]).unwrap();
    let (id, epoch) = (ProducerId(producer.id), ProducerEpoch(producer.epoch));
    let producer = Some(ProducerStamp { id, epoch, base_sequence });
    builder.build(&BuildOptions { producer, transactional: true, ..BuildOptions::default() }).unwrap()
}

#[test]
fn the_epoch_rises_with_every_transaction() {
    let mut client = Client::new("txn-second");
    let first = client.init(60_000).unwrap();
    assert_eq!(client.write(12, first, 0, "committed"), 0);
    assert_eq!(client.write(12, first, 1, "as well"), 0);
    assert_eq!(client.read(), (2, 0, Vec::new()), "nothing is shown before it is decided");
    let (code, second) = client.end(first, true);
    assert_eq!((code, second), (0, Producer { epoch: first.epoch + 1, ..first }));
    assert_eq!(client.end(first, true), (0, second), "whoever asks again hears the same");
    assert_eq!(client.settled(), (3, Vec::new()));
    assert_eq!(client.write(12, first, 2, "late"), 47, "nothing of one transaction lands in the next");
    assert_eq!(client.write(12, second, 0, "aborted"), 0);
    let (code, third) = client.end(second, false);
    assert_eq!((code, third.epoch), (0, second.epoch + 1));
    assert_eq!(client.settled(), (5, vec![3]));
    let (code, _) = client.end(first, true);
    assert_eq!(code, 90, "a producer of before the last one is fenced");
}

#[test]
fn old_clients_have_to_say_where_they_write() {
    let mut client = Client::new("txn-first");
    let producer = client.init(60_000).unwrap();
    let refused = client.write(11, producer, 0, "nobody knows of it");
    assert!([48, 120].contains(&refused), "{refused}");
    let topic = m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
        .with_name(topic_name(client.name))
        .with_partitions(vec![0]);
    let add = m::AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(client.id())
        .with_v3_and_below_producer_id(m::ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![topic]);
    let added = client.coordinator.ask(3, &add);
    assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
    assert_eq!(client.write(11, producer, 0, "now it is known"), 0);
    let records = batch(producer, 1, "without an id");
    assert_eq!(client.leader.produce(11, client.name, records).0, 48);
    let records = produce(client.name, Some(batch(producer, 1, "acks 1")), 1).with_transactional_id(Some(client.id()));
    assert_eq!(client.leader.ask(11, &records).responses[0].partition_responses[0].error_code, 21);
    let next = client.init(60_000).unwrap();
    assert!(next.epoch > producer.epoch, "the one before is fenced");
    assert_eq!(client.settled(), (2, vec![0]));
    assert_eq!(client.write(11, producer, 1, "of the fenced one"), 47);
}

#[test]
fn a_time_out_is_within_its_limits() {
    let mut client = Client::new("txn-limits");
    assert_eq!(client.init(0), Err(50));
    assert_eq!(client.init(900_001), Err(50));
    let producer = client.init(1_000).unwrap();
    assert_eq!(client.write(12, producer, 0, "too slow"), 0);
    assert_eq!(client.settled(), (2, vec![0]), "it is aborted for it");
    let (code, _) = client.end(producer, true);
    assert!([47, 48, 90].contains(&code), "{code}");
}

#[test]
fn offsets_count_when_their_transaction_commits() {
    let mut client = Client::new("txn-offsets");
    let mut group = members::coordinator("txn-offsets");
    let mut producer = client.init(60_000).unwrap();
    for (offset, commit, found) in [(5, false, -1), (7, true, 7)] {
        let partition =
            m::txn_offset_commit_request::TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = m::txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(client.name))
            .with_partitions(vec![partition]);
        let request = m::TxnOffsetCommitRequest::default()
            .with_transactional_id(client.id())
            .with_group_id(m::GroupId(text("txn-offsets")))
            .with_producer_id(m::ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_generation_id(-1)
            .with_topics(vec![topic]);
        let started = std::time::Instant::now();
        loop {
            let code = group.ask(5, &request).topics[0].partitions[0].error_code;
            if code == 0 {
                break;
            }
            assert!([14, 15, 16, 51].contains(&code) && started.elapsed() < PATIENCE, "{code}");
        }
        assert_eq!(committed(&mut group, client.name, true), (88, -1), "it may still change");
        let (code, next) = client.end(producer, commit);
        assert_eq!(code, 0);
        producer = next;
        let started = std::time::Instant::now();
        loop {
            match committed(&mut group, client.name, true) {
                (0, offset) => break assert_eq!(offset, found),
                (code, _) => assert!(code == 88 && started.elapsed() < PATIENCE, "{code}"),
            }
        }
    }
}

fn committed(group: &mut Wire, topic: &str, require_stable: bool) -> (i16, i64) {
    use m::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    let one = OffsetFetchRequestGroup::default()
        .with_group_id(m::GroupId(text("txn-offsets")))
        .with_topics(Some(vec![topic]));
    let request = m::OffsetFetchRequest::default().with_groups(vec![one]).with_require_stable(require_stable);
    let answer = group.ask(8, &request);
    let partition = &answer.groups[0].topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

/// Has the leader write a marker, as Apache Kafka's tool for hanging transactions does.
fn mark(wire: &mut Wire, at: (&str, i32), producer: Producer, commit: bool, coordinator_epoch: i32) -> i16 {
    use m::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
    let (topic, partition) = at;
    let topic = WritableTxnMarkerTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![partition]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(m::ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_transaction_result(commit)
        .with_topics(vec![topic])
        .with_coordinator_epoch(coordinator_epoch);
    let answer = wire.ask(1, &m::WriteTxnMarkersRequest::default().with_markers(vec![marker]));
    assert_eq!(answer.markers[0].producer_id.0, producer.id);
    answer.markers[0].topics[0].partitions[0].error_code
}

#[test]
fn administrators_end_transactions_in_a_partition() {
    let name = "txn-marked";
    let mut client = Client::new(name);
    let at = (name, 0);
    let first = client.init(60_000).unwrap();
    assert_eq!(client.write(12, first, 0, "held open"), 0);
    assert_eq!(client.read(), (1, 0, Vec::new()));
    assert_eq!(mark(&mut client.leader, at, first, false, 0), 0);
    assert_eq!(client.settled(), (2, vec![0]), "readers go on, without what was aborted");
    // Its coordinator does not know, and ends the rest of it.
    assert_eq!(client.write(12, first, 1, "the rest"), 0);
    assert_eq!(client.read(), (3, 2, vec![0]));
    let (code, second) = client.end(first, true);
    assert_eq!((code, client.settled()), (0, (4, vec![0])));
    assert_eq!(client.write(12, second, 0, "as well"), 0);
    assert_eq!(mark(&mut client.leader, at, first, false, 1_000), 42, "no coordinator has such an epoch");
    assert_eq!(mark(&mut client.leader, at, second, false, 0), 52, "one of epoch 1 or later ended the last");
    let epoch = coordinator_epoch(&mut client.leader, name, second);
    let older = Producer { epoch: second.epoch - 1, ..second };
    assert_eq!(mark(&mut client.leader, at, older, false, epoch), 47);
    assert_eq!(mark(&mut client.leader, at, Producer { id: -1, epoch: 0 }, false, epoch), 49);
    assert_eq!(client.read().1, 4, "none of them ended it");
    assert_eq!(mark(&mut client.leader, at, second, true, epoch), 0);
    assert_eq!(client.settled(), (6, vec![0]), "it can be committed as well");
    // A producer that was never here, and one with nothing open: both are noted, as Kafka does.
    assert_eq!(mark(&mut client.leader, at, Producer { id: 1 << 40, epoch: 3 }, false, -1), 0);
    assert_eq!(mark(&mut client.leader, at, second, false, epoch), 0);
    assert_eq!(client.settled(), (8, vec![0]));
}

fn coordinator_epoch(wire: &mut Wire, topic: &str, producer: Producer) -> i32 {
    let topic = m::describe_producers_request::TopicRequest::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![0]);
    let answer = wire.ask(0, &m::DescribeProducersRequest::default().with_topics(vec![topic]));
    let mut producers = answer.topics[0].partitions[0].active_producers.iter();
    producers.find(|known| known.producer_id.0 == producer.id).unwrap().coordinator_epoch
}

#[test]
fn markers_go_to_leaders_only() {
    let mut client = Client::new("txn-marked-elsewhere");
    let producer = client.init(60_000).unwrap();
    let name = client.name;
    for (at, code) in [(("nowhere", 0), 3), ((name, 7), 3), ((name, -1), 3), (("__transaction_state", 0), 17)] {
        assert_eq!(mark(&mut client.leader, at, producer, false, 0), code, "{at:?}");
    }
    let metadata = cluster().connect().metadata(name);
    let leader = metadata.topics[0].partitions[0].leader_id;
    for broker in metadata.brokers.iter().filter(|broker| broker.node_id != leader) {
        let mut wire = Wire::connect(&format!("{}:{}", broker.host.as_str(), broker.port));
        assert_eq!(mark(&mut wire, (name, 0), producer, false, 0), 6);
    }
    assert_eq!(client.settled(), (0, Vec::new()));
}
