//! Who is in sync: the leader's writes of the partition's state, one at a time.
//!
//! A write takes effect when the registry confirms it. Until it is known which of several
//! writes at one version happened, everybody named by any of them counts ★.

use crate::branches::reached;
use crate::ids::{BrokerId, Member};
use crate::partition::{Assignment, PartitionState, VersionedState};
use crate::replica::leader::{Leader, Resigning};
use crate::replica::{Attempt, Effect, Env, Health, Mutation, Replica, ReplicaConfig, Role, WriteKind, WriteOutcome};

/// How long a successor may take to have everything before the leader goes on leading.
const RESIGN_MAX_MS: u64 = 5_000;

/// ZooKeeper's word for a write that checks no version.
const ANY_VERSION: i32 = -1;

/// After a refusal nobody is asked in for this long.
const JOIN_PAUSE_MS: u64 = 500;

/// A write of the state whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingWrite {
    attempt: Attempt,
    kind: WriteKind,
    expected_version: i32,
    /// What the newest attempt writes.
    state: PartitionState,
    /// The in-sync replicas of every attempt at this version that may yet take effect.
    targets: Vec<Vec<Member>>,
    /// An earlier attempt at this version may yet take effect.
    follows_unknown: bool,
    /// False: the outcome was unknown, and the write is tried again after the next read.
    in_flight: bool,
}

#[cfg(test)]
impl PendingWrite {
    pub(super) fn targets(&self) -> impl Iterator<Item = &Member> {
        self.targets.iter().flatten()
    }
}

#[cfg(feature = "model")]
impl PendingWrite {
    pub(super) fn attempt(&self) -> Attempt {
        self.attempt
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    pub(super) fn newest(&self) -> &PartitionState {
        &self.state
    }

    pub(super) fn all_targets(&self) -> &[Vec<Member>] {
        &self.targets
    }

    pub(super) fn facts(&self) -> (WriteKind, i32, bool, bool) {
        (self.kind, self.expected_version, self.follows_unknown, self.in_flight)
    }
}

impl Leader {
    /// Members that every outcome leaves in: the ones that count towards the minimum.
    pub(super) fn confirmed(&self, config: &ReplicaConfig) -> usize {
        if config.lacks(Mutation::ShrinkBeforeConfirmation) {
            return self.pending.as_ref().map_or(self.isr.len(), |p| p.state.isr.len());
        }
        let kept = |m: &&Member| self.pending.iter().all(|p| p.targets.iter().all(|t| t.contains(*m)));
        self.isr.iter().filter(kept).count()
    }

    /// Members that any outcome may name: all of them have to have a record before it is safe.
    pub(super) fn must_have(&self, config: &ReplicaConfig) -> impl Iterator<Item = &Member> {
        let early = config.lacks(Mutation::ShrinkBeforeConfirmation);
        let late = config.lacks(Mutation::IgnorePendingExpansion);
        let confirmed = self.isr.iter().filter(move |m| !early || self.pending.iter().all(|p| p.state.isr.contains(m)));
        let pending = self.pending.iter().filter(move |_| !late).flat_map(|p| p.targets.iter().flatten());
        confirmed.chain(pending)
    }
}

impl Replica {
    pub(super) fn set_min_insync(&mut self, min: usize, env: &Env, out: &mut Vec<Effect>) {
        self.min_insync = min.max(1);
        if matches!(self.role, Role::Leader(_)) {
            self.advance(env, out);
            self.review(env, out);
        }
    }

    /// Looks whether the state should change, and writes it; nothing while a write is in flight.
    pub(super) fn review(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let (Role::Leader(leader), Some(known)) = (&self.role, &self.known) else {
            return;
        };
        if !self.may_serve(leader) {
            return;
        }
        let unanswered = match &leader.pending {
            Some(pending) if pending.in_flight => return,
            Some(_) => true,
            None => false,
        };
        if let Some(state) = self.resignation(leader, known, env) {
            let toward = leader.resigning.map(|r| r.toward);
            return self.write_state(WriteKind::Resign, state, Vec::new(), toward, out);
        }
        if unanswered {
            reached!("isr.written_again_after_unknown");
        }
        let isr = self.wanted_isr(leader, known, env);
        let (isr, assignment) = self.settled(isr, known);
        // After an unknown outcome something is written in any case: a change of version is
        // what makes sure that the lost write cannot take effect later.
        if isr == known.state.isr && assignment == known.state.assignment && !unanswered {
            return self.hand_over_if_leaving(env, out);
        }
        let joining = isr.iter().filter(|m| !known.state.isr.contains(m)).copied().collect();
        let state = PartitionState { isr, assignment, ..known.state.clone() };
        self.write_state(WriteKind::Isr, state, joining, None, out);
    }

