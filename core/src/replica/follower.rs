//! The follower's half: say Hello, cut what the leader does not have, append, acknowledge.

use crate::batch::BatchHeader;
use crate::branches::reached;
use crate::ids::{BrokerId, Epoch, Offset};
use crate::lineage::Lineage;
use crate::producer::ProducerTable;
use crate::replica::{
    Ack, Announce, Append, Effect, Env, Flow, Hello, HelloReply, HelloVerdict, Message, Mutation, Replica, Role, Stream,
};

/// How far the follower is with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The epoch is being made durable, or the log is being changed; a Hello follows.
    Waiting,
    Greeting {
        since_ms: u64,
    },
    /// The leader accepted the log and what it lacks is being cut off; then acknowledge.
    Cutting,
    /// Every append continues the log.
    Ready,
    /// Something did not fit; a new Hello is sent at the first tick after this time.
    Closed {
        until_ms: u64,
    },
}

/// Follows one leader in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    pub(super) leader: BrokerId,
    pub(super) epoch: Epoch,
    phase: Phase,
    /// Where the leader's log begins, as far as it was told.
    pub(super) leader_start: Offset,
}

impl Follower {
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    #[cfg(feature = "model")]
    pub(super) fn forget_time(&mut self) {
        if let Phase::Greeting { since_ms: at } | Phase::Closed { until_ms: at } = &mut self.phase {
            *at = 0;
        }
    }

    #[cfg(feature = "model")]
    pub(super) fn hash_phase(&self, into: &mut impl std::hash::Hasher) {
        std::hash::Hash::hash(&self.phase, into);
    }

    #[cfg(feature = "model")]
    pub(super) fn would_greet(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. } | Phase::Closed { .. })
    }
}

impl Replica {
    /// Follows `leader` in `epoch`, unless it does already.
    pub(super) fn follow(&mut self, epoch: Epoch, leader: BrokerId, env: &Env, out: &mut Vec<Effect>) {
        if leader == self.member.broker {
            reached!("replica.state_named_earlier_incarnation");
            // An earlier incarnation of this broker: it is dead, and nobody resumes its place ★.
            return self.idle(epoch, out);
        }
        if matches!(&self.role, Role::Follower(f) if f.leader == leader && f.epoch == epoch) {
            return;
        }
        self.leave_role("another broker leads now", out);
        self.raise_epoch(epoch, out);
        self.role = Role::Follower(Follower { leader, epoch, phase: Phase::Waiting, leader_start: Offset::ZERO });
        self.greet(env, out);
    }

    pub(super) fn announced(&mut self, from: BrokerId, announce: Announce, env: &Env, out: &mut Vec<Effect>) {
        let current = announce.leader.broker == from && announce.epoch >= self.highest_epoch;
        let leads_itself = matches!(&self.role, Role::Leader(l) if l.epoch == announce.epoch);
        if !current || leads_itself {
            reached!("follower.announcement_is_old");
            if announce.leader.broker == from && announce.epoch < self.highest_epoch {
                self.tell_later_epoch(from, out);
            }
            return;
        }
        let known = matches!(&self.role, Role::Follower(f) if f.leader == from && f.epoch == announce.epoch);
        if known {
            reached!("follower.announced_again");
            self.restart_flow(env, out);
        } else {
            reached!("follower.announced");
            self.follow(announce.epoch, from, env, out);
        }
    }

