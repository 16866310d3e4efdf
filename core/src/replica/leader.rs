//! The leader's half: assign offsets, push to the followers, count acknowledgements.

use std::collections::{BTreeMap, VecDeque};

use crate::ErrorCode;
use crate::batch::{Stamp, stamp};
use crate::branches::reached;
use crate::ids::{BrokerId, Epoch, Member, Offset};
use crate::partition::LeaderId;
use crate::producer::{ProducerTable, Verdict};
use crate::replica::isr::PendingWrite;
use crate::replica::progress::{Mode, Progress};
use crate::replica::{
    Ack, Acks, Announce, Append, Effect, Env, Flow, Health, Hello, HelloReply, HelloVerdict, Message, Mutation,
    Produce, Refusal, Replica, ReplicaConfig, RequestId, Role, StoredBatch, Stream,
};
use crate::transaction::message::Protocol;
use crate::transaction::partition::{Guard, Verification};

/// Producers whose transactions are being asked about at once, in one partition.
const VERIFIED_MAX: usize = 4_096;

/// A produce request that waits for its records to be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    request: RequestId,
    base: Offset,
    end: Offset,
    append_time_ms: Option<i64>,
    duplicate: bool,
}

impl Waiting {
    fn acknowledge(self) -> Effect {
        Effect::Acknowledge {
            request: self.request,
            base: self.base,
            append_time_ms: self.append_time_ms,
            duplicate: self.duplicate,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Resigning {
    pub(super) toward: BrokerId,
    pub(super) since_ms: u64,
    /// Whether the successor has to have everything first. Any in-sync replica is a correct
    /// leader; waiting only makes the change smooth.
    pub(super) wait: bool,
}

/// Leads in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) epoch: Epoch,
    /// Where this epoch began in the log.
    pub(super) epoch_start: Offset,
    pub(super) id: LeaderId,
    pub(super) since_ms: u64,
    /// Confirmed by the registry.
    pub(super) isr: Vec<Member>,
    pub(super) pending: Option<PendingWrite>,
    pub(super) followers: BTreeMap<BrokerId, Progress>,
    waiting: VecDeque<Waiting>,
    waiting_local: VecDeque<Waiting>,
    pub(super) resigning: Option<Resigning>,
    /// When the registry or an in-sync replica was last reached.
    pub(super) contact_ms: u64,
    /// When enough in-sync replicas were last alive.
    pub(super) enough_ms: u64,
    /// Nobody is added before this time: the registry refused the last one.
    pub(super) no_joining_until_ms: u64,
    /// Whoever joins begins here or above: clients may have been told so.
    pub(super) joins_from: Offset,
    /// What was asked of transactions' coordinators.
    pub(super) verification: Verification,
}

impl Leader {
    pub(super) fn refuse_all(self, why: &str, out: &mut Vec<Effect>) {
        for waiting in self.waiting.into_iter().chain(self.waiting_local) {
            let why = Refusal::new(ErrorCode::NotLeader, why);
            out.push(Effect::Reject { request: waiting.request, why });
        }
    }

    #[cfg(feature = "model")]
    pub(super) fn forget_time(&mut self) {
        self.since_ms = 0;
        self.contact_ms = 0;
        self.enough_ms = 0;
        self.no_joining_until_ms = 0;
        if let Some(resigning) = &mut self.resigning {
            resigning.since_ms = 0;
        }
        self.followers.values_mut().for_each(Progress::forget_time);
    }

    #[cfg(feature = "model")]
    pub(super) fn hash_waiting(&self, into: &mut impl std::hash::Hasher) {
        std::hash::Hash::hash(&(&self.waiting, &self.waiting_local), into);
    }

    pub(super) fn close_flow(&mut self, broker: BrokerId) {
        if let Some(progress) = self.followers.get_mut(&broker) {
            progress.close();
        }
    }

    /// Durable on this very member, as far as this leader knows ★: an acknowledgement from
    /// another disk or generation of the same broker says nothing about the member.
    pub(super) fn acked(&self, member: &Member, config: &ReplicaConfig) -> Option<Offset> {
        let any_disk = config.lacks(Mutation::AckFromAnotherDisk);
        self.followers.get(&member.broker).filter(|p| p.member == *member || any_disk).and_then(|p| p.acked)
    }
}

impl Replica {
    /// The registry names this process as leader of `epoch`.
    pub(super) fn lead(&mut self, epoch: Epoch, id: LeaderId, env: &Env, out: &mut Vec<Effect>) {
        let isr = self.known.as_ref().map(|known| known.state.isr.clone()).unwrap_or_default();
        if let Role::Leader(leader) = &mut self.role
            && leader.epoch == epoch
        {
            reached!("leader.adopts_state");
            leader.isr = isr;
            // A write at an older version can no longer take effect.
            let unanswered = leader.pending.take().is_some();
            self.forget_removed();
            self.have_greeted(unanswered, out);
            self.advance(env, out);
            return self.review(env, out);
        }
        let mut leader = Leader {
            epoch,
            epoch_start: self.log.end,
            id,
            since_ms: env.now_ms,
            isr,
            pending: None,
            followers: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_local: VecDeque::new(),
            resigning: None,
            contact_ms: env.now_ms,
            enough_ms: env.now_ms,
            no_joining_until_ms: 0,
            joins_from: self.log.start,
            verification: Verification::new(epoch, VERIFIED_MAX),
        };
        // Elected again after the session expired: the log is the same, what waits goes on.
        if let Role::Leader(old) = std::mem::replace(&mut self.role, Role::Idle) {
            reached!("leader.elected_again_keeps_waiting");
            leader.waiting = old.waiting;
            leader.waiting_local = old.waiting_local;
        }
        reached!("leader.begins_epoch");
        self.role = Role::Leader(Box::new(leader));
        out.push(Effect::RoleChanged);
        self.raise_epoch(epoch, out);
        self.announce_to_all(out);
        self.advance(env, out);
        self.review(env, out);
    }

    /// Forgets what followers acknowledged that no longer hold a copy: one that is assigned
    /// again later has an empty one, and says so in its Hello.
    pub(super) fn forget_removed(&mut self) {
        let (Role::Leader(leader), Some(known)) = (&mut self.role, &self.known) else {
            return;
        };
        if self.config.lacks(Mutation::AckOutlivesRemoval) {
            return;
        }
        let (assigned, isr) = (&known.state.assignment.replicas, &leader.isr);
        let before = leader.followers.len();
        leader.followers.retain(|broker, _| assigned.contains(broker) || isr.iter().any(|m| m.broker == *broker));
        if leader.followers.len() < before {
            reached!("leader.forgets_removed_follower");
        }
    }

    /// Asks for a Hello of every assigned broker that is unknown here: it may have left and come
    /// back without noticing, and believe that its flow is open. After an `unanswered` write,
    /// which may have removed a follower before somebody else brought it back, also of everybody
    /// outside the in-sync replicas.
    fn have_greeted(&mut self, unanswered: bool, out: &mut Vec<Effect>) {
        let (Role::Leader(leader), Some(known)) = (&mut self.role, &self.known) else {
            return;
        };
        let mut strangers = Vec::new();
        for broker in &known.state.assignment.replicas {
            match leader.followers.get_mut(broker) {
                None => strangers.push(*broker),
                Some(progress) if unanswered && !leader.isr.contains(&progress.member) => {
                    reached!("leader.outsiders_greet_again");
                    progress.close();
                    strangers.push(*broker);
                }
                Some(_) => {}
            }
        }
        for broker in strangers {
            self.announce_to(broker, out);
        }
    }

    /// Whether a crash could not make this leader forget its own epoch any more. Until then it
    /// touches nobody else: a follower that cuts its log on its word may have acknowledged what
    /// it cuts to the leader before, which needs only the acknowledgement of this very broker,
    /// come back and knowing nothing, to commit it ★.
    pub(super) fn may_serve(&self, leader: &Leader) -> bool {
        self.saved_epoch >= leader.epoch || self.config.lacks(Mutation::ServeBeforeEpochSaved)
    }

    /// The own epoch is on stable storage: the followers may come.
    pub(super) fn begin_serving(&mut self, env: &Env, out: &mut Vec<Effect>) {
        self.announce_to_all(out);
        self.own_disk_advanced(env, out);
        self.review(env, out);
    }

    fn announce_to_all(&self, out: &mut Vec<Effect>) {
        let replicas = self.known.iter().flat_map(|known| &known.state.assignment.replicas);
        for broker in replicas {
            self.announce_to(*broker, out);
        }
    }

    pub(super) fn announce_to(&self, to: BrokerId, out: &mut Vec<Effect>) {
        let assigned = self.known.as_ref().is_some_and(|k| k.state.assignment.replicas.contains(&to));
        let Role::Leader(leader) = &self.role else {
            return;
        };
        if to == self.member.broker || !assigned || !self.may_serve(leader) {
            return;
        }
        let announce = Announce { epoch: leader.epoch, leader: leader.id };
        out.push(Effect::Send { to, stream: Stream::Live, message: Message::Announce(announce) });
    }

    pub(super) fn produce(
        &mut self,
        produce: Produce,
        protocol: Protocol,
        guard: Option<Guard>,
        env: &Env,
        out: &mut Vec<Effect>,
    ) {
        if let Err(why) = self.may_accept(env) {
            return out.push(Effect::Reject { request: produce.request, why });
        }
        match self.log.producers.check(&produce.header) {
            Verdict::Append if produce.header.idempotent() => self.admit(produce, protocol, guard, env, out),
            Verdict::Append => self.append_produced(produce, env, out),
            Verdict::Duplicate { base, last } => self.duplicate(&produce, base, last, out),
            refused => {
                let why = self.refusal(refused, &produce);
                out.push(Effect::Reject { request: produce.request, why });
            }
        }
    }

    fn refusal(&self, verdict: Verdict, produce: &Produce) -> Refusal {
        let (producer, sequence) = (produce.header.producer_id, produce.header.base_sequence);
        match verdict {
            Verdict::Forgotten { below } if below > self.high_watermark => {
                let cause = format!("producer {producer}'s sequence {sequence} is stored and not committed yet");
                Refusal::new(ErrorCode::RequestTimedOut, cause)
            }
            Verdict::OutOfOrder { expected } => {
                let cause = format!("producer {producer} sent sequence {sequence}, and {expected} is next");
                Refusal::new(ErrorCode::OutOfOrderSequence, cause)
            }
            Verdict::Fenced { current } => {
                let cause = format!("producer {producer} has epoch {current} by now");
                Refusal::new(ErrorCode::InvalidProducerEpoch, cause)
            }
            Verdict::Forgotten { .. } | Verdict::Append | Verdict::Duplicate { .. } => {
                let cause = format!("producer {producer}'s sequence {sequence} was stored long ago");
                Refusal::new(ErrorCode::DuplicateSequence, cause)
            }
        }
    }

    /// Refused early, before anything is stored, if it could not be acknowledged soon: fewer
    /// than min.insync replicas confirmed, or alive and not merely listed.
    pub(super) fn may_accept(&self, env: &Env) -> Result<(), Refusal> {
        let Role::Leader(leader) = &self.role else {
            reached!("leader.refuses_not_leading");
            return Err(Refusal::new(ErrorCode::NotLeader, "this broker does not lead the partition"));
        };
        if leader.resigning.is_some() {
            reached!("leader.refuses_while_resigning");
            return Err(Refusal::new(ErrorCode::NotLeader, "the leader is handing over"));
        }
        if self.log.changing {
            reached!("leader.refuses_while_cutting");
            return Err(Refusal::new(ErrorCode::NoLeader, "the leader is still cutting its log"));
        }
        if leader.waiting.len() + leader.waiting_local.len() >= self.config.pending_max {
            reached!("leader.refuses_many_waiting");
            return Err(Refusal::new(ErrorCode::Throttled, "too many requests wait for this partition"));
        }
        let alive = self.alive_in_sync(leader, env);
        if alive < self.min_insync {
            reached!("leader.refuses_few_alive");
            let cause = format!("{alive} in-sync replicas are alive and min.insync.replicas is {}", self.min_insync);
            return Err(Refusal::new(ErrorCode::NotEnoughReplicas, cause));
        }
        Ok(())
    }

    pub(super) fn alive_in_sync(&self, leader: &Leader, env: &Env) -> usize {
        leader.isr.iter().filter(|m| m.broker == self.member.broker || env.is_alive(m.broker)).count()
    }

    pub(super) fn append_produced(&mut self, produce: Produce, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let append_time_ms = self.config.log_append_time.then_some(produce.wall_ms);
        let place = Stamp { base_offset: self.log.end, leader_epoch: leader.epoch, append_time_ms };
        let (header, bytes) = match stamp(produce.bytes, place) {
            Ok(stamped) => stamped,
            Err(error) => {
                let why = Refusal::new(error.code(), error.to_string());
                return out.push(Effect::Reject { request: produce.request, why });
            }
        };
        let batch = StoredBatch {
            base: self.log.end,
            last: header.last_offset(),
            epoch: leader.epoch,
            max_timestamp_ms: header.max_timestamp_ms,
            bytes,
        };
        let waiting =
            Waiting { request: produce.request, base: batch.base, end: batch.end(), append_time_ms, duplicate: false };
        match produce.acks {
            Acks::All => leader.waiting.push_back(waiting),
            Acks::Leader => leader.waiting_local.push_back(waiting),
        }
        let previous_epoch = self.log.lineage.last_epoch().unwrap_or_default();
        self.log.lineage.record(batch.epoch, batch.base);
        self.log.producers.applied_batch(&header, batch.base, &batch.bytes);
        self.log.end = batch.end();
        // Sent before the own disk is done: the two run side by side.
        self.push_live(&batch, previous_epoch, env, out);
        out.push(Effect::Append { term: self.log.term, batches: vec![batch] });
    }

    /// To every follower that keeps up; one whose window is full is read for later.
    fn push_live(&mut self, batch: &StoredBatch, previous_epoch: Epoch, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        for (broker, progress) in &mut leader.followers {
            if progress.mode != Mode::Live {
                continue;
            }
            if progress.unacked_bytes() + batch.len() as u64 > self.config.window_bytes {
                reached!("leader.follower_window_full");
                progress.mode = Mode::CatchUp { reading: false };
                continue;
            }
            let append = Append {
                epoch: leader.epoch,
                flow: progress.flow,
                base: batch.base,
                previous_epoch,
                batches: vec![batch.clone()],
                high_watermark: self.high_watermark,
                log_start: self.log.start,
            };
            progress.sent(&append.batches, env.now_ms);
            progress.sent_high_watermark = self.high_watermark;
            progress.sent_log_start = self.log.start;
            out.push(Effect::Send { to: *broker, stream: Stream::Live, message: Message::Append(append) });
        }
    }

    /// Stored before: acknowledged under the same conditions as the first time.
    pub(super) fn duplicate(&mut self, produce: &Produce, base: Offset, last: Offset, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let waiting =
            Waiting { request: produce.request, base, end: last.plus(1), append_time_ms: None, duplicate: true };
        let (queue, safe) = match produce.acks {
            Acks::All => (&mut leader.waiting, self.high_watermark),
            Acks::Leader => (&mut leader.waiting_local, self.log.durable),
        };
        if waiting.end <= safe {
            reached!("leader.duplicate_answered");
            out.push(waiting.acknowledge());
        } else {
            reached!("leader.duplicate_waits");
            // Kept in the order of offsets: a retry may come after later batches.
            let at = queue.partition_point(|w| w.end <= waiting.end);
            queue.insert(at, waiting);
        }
    }

    pub(super) fn own_disk_advanced(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while let Some(waiting) = leader.waiting_local.pop_front_if(|w| w.end <= self.log.durable) {
            out.push(waiting.acknowledge());
        }
        self.advance(env, out);
    }

    /// Moves the high watermark to the smallest durable end over the in-sync replicas and
    /// those of every write that may yet take effect ★, and acknowledges what lies below.
    pub(super) fn advance(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let _ = env;
        let Some(reached) = self.committed_end() else {
            return;
        };
        if reached > self.high_watermark {
            reached!("leader.high_watermark_rises");
            self.high_watermark = reached;
            self.settle_transactions();
            out.push(Effect::HighWatermark(reached));
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while let Some(waiting) = leader.waiting.pop_front_if(|w| w.end <= self.high_watermark) {
            out.push(waiting.acknowledge());
        }
    }

    /// None while nothing may be acknowledged: not the leader, too few confirmed in-sync
    /// replicas, or the own epoch is not durable yet ★.
    fn committed_end(&self) -> Option<Offset> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let saved = self.saved_epoch >= leader.epoch || self.config.lacks(Mutation::CommitBeforeEpochSaved);
        let enough = leader.confirmed(&self.config) >= self.min_insync || self.config.lacks(Mutation::CommitBelowMin);
        if !saved {
            reached!("leader.commit_waits_for_epoch_on_disk");
        } else if !enough {
            reached!("leader.commit_waits_for_min");
        }
        if self.log.changing || !saved || !enough {
            return None;
        }
        let early = self.config.lacks(Mutation::CommitBeforeFsync);
        let mut end = if early { self.log.end } else { self.log.durable };
        for member in leader.must_have(&self.config).filter(|m| **m != self.member) {
            end = end.min(leader.acked(member, &self.config)?);
        }
        Some(end)
    }

    pub(super) fn hello(&mut self, from: BrokerId, hello: Hello, env: &Env, out: &mut Vec<Effect>) {
        if hello.epoch > self.highest_epoch && !self.config.lacks(Mutation::HelloWithoutEpoch) {
            self.fenced_by(hello.epoch, out);
        }
        if self.is_overtaken(from, &hello, env) && !self.config.lacks(Mutation::HelloOvertaken) {
            return;
        }
        let verdict = self.judge_hello(from, &hello);
        // Whatever was acknowledged before: the follower says itself what it has now.
        if let Role::Leader(leader) = &mut self.role
            && hello.epoch == leader.epoch
            && !self.config.lacks(Mutation::AckOutlivesHello)
        {
            leader.close_flow(from);
        }
        if let (HelloVerdict::Accepted { truncate_to, .. }, Role::Leader(leader)) = (&verdict, &mut self.role) {
            let earlier = leader.followers.get(&from);
            let mut progress = Progress::new(&hello, *truncate_to, self.log.end, env.now_ms).after(earlier);
            if self.config.lacks(Mutation::AckOutlivesHello) {
                progress.acked = earlier.and_then(|p| p.acked);
            }
            leader.followers.insert(from, progress);
        }
        let changed_identity = self.replaces_member(&hello);
        let reply = HelloReply { epoch: self.highest_epoch, flow: hello.flow, verdict };
        out.push(Effect::Send { to: from, stream: Stream::Live, message: Message::HelloReply(reply) });
        if changed_identity {
            reached!("leader.hello_under_another_identity");
            self.review(env, out);
        }
    }

    /// A Hello that comes after a later one of the same process, or of the process that took
    /// its place, would close a flow that the follower believes to be open.
    fn is_overtaken(&self, from: BrokerId, hello: &Hello, env: &Env) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let Some(current) = leader.followers.get(&from) else {
            return false;
        };
        if current.incarnation == hello.incarnation {
            if hello.flow <= current.flow {
                reached!("leader.hello_overtaken");
            }
            return hello.flow <= current.flow;
        }
        let dead = env.health(from) == Health::Alive(current.incarnation);
        if dead {
            reached!("leader.hello_of_dead_process");
        }
        dead
    }

    fn replaces_member(&self, hello: &Hello) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.isr.iter().any(|m| m.broker == hello.member.broker && *m != hello.member)
    }

