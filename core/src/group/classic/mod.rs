//! Kafka's classic group protocol: members join, one of them divides the partitions, all of
//! them hear of their part, and heartbeats keep them in.
//!
//! ```text
//!            first join                 all joined, or late ones left out
//!  Empty ───────────────▶ Preparing ─────────────────────────────────────▶ Announcing
//!    ▲                       ▲  ▲                                              │ generation
//!    │ nobody left           │  │ somebody comes, goes or changes              │ is durable
//!    └───────────────────────┘  └──────────────── Stable ◀──────────────── Completing
//!                                    assignment is durable
//! ```
//!
//! A generation is in the log before anybody hears of it, so its number never comes again,
//! whoever coordinates; Kafka writes only the assignment, and after a failover two generations
//! could carry one number. The protocol is that of KIP-62, 134, 345, 394 and 814.

mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod subscription;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::member::Member;
use super::message::{Answer, Identity, Protocol, RequestId};
use super::offsets::Offsets;
use super::out::Out;
use super::record::{GroupMetadata, GroupRecord};
use crate::connection::ProducerConnections;
use crate::error::{Error, ErrorCode};

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody is in it; it may have offsets.
    Empty,
    /// Waits for its members to join.
    Preparing,
    /// Everybody joined; the new generation is on its way to the log.
    Announcing,
    /// Waits for the leader to divide the partitions, or for that to be durable.
    Completing,
    /// Everybody has a part, or can have it.
    Stable,
}

/// A round takes this long at least, in ms, whatever its members allow: nobody could join and
/// hear of its part in no time, and a round for which a static member is missing would be begun
/// anew without end.
const REBALANCE_MS_MIN: i64 = 1_000;

/// How long a rebalance may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JoinWindow {
    deadline_ms: i64,
    /// The first one of an empty group waits for more members: so much may be added.
    initial_left_ms: Option<i64>,
    /// Somebody came since the deadline was set.
    grew: bool,
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) name: String,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Static members, by the names that their operators gave them.
    instances: BTreeMap<String, String>,
    /// Ids that were given out and not used yet, with the times when they are forgotten.
    promised: BTreeMap<String, i64>,
    window: Option<JoinWindow>,
    /// Members that have not asked for their part in this generation, and until when they may.
    unsynced: BTreeSet<String>,
    sync_deadline_ms: Option<i64>,
    /// The leader has divided the partitions, and that is on its way to the log.
    assigning: bool,
    /// When it came into this phase, in ms since 1970.
    pub(super) since_ms: i64,
    pub(super) offsets: Offsets,
    /// Where producers commit offsets in their transactions.
    pub(super) transactions_on: ProducerConnections,
    /// A record under the group's name is in the log, or on its way.
    pub(super) recorded: bool,
    /// Its end is on its way to the log: nobody may come in.
    pub(super) deleting: bool,
}

impl Group {
    pub(super) fn new(name: String, now_ms: i64) -> Self {
        Self {
            name,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            window: None,
            unsynced: BTreeSet::new(),
            sync_deadline_ms: None,
            assigning: false,
            since_ms: now_ms,
            offsets: Offsets::default(),
            transactions_on: ProducerConnections::default(),
            recorded: false,
            deleting: false,
        }
    }