    /// Says Hello, once the epoch is durable ★ (an acknowledgement in an epoch that a crash
    /// makes forgotten would let an older leader in) and the log stands still.
    pub(super) fn greet(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let saved = self.saved_epoch >= follower.epoch || self.config.lacks(Mutation::ForgetHighestEpoch);
        if !saved || self.log.changing {
            follower.phase = Phase::Waiting;
            if !saved {
                reached!("follower.waits_for_epoch_on_disk");
            } else {
                reached!("follower.waits_for_log");
            }
            return;
        }
        if self.log.damaged {
            reached!("follower.empties_damaged_copy");
            self.log.damaged = false;
            return self.empty_copy(Offset::ZERO, ProducerTable::default(), out);
        }
        self.flow = Flow(self.flow.0 + 1);
        follower.phase = Phase::Greeting { since_ms: env.now_ms };
        let (mut lineage, mut end) = (self.log.lineage.clone(), self.log.end);
        if self.config.lacks(Mutation::TruncateToHighWatermark) {
            end = self.high_watermark;
            lineage.truncate(end);
        }
        let hello = Hello {
            epoch: follower.epoch,
            member: self.member,
            incarnation: self.incarnation,
            flow: self.flow,
            lineage,
            end,
        };
        out.push(Effect::Send { to: follower.leader, stream: Stream::Live, message: Message::Hello(hello) });
    }

    /// Begins anew with the same leader: messages may have been lost.
    pub(super) fn restart_flow(&mut self, env: &Env, out: &mut Vec<Effect>) {
        self.greet(env, out);
    }

    pub(super) fn hello_reply(&mut self, from: BrokerId, reply: HelloReply, env: &Env, out: &mut Vec<Effect>) {
        if reply.epoch > self.highest_epoch {
            return self.fenced_by(reply.epoch, out);
        }
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let any_epoch = self.config.lacks(Mutation::ReplyWithoutEpoch);
        let any_flow = self.config.lacks(Mutation::ReplyWithoutFlow);
        let expected = follower.leader == from
            && (follower.epoch == reply.epoch || any_epoch)
            && (reply.flow == self.flow || any_flow)
            && matches!(follower.phase, Phase::Greeting { .. });
        if !expected {
            reached!("follower.reply_is_old");
            return;
        }
        match reply.verdict {
            HelloVerdict::Accepted { truncate_to, high_watermark, log_start } => {
                self.note_leader_start(log_start);
                self.accepted(truncate_to, high_watermark, env, out);
                self.follow_log_start(out);
            }
            HelloVerdict::RestartAt { start, producers } => self.restart_at(start, producers, env, out),
            HelloVerdict::Damaged => self.begin_generation(out),
            // Asked again by the tick: the leader may not have read its own election yet.
            HelloVerdict::NotYet => {
                reached!("follower.hello_not_yet");
            }
            HelloVerdict::Fenced => {
                reached!("follower.hello_was_fenced");
            }
        }
    }

    fn accepted(&mut self, truncate_to: Offset, high_watermark: Offset, env: &Env, out: &mut Vec<Effect>) {
        if truncate_to > self.log.end {
            return self.close_flow_until_tick();
        }
        if truncate_to == self.log.end {
            reached!("follower.has_nothing_to_truncate");
            self.set_phase(Phase::Ready);
            self.raise_high_watermark(high_watermark, out);
            return self.acknowledge_to_leader(out);
        }
        let holds_records = self.log.start < self.log.end;
        if truncate_to < self.high_watermark && holds_records && !self.abandoned_by_unclean_election() {
            if self.knows_less_than_its_leader() {
                reached!("follower.asks_registry_before_truncating");
                // An unclean choice may be what is not known here yet: ask again after reading.
                return out.push(Effect::ReadRegistry);
            }
            let why = format!(
                "epoch {} asks to truncate to {truncate_to}, below the high watermark {}",
                self.highest_epoch, self.high_watermark
            );
            return self.halt(why, out);
        }
        let start = self.log.trimming.map_or(self.log.start, |(_, start)| start);
        let nothing_left = truncate_to == start && self.abandoned_by_unclean_election();
        // Where compaction has been, batches do not end where the leader's do.
        if truncate_to < start.max(self.log.compacted) || nothing_left {
            reached!("follower.restarts_below_own_start");
            // All of this copy was abandoned, and what lies below it is not here: the leader's
            // records there are others, and one of its batches may reach across this start.
            return self.restart_at(Offset::ZERO, ProducerTable::default(), env, out);
        }
        reached!("follower.truncates");
        if truncate_to < self.high_watermark {
            reached!("follower.truncates_after_unclean");
        }
        self.high_watermark = self.high_watermark.min(truncate_to);
        self.set_phase(Phase::Cutting);
        let term = self.cut_log(truncate_to);
        out.push(Effect::Truncate { term, to: truncate_to });
        self.raise_high_watermark(high_watermark, out);
    }

