//! Committing, asking for, and forgetting offsets.

use std::collections::{BTreeMap, BTreeSet};

use super::bench::{Bench, identity, new_member};
use crate::connection::ConnectionId;
use crate::error::ErrorCode as E;
use crate::group::message::*;
use crate::group::offsets::Committed;
use crate::ids::{Offset, ProducerEpoch, ProducerId, TopicId, TopicPartition};

const AT: TopicPartition = TopicPartition { topic: TopicId(7), partition: 0 };

pub fn committed(offset: u64, now_ms: i64) -> Committed {
    Committed { offset: Offset(offset), leader_epoch: Some(3), metadata: "m".to_owned(), committed_ms: now_ms }
}

fn commit_as(bench: &mut Bench, who: &str, generation: i32, offset: u64) -> RequestId {
    commit_in(bench, who, generation, offset, None)
}

fn commit_in(
    bench: &mut Bench,
    who: &str,
    generation: i32,
    offset: u64,
    transaction: Option<(ProducerId, ProducerEpoch)>,
) -> RequestId {
    commit_on(bench, who, generation, offset, transaction, None)
}

fn commit_on(
    bench: &mut Bench,
    who: &str,
    generation: i32,
    offset: u64,
    transaction: Option<(ProducerId, ProducerEpoch)>,
    connection: Option<u64>,
) -> RequestId {
    let request = bench.request();
    let offsets = vec![(AT, committed(offset, bench.now_ms))];
    let connection = connection.map(ConnectionId);
    let commit = Commit { identity: identity(who), generation, offsets, transaction, connection };
    bench.step(Input::Commit(request, "g".to_owned(), commit));
    request
}

fn result(bench: &Bench, request: RequestId) -> Result<(), E> {
    match &bench.answers[&request] {
        Answer::Commit(answers) => answers[0].1.clone().map_err(|error| error.code),
        other => panic!("{other:?}"),
    }
}

fn stored(bench: &Bench) -> Option<u64> {
    let fetched = bench.coordinator.fetch("g", Some(&[AT]), false);
    fetched[0].1.clone().unwrap().map(|committed| committed.offset.0)
}

#[test]
fn a_commit_counts_when_it_is_durable() {
    let mut bench = Bench::new();
    bench.held = true;
    let request = commit_as(&mut bench, "", -1, 5);
    assert_eq!((stored(&bench), bench.answers.get(&request)), (None, None));
    bench.store();
    assert_eq!((stored(&bench), result(&bench, request)), (Some(5), Ok(())));
    let request = commit_as(&mut bench, "", -1, 6);
    bench.refuse();
    assert_eq!((stored(&bench), result(&bench, request)), (Some(5), Err(E::CoordinatorUnavailable)));
    bench.fail_over();
    assert_eq!(stored(&bench), Some(5));
    let whole = bench.coordinator.fetch("g", None, true);
    assert_eq!(whole[0].1.as_ref().unwrap().as_ref().unwrap().metadata, "m");
}

#[test]
fn only_members_of_this_generation_commit_for_a_group_with_members() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    for (who, said, expected) in [
        ("a", generation, Ok(())),
        ("a", generation - 1, Err(E::IllegalGeneration)),
        ("b", generation, Err(E::UnknownMember)),
        ("", -1, Err(E::UnknownMember)),
    ] {
        let request = commit_as(&mut bench, who, said, 1);
        assert_eq!(result(&bench, request), expected, "{who} {said}");
    }
    bench.join_as("g", new_member("b"));
    let request = commit_as(&mut bench, "a", generation, 2);
    assert_eq!(result(&bench, request), Ok(()), "whoever is about to lose a partition may say how far it got");
}

#[test]
fn nobody_commits_between_two_generations() {
    let mut bench = Bench::new();
    let join = bench.join_as("g", new_member("a"));
    let generation = bench.joined(join).generation;
    let request = commit_as(&mut bench, "a", generation, 1);
    assert_eq!(result(&bench, request), Err(E::RebalanceInProgress));
    let request = commit_as(&mut bench, "x", 3, 1);
    assert_eq!(result(&bench, request), Err(E::UnknownMember));
}

