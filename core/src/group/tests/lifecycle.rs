//! Joining, dividing, staying and leaving.

use bytes::Bytes;

use super::bench::{Bench, identity, new_member};
use crate::error::ErrorCode as E;
use crate::group::message::*;
use crate::group::partition_of;
use crate::group::settings::GroupSettings;

#[test]
fn one_member_leads_itself() {
    let mut bench = Bench::new();
    let request = bench.join_as("g", new_member("a"));
    let joined = bench.joined(request);
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (1, "a", 1));
    let sync = bench.sync("g", "a", 1, &[("a", "all")]);
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"all")));
    assert_eq!(bench.heartbeat("g", "a", 1), Ok(()));
}

#[test]
fn a_generation_is_durable_before_anybody_hears_of_it() {
    let mut bench = Bench::new();
    bench.held = true;
    let join = bench.join_as("g", new_member("a"));
    assert!(!bench.answers.contains_key(&join));
    bench.store();
    assert_eq!(bench.joined(join).generation, 1);
    let sync = bench.sync("g", "a", 1, &[("a", "all")]);
    assert!(!bench.answers.contains_key(&sync));
    bench.store();
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"all")));
}

#[test]
fn a_second_member_makes_the_first_join_again() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    let join = bench.join_as("g", new_member("b"));
    assert!(!bench.answers.contains_key(&join));
    assert_eq!(bench.heartbeat("g", "a", generation), Err(E::RebalanceInProgress));
    let again = bench.join_as("g", Join { identity: identity("a"), ..new_member("a") });
    assert_eq!(bench.joined(join).generation, generation + 1);
    assert_eq!(bench.joined(again).members.len(), 2);
    assert!(bench.joined(join).members.is_empty());
    assert_eq!(bench.heartbeat("g", "a", generation), Err(E::IllegalGeneration));
}

#[test]
fn whoever_does_not_join_again_in_time_is_out() {
    let mut bench = Bench::new();
    bench.stable("g", &["a", "b"]);
    let join = bench.join_as("g", new_member("c"));
    let again = bench.join_as("g", Join { identity: identity("a"), ..new_member("a") });
    for _ in 0..12 {
        bench.wait(5_000);
        // It is heard of, but does not join.
        let _ = bench.heartbeat("g", "b", 2);
    }
    assert_eq!(bench.joined(join).generation, bench.joined(again).generation);
    assert_eq!(bench.heartbeat("g", "b", 2), Err(E::UnknownMember));
}

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a", "b"]);
    bench.wait(9_000);
    assert_eq!(bench.heartbeat("g", "a", generation), Ok(()));
    bench.wait(2_000);
    assert_eq!(bench.heartbeat("g", "a", generation), Err(E::RebalanceInProgress));
    assert_eq!(bench.heartbeat("g", "b", generation), Err(E::UnknownMember));
}

#[test]
fn whoever_never_asks_for_its_part_is_out() {
    let mut bench = Bench::new();
    let join = bench.join_as("g", new_member("a"));
    let generation = bench.joined(join).generation;
    for _ in 0..13 {
        bench.wait(5_000);
        let _ = bench.heartbeat("g", "a", generation);
    }
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "Empty");
}

#[test]
fn the_last_to_leave_empties_the_group() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    assert_eq!(bench.leave("g", "x"), Err(E::UnknownMember));
    assert_eq!(bench.leave("g", "a"), Ok(()));
    let group = bench.coordinator.describe("g").unwrap();
    assert_eq!((group.state, group.generation), ("Empty", generation + 1));
    assert_eq!(bench.leave("other", "a"), Err(E::UnknownMember));
}

#[test]
fn an_id_is_promised_before_it_counts() {
    let mut bench = Bench::new();
    let first = bench.join_as("g", Join { must_know_id: true, ..new_member("a") });
    let Answer::Join(Err((error, id))) = &bench.answers[&first] else { panic!() };
    assert_eq!((error.code, id.as_str()), (E::MemberIdRequired, "a"));
    let second = bench.join_as("g", Join { identity: identity("a"), must_know_id: true, ..new_member("z") });
    assert_eq!(bench.joined(second).member, "a");
}

#[test]
fn a_promise_that_nobody_redeems_holds_nobody_up_for_longer_than_a_session() {
    let mut bench = Bench::new();
    bench.stable("g", &["a"]);
    bench.join_as("g", Join { must_know_id: true, ..new_member("b") });
    bench.leave("g", "a").unwrap();
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "PreparingRebalance");
    bench.wait(10_000);
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "Empty");
}

#[test]
fn the_first_rebalance_waits_while_members_come() {
    let mut bench = Bench::with(GroupSettings::default());
    let a = bench.join_as("g", new_member("a"));
    bench.wait(2_000);
    let b = bench.join_as("g", new_member("b"));
    bench.wait(2_000);
    assert!(!bench.answers.contains_key(&a));
    bench.wait(2_500);
    assert_eq!((bench.joined(a).generation, bench.joined(b).generation), (1, 1));
}

