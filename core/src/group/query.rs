//! Questions that change nothing.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::GroupCoordinator;
use super::offsets::Committed;
use crate::error::{Error, ErrorCode};
use crate::ids::{TopicId, TopicPartition};

/// An offset that was asked for; none if nothing is committed.
pub type Fetched = (TopicPartition, Result<Option<Committed>, Error>);

/// One line of a list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    pub group: String,
    pub protocol_type: String,
    pub state: &'static str,
}

/// All that is known of a group besides its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    pub state: &'static str,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub generation: i32,
    /// The member id of the leader.
    pub leader: Option<String>,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

impl GroupCoordinator {
    /// Committed offsets: those that are named, or all.
    #[must_use]
    pub fn fetch(&self, group: &str, named: Option<&[TopicPartition]>, require_stable: bool) -> Vec<Fetched> {
        let Some(group) = self.groups.get(group).filter(|group| !group.deleting) else {
            return named.unwrap_or_default().iter().map(|at| (*at, Ok(None))).collect();
        };
        let one = |at: TopicPartition| {
            if require_stable && group.offsets.is_unstable(at) {
                let cause = format!("a transaction is about to change this offset of group {}", group.name);
                return (at, Err(Error::new(ErrorCode::UnstableOffset, cause)));
            }
            (at, Ok(group.offsets.get(at).cloned()))
        };
        match named {
            Some(named) => named.iter().map(|at| one(*at)).collect(),
            None => group.offsets.iter().map(|(at, _)| one(at)).collect(),
        }
    }

    #[must_use]
    pub fn list(&self) -> Vec<GroupListing> {
        let groups = self.groups.values().filter(|group| !group.deleting);
        let line = |group: &super::Group| GroupListing {
            group: group.name.clone(),
            protocol_type: group.protocol_type.clone(),
            state: group.state_name(),
        };
        groups.map(line).collect()
    }

    /// The topics in which groups have offsets.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<TopicId> {
        self.groups.values().flat_map(|group| group.offsets.iter().map(|(at, _)| at.topic)).collect()
    }

    /// How many groups there are, and members in them.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.values().map(|group| group.members.len()).sum())
    }

    /// None if there is no such group; Kafka calls that one "Dead".
    #[must_use]
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        let group = self.groups.get(group).filter(|group| !group.deleting)?;
        let stable = group.state_name() == "Stable";
        let protocol = group.protocol.clone().filter(|_| stable).unwrap_or_default();
        let member = |member: &super::classic::Member| MemberDescription {
            member: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata_for(&protocol),
            assignment: if stable { member.assignment.clone() } else { Bytes::new() },
        };
        Some(GroupDescription {
            group: group.name.clone(),
            state: group.state_name(),
            protocol_type: group.protocol_type.clone(),
            generation: group.generation,
            leader: group.leader.clone(),
            members: group.members.values().map(member).collect(),
            protocol,
        })
    }
}