    fn write_state(
        &mut self,
        kind: WriteKind,
        state: PartitionState,
        joining: Vec<Member>,
        toward: Option<BrokerId>,
        out: &mut Vec<Effect>,
    ) {
        let attempt = self.next_attempt;
        self.next_attempt = Attempt(attempt.0 + 1);
        let (Role::Leader(leader), Some(known)) = (&mut self.role, &self.known) else {
            return;
        };
        let follows_unknown = leader.pending.is_some();
        let mut targets = leader.pending.take().map_or_else(Vec::new, |pending| pending.targets);
        let expected_version = if self.config.lacks(Mutation::UnversionedWrite) { ANY_VERSION } else { known.version };
        if !targets.contains(&state.isr) {
            targets.push(state.isr.clone());
        }
        leader.pending = Some(PendingWrite {
            attempt,
            kind,
            expected_version: known.version,
            state: state.clone(),
            targets,
            follows_unknown,
            in_flight: true,
        });
        out.push(Effect::WriteState { attempt, kind, expected_version, state, joining, toward });
    }

    /// The in-sync replicas as they should be: without who is gone, under another identity,
    /// far behind or draining; with who has caught up. Never below the minimum ★.
    fn wanted_isr(&self, leader: &Leader, known: &VersionedState, env: &Env) -> Vec<Member> {
        let joiners = self.joiners(leader, known, env);
        // Another copy on the same broker takes the old one's place: no fewer than before.
        let stays = |m: &&Member| joiners.iter().all(|j| j.broker != m.broker);
        let mut isr: Vec<Member> = known.state.isr.iter().filter(stays).copied().collect();
        if isr.len() < known.state.isr.len() {
            reached!("isr.other_identity_replaces");
        } else if !joiners.is_empty() {
            reached!("isr.expands");
        }
        isr.extend(&joiners);
        let mut leaving: Vec<(u8, Member)> = known
            .state
            .isr
            .iter()
            .filter_map(|m| self.reason_to_leave(leader, m, env).map(|urgency| (urgency, *m)))
            .collect();
        leaving.sort_unstable();
        let least = if self.config.lacks(Mutation::ShrinkBelowMin) { 1 } else { self.min_insync };
        for (_, member) in leaving {
            if isr.len() > least {
                isr.retain(|m| *m != member);
            } else {
                reached!("isr.keeps_min");
            }
        }
        isr
    }

    /// The most certain reason has the smallest number: it goes first if not all may go.
    fn reason_to_leave(&self, leader: &Leader, member: &Member, env: &Env) -> Option<u8> {
        if *member == self.member {
            return None;
        }
        let progress = leader.followers.get(&member.broker);
        if progress.is_some_and(|p| p.member != *member) {
            reached!("isr.other_identity_leaves");
            return Some(0);
        }
        match env.health(member.broker) {
            Health::Dead => {
                reached!("isr.dead_leaves");
                return Some(1);
            }
            Health::Silent => {
                reached!("isr.silent_leaves");
                return Some(2);
            }
            Health::Alive(_) | Health::Unknown => {}
        }
        let assigned = self.known.as_ref().is_none_or(|k| k.state.assignment.replicas.contains(&member.broker));
        if !assigned || env.is_draining(member.broker) {
            reached!("isr.removed_or_draining_leaves");
            return Some(3);
        }
        let lag_ms = progress.map_or(env.now_ms.saturating_sub(leader.since_ms), |p| p.lag_ms(env.now_ms));
        if lag_ms > self.config.lag_max_ms {
            reached!("isr.follower_behind_leaves");
            return Some(4);
        }
        None
    }

