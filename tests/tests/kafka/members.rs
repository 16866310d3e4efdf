//! A group from its first member to its last.

use bytes::Bytes;
use kafka_protocol::messages as m;

use crate::wire::{Wire, cluster, text, topic_name};

/// A connection to the coordinator of a group.
pub fn coordinator(group: &str) -> Wire {
    let started = std::time::Instant::now();
    loop {
        let found = cluster().connect().ask(3, &m::FindCoordinatorRequest::default().with_key(text(group)));
        if found.error_code == 0 {
            let mut wire = Wire::connect(&format!("{}:{}", found.host.as_str(), found.port));
            let asked = m::DescribeGroupsRequest::default().with_groups(vec![m::GroupId(text(group))]);
            // It may still be reading what is stored.
            if wire.ask(5, &asked).groups[0].error_code == 0 {
                return wire;
            }
        }
        assert!(started.elapsed() < crate::wire::PATIENCE, "{found:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

pub fn join(group: &str, member: &str) -> m::JoinGroupRequest {
    let protocol = m::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"opaque"));
    m::JoinGroupRequest::default()
        .with_group_id(m::GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn one_member_joins_syncs_beats_commits_and_leaves() {
    let mut wire = coordinator("one");
    let group = || m::GroupId(text("one"));
    let first = wire.ask(9, &join("one", ""));
    assert_eq!(first.error_code, 79, "it has to come again with its id: {first:?}");
    let joined = wire.ask(9, &join("one", &first.member_id));
    assert_eq!((joined.error_code, joined.generation_id), (0, 1), "{joined:?}");
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members[0].metadata, "opaque");
    let member = joined.member_id.clone();
    let assignment = m::sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"all of it"));
    let sync = m::SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(member.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(vec![assignment]);
    let synced = wire.ask(5, &sync);
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all of it"[..]));
    let beat = |generation| {
        m::HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(generation)
            .with_member_id(member.clone())
    };
    assert_eq!(wire.ask(4, &beat(1)).error_code, 0);
    assert_eq!(wire.ask(4, &beat(7)).error_code, 22, "a wrong generation");
    // Neither another protocol type, nor deleting it while it has members.
    let other = wire.ask(9, &join("one", "").with_protocol_type(text("connect")));
    assert_eq!(other.error_code, 23, "{other:?}");
    let gone = m::DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    assert_eq!(wire.ask(2, &gone).results[0].error_code, 68);
    let identity = m::leave_group_request::MemberIdentity::default().with_member_id(member.clone());
    let leave = m::LeaveGroupRequest::default().with_group_id(group()).with_members(vec![identity]);
    assert_eq!(wire.ask(5, &leave).members[0].error_code, 0);
    assert_eq!(wire.ask(4, &beat(1)).error_code, 25, "it is no member any more");
    assert_eq!(wire.ask(2, &gone).results[0].error_code, 0);
}

#[test]
fn members_that_are_out_of_order() {
    let mut wire = coordinator("disorder");
    let group = || m::GroupId(text("disorder"));
    for (timeout, code) in [(1, 26), (0, 26), (i32::MAX, 26)] {
        let request = join("disorder", "").with_session_timeout_ms(timeout);
        assert_eq!(wire.ask(5, &request).error_code, code, "a session of {timeout} ms");
    }
    assert_eq!(wire.ask(5, &join("disorder", "nobody")).error_code, 25, "a member id that was never given");
    let first = wire.ask(5, &join("disorder", "")).member_id;
    let joined = wire.ask(5, &join("disorder", &first));
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let sync = |generation, member: &str| {
        m::SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(generation)
            .with_member_id(text(member))
    };
    assert_eq!(wire.ask(3, &sync(7, &first)).error_code, 22, "a wrong generation");
    assert_eq!(wire.ask(3, &sync(1, "nobody")).error_code, 25);
    let commit = |generation, member: &str| {
        use m::offset_commit_request as oc;
        let offset = oc::OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic =
            oc::OffsetCommitRequestTopic::default().with_name(topic_name("disorder")).with_partitions(vec![offset]);
        m::OffsetCommitRequest::default()
            .with_group_id(group())
            .with_member_id(text(member))
            .with_generation_id_or_member_epoch(generation)
            .with_topics(vec![topic])
    };
    cluster().create("disorder", 1);
    let code = |response: m::OffsetCommitResponse| response.topics[0].partitions[0].error_code;
    assert_eq!(code(wire.ask(7, &commit(1, &first))), 27, "before the generation has its assignment");
    assert_eq!(wire.ask(3, &sync(1, &first)).error_code, 0);
    assert_eq!(code(wire.ask(7, &commit(1, &first))), 0);
    assert_eq!(code(wire.ask(7, &commit(0, &first))), 22);
    assert_eq!(code(wire.ask(7, &commit(-1, ""))), 25, "not from outside while it has members");
    // Another one comes: the first has to join again before anything else.
    let mut other = coordinator("disorder");
    let second = other.ask(5, &join("disorder", "")).member_id;
    other.send(5, &join("disorder", &second), &[]);
    let beat =
        m::HeartbeatRequest::default().with_group_id(group()).with_generation_id(1).with_member_id(first.clone());
    let started = std::time::Instant::now();
    while wire.ask(3, &beat).error_code != 27 {
        assert!(started.elapsed() < crate::wire::PATIENCE, "the rebalance does not begin");
    }
    assert_eq!(wire.ask(3, &sync(1, &first)).error_code, 27);
    assert_eq!(wire.ask(5, &join("disorder", &first)).error_code, 0);
    assert_eq!(other.answer::<m::JoinGroupRequest>(5).generation_id, 2);
}

/// Of two members with one name the later stays (KIP-345).
#[test]
fn a_static_member_is_fenced_by_its_successor() {
    let mut wire = coordinator("static");
    let named = |member: &str| join("static", member).with_group_instance_id(Some(text("a")));
    let first = wire.ask(5, &named(""));
    assert_eq!(first.error_code, 0, "{first:?}");
    let second = wire.ask(5, &named(""));
    assert_ne!(first.member_id, second.member_id);
    let beat = m::HeartbeatRequest::default()
        .with_group_id(m::GroupId(text("static")))
        .with_generation_id(first.generation_id)
        .with_member_id(first.member_id.clone())
        .with_group_instance_id(Some(text("a")));
    assert_eq!(wire.ask(3, &beat).error_code, 82);
    assert_eq!(wire.ask(5, &named(&first.member_id)).error_code, 82);
}