#[test]
fn a_generation_of_no_group_is_wrong() {
    let mut bench = Bench::new();
    let request = commit_as(&mut bench, "a", 1, 1);
    assert_eq!(result(&bench, request), Err(E::GroupNotFound));
}

#[test]
fn a_group_without_members_takes_offsets_from_whoever_names_no_generation() {
    let mut bench = Bench::new();
    for who in ["", "some id"] {
        let request = commit_as(&mut bench, who, -1, 1);
        assert_eq!(result(&bench, request), Ok(()), "{who:?}");
    }
}

#[test]
fn a_long_text_is_refused_and_the_others_are_kept() {
    let mut bench = Bench::new();
    let request = bench.request();
    let long = Committed { metadata: "x".repeat(5_000), ..committed(1, 0) };
    let other = TopicPartition { partition: 1, ..AT };
    let offsets = vec![(AT, long), (other, committed(2, 0))];
    let commit = Commit { identity: identity(""), generation: -1, offsets, transaction: None, connection: None };
    bench.step(Input::Commit(request, "g".to_owned(), commit));
    let Answer::Commit(answers) = &bench.answers[&request] else { panic!() };
    let by_place: BTreeMap<_, _> = answers.iter().map(|(at, r)| (*at, r.clone().map_err(|e| e.code))).collect();
    assert_eq!(by_place[&AT], Err(E::OffsetMetadataTooLarge));
    assert_eq!(by_place[&other], Ok(()));
}

#[test]
fn a_transactions_offset_counts_when_it_commits() {
    let mut bench = Bench::new();
    let producer = (ProducerId(9), ProducerEpoch(1));
    let ended = |committed| Input::TransactionEnded { producer: producer.0, epoch: producer.1, committed };
    commit_as(&mut bench, "", -1, 1);
    commit_in(&mut bench, "", -1, 5, Some(producer));
    assert_eq!(stored(&bench), Some(1));
    let unstable = bench.coordinator.fetch("g", Some(&[AT]), true);
    assert_eq!(unstable[0].1.as_ref().unwrap_err().code, E::UnstableOffset);
    bench.step(ended(false));
    assert_eq!(stored(&bench), Some(1));
    commit_in(&mut bench, "", -1, 6, Some(producer));
    bench.fail_over();
    // The abort is in the log as well; the replay of this bench knows only the records.
    bench.step(ended(true));
    assert_eq!(stored(&bench), Some(6));
}

#[test]
fn a_marker_of_an_older_epoch_ends_nothing() {
    let mut bench = Bench::new();
    commit_in(&mut bench, "", -1, 5, Some((ProducerId(9), ProducerEpoch(3))));
    bench.step(Input::TransactionEnded { producer: ProducerId(9), epoch: ProducerEpoch(2), committed: true });
    assert_eq!(stored(&bench), None);
    bench.step(Input::TransactionEnded { producer: ProducerId(9), epoch: ProducerEpoch(3), committed: true });
    assert_eq!(stored(&bench), Some(5));
}