    fn judge_hello(&self, from: BrokerId, hello: &Hello) -> HelloVerdict {
        let Role::Leader(leader) = &self.role else {
            reached!("leader.hello_while_not_leading");
            return HelloVerdict::NotYet;
        };
        let assigned = self.known.as_ref().is_some_and(|k| k.state.assignment.replicas.contains(&from));
        let any_epoch = self.config.lacks(Mutation::HelloWithoutEpoch);
        if hello.epoch < leader.epoch && !any_epoch {
            reached!("leader.hello_of_older_epoch");
            return HelloVerdict::Fenced;
        }
        if (hello.epoch != leader.epoch && !any_epoch)
            || hello.member.broker != from
            || from == self.member.broker
            || !assigned
            || self.log.changing
            || !self.may_serve(leader)
        {
            if !assigned {
                reached!("leader.hello_of_unassigned");
            } else if self.log.changing {
                reached!("leader.hello_finds_log_changing");
            } else if !self.may_serve(leader) {
                reached!("leader.hello_before_epoch_on_disk");
            }
            return HelloVerdict::NotYet;
        }
        let in_sync = leader.must_have(&self.config).any(|member| *member == hello.member)
            && !self.config.lacks(Mutation::HelloOfDamagedMember);
        if in_sync && hello.end < self.high_watermark {
            reached!("leader.hello_of_damaged_member");
            return HelloVerdict::Damaged;
        }
        let truncate_to = if hello.lineage.entries().is_empty() && hello.end <= self.log.end {
            hello.end
        } else if self.config.lacks(Mutation::SingleStepSearch) {
            let last = hello.lineage.last_epoch().unwrap_or_default();
            hello.end.min(self.log.lineage.end_of(last, self.log.end))
        } else {
            self.log.lineage.common_end(self.log.end, &hello.lineage, hello.end)
        };
        // Where this log begins it cannot compare; an in-sync replica has what was committed there.
        let truncate_to =
            if in_sync && hello.end >= self.log.start { truncate_to.max(self.log.start) } else { truncate_to };
        if in_sync && truncate_to < self.high_watermark {
            return HelloVerdict::Damaged;
        }
        if truncate_to < self.log.floor {
            reached!("leader.hello_restarts_copy");
            let start = self.log.floor;
            let forgets = self.config.lacks(Mutation::ForgetProducersBelowStart);
            let producers = if forgets { ProducerTable::default() } else { self.log.producers.before(start) };
            return HelloVerdict::RestartAt { start, producers };
        }
        if truncate_to < hello.end {
            reached!("leader.hello_truncates");
            let one_step = hello.lineage.last_epoch().map(|last| self.log.lineage.end_of(last, self.log.end));
            if one_step.is_some_and(|end| truncate_to < end.min(hello.end)) {
                reached!("leader.hello_diverged_over_several_epochs");
            }
        }
        HelloVerdict::Accepted { truncate_to, high_watermark: self.high_watermark, log_start: self.log.start }
    }