    /// Who may join: assigned and staying, alive under the incarnation of its Hello, and
    /// durable in this epoch up to the high watermark and to where the epoch began ★.
    /// (Waiting for the high watermark itself to reach the epoch's start would stand still for
    /// ever below the minimum.)
    fn joiners(&self, leader: &Leader, known: &VersionedState, env: &Env) -> Vec<Member> {
        if env.now_ms < leader.no_joining_until_ms {
            reached!("isr.joining_pauses_after_refusal");
            return Vec::new();
        }
        let mut needed = self.high_watermark.max(leader.epoch_start);
        if self.config.lacks(Mutation::ExpandBeforeEpochStart) {
            needed = self.high_watermark;
        }
        if self.config.lacks(Mutation::ExpandAfterEpochStart) && self.high_watermark < leader.epoch_start {
            return Vec::new();
        }
        let any_process = self.config.lacks(Mutation::JoinOfAnotherProcess);
        let any_start = self.config.lacks(Mutation::JoinBelowLogStart);
        let may_join = |broker: &BrokerId| {
            let assignment = &known.state.assignment;
            assignment.replicas.contains(broker) && !assignment.removing.contains(broker) && !env.is_draining(*broker)
        };
        leader
            .followers
            .iter()
            .filter(|(broker, progress)| {
                !known.state.in_isr(&progress.member)
                    && may_join(broker)
                    && (env.health(**broker) == Health::Alive(progress.incarnation) || any_process)
                    && progress.acked.is_some_and(|acked| acked >= needed)
                    && (progress.log_start >= leader.joins_from || any_start)
                    // Or it would have to leave again at once.
                    && progress.lag_ms(env.now_ms) <= self.config.lag_max_ms
            })
            .map(|(_, progress)| progress.member)
            .collect()
    }

    /// A reassignment is finished once everybody who joins is in sync: then those who leave go,
    /// last and all at once, if enough stay and this leader is not among them.
    fn settled(&self, mut isr: Vec<Member>, known: &VersionedState) -> (Vec<Member>, Assignment) {
        let old = &known.state.assignment;
        let in_sync = |broker: &BrokerId| isr.iter().any(|m| m.broker == *broker);
        let stays = |m: &Member| !old.removing.contains(&m.broker);
        let staying = isr.iter().filter(|m| stays(m)).count();
        let under_way = !old.adding.is_empty() || !old.removing.is_empty();
        let ready = under_way
            && old.adding.iter().all(in_sync)
            && staying >= self.min_insync.max(1)
            && !old.removing.contains(&self.member.broker);
        if !ready {
            if under_way {
                reached!("isr.reassignment_waits");
            }
            return (isr, old.clone());
        }
        reached!("isr.reassignment_settles");
        let replicas = old.replicas.iter().copied().filter(|b| !old.removing.contains(b)).collect();
        isr.retain(stays);
        let assignment = Assignment { replicas, adding: Vec::new(), removing: Vec::new() };
        (isr, assignment)
    }

    /// A leader among those who leave resigns once everybody who joins is in sync.
    fn hand_over_if_leaving(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let (Role::Leader(leader), Some(known)) = (&self.role, &self.known) else {
            return;
        };
        let assignment = &known.state.assignment;
        let leaving = assignment.removing.contains(&self.member.broker);
        let joined = assignment.adding.iter().all(|b| known.state.isr_member(*b).is_some());
        if !leaving || !joined || leader.resigning.is_some() {
            return;
        }
        let successor = known
            .state
            .isr
            .iter()
            .map(|m| m.broker)
            .find(|b| *b != self.member.broker && !assignment.removing.contains(b) && env.is_alive(*b));
        if let Some(toward) = successor {
            reached!("isr.leader_among_removed_hands_over");
            self.resign(toward, env, out);
        }
    }

    /// Stops accepting, and hands over when the successor has everything.
    pub(super) fn resign(&mut self, toward: BrokerId, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let in_sync = leader.isr.iter().any(|m| m.broker == toward);
        if toward == self.member.broker || !in_sync || !env.is_alive(toward) || leader.resigning.is_some() {
            reached!("isr.resigning_refused");
            return;
        }
        leader.resigning = Some(Resigning { toward, since_ms: env.now_ms, wait: true });
        out.push(Effect::RoleChanged);
        self.review(env, out);
    }

    /// The state after the resignation, once it may be written.
    fn resignation(&self, leader: &Leader, known: &VersionedState, _env: &Env) -> Option<PartitionState> {
        let resigning = leader.resigning?;
        let successor = known.state.isr_member(resigning.toward)?;
        let has_all = leader.acked(successor, &self.config).is_some_and(|acked| acked >= self.log.end);
        let done = self.log.durable >= self.log.end && self.high_watermark >= self.log.end;
        if resigning.wait && !(has_all && done) {
            reached!("isr.resigning_waits_for_successor");
            return None;
        }
        Some(PartitionState { leader: None, hint: Some(resigning.toward), ..known.state.clone() })
    }