fn delete(bench: &mut Bench) -> Result<(), E> {
    let request = bench.request();
    bench.step(Input::DeleteGroup { request, group: "g".to_owned() });
    match &bench.answers[&request] {
        Answer::DeleteGroup(result) => result.clone().map_err(|error| error.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_group_without_members_is_deleted() {
    let mut bench = Bench::new();
    assert_eq!(delete(&mut bench), Err(E::GroupNotFound));
    let generation = bench.stable("g", &["a"]);
    commit_as(&mut bench, "a", generation, 1);
    assert_eq!(delete(&mut bench), Err(E::GroupNotEmpty));
    bench.leave("g", "a").unwrap();
    assert_eq!(delete(&mut bench), Ok(()));
    assert!(bench.coordinator.describe("g").is_none());
    bench.fail_over();
    assert!(bench.coordinator.describe("g").is_none());
    assert_eq!(stored(&bench), None);
}

#[test]
fn offsets_in_use_are_not_deleted() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    commit_as(&mut bench, "a", generation, 1);
    let request = bench.request();
    let offsets = vec![("t".to_owned(), AT), ("u".to_owned(), TopicPartition { topic: TopicId(8), partition: 0 })];
    bench.step(Input::DeleteOffsets { request, group: "g".to_owned(), offsets: offsets.clone() });
    let Answer::DeleteOffsets(Ok(answers)) = &bench.answers[&request] else { panic!() };
    assert_eq!(answers.iter().filter(|(_, r)| r.is_err()).count(), 1);
    assert_eq!(stored(&bench), Some(1));
    bench.leave("g", "a").unwrap();
    let request = bench.request();
    bench.step(Input::DeleteOffsets { request, group: "g".to_owned(), offsets });
    assert_eq!(stored(&bench), None);
}

#[test]
fn what_nobody_asks_for_is_forgotten() {
    let mut bench = Bench::new();
    let topics = BTreeMap::from([(AT.topic, "t".to_owned())]);
    commit_as(&mut bench, "", -1, 1);
    bench.wait(bench.settings.offsets_retention_ms - 1);
    bench.step(Input::Sweep { topics: topics.clone(), gone: BTreeSet::new() });
    assert_eq!(stored(&bench), Some(1));
    bench.wait(1);
    bench.step(Input::Sweep { topics, gone: BTreeSet::new() });
    assert_eq!(stored(&bench), None);
    assert!(bench.coordinator.list().is_empty());
    commit_as(&mut bench, "", -1, 2);
    bench.step(Input::Sweep { topics: BTreeMap::new(), gone: BTreeSet::new() });
    assert_eq!(stored(&bench), Some(2), "a topic that is not known yet may be new");
    bench.step(Input::Sweep { topics: BTreeMap::new(), gone: BTreeSet::from([AT.topic]) });
    assert_eq!(stored(&bench), None, "its topic is gone");
    bench.fail_over();
    assert!(bench.coordinator.list().is_empty());
}

#[test]
fn a_commit_on_a_connection_that_was_replaced_sets_nothing_back() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a", "b"]);
    let mut commit = |who, offset, transaction, connection| {
        let request = commit_on(&mut bench, who, generation, offset, transaction, Some(connection));
        (result(&bench, request), stored(&bench))
    };
    assert_eq!(commit("a", 5, None, 3), (Ok(()), Some(5)));
    assert_eq!(commit("a", 7, None, 8), (Ok(()), Some(7)));
    assert_eq!(commit("a", 6, None, 3), (Err(E::ConnectionReplaced), Some(7)));
    assert_eq!(commit("a", 8, None, 8), (Ok(()), Some(8)));
    assert_eq!(commit("b", 9, None, 4), (Ok(()), Some(9)), "each member has connections of its own");
    let producer = Some((ProducerId(9), ProducerEpoch(1)));
    assert_eq!(commit("a", 10, producer, 2), (Ok(()), Some(9)), "a producer's connections are others");
    assert_eq!(commit("a", 10, producer, 1), (Err(E::ConnectionReplaced), Some(9)));
}

/// One member's offsets in the transactions of several producers, each with its own connection;
/// and a producer of a client that does not name the member.
#[test]
fn a_late_commit_in_a_transaction_is_told_by_its_producer() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    let mut commit = |who, generation, producer, connection| {
        let transaction = Some((ProducerId(producer), ProducerEpoch(1)));
        let request = commit_on(&mut bench, who, generation, 5, transaction, Some(connection));
        result(&bench, request)
    };
    for _ in 0..2 {
        assert_eq!(commit("a", generation, 1, 10), Ok(()));
        assert_eq!(commit("a", generation, 2, 11), Ok(()));
    }
    assert_eq!(commit("", -1, 3, 20), Ok(()));
    assert_eq!(commit("", -1, 3, 12), Err(E::ConnectionReplaced));
}
