//! A member wants to be in the next generation.

use super::member::Member;
use super::{Group, Phase, fenced, refuse_join, refuse_waiting};
use crate::connection::LatestConnection;
use crate::error::{Error, ErrorCode};
use crate::group::message::{Answer, Join, Joined, RequestId};
use crate::group::out::{Out, Purpose};

impl Group {
    /// Answers at once, or when the generation begins.
    pub(in crate::group) fn join(&mut self, request: RequestId, join: &Join, out: &mut Out<'_>) {
        if let Err(error) = self.joinable(join, out) {
            return refuse_join(request, error, &join.identity.member, out);
        }
        if join.identity.member.is_empty() {
            self.join_unknown(request, join, out);
        } else if self.promised.contains_key(&join.identity.member) && join.identity.instance.is_none() {
            // Ids are promised to members without an instance only: one that comes back with the
            // instance of another would be two members of that name, which no record may have.
            self.add(join.identity.member.clone(), request, join, out);
        } else {
            self.join_known(request, join, out);
        }
    }

    fn joinable(&self, join: &Join, out: &Out<'_>) -> Result<(), Error> {
        let settings = out.settings;
        let member = &join.identity.member;
        let known = self.members.contains_key(member);
        if !known && !self.replaces(join) && self.members.len() + self.promised_besides(member) >= settings.members_max
        {
            let cause = format!("group {} has {} members, and no more are allowed", self.name, settings.members_max);
            return Err(Error::new(ErrorCode::GroupFull, cause));
        }
        let without = if known { Some(member.as_str()) } else { self.instance_of(join) };
        if !self.supports(&join.protocol_type, &join.protocols, without) {
            let cause = format!("no protocol of the member is known to all members of group {}", self.name);
            return Err(Error::new(ErrorCode::InconsistentProtocol, cause));
        }
        let weight = Member::new(String::new(), join).weight();
        if weight > settings.member_bytes_max || self.weight() + weight > settings.group_bytes_max {
            let cause = format!("the members of group {} have more to say than its record can hold", self.name);
            return Err(Error::new(ErrorCode::GroupFull, cause));
        }
        Ok(())
    }

    /// Ids that were promised to others keep a place.
    fn promised_besides(&self, member: &str) -> usize {
        self.promised.len() - usize::from(self.promised.contains_key(member))
    }

    /// The member that a static member without an id comes back as.
    fn instance_of(&self, join: &Join) -> Option<&str> {
        let instance = join.identity.instance.as_ref()?;
        self.instances.get(instance).map(String::as_str)
    }

    fn replaces(&self, join: &Join) -> bool {
        join.identity.member.is_empty() && self.instance_of(join).is_some()
    }

    fn join_unknown(&mut self, request: RequestId, join: &Join, out: &mut Out<'_>) {
        if let Some(old) = self.instance_of(join).map(str::to_owned) {
            return self.replace_static(&old, request, join, out);
        }
        if join.must_know_id && join.identity.instance.is_none() {
            self.promised.insert(join.fresh_id.clone(), out.now_ms + i64::from(join.session_ms));
            let cause = format!("join group {} again with the member id {}", self.name, join.fresh_id);
            return refuse_join(request, Error::new(ErrorCode::MemberIdRequired, cause), &join.fresh_id, out);
        }
        self.add(join.fresh_id.clone(), request, join, out);
    }

    fn add(&mut self, id: String, request: RequestId, join: &Join, out: &mut Out<'_>) {
        self.promised.remove(&id);
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        let mut member = Member::new(id.clone(), join);
        member.join = Some(request);
        member.deadline_ms = out.now_ms + i64::from(out.settings.new_member_ms.max(join.session_ms));
        self.insert(member);
        if let Some(window) = &mut self.window {
            window.grew = true;
        }
        self.leader.get_or_insert(id);
        self.rebalance(out);
    }

