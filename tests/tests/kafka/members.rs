//! A group from its first member to its last.

use bytes::Bytes;
use kafka_protocol::messages as m;

use crate::wire::{Wire, cluster, text};

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

fn join(group: &str, member: &str) -> m::JoinGroupRequest {
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
