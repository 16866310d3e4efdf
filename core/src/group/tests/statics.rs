//! Static members (KIP-345).

use bytes::Bytes;

use super::bench::{Bench, new_member};
use super::offsets::committed;
use crate::connection::ConnectionId;
use crate::error::ErrorCode as E;
use crate::group::message::*;
use crate::ids::TopicPartition;

fn named(id: &str, instance: &str) -> Join {
    let identity = Identity { member: String::new(), instance: Some(instance.to_owned()) };
    Join { identity, ..new_member(id) }
}

fn settle(bench: &mut Bench, id: &str) -> i32 {
    let join = bench.join_as("g", named(id, "i"));
    let generation = bench.joined(join).generation;
    bench.sync("g", id, generation, &[(id, "part")]);
    generation
}

#[test]
fn it_comes_back_to_its_part_and_disturbs_nobody() {
    let mut bench = Bench::new();
    let generation = settle(&mut bench, "a");
    let again = bench.join_as("g", Join { may_skip_assignment: true, ..named("b", "i") });
    let joined = bench.joined(again);
    assert_eq!((joined.generation, joined.member.as_str(), joined.skip_assignment), (generation, "b", true));
    let sync = bench.sync("g", "b", generation, &[]);
    let request = bench.request();
    let identity = Identity { member: "b".to_owned(), instance: Some("i".to_owned()) };
    bench.step(Input::Heartbeat { request, group: "g".to_owned(), identity, generation });
    assert_eq!(bench.answers[&request], Answer::Heartbeat(Ok(())));
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"part")));
}

/// The process that takes the place may speak on a connection that is older than the last one of
/// the process before.
#[test]
fn the_next_process_begins_with_connections_of_its_own() {
    let mut bench = Bench::new();
    let generation = settle(&mut bench, "a");
    let commit = |bench: &mut Bench, id: &str, number| {
        let request = bench.request();
        let identity = Identity { member: id.to_owned(), instance: Some("i".to_owned()) };
        let offsets = vec![(TopicPartition::default(), committed(5, bench.now_ms))];
        let connection = Some(ConnectionId(number));
        let commit = Commit { identity, generation, offsets, transaction: None, connection };
        bench.step(Input::Commit(request, "g".to_owned(), commit));
        let Answer::Commit(answers) = &bench.answers[&request] else { panic!("{id}") };
        answers[0].1.clone().map_err(|error| error.code)
    };
    assert_eq!(commit(&mut bench, "a", 12), Ok(()));
    bench.join_as("g", named("b", "i"));
    assert_eq!(commit(&mut bench, "b", 10), Ok(()));
    assert_eq!(commit(&mut bench, "b", 9), Err(E::ConnectionReplaced));
}

/// An id that was promised to a member without an instance: coming back with the instance of
/// another, it would be a second member of that name.
#[test]
fn a_promised_id_does_not_become_static() {
    let mut bench = Bench::new();
    settle(&mut bench, "a");
    let first = bench.join_as("g", Join { must_know_id: true, ..new_member("b") });
    assert!(matches!(&bench.answers[&first], Answer::Join(Err((error, _))) if error.code == E::MemberIdRequired));
    for (instance, refused) in [("i", E::FencedInstance), ("other", E::UnknownMember)] {
        let identity = Identity { member: "b".to_owned(), instance: Some(instance.to_owned()) };
        let second = bench.join_as("g", Join { identity, ..new_member("z") });
        let Answer::Join(Err((error, _))) = &bench.answers[&second] else { panic!("{instance}") };
        assert_eq!(error.code, refused, "{instance}");
    }
    assert_eq!(bench.coordinator.describe("g").unwrap().members.len(), 1);
}

#[test]
fn an_old_client_is_not_told_that_it_leads_so_that_it_divides_nothing() {
    let mut bench = Bench::new();
    settle(&mut bench, "a");
    let again = bench.join_as("g", named("b", "i"));
    assert_eq!(bench.joined(again).leader, "a");
}

#[test]
fn the_one_before_is_fenced() {
    let mut bench = Bench::new();
    let generation = settle(&mut bench, "a");
    bench.join_as("g", named("b", "i"));
    let identity = Identity { member: "a".to_owned(), instance: Some("i".to_owned()) };
    let request = bench.request();
    bench.step(Input::Heartbeat { request, group: "g".to_owned(), identity: identity.clone(), generation });
    let Answer::Heartbeat(Err(error)) = &bench.answers[&request] else { panic!() };
    assert_eq!(error.code, E::FencedInstance);
    let join = bench.join_as("g", Join { identity, ..new_member("z") });
    assert_eq!(bench.join_error(join), E::FencedInstance);
}

#[test]
fn another_protocol_divides_anew() {
    let mut bench = Bench::new();
    let generation = settle(&mut bench, "a");
    let other = Protocol { name: "sticky".to_owned(), metadata: Bytes::new() };
    let again = bench.join_as("g", Join { protocols: vec![other], ..named("b", "i") });
    assert_eq!(bench.joined(again).generation, generation + 1);
}

#[test]
fn it_keeps_its_place_while_it_is_restarted() {
    let mut bench = Bench::new();
    settle(&mut bench, "a");
    let other = bench.join_as("g", new_member("c"));
    bench.wait(9_900);
    assert!(!bench.answers.contains_key(&other), "the place is kept for the session");
    bench.wait(200);
    assert_eq!(bench.joined(other).members.len(), 1);
}

#[test]
fn an_operator_sends_it_away_by_its_name() {
    let mut bench = Bench::new();
    settle(&mut bench, "a");
    let request = bench.request();
    let leave = |instance: &str| Identity { member: String::new(), instance: Some(instance.to_owned()) };
    bench.step(Input::Leave { request, group: "g".to_owned(), members: vec![leave("i"), leave("j")] });
    let Answer::Leave(answers) = &bench.answers[&request] else { panic!() };
    assert_eq!(answers[0].1, Ok(()));
    assert_eq!(answers[1].1.as_ref().unwrap_err().code, E::UnknownMember);
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "Empty");
}

#[test]
fn a_replacement_that_was_not_stored_may_be_tried_again() {
    let mut bench = Bench::new();
    let generation = settle(&mut bench, "a");
    bench.held = true;
    let again = bench.join_as("g", named("b", "i"));
    bench.refuse();
    assert_eq!(bench.join_error(again), E::CoordinatorUnavailable);
    let third = bench.join_as("g", named("c", "i"));
    bench.store();
    assert_eq!(bench.joined(third).generation, generation);
}

/// A member may allow no time at all for a rebalance.
#[test]
fn a_round_has_its_time_whatever_members_allow() {
    let mut bench = Bench::new();
    let hasty = |id: &str| Join { rebalance_ms: 0, ..new_member(id) };
    let first = bench.join_as("g", Join { rebalance_ms: 0, ..named("a", "i") });
    let generation = bench.joined(first).generation;
    bench.wait(500);
    let sync = bench.sync("g", "a", generation, &[("a", "part")]);
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"part")), "half a second is not too late");
    bench.join_as("g", hasty("b"));
    assert_eq!(bench.leave("g", "b"), Ok(()));
    // The one that is left does not join: its place is kept, and nobody is there to lead.
    for _ in 0..3 {
        let due = bench.coordinator.next_deadline_ms().unwrap();
        assert!(due >= bench.now_ms + 900, "it is looked at once more in {} ms", due - bench.now_ms);
        bench.wait(due - bench.now_ms);
    }
    let joined = bench.join_as("g", hasty("c"));
    bench.wait(1_000);
    assert_eq!(bench.joined(joined).leader, "c", "the round is not held up by who is missing");
}