    /// Takes over what the log says of it, and keeps its offsets.
    pub(super) fn restore(&mut self, metadata: Option<&GroupMetadata>, now_ms: i64) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self::new(std::mem::take(&mut self.name), now_ms);
        self.offsets = offsets;
        let Some(metadata) = metadata else { return };
        self.recorded = true;
        self.generation = metadata.generation;
        self.since_ms = metadata.since_ms;
        self.protocol_type.clone_from(&metadata.protocol_type);
        self.protocol.clone_from(&metadata.protocol);
        self.leader.clone_from(&metadata.leader);
        for member in &metadata.members {
            self.insert(Member::restored(member, now_ms));
        }
        self.phase = match (metadata.members.is_empty(), metadata.assigned) {
            (true, _) => Phase::Empty,
            (false, true) => Phase::Stable,
            (false, false) => Phase::Completing,
        };
        if self.phase == Phase::Completing {
            self.unsynced = self.members.keys().cloned().collect();
            self.sync_deadline_ms = Some(now_ms + self.rebalance_ms());
        }
    }

    /// The record of the group as it is.
    pub(super) fn record(&mut self, assigned: bool) -> GroupRecord {
        self.recorded = true;
        let metadata = GroupMetadata {
            generation: self.generation,
            assigned,
            since_ms: self.since_ms,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.values().map(Member::metadata).collect(),
        };
        GroupRecord::Group { group: self.name.clone(), metadata: Some(metadata) }
    }

    /// As Kafka's tools show it.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing => "PreparingRebalance",
            Phase::Announcing | Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// The earliest time at which something is to be done without anybody asking.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        let members = self.members.values().filter_map(Member::deadline).min();
        let promised = self.promised.values().copied().min();
        let window = self.window.map(|window| window.deadline_ms);
        [members, promised, window, self.sync_deadline_ms].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, out: &mut Out<'_>) {
        self.expire_members(out);
        if self.sync_deadline_ms.is_some_and(|at| at <= out.now_ms) {
            self.sync_late(out);
        }
        if self.window.is_some_and(|window| window.deadline_ms <= out.now_ms) {
            self.window_over(out);
        }
    }

    /// Everybody's session begins anew.
    pub(super) fn touch_all(&mut self, now_ms: i64) {
        self.members.values_mut().for_each(|member| member.touch(now_ms));
        if self.sync_deadline_ms.is_some() {
            self.sync_deadline_ms = Some(now_ms + self.rebalance_ms());
        }
    }

    /// The coordinator is another one from now on: whoever waits hears it.
    pub(super) fn end(&self, why: &Error, out: &mut Out<'_>) {
        self.members.values().for_each(|member| refuse_waiting(member, why, out));
    }

    fn enter(&mut self, phase: Phase, now_ms: i64) {
        self.phase = phase;
        self.since_ms = now_ms;
    }

    /// Nothing of it needs to be remembered.
    pub(super) fn is_forgettable(&self) -> bool {
        self.phase == Phase::Empty && self.promised.is_empty() && self.offsets.is_empty() && !self.recorded
    }

    /// The longest time that a member allows for a rebalance, in ms, and enough for a round.
    fn rebalance_ms(&self) -> i64 {
        let longest = self.members.values().map(|member| i64::from(member.rebalance_ms)).max();
        longest.unwrap_or(0).max(REBALANCE_MS_MIN)
    }

    fn insert(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out. Whoever still waits in its name hears that it is unknown.
    fn take_out(&mut self, id: &str, why: &Error, out: &mut Out<'_>) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance
            && self.instances.get(instance) == Some(&member.id)
        {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        refuse_waiting(&member, why, out);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The member that speaks, if it is one.
    pub(super) fn known(&self, identity: &Identity) -> Result<&Member, Error> {
        if let Some(instance) = &identity.instance {
            match self.instances.get(instance) {
                None => return Err(self.unknown(&identity.member)),
                Some(id) if *id != identity.member => return Err(fenced(instance)),
                Some(_) => {}
            }
        }
        self.members.get(&identity.member).ok_or_else(|| self.unknown(&identity.member))
    }

    fn unknown(&self, id: &str) -> Error {
        Error::new(ErrorCode::UnknownMember, format!("group {} has no member {id:?}", self.name))
    }

    pub(super) fn wrong_generation(&self, said: i32) -> Error {
        let cause = format!("group {} is in generation {}, not {said}", self.name, self.generation);
        Error::new(ErrorCode::IllegalGeneration, cause)
    }

    pub(super) fn rebalancing(&self) -> Error {
        Error::new(ErrorCode::RebalanceInProgress, format!("group {} is dividing its partitions anew", self.name))
    }

    /// Protocols that every member knows, in the order of their names.
    fn common_protocols(&self) -> Vec<&str> {
        let Some(first) = self.members.values().next() else { return Vec::new() };
        let mut names: Vec<_> = first.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        names.retain(|name| self.members.values().all(|member| member.knows(name)));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether somebody with these protocols could be in it.
    fn supports(&self, protocol_type: &str, protocols: &[Protocol], without: Option<&str>) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        let mut others = self.members.values().filter(|member| Some(member.id.as_str()) != without).peekable();
        if others.peek().is_none() {
            return true;
        }
        let others: Vec<_> = others.collect();
        protocol_type == self.protocol_type
            && protocols.iter().any(|protocol| others.iter().all(|member| member.knows(&protocol.name)))
    }

    /// The protocol that most members prefer, of those that all know.
    fn elect_protocol(&self) -> Option<String> {
        let candidates = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        // The first of equals, so that every coordinator would choose the same.
        let best = votes.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(**name)))?;
        Some((*best.0).to_owned())
    }

    /// The topics that its consumers are subscribed to, by name; none if they do not say.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<String>> {
        let protocol = self.protocol.as_deref().filter(|_| self.protocol_type == "consumer")?;
        let topics = self.members.values().map(|member| subscription::topics(&member.metadata_for(protocol)));
        topics.collect::<Option<Vec<_>>>().map(|topics| topics.into_iter().flatten().collect())
    }

    /// What all its members together take in a record.
    fn weight(&self) -> usize {
        self.members.values().map(Member::weight).sum()
    }
}

/// Another member has its instance id.
fn fenced(instance: &str) -> Error {
    Error::new(ErrorCode::FencedInstance, format!("the static member {instance:?} has another member id by now"))
}

fn refuse_waiting(member: &Member, why: &Error, out: &mut Out<'_>) {
    if let Some(join) = member.join {
        refuse_join(join, why.clone(), "", out);
    }
    if let Some(sync) = member.sync {
        out.answer(sync, Answer::Sync(Err(why.clone())));
    }
}

fn refuse_join(request: RequestId, why: Error, member: &str, out: &mut Out<'_>) {
    out.answer(request, Answer::Join(Err((why, member.to_owned()))));
}
