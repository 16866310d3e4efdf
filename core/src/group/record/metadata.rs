//! A group: its generation, and who is in it.
//!
//! ```text
//! key:   kind u8 = 1 │ group text
//! value: version u8 = 1 │ generation i32 │ assigned u8 │ since i64, ms since 1970
//!        │ protocol type text │ protocol optional │ leader optional │ members u32 │ member…
//! member: id text │ instance optional │ client id text │ client host text
//!        │ session u32 │ rebalance u32, ms │ assignment bytes
//!        │ protocols u32 │ { name text │ metadata bytes }…
//! ```
//! A text is its length as u32 and UTF-8; an optional one has a byte 0 or 1 before it.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Reader, put_bytes, put_optional, put_text};
use super::{KIND_GROUP, RecordError};
use crate::group::message::Protocol;

const VERSION: u8 = 1;

/// The fewest bytes that a member and a protocol have.
const MEMBER_BYTES_MIN: usize = 4 + 1 + 4 + 4 + 4 + 4 + 4 + 4;
const PROTOCOL_BYTES_MIN: usize = 8;

/// What has to survive of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub generation: i32,
    /// Whether the leader has said who gets what in this generation.
    pub assigned: bool,
    /// When the group came into this state, in ms since 1970 by the coordinator's clock.
    pub since_ms: i64,
    /// Empty until the first member.
    pub protocol_type: String,
    pub protocol: Option<String>,
    /// The member id of the leader.
    pub leader: Option<String>,
    pub members: Vec<MemberMetadata>,
}

/// One member of the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_ms: u32,
    pub rebalance_ms: u32,
    pub assignment: Bytes,
    pub protocols: Vec<Protocol>,
}

pub fn key(group: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(group.len() + 5);
    out.put_u8(KIND_GROUP);
    put_text(&mut out, group);
    out.freeze()
}

pub fn read_key(mut rest: Reader<'_>) -> Result<String, RecordError> {
    let group = rest.text()?;
    rest.end()?;
    Ok(group)
}

pub fn value(metadata: &GroupMetadata) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_i32(metadata.generation);
    out.put_u8(u8::from(metadata.assigned));
    out.put_i64(metadata.since_ms);
    put_text(&mut out, &metadata.protocol_type);
    put_optional(&mut out, metadata.protocol.as_deref());
    put_optional(&mut out, metadata.leader.as_deref());
    // Bounded by `members_max`.
    out.put_u32(metadata.members.len() as u32);
    for member in &metadata.members {
        put_member(&mut out, member);
    }
    out.freeze()
}

pub fn read_value(value: &[u8]) -> Result<GroupMetadata, RecordError> {
    let mut rest = Reader::new(value);
    match rest.u8()? {
        VERSION => {}
        version => return Err(RecordError::Version(version)),
    }
    let generation = rest.i32()?;
    let assigned = match rest.u8()? {
        0 => false,
        1 => true,
        _ => return Err(RecordError::Malformed("a flag that is neither 0 nor 1")),
    };
    let since_ms = rest.i64()?;
    let protocol_type = rest.text()?;
    let protocol = rest.optional()?;
    let leader = rest.optional()?;
    let count = rest.count(MEMBER_BYTES_MIN)?;
    let members = (0..count).map(|_| member(&mut rest)).collect::<Result<Vec<_>, _>>()?;
    rest.end()?;
    let metadata = GroupMetadata { generation, assigned, since_ms, protocol_type, protocol, leader, members };
    check(&metadata)?;
    Ok(metadata)
}

/// What the coordinator relies on.
fn check(metadata: &GroupMetadata) -> Result<(), RecordError> {
    let ids: std::collections::BTreeSet<_> = metadata.members.iter().map(|member| &member.id).collect();
    if ids.len() != metadata.members.len() {
        return Err(RecordError::Malformed("a member twice"));
    }
    let named: Vec<_> = metadata.members.iter().filter_map(|member| member.instance.as_ref()).collect();
    if named.iter().collect::<std::collections::BTreeSet<_>>().len() != named.len() {
        return Err(RecordError::Malformed("a static member twice"));
    }
    let complete = metadata.protocol.is_some() && metadata.leader.as_ref().is_some_and(|leader| ids.contains(leader));
    if !metadata.members.is_empty() && !complete {
        return Err(RecordError::Malformed("members without a protocol or a leader"));
    }
    if metadata.generation < 0 {
        return Err(RecordError::Malformed("a negative generation"));
    }
    Ok(())
}

fn put_member(out: &mut BytesMut, member: &MemberMetadata) {
    put_text(out, &member.id);
    put_optional(out, member.instance.as_deref());
    put_text(out, &member.client_id);
    put_text(out, &member.client_host);
    out.put_u32(member.session_ms);
    out.put_u32(member.rebalance_ms);
    put_bytes(out, &member.assignment);
    out.put_u32(member.protocols.len() as u32);
    for protocol in &member.protocols {
        put_text(out, &protocol.name);
        put_bytes(out, &protocol.metadata);
    }
}

fn member(rest: &mut Reader<'_>) -> Result<MemberMetadata, RecordError> {
    let id = rest.text()?;
    let instance = rest.optional()?;
    let client_id = rest.text()?;
    let client_host = rest.text()?;
    let session_ms = rest.u32()?;
    let rebalance_ms = rest.u32()?;
    let assignment = rest.bytes()?;
    let count = rest.count(PROTOCOL_BYTES_MIN)?;
    let protocol = |rest: &mut Reader<'_>| Ok(Protocol { name: rest.text()?, metadata: rest.bytes()? });
    let protocols = (0..count).map(|_| protocol(rest)).collect::<Result<Vec<_>, RecordError>>()?;
    Ok(MemberMetadata { id, instance, client_id, client_host, session_ms, rebalance_ms, assignment, protocols })
}