#[test]
fn the_protocol_that_most_prefer_of_those_that_all_know() {
    let mut bench = Bench::with(GroupSettings::default());
    let with = |id, names: &[&str]| Join {
        protocols: names.iter().map(|n| Protocol { name: (*n).to_owned(), metadata: Bytes::new() }).collect(),
        ..new_member(id)
    };
    let a = bench.join_as("g", with("a", &["only-a", "range", "sticky"]));
    bench.join_as("g", with("b", &["sticky", "range"]));
    bench.join_as("g", with("c", &["sticky", "range"]));
    let d = bench.join_as("g", with("d", &["only-d"]));
    assert_eq!(bench.join_error(d), E::InconsistentProtocol);
    let e = bench.join_as("g", Join { protocol_type: "connect".to_owned(), ..with("e", &["sticky"]) });
    assert_eq!(bench.join_error(e), E::InconsistentProtocol);
    bench.wait(10_000);
    assert_eq!(bench.joined(a).protocol, "sticky");
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a", "b"]);
    let again = bench.join_as("g", Join { identity: identity("b"), ..new_member("b") });
    assert_eq!(bench.joined(again).generation, generation);
    let leader = bench.join_as("g", Join { identity: identity("a"), ..new_member("a") });
    assert!(!bench.answers.contains_key(&leader));
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "PreparingRebalance");
}

#[test]
fn syncs_are_checked() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a"]);
    let wrong = bench.sync("g", "a", generation - 1, &[]);
    assert_eq!(bench.synced(wrong), Err(E::IllegalGeneration));
    let unknown = bench.sync("g", "b", generation, &[]);
    assert_eq!(bench.synced(unknown), Err(E::UnknownMember));
    let nowhere = bench.sync("none", "b", generation, &[]);
    assert_eq!(bench.synced(nowhere), Err(E::UnknownMember));
    let request = bench.request();
    let protocol = Some("other".to_owned());
    let sync = Sync { identity: identity("a"), generation, protocol_type: None, protocol, assignments: vec![] };
    bench.step(Input::Sync(request, "g".to_owned(), sync));
    assert_eq!(bench.synced(request), Err(E::InconsistentProtocol));
}

#[test]
fn a_generation_that_could_not_be_stored_is_joined_again() {
    let mut bench = Bench::new();
    bench.held = true;
    let join = bench.join_as("g", new_member("a"));
    bench.refuse();
    assert_eq!(bench.join_error(join), E::CoordinatorUnavailable);
    let again = bench.join_as("g", Join { identity: identity("a"), ..new_member("a") });
    bench.store();
    assert_eq!(bench.joined(again).generation, 2);
    let sync = bench.sync("g", "a", 2, &[("a", "x")]);
    bench.refuse();
    assert_eq!(bench.synced(sync), Err(E::CoordinatorUnavailable));
    assert_eq!(bench.coordinator.describe("g").unwrap().state, "PreparingRebalance");
}

#[test]
fn members_outlive_their_coordinator() {
    let mut bench = Bench::new();
    let generation = bench.stable("g", &["a", "b"]);
    bench.wait(5_000);
    bench.fail_over();
    assert_eq!(bench.heartbeat("g", "a", generation), Ok(()));
    let sync = bench.sync("g", "b", generation, &[]);
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"b")));
}

#[test]
fn a_generation_goes_on_where_its_coordinator_died() {
    let mut bench = Bench::new();
    let join = bench.join_as("g", new_member("a"));
    assert_eq!(bench.joined(join).generation, 1);
    bench.fail_over();
    let sync = bench.sync("g", "a", 1, &[("a", "x")]);
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"x")));
}

#[test]
fn whoever_waits_hears_that_the_coordinator_moved() {
    let mut bench = Bench::new();
    bench.stable("g", &["a"]);
    let join = bench.join_as("g", new_member("b"));
    bench.fail_over();
    assert_eq!(bench.join_error(join), E::NotCoordinator);
}

#[test]
fn limits_are_told() {
    let settings = GroupSettings { members_max: 1, groups_max: 1, initial_delay_ms: 0, ..GroupSettings::default() };
    let mut bench = Bench::with(settings);
    let short = bench.join_as("g", Join { session_ms: 1, ..new_member("a") });
    assert_eq!(bench.join_error(short), E::InvalidSessionTimeout);
    let unnamed = bench.join_as("", new_member("a"));
    assert_eq!(bench.join_error(unnamed), E::InvalidGroupId);
    let unknown = bench.join_as("g", Join { identity: identity("x"), ..new_member("x") });
    assert_eq!(bench.join_error(unknown), E::UnknownMember);
    bench.stable("g", &["a"]);
    let full = bench.join_as("g", new_member("b"));
    assert_eq!(bench.join_error(full), E::GroupFull);
    let another = bench.join_as("h", new_member("b"));
    assert_eq!(bench.join_error(another), E::PolicyViolation);
    let large = Protocol { name: "range".to_owned(), metadata: Bytes::from(vec![0; 1 << 20]) };
    let heavy = bench.join_as("g", Join { identity: identity("a"), protocols: vec![large], ..new_member("a") });
    assert_eq!(bench.join_error(heavy), E::GroupFull);
}

#[test]
fn groups_are_where_kafka_looks_for_them() {
    // Java: Utils.abs("my-group".hashCode()) % 50, and so on.
    assert_eq!(partition_of("", 50), 0);
    assert_eq!(partition_of("a", 50), 97 % 50);
    assert_eq!(partition_of("ab", 50), (97 * 31 + 98) % 50);
    assert_eq!(partition_of("test", 50), 3_556_498 % 50);
}