    /// The answer to the write of this attempt; anything older is of no interest.
    pub(super) fn written(&mut self, attempt: Attempt, outcome: WriteOutcome, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(pending) = leader.pending.as_mut().filter(|p| p.attempt == attempt) else {
            return;
        };
        match outcome {
            WriteOutcome::Done { version } => self.confirmed_write(version, env, out),
            WriteOutcome::Conflict | WriteOutcome::Unknown => {
                if outcome == WriteOutcome::Conflict {
                    reached!("isr.conflict");
                } else {
                    reached!("isr.unknown_outcome");
                }
                pending.in_flight = false;
                out.push(Effect::ReadRegistry);
            }
            WriteOutcome::Refused => self.refused_write(env, out),
        }
    }

    fn confirmed_write(&mut self, version: i32, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(pending) = leader.pending.take() else {
            return;
        };
        leader.contact_ms = env.now_ms;
        if pending.targets.len() > 1 || leader.isr.len() > pending.state.isr.len() {
            reached!("isr.counts_until_confirmed");
        }
        leader.isr.clone_from(&pending.state.isr);
        self.known = Some(VersionedState { state: pending.state, version });
        if pending.kind == WriteKind::Resign {
            reached!("isr.resigned");
            return self.leave_role("the leader handed over", out);
        }
        self.forget_removed();
        out.push(Effect::RoleChanged);
        self.advance(env, out);
        self.review(env, out);
    }

    /// Nothing was written. Earlier attempts of unknown outcome stay what they are.
    fn refused_write(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.no_joining_until_ms = env.now_ms + JOIN_PAUSE_MS;
        leader.resigning = None;
        let Some(pending) = &mut leader.pending else {
            return;
        };
        if !pending.follows_unknown || self.config.lacks(Mutation::ForgetUnknownWrite) {
            reached!("isr.refused");
            leader.pending = None;
        } else {
            reached!("isr.refused_after_unknown");
            pending.in_flight = false;
            out.push(Effect::ReadRegistry);
        }
        out.push(Effect::RoleChanged);
        self.advance(env, out);
    }

    /// A read found the version that is known already: an unanswered write did not happen, or
    /// not yet.
    pub(super) fn state_unchanged(&mut self, version: i32, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let retry = leader.pending.as_ref().is_some_and(|p| !p.in_flight && p.expected_version == version);
        if retry {
            reached!("isr.unknown_outcome_found_undone");
            self.review(env, out);
        }
    }

    /// Steps down when cut off from everybody; hands over when it sees the registry but too
    /// few in-sync replicas, and another one might do better.
    pub(super) fn check_isolation(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let enough = self.alive_in_sync(leader, env) >= self.min_insync;
        let alone = leader.isr.len() <= 1;
        // Nobody else could be elected if this is the only in-sync replica.
        let others = || {
            let broker = leader.isr.iter().map(|m| m.broker);
            broker.filter(|b| *b != self.member.broker)
        };
        let reached = alone || env.registry_connected || others().any(|b| env.is_alive(b));
        // Who is alive from here or certainly dead would be no better off with another leader.
        let others_may_see_more = others().any(|b| !env.is_alive(b) && env.health(b) != Health::Dead);
        let candidates: Vec<BrokerId> = others().filter(|b| env.health(*b) != Health::Dead).collect();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if enough {
            leader.enough_ms = env.now_ms;
        }
        if reached {
            leader.contact_ms = env.now_ms;
        }
        if leader.resigning.is_some_and(|r| env.now_ms.saturating_sub(r.since_ms) > RESIGN_MAX_MS) {
            reached!("isr.resigning_given_up");
            leader.resigning = None;
            out.push(Effect::RoleChanged);
        }
        if env.now_ms.saturating_sub(leader.contact_ms) > self.config.isolation_max_ms {
            reached!("isr.leader_isolated_steps_down");
            self.leave_role("this broker reaches neither the registry nor an in-sync replica", out);
            return out.push(Effect::ReadRegistry);
        }
        let starved_ms = env.now_ms.saturating_sub(leader.enough_ms);
        let starved = starved_ms > self.config.isolation_max_ms;
        if !starved || !env.registry_connected || !others_may_see_more {
            return;
        }
        let Some(toward) = candidates.first().copied() else {
            return;
        };
        leader.enough_ms = env.now_ms;
        reached!("isr.leader_starved_resigns");
        leader.resigning = Some(Resigning { toward, since_ms: env.now_ms, wait: false });
        out.push(Effect::RoleChanged);
    }
}
