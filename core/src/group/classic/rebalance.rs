//! How a generation ends and the next one begins.

use bytes::Bytes;

use super::{Group, JoinWindow, Phase, refuse_join};
use crate::error::{Error, ErrorCode};
use crate::group::message::Answer;
use crate::group::out::{Out, Purpose};
use crate::group::unavailable;

impl Group {
    /// Somebody came, went or changed: a new generation is needed.
    pub(super) fn rebalance(&mut self, out: &mut Out<'_>) {
        if self.phase != Phase::Preparing {
            let first = self.phase == Phase::Empty && out.settings.initial_delay_ms > 0;
            self.prepare(first, out);
        }
        self.complete_join_if_all(out);
    }

    /// Ends the generation: everybody has to join again within the longest rebalance time-out
    /// of a member.
    fn prepare(&mut self, first: bool, out: &mut Out<'_>) {
        self.interrupt_syncs(&self.rebalancing(), out);
        self.enter(Phase::Preparing, out.now_ms);
        let longest = self.rebalance_ms();
        let delay = if first { i64::from(out.settings.initial_delay_ms).min(longest) } else { longest };
        let initial_left_ms = first.then_some(longest - delay);
        self.window = Some(JoinWindow { deadline_ms: out.now_ms + delay, initial_left_ms, grew: false });
    }

    /// Whoever waits for its part hears that there is none.
    fn interrupt_syncs(&mut self, why: &Error, out: &mut Out<'_>) {
        self.unsynced.clear();
        self.sync_deadline_ms = None;
        self.assigning = false;
        for member in self.members.values_mut() {
            if let Some(request) = member.sync.take() {
                member.touch(out.now_ms);
                out.answer(request, Answer::Sync(Err(why.clone())));
            }
        }
    }

    pub(super) fn complete_join_if_all(&mut self, out: &mut Out<'_>) {
        let waits = self.window.is_some_and(|window| window.initial_left_ms.is_some());
        let all = self.promised.is_empty() && self.members.values().all(|member| member.join.is_some());
        if self.phase == Phase::Preparing && !waits && all {
            self.begin_generation(out);
        }
    }

    /// The time for joining is over.
    pub(super) fn window_over(&mut self, out: &mut Out<'_>) {
        let Some(window) = &mut self.window else { return };
        if let Some(left) = window.initial_left_ms.take()
            && window.grew
            && left > 0
        {
            // Members are still coming: a consumer is often started many times at once.
            let delay = i64::from(out.settings.initial_delay_ms).min(left);
            *window = JoinWindow { deadline_ms: out.now_ms + delay, initial_left_ms: Some(left - delay), grew: false };
            return;
        }
        // Static members keep their places until their sessions end.
        let late = |member: &&super::Member| member.join.is_none() && member.instance.is_none();
        let late: Vec<_> = self.members.values().filter(late).map(|member| member.id.clone()).collect();
        for id in late {
            let why = self.unknown(&id);
            self.take_out(&id, &why, out);
        }
        if !self.members.is_empty() && self.members.values().all(|member| member.join.is_none()) {
            // Nobody is there to lead.
            let deadline_ms = out.now_ms + self.rebalance_ms();
            self.window = Some(JoinWindow { deadline_ms, initial_left_ms: None, grew: false });
            return;
        }
        self.begin_generation(out);
    }

    fn begin_generation(&mut self, out: &mut Out<'_>) {
        self.window = None;
        self.generation = self.generation.saturating_add(1);
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        if self.members.is_empty() {
            (self.protocol, self.leader) = (None, None);
            self.enter(Phase::Empty, out.now_ms);
            let record = self.record(false);
            return out.append(vec![record], Purpose::Emptied);
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.keys().find(|id| joined(id)).cloned();
        }
        self.protocol = self.elect_protocol();
        self.enter(Phase::Announcing, out.now_ms);
        let record = self.record(false);
        out.append(vec![record], Purpose::Generation { group: self.name.clone(), generation: self.generation });
    }

    /// The generation's beginning is in the log, or could not be stored.
    pub(in crate::group) fn announced(&mut self, generation: i32, result: Result<(), Error>, out: &mut Out<'_>) {
        if self.phase != Phase::Announcing || self.generation != generation {
            return;
        }
        let result = result.map_err(unavailable);
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            let joined = self.joined(id, self.leader.as_ref() == Some(id));
            let Some(member) = self.members.get_mut(id) else { continue };
            let Some(request) = member.join.take() else { continue };
            member.is_new = false;
            member.touch(out.now_ms);
            match &result {
                Ok(()) => out.answer(request, Answer::Join(Ok(joined))),
                Err(error) => refuse_join(request, error.clone(), id, out),
            }
        }
        if result.is_err() {
            return self.prepare(false, out);
        }
        self.enter(Phase::Completing, out.now_ms);
        self.unsynced = ids.into_iter().collect();
        self.sync_deadline_ms = Some(out.now_ms + self.rebalance_ms());
    }

    /// The leader's division is in the log, or could not be stored.
    pub(in crate::group) fn assigned(&mut self, generation: i32, result: Result<(), Error>, out: &mut Out<'_>) {
        if self.phase != Phase::Completing || self.generation != generation {
            return;
        }
        if let Err(error) = result {
            self.interrupt_syncs(&unavailable(error), out);
            return self.rebalance(out);
        }
        self.assigning = false;
        self.enter(Phase::Stable, out.now_ms);
        let waiting: Vec<_> = self.members.values().filter(|m| m.sync.is_some()).map(|m| m.id.clone()).collect();
        for id in waiting {
            self.hand_out(&id, out);
        }
    }

    /// Members that did not ask for their part in time are gone.
    pub(super) fn sync_late(&mut self, out: &mut Out<'_>) {
        self.sync_deadline_ms = None;
        let late = std::mem::take(&mut self.unsynced);
        if late.is_empty() {
            return;
        }
        for id in &late {
            let why = self.unknown(id);
            self.take_out(id, &why, out);
        }
        self.rebalance(out);
    }

    /// Members that were not heard of are gone, and so are ids that nobody came back with.
    pub(super) fn expire_members(&mut self, out: &mut Out<'_>) {
        let now_ms = out.now_ms;
        self.promised.retain(|_, deadline_ms| *deadline_ms > now_ms);
        let silent = |member: &&super::Member| member.deadline().is_some_and(|deadline| deadline <= now_ms);
        let silent: Vec<_> = self.members.values().filter(silent).map(|member| member.id.clone()).collect();
        for id in &silent {
            let cause = format!("member {id:?} of group {} was not heard of within its session", self.name);
            self.take_out(id, &Error::new(ErrorCode::UnknownMember, cause), out);
        }
        if silent.is_empty() { self.complete_join_if_all(out) } else { self.rebalance(out) }
    }
}