    /// Counts only if the epoch is equal, and flow, disk, generation and incarnation are those
    /// of the Hello ★.
    pub(super) fn ack(&mut self, from: BrokerId, ack: Ack, env: &Env, out: &mut Vec<Effect>) {
        let any_epoch = self.config.lacks(Mutation::AckWithoutEpoch);
        let any_flow = self.config.lacks(Mutation::AckWithoutFlow);
        let any_process = self.config.lacks(Mutation::AckFromAnotherIncarnation);
        let any_disk = self.config.lacks(Mutation::AckFromAnotherDisk);
        if ack.epoch > self.highest_epoch && !any_epoch {
            return self.fenced_by(ack.epoch, out);
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if ack.epoch != leader.epoch && !any_epoch {
            reached!("leader.ack_of_older_epoch");
            return;
        }
        let Some(progress) = leader.followers.get_mut(&from) else {
            return;
        };
        let same = (progress.flow == ack.flow || any_flow)
            && (progress.member == ack.member || any_disk)
            && (progress.incarnation == ack.incarnation || any_process);
        let beyond = ack.durable_end > progress.next && !self.config.lacks(Mutation::AckBeyondSent);
        let closed = progress.mode == Mode::Closed && !self.config.lacks(Mutation::AckWhileClosed);
        if !same || beyond || closed {
            if !same {
                reached!("leader.ack_of_another_flow");
            } else if closed {
                reached!("leader.ack_while_closed");
            } else {
                reached!("leader.ack_beyond_what_was_sent");
            }
            return;
        }
        if progress.mode == Mode::Greeting {
            progress.mode = Mode::CatchUp { reading: false };
        }
        let news = progress.acknowledged(ack.durable_end, self.log.end, env.now_ms);
        progress.log_start = progress.log_start.max(ack.log_start);
        let outside = !leader.isr.contains(&ack.member);
        if !outside {
            leader.contact_ms = env.now_ms;
        }
        self.note_log_start();
        self.pump(from, out);
        if news {
            self.advance(env, out);
        }
        if outside || matches!(&self.role, Role::Leader(l) if l.resigning.is_some()) {
            self.review(env, out);
        }
    }

    /// Gives a follower that is behind its next piece, one at a time, or makes it live.
    pub(super) fn pump(&mut self, to: BrokerId, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.followers.get_mut(&to) else {
            return;
        };
        if progress.mode != (Mode::CatchUp { reading: false }) || !progress.drained() {
            return;
        }
        if progress.next >= self.log.end {
            reached!("leader.follower_becomes_live");
            progress.mode = Mode::Live;
            return;
        }
        reached!("leader.follower_reads_from_log");
        progress.mode = Mode::CatchUp { reading: true };
        out.push(Effect::ReadForFollower {
            to,
            flow: progress.flow,
            from: progress.next,
            max_bytes: self.config.catch_up_bytes,
        });
    }

    pub(super) fn read_for_follower(
        &mut self,
        to: BrokerId,
        flow: Flow,
        batches: Vec<StoredBatch>,
        env: &Env,
        out: &mut Vec<Effect>,
    ) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.followers.get_mut(&to).filter(|p| p.flow == flow) else {
            return;
        };
        if progress.mode != (Mode::CatchUp { reading: true }) {
            return;
        }
        progress.mode = Mode::CatchUp { reading: false };
        let next = progress.next;
        let Some(first) = batches.first() else {
            if next < self.log.floor {
                reached!("leader.read_found_log_moved");
                // Retention went past the follower: it has to begin anew.
                leader.close_flow(to);
                self.announce_to(to, out);
            }
            return;
        };
        let previous = next.0.checked_sub(1).and_then(|last| self.log.lineage.at(Offset(last)));
        if first.base != next || batches.windows(2).any(|w| w[0].end() != w[1].base) {
            leader.close_flow(to);
            return self.announce_to(to, out);
        }
        progress.sent(&batches, env.now_ms);
        progress.sent_high_watermark = self.high_watermark;
        progress.sent_log_start = self.log.start;
        // What was sent before is acknowledged, so nothing can be overtaken by the live stream.
        let stream = if progress.next == self.log.end { Stream::Live } else { Stream::CatchUp };
        if stream == Stream::Live {
            progress.mode = Mode::Live;
        }
        let append = Append {
            epoch: leader.epoch,
            flow,
            base: next,
            previous_epoch: previous.map_or(Epoch::NONE, |(epoch, _)| epoch),
            batches,
            high_watermark: self.high_watermark,
            log_start: self.log.start,
        };
        out.push(Effect::Send { to, stream, message: Message::Append(append) });
    }

