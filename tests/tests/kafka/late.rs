//! Requests that come behind those that repeated them. A client that has no answer gives its
//! connection up, and asks again on another one; what a network held back meanwhile is delivered
//! all the same (campaign seed 903, round 76).

use kafka_protocol::messages as m;
use kafka_protocol::protocol::Request;

use crate::members::{self, join};
use crate::wire::{Wire, cluster, text, topic_name};
use crate::{transactions, transactions::Producer};

/// It is hung up on: an error code would have a client that is still there ask again here.
fn hung_up<R: Request>(late: &mut Wire, version: i16, request: &R) {
    late.send(version, request, &[]);
    assert!(late.is_closed(), "key {} was answered", R::KEY);
}

fn commit(group: &str, member: &str, offset: i64) -> m::OffsetCommitRequest {
    use m::offset_commit_request as oc;
    let partition = oc::OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = oc::OffsetCommitRequestTopic::default().with_name(topic_name(group)).with_partitions(vec![partition]);
    m::OffsetCommitRequest::default()
        .with_group_id(m::GroupId(text(group)))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(1)
        .with_topics(vec![topic])
}

fn committed(wire: &mut Wire, group: &str) -> i64 {
    let topic = m::offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(topic_name(group))
        .with_partition_indexes(vec![0]);
    let request =
        m::OffsetFetchRequest::default().with_group_id(m::GroupId(text(group))).with_topics(Some(vec![topic]));
    let answer = wire.ask(7, &request);
    answer.topics[0].partitions[0].committed_offset
}

#[test]
fn a_late_commit_sets_nothing_back() {
    cluster().create("late-commit", 1);
    let mut given_up = members::coordinator("late-commit");
    let mut wire = Wire::connect(&given_up.address());
    let member = wire.ask(5, &join("late-commit", "")).member_id;
    assert_eq!(wire.ask(5, &join("late-commit", &member)).generation_id, 1);
    let sync = m::SyncGroupRequest::default()
        .with_group_id(m::GroupId(text("late-commit")))
        .with_generation_id(1)
        .with_member_id(member.clone());
    assert_eq!(wire.ask(3, &sync).error_code, 0);
    let code = |answer: m::OffsetCommitResponse| answer.topics[0].partitions[0].error_code;
    assert_eq!(code(given_up.ask(7, &commit("late-commit", &member, 3))), 0);
    assert_eq!(code(wire.ask(7, &commit("late-commit", &member, 9))), 0);
    hung_up(&mut given_up, 7, &commit("late-commit", &member, 5));
    assert_eq!(committed(&mut wire, "late-commit"), 9);
    // Whoever was not late gets through at once.
    let mut anew = Wire::connect(&wire.address());
    assert_eq!(code(anew.ask(7, &commit("late-commit", &member, 10))), 0);
    assert_eq!(committed(&mut anew, "late-commit"), 10);
}

fn init(id: &str) -> m::InitProducerIdRequest {
    m::InitProducerIdRequest::default()
        .with_transactional_id(Some(m::TransactionalId(text(id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(m::ProducerId(-1))
        .with_producer_epoch(-1)
}

fn add(id: &str, producer: Producer) -> m::AddPartitionsToTxnRequest {
    let topic = m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
        .with_name(topic_name(id))
        .with_partitions(vec![0]);
    m::AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(m::TransactionalId(text(id)))
        .with_v3_and_below_producer_id(m::ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![topic])
}

fn end(id: &str, producer: Producer) -> m::EndTxnRequest {
    m::EndTxnRequest::default()
        .with_transactional_id(m::TransactionalId(text(id)))
        .with_producer_id(m::ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(true)
}

/// Asks until neither ids are missing nor an end is on its way.
fn until_done<R: Request>(
    wire: &mut Wire,
    version: i16,
    request: &R,
    code: impl Fn(&R::Response) -> i16,
) -> R::Response {
    let started = std::time::Instant::now();
    loop {
        let answer = wire.ask(version, request);
        match code(&answer) {
            0 => return answer,
            15 | 51 => {}
            code => panic!("code {code}"),
        }
        assert!(started.elapsed() < crate::wire::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A client of the first protocol: its epoch does not tell one transaction from the next.
#[test]
fn a_late_request_neither_fences_a_producer_nor_touches_its_next_transaction() {
    const ID: &str = "late-producer";
    cluster().create(ID, 1);
    let mut given_up: Vec<Wire> = vec![transactions::coordinator(ID)];
    let address = given_up[0].address();
    given_up.extend((0..2).map(|_| Wire::connect(&address)));
    let mut wire = Wire::connect(&address);
    let taken = until_done(&mut wire, 4, &init(ID), |answer| answer.error_code);
    let producer = Producer { id: taken.producer_id.0, epoch: taken.producer_epoch };
    let added = |answer: &m::AddPartitionsToTxnResponse| {
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    };
    until_done(&mut wire, 3, &add(ID, producer), added);
    until_done(&mut wire, 3, &end(ID, producer), |answer| answer.error_code);
    until_done(&mut wire, 3, &add(ID, producer), added);
    hung_up(&mut given_up[0], 4, &init(ID));
    hung_up(&mut given_up[1], 3, &end(ID, producer));
    hung_up(&mut given_up[2], 3, &add(ID, producer));
    let ids = vec![m::TransactionalId(text(ID))];
    let described = wire.ask(0, &m::DescribeTransactionsRequest::default().with_transactional_ids(ids));
    let state = &described.transaction_states[0];
    assert_eq!((state.transaction_state.as_str(), state.producer_epoch), ("Ongoing", producer.epoch));
    until_done(&mut wire, 3, &end(ID, producer), |answer| answer.error_code);
}