    /// Whether an operator chose another copy since this log was written: only then may
    /// records below the high watermark go.
    fn abandoned_by_unclean_election(&self) -> bool {
        let unclean = self.known.as_ref().map_or(Epoch::NONE, |known| known.state.last_unclean_epoch);
        self.log.lineage.last_epoch().is_some_and(|last| last < unclean)
    }

    /// Its leader's epoch was announced before the registry showed it here.
    fn knows_less_than_its_leader(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.state.epoch < self.highest_epoch)
    }

    /// The leader's log begins above this copy's end: outside the in-sync replicas the copy is
    /// emptied; within them it lacks what it had acknowledged.
    fn restart_at(&mut self, start: Offset, producers: ProducerTable, env: &Env, out: &mut Vec<Effect>) {
        let in_sync = self.known.as_ref().is_none_or(|known| known.state.in_isr(&self.member));
        if in_sync && self.known.is_none() {
            // Announced before the registry was read here: ask again when it is known.
            out.push(Effect::ReadRegistry);
            return self.set_phase(Phase::Greeting { since_ms: env.now_ms });
        }
        if in_sync {
            return self.begin_generation(out);
        }
        reached!("follower.restarts_at_leaders_start");
        self.empty_copy(start, producers, out);
    }

    /// The copy is damaged: it becomes another member, which has to be let in again.
    fn begin_generation(&mut self, out: &mut Vec<Effect>) {
        reached!("follower.begins_generation");
        self.member.generation = self.member.generation.next();
        self.empty_copy(Offset::ZERO, ProducerTable::default(), out);
    }

    fn empty_copy(&mut self, start: Offset, producers: ProducerTable, out: &mut Vec<Effect>) {
        let term = self.cut_log(Offset::ZERO);
        self.log.lineage = Lineage::default();
        self.log.start = start;
        self.log.floor = start;
        self.log.compacted = start;
        self.log.trimming = None;
        self.log.end = start;
        self.log.durable = start;
        self.high_watermark = start;
        self.set_phase(Phase::Waiting);
        out.push(Effect::Restart { term, generation: self.member.generation, start, producers });
    }

    /// The log stands still again after a truncation or a restart.
    pub(super) fn log_ready(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        match follower.phase {
            Phase::Cutting => {
                follower.phase = Phase::Ready;
                self.acknowledge_to_leader(out);
            }
            // The tick greets when it is time.
            Phase::Closed { .. } => {
                reached!("follower.pauses_on_full_disk");
            }
            Phase::Waiting | Phase::Greeting { .. } | Phase::Ready => self.greet(env, out),
        }
    }

    pub(super) fn append(&mut self, from: BrokerId, append: Append, env: &Env, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        // Equal epoch, equal flow, and it continues this log exactly ★; a delayed message of
        // an older leader or attempt is dropped.
        let current = follower.epoch == append.epoch || self.config.lacks(Mutation::AppendWithoutEpoch);
        let any_flow = self.config.lacks(Mutation::AppendWithoutFlow);
        if follower.leader != from || !current || (append.flow != self.flow && !any_flow) {
            reached!("follower.append_of_another_flow");
            return;
        }
        if follower.phase != Phase::Ready {
            reached!("follower.append_while_not_ready");
            return;
        }
        if !self.continues(&append) {
            reached!("follower.append_does_not_continue");
            return self.close_flow_until_tick();
        }
        if !append.batches.is_empty() && !self.append_batches(&append, out) {
            return self.close_flow_until_tick();
        }
        self.raise_high_watermark(append.high_watermark, out);
        self.note_leader_start(append.log_start);
        self.follow_log_start(out);
        let _ = env;
    }

    fn continues(&self, append: &Append) -> bool {
        let mut end = self.log.end;
        let mut epoch = append.previous_epoch;
        if self.config.lacks(Mutation::AppendAnywhere) {
            return true;
        }
        // A copy that was emptied knows nothing of what came before its start.
        let follows = match self.log.lineage.last_epoch() {
            // None: the leader's log begins here, and its Hello found this one to fit.
            Some(last) => last == epoch || epoch == Epoch::NONE,
            None => self.log.start == end,
        };
        let follows = follows || self.config.lacks(Mutation::AppendWithoutPreviousEpoch);
        if append.base != end || !follows {
            return false;
        }
        epoch = epoch.max(self.log.lineage.last_epoch().unwrap_or_default());
        for batch in &append.batches {
            if batch.base != end || batch.last < batch.base || batch.epoch < epoch || batch.epoch > append.epoch {
                return false;
            }
            end = batch.end();
            epoch = batch.epoch;
        }
        true
    }

    /// Returns false, with nothing changed, if a header cannot be read or says something else
    /// than the message.
    fn append_batches(&mut self, append: &Append, out: &mut Vec<Effect>) -> bool {
        let headers: Result<Vec<_>, _> = append.batches.iter().map(|b| BatchHeader::parse(&b.bytes)).collect();
        let Ok(headers) = headers else { return false };
        let mut described = append.batches.iter().zip(&headers);
        if !described.all(|(batch, header)| {
            header.base_offset == batch.base
                && header.last_offset() == batch.last
                && header.leader_epoch == Some(batch.epoch)
        }) {
            return false;
        }
        for (batch, header) in append.batches.iter().zip(&headers) {
            self.log.lineage.record(batch.epoch, batch.base);
            self.log.producers.applied_batch(header, batch.base, &batch.bytes);
            self.log.end = batch.end();
        }
        out.push(Effect::Append { term: self.log.term, batches: append.batches.clone() });
        true
    }

    fn close_flow_until_tick(&mut self) {
        self.close_flow_until(0);
    }

    pub(super) fn close_flow_until(&mut self, until_ms: u64) {
        // The old flow's number is given up, so that nothing more of it is taken.
        self.flow = Flow(self.flow.0 + 1);
        self.set_phase(Phase::Closed { until_ms });
    }

    fn note_leader_start(&mut self, start: Offset) {
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_start = follower.leader_start.max(start);
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Role::Follower(follower) = &mut self.role {
            follower.phase = phase;
        }
    }

    /// The leader's high watermark, as far as this log reaches.
    fn raise_high_watermark(&mut self, leaders: Offset, out: &mut Vec<Effect>) {
        let reached = leaders.min(self.log.end);
        if reached > self.high_watermark {
            self.high_watermark = reached;
            self.settle_transactions();
            out.push(Effect::HighWatermark(reached));
        }
    }

    /// Says what is durable; nothing that is not ★.
    pub(super) fn acknowledge_to_leader(&mut self, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        if follower.phase != Phase::Ready {
            return;
        }
        reached!("follower.acknowledges");
        let ack = Ack {
            epoch: follower.epoch,
            flow: self.flow,
            member: self.member,
            incarnation: self.incarnation,
            durable_end: if self.config.lacks(Mutation::AckBeforeFsync) { self.log.end } else { self.log.durable },
            log_start: self.log.start,
        };
        out.push(Effect::Send { to: follower.leader, stream: Stream::Live, message: Message::Ack(ack) });
    }

    pub(super) fn follower_tick(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let due = match follower.phase {
            Phase::Closed { until_ms } => {
                reached!("follower.greets_again_after_mismatch");
                env.now_ms >= until_ms
            }
            Phase::Greeting { since_ms } => {
                reached!("follower.greets_again_unanswered");
                env.now_ms.saturating_sub(since_ms) >= self.config.hello_retry_ms && !env.is_gone(follower.leader)
            }
            Phase::Waiting | Phase::Cutting | Phase::Ready => false,
        };
        if due {
            self.greet(env, out);
        }
        self.follow_log_start(out);
    }
}