    /// A static member without an id: the process was started again. It takes the place of the
    /// one before, which is fenced from now on.
    fn replace_static(&mut self, old: &str, request: RequestId, join: &Join, out: &mut Out<'_>) {
        let Some(mut member) = self.members.remove(old) else { return };
        let instance = member.instance.clone().unwrap_or_default();
        refuse_waiting(&member, &fenced(&instance), out);
        let old_leader = self.leader.clone();
        member.id.clone_from(&join.fresh_id);
        (member.join, member.sync) = (None, None);
        // Another process: its connection may be older than the last one of the one before.
        member.commits_on = LatestConnection::default();
        member.update(join);
        member.touch(out.now_ms);
        let id = member.id.clone();
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        if old_leader.as_deref() == Some(old) {
            self.leader = Some(id.clone());
        }
        self.insert(member);
        if self.phase == Phase::Stable && self.elect_protocol() == self.protocol {
            let record = self.record(true);
            let (group, may_skip) = (self.name.clone(), join.may_skip_assignment);
            out.append(vec![record], Purpose::Replaced { group, member: id, request, may_skip, old_leader });
            return;
        }
        self.wait_for_generation(&id, request, out);
        self.rebalance(out);
    }

    /// The replaced static member's record is durable: it goes on with the part that it had.
    pub(in crate::group) fn replaced(
        &mut self,
        member: &str,
        request: RequestId,
        may_skip: bool,
        old_leader: Option<&str>,
        out: &mut Out<'_>,
    ) {
        if !self.members.contains_key(member) {
            return refuse_join(request, self.unknown(member), "", out);
        }
        if self.phase != Phase::Stable {
            // Something happened meanwhile; it takes part in what comes.
            self.wait_for_generation(member, request, out);
            return self.complete_join_if_all(out);
        }
        let leads = self.leader.as_deref() == Some(member);
        let mut joined = self.joined(member, leads && may_skip);
        joined.skip_assignment = leads && may_skip;
        if leads && !may_skip {
            // An older client that is told that it leads would divide the partitions anew.
            joined.leader = old_leader.unwrap_or_default().to_owned();
        }
        out.answer(request, Answer::Join(Ok(joined)));
    }

    fn join_known(&mut self, request: RequestId, join: &Join, out: &mut Out<'_>) {
        let id = join.identity.member.clone();
        let same = match self.known(&join.identity) {
            Ok(member) => member.protocols == join.protocols,
            Err(error) => return refuse_join(request, error, &id, out),
        };
        let leads = self.leader.as_deref() == Some(id.as_str());
        let nothing_new = match self.phase {
            Phase::Completing => same,
            // A leader that joins again asks for a rebalance: it saw the topics change.
            Phase::Stable => same && !leads,
            Phase::Empty | Phase::Preparing | Phase::Announcing => false,
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.update(join);
            member.touch(out.now_ms);
        }
        if nothing_new {
            // The answer to its join was lost.
            let joined = self.joined(&id, leads);
            return out.answer(request, Answer::Join(Ok(joined)));
        }
        self.wait_for_generation(&id, request, out);
        if self.phase == Phase::Announcing && same {
            return;
        }
        self.rebalance(out);
    }

    /// The member's join is answered when the generation begins. One that it sent before, and
    /// has given up, is answered now.
    fn wait_for_generation(&mut self, id: &str, request: RequestId, out: &mut Out<'_>) {
        let again = self.rebalancing();
        let Some(member) = self.members.get_mut(id) else { return };
        if let Some(before) = member.join.replace(request) {
            refuse_join(before, again, id, out);
        }
    }

    /// What a member hears of the generation.
    pub(super) fn joined(&self, id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let others = || self.members.values().map(|m| (m.id.clone(), m.instance.clone(), m.metadata_for(&protocol)));
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: id.to_owned(),
            skip_assignment: false,
            members: if with_members { others().collect() } else { Vec::new() },
            protocol,
        }
    }
}