    /// A flow in which something got lost without a reset of its link would stand still for
    /// ever, and with it the partition: its follower greets again.
    fn give_up_stuck_flows(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let mut stuck = Vec::new();
        for (broker, progress) in &mut leader.followers {
            if progress.stands_still(env.now_ms, self.config.lag_max_ms) {
                reached!("leader.flow_stands_still");
                progress.give_up_flow();
                stuck.push(*broker);
            }
        }
        for broker in stuck {
            self.announce_to(broker, out);
        }
    }

    /// Whether what was read for this flow would be of use.
    #[must_use]
    pub fn awaits_read(&self, to: BrokerId, flow: Flow) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.followers.get(&to).is_some_and(|p| p.flow == flow && p.mode == Mode::CatchUp { reading: true })
    }

    /// Tells idle followers how far the high watermark is, and prods whoever stands still.
    pub(super) fn leader_tick(&mut self, env: &Env, out: &mut Vec<Effect>) {
        self.give_up_stuck_flows(env, out);
        let end = self.log.end;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let (mut behind, mut tell) = (Vec::new(), Vec::new());
        for (broker, progress) in &mut leader.followers {
            progress.note_lag(end, env.now_ms);
            behind.push(*broker);
            let knows =
                progress.sent_high_watermark >= self.high_watermark && progress.sent_log_start >= self.log.start;
            if progress.mode == Mode::Live && progress.drained() && !knows {
                reached!("leader.tells_high_watermark");
                tell.push(*broker);
            }
        }
        for broker in tell {
            self.tell_bounds(broker, out);
        }
        for broker in behind {
            self.pump(broker, out);
        }
        self.check_isolation(env, out);
        self.review(env, out);
    }
}
