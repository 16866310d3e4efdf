//! The replica state machine of one partition: leader, follower, or neither.
//!
//! ```text
//!   registry state ─┐                         ┌─▶ log: append, truncate, save the epoch
//!   peers' messages ┼─▶ Replica::step(input) ─┼─▶ peers: hello, append, ack
//!   produce, log ───┘      (no I/O here)      └─▶ registry: in-sync replicas; clients: answers
//! ```
//!
//! The rules are those of the replication protocol in `ARCHITECTURE.md`. Safety comes from
//! epochs and versioned writes; peers' health and time only decide when something is tried.

mod commit;
mod effect;
mod env;
mod flow;
mod follower;
mod greeting;
#[cfg(feature = "model")]
mod inspect;
mod invariants;
mod isr;
mod leader;
mod log_start;
mod message;
mod mutation;
mod produce;
mod progress;
mod stored;
#[cfg(test)]
mod tests;
mod transactions;
mod view;

use crate::branches::reached;
use crate::ids::{BrokerId, Epoch, Generation, Incarnation, Member, Offset, TopicPartition};
use crate::lineage::Lineage;
use crate::partition::{LeaderId, PartitionState, VersionedState};
use crate::producer::ProducerTable;
use crate::transaction::message::Protocol;

pub use effect::{
    Acks, Attempt, Effect, Input, LogTerm, Mark, Produce, Refusal, RequestId, Stream, WriteKind, WriteOutcome,
};
pub use env::{Env, Health, Peer};
#[cfg(feature = "model")]
pub use inspect::Names;
pub use message::{Ack, Announce, Append, Flow, Hello, HelloReply, HelloVerdict, Message};
pub use mutation::Mutation;
#[cfg(any(test, feature = "mutations"))]
pub use mutation::Mutations;
pub use progress::Progress;
pub use stored::StoredBatch;

use follower::Follower;
use leader::Leader;

/// A follower whose disk refused records asks for them again after this.
const FULL_FOLLOWER_MS: u64 = 1_000;

/// A leader whose disk refused records does not stand for election for so long: whoever has
/// the records and the room goes on.
const FULL_LEADER_MS: u64 = 5_000;

/// Limits and periods; the same for all partitions of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaConfig {
    /// A follower this far behind in time leaves the in-sync replicas.
    pub lag_max_ms: u64,
    /// A leader that has reached neither the registry nor an in-sync replica for so long steps down.
    pub isolation_max_ms: u64,
    /// A follower whose Hello was not answered asks again after this.
    pub hello_retry_ms: u64,
    /// Bytes sent to one follower and not yet acknowledged; beyond it the follower is read for
    /// on its own stream.
    pub window_bytes: u64,
    /// Bytes of one read for a lagging follower.
    pub catch_up_bytes: usize,
    /// Produce requests waiting for the high watermark.
    pub pending_max: usize,
    /// Whether the leader stamps the time of appending.
    pub log_append_time: bool,
    #[cfg(any(test, feature = "mutations"))]
    pub mutations: Mutations,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            lag_max_ms: 5_000,
            isolation_max_ms: 3_000,
            hello_retry_ms: 250,
            window_bytes: 16 << 20,
            catch_up_bytes: 1 << 20,
            pending_max: 100_000,
            log_append_time: false,
            #[cfg(any(test, feature = "mutations"))]
            mutations: Mutations::default(),
        }
    }
}

/// The copy as it was found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecoveredLog {
    pub start: Offset,
    /// The first offset of the batch that contains `start`.
    pub floor: Offset,
    /// Batches below were rewritten by compaction.
    pub compacted: Offset,
    pub end: Offset,
    pub highest_epoch: Epoch,
    /// With the epoch of the record before `start`, if that is known (see [`Lineage::set_start`]).
    pub lineage: Lineage,
    /// A lower bound of the high watermark.
    pub high_watermark: Offset,
    pub producers: ProducerTable,
    /// Nothing of the copy is to be believed: its generation has been raised already, and it
    /// is emptied before it follows anybody.
    pub damaged: bool,
}

/// Everything that the state machine knows of its own log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LocalLog {
    start: Offset,
    /// The first offset of the batch that contains `start`.
    floor: Offset,
    /// Below, batches are not where their leader put them any more.
    compacted: Offset,
    /// What is being given up, and in which term that was asked for.
    trimming: Option<(LogTerm, Offset)>,
    /// After the last batch that was handed to the log.
    end: Offset,
    /// Everything below is on stable storage.
    durable: Offset,
    lineage: Lineage,
    term: LogTerm,
    /// A truncation or restart is under way: nothing is appended meanwhile.
    changing: bool,
    /// Found damaged, and not emptied yet.
    damaged: bool,
    producers: ProducerTable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Neither leads nor knows whom to follow.
    Idle,
    Follower(Follower),
    Leader(Box<Leader>),
    /// The copy contradicts itself or its storage failed.
    Halted(String),
}

/// What others may see of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleView {
    Idle,
    /// Follows this broker; `greeted` once the leader accepted its log.
    Follower {
        leader: BrokerId,
        greeted: bool,
    },
    Leader {
        resigning: bool,
    },
    Halted,
}

/// One copy of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    id: TopicPartition,
    member: Member,
    incarnation: Incarnation,
    config: ReplicaConfig,
    min_insync: usize,
    log: LocalLog,
    high_watermark: Offset,
    /// The highest epoch seen anywhere, and the highest that is on stable storage.
    highest_epoch: Epoch,
    saved_epoch: Epoch,
    known: Option<VersionedState>,
    /// The last epoch in which this process led and gave up: it never leads in it again.
    given_up: Epoch,
    /// It lets others lead until then: the disk refused records that it led.
    yields_until_ms: u64,
    role: Role,
    flow: Flow,
    next_attempt: Attempt,
}

impl Replica {
    #[must_use]
    pub fn new(
        id: TopicPartition,
        member: Member,
        incarnation: Incarnation,
        config: ReplicaConfig,
        found: RecoveredLog,
    ) -> Self {
        let highest_epoch = found.highest_epoch.max(found.lineage.last_epoch().unwrap_or_default());
        Self {
            id,
            member,
            incarnation,
            config,
            min_insync: 1,
            log: LocalLog {
                start: found.start,
                floor: found.floor.min(found.start),
                compacted: found.compacted.min(found.end),
                trimming: None,
                end: found.end,
                durable: found.end,
                lineage: found.lineage,
                term: LogTerm(0),
                changing: false,
                damaged: found.damaged,
                producers: found.producers,
            },
            high_watermark: found.high_watermark.min(found.end).max(found.start),
            highest_epoch,
            saved_epoch: found.highest_epoch,
            known: None,
            given_up: Epoch::NONE,
            yields_until_ms: 0,
            role: Role::Idle,
            flow: Flow(0),
            next_attempt: Attempt(0),
        }
    }

    /// Takes one input and appends what is to be done to `out`, in order.
    pub fn step(&mut self, input: Input, env: &Env, out: &mut Vec<Effect>) {
        if matches!(self.role, Role::Halted(_)) {
            return self.refuse_while_halted(input, out);
        }
        match input {
            Input::State(state) => self.learn_state(state, env, out),
            Input::MinInsync(min) => self.set_min_insync(min, env, out),
            Input::Produce(produce) => self.produce(produce, Protocol::First, None, env, out),
            Input::ProduceIn { produce, protocol, guard } => self.produce(produce, protocol, guard, env, out),
            Input::Mark(mark) => self.mark(mark, env, out),
            Input::Durable { term, end } => self.durable(term, end, env, out),
            Input::EpochSaved(epoch) => self.epoch_saved(epoch, env, out),
            Input::LogChanged { term, producers } => self.log_changed(term, producers, env, out),
            Input::Message { from, message } => self.message(from, message, env, out),
            Input::ReadForFollower { to, flow, batches } => self.read_for_follower(to, flow, batches, env, out),
            Input::Written { attempt, outcome } => self.written(attempt, outcome, env, out),
            Input::PeersChanged => self.peers_changed(env, out),
            Input::LinkReset(broker) => self.link_reset(broker, env, out),
            Input::Tick => self.tick(env, out),
            Input::Resign { toward } => self.resign(toward, env, out),
            Input::Trim { to } => self.trim(to, out),
            Input::Trimmed { term, start, floor } => self.trimmed(term, start, floor, out),
            Input::Compacted { to } => self.note_compacted(to),
            Input::Fence { epoch } => self.fenced_by(epoch.next(), out),
            Input::AppendFailed { term } => self.append_failed(term, env, out),
            Input::StorageFailed(why) => self.halt(format!("the storage failed: {why}"), out),
            Input::Damaged(why) => self.found_damaged(&why, out),
        }
        self.assert_invariants();
    }

    fn message(&mut self, from: BrokerId, message: Message, env: &Env, out: &mut Vec<Effect>) {
        match message {
            Message::Announce(announce) => self.announced(from, announce, env, out),
            Message::Hello(hello) => self.hello(from, hello, env, out),
            Message::HelloReply(reply) => self.hello_reply(from, reply, env, out),
            Message::Append(append) => self.append(from, append, env, out),
            Message::Ack(ack) => self.ack(from, ack, env, out),
        }
    }

    /// A state that is not newer than the known one changes nothing but an unanswered write.
    fn learn_state(&mut self, state: VersionedState, env: &Env, out: &mut Vec<Effect>) {
        let known = self.known.as_ref().map(|known| known.version);
        // Who gave its role up in the meantime looks for one again.
        let again = known == Some(state.version) && matches!(self.role, Role::Idle);
        if again {
            reached!("replica.same_state_again_while_idle");
        }
        let back = self.config.lacks(Mutation::StateGoesBack) && known != Some(state.version);
        if known.is_some_and(|known| state.version <= known) && !again && !back {
            return self.state_unchanged(state.version, env, out);
        }
        let epoch = state.state.epoch;
        let leader = state.state.leader;
        self.known = Some(state);
        if epoch < self.highest_epoch {
            reached!("replica.state_of_older_epoch");
            // A later epoch was announced by its leader before the registry showed it here; or
            // this copy was fenced, and whoever fenced it may be gone: then nobody but this copy
            // can tell the leader why it is no longer followed.
            if let (Role::Idle, Some(leader)) = (&self.role, leader) {
                self.tell_later_epoch(leader.broker, out);
            }
            return;
        }
        match leader {
            Some(leader) if self.is_me(&leader) && self.may_lead(epoch) => {
                self.lead(epoch, leader, env, out);
            }
            Some(leader) if self.is_me(&leader) => {
                self.idle(epoch, out);
                if !again {
                    self.pass_on(env, out);
                }
            }
            Some(leader) => self.follow(epoch, leader.broker, env, out),
            None => self.idle(epoch, out),
        }
    }

    /// Whether a state names this very process. Nobody resumes leadership after a restart ★:
    /// an earlier incarnation on the same disk is somebody else.
    fn is_me(&self, leader: &LeaderId) -> bool {
        leader.broker == self.member.broker
            && leader.disk == self.member.disk
            && (leader.incarnation == self.incarnation || self.config.lacks(Mutation::ResumeLeadership))
    }

    /// An epoch that was given up is over: what was cut off the log meanwhile may be on the
    /// followers, and other records would get the same offsets in the same epoch.
    ///
    /// Nor may a copy lead that was found damaged while its own election was on the way: it
    /// lacks what it had acknowledged.
    fn may_lead(&self, epoch: Epoch) -> bool {
        if self.log.damaged {
            reached!("replica.damaged_copy_does_not_lead");
            return false;
        }
        if epoch <= self.given_up {
            reached!("replica.given_up_epoch_not_resumed");
        }
        epoch > self.given_up || self.config.lacks(Mutation::ResumeEpoch)
    }

    /// Nobody leads (a resignation, an unclean choice, a new partition).
    fn idle(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if matches!(self.role, Role::Idle) && epoch <= self.highest_epoch {
            return;
        }
        reached!("replica.nobody_leads");
        self.leave_role("nobody leads at the moment", out);
        self.raise_epoch(epoch, out);
    }

    /// Notes an epoch and has it made durable.
    fn raise_epoch(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch > self.highest_epoch {
            self.highest_epoch = epoch;
            out.push(Effect::SaveEpoch(epoch));
        }
    }

    /// Gives up the role that there is; pending requests are refused with a retriable error.
    fn leave_role(&mut self, why: &str, out: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.role, Role::Idle);
        if let Role::Leader(leader) = old {
            self.given_up = leader.epoch;
            leader.refuse_all(why, out);
        }
        out.push(Effect::RoleChanged);
    }

    /// A higher epoch was seen on the way: whoever leads now, it is not this replica.
    fn fenced_by(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch <= self.highest_epoch {
            return;
        }
        reached!("replica.fenced_by_later_epoch");
        self.leave_role("another broker leads in a later epoch", out);
        self.raise_epoch(epoch, out);
        out.push(Effect::ReadRegistry);
    }

    fn halt(&mut self, why: String, out: &mut Vec<Effect>) {
        reached!("replica.halted");
        self.leave_role("this copy was halted", out);
        self.role = Role::Halted(why.clone());
        out.push(Effect::Halt(why));
    }

    /// The copy is another member from now on ★, as one that is found damaged on opening: it
    /// gives up its role, and is emptied before it follows anybody.
    fn found_damaged(&mut self, why: &str, out: &mut Vec<Effect>) {
        if self.log.damaged {
            reached!("replica.found_damaged_again");
            return;
        }
        reached!("replica.found_damaged");
        self.leave_role(&format!("this copy is damaged: {why}"), out);
        self.member.generation = self.member.generation.next();
        self.log.damaged = true;
        out.push(Effect::ReadRegistry);
    }

    fn refuse_while_halted(&mut self, input: Input, out: &mut Vec<Effect>) {
        let Role::Halted(why) = &self.role else { return };
        let request = match input {
            Input::Produce(produce) | Input::ProduceIn { produce, .. } => produce.request,
            Input::Mark(mark) => mark.request,
            _ => return,
        };
        reached!("replica.refuses_while_halted");
        let why = Refusal::new(crate::ErrorCode::PartitionHalted, why.clone());
        out.push(Effect::Reject { request, why });
    }

    fn durable(&mut self, term: LogTerm, end: Offset, env: &Env, out: &mut Vec<Effect>) {
        if term != self.log.term || end <= self.log.durable {
            reached!("replica.completion_of_older_term");
            return;
        }
        self.log.durable = end;
        match &self.role {
            Role::Follower(_) => {
                self.acknowledge_to_leader(out);
                self.follow_log_start(out);
            }
            Role::Leader(_) => self.own_disk_advanced(env, out),
            Role::Idle | Role::Halted(_) => {}
        }
    }

    /// The disk is full: nothing of the append was written. What is not durable is given up. A
    /// follower asks for it again a little later, so that a full disk keeps nobody busy; a
    /// leader gives up its role, and whoever has the records goes on.
    fn append_failed(&mut self, term: LogTerm, env: &Env, out: &mut Vec<Effect>) {
        if term != self.log.term || self.log.durable >= self.log.end {
            return;
        }
        reached!("replica.append_failed");
        let led = matches!(self.role, Role::Leader(_));
        if led {
            self.yields_until_ms = env.now_ms + FULL_LEADER_MS;
            self.leave_role("the disk of this broker is full", out);
        } else {
            self.close_flow_until(env.now_ms + FULL_FOLLOWER_MS);
        }
        let to = self.log.durable;
        self.high_watermark = self.high_watermark.min(to);
        let term = self.cut_log(to);
        out.push(Effect::Truncate { term, to });
        if led {
            self.pass_on(env, out);
            out.push(Effect::ReadRegistry);
        }
    }

    /// Names another replica as the next leader, as long as the registry names this one in an
    /// epoch that it gave up for want of room. A hint only: if the write fails, this copy's
    /// candidate leaves the queue all the same.
    fn pass_on(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Some(known) = &self.known else { return };
        let state = &known.state;
        let still_named = state.leader.is_some_and(|leader| self.is_me(&leader)) && state.epoch == self.given_up;
        if !still_named || !self.yields(env.now_ms) {
            return;
        }
        let may_lead = |broker: &BrokerId| {
            let stays = !state.assignment.removing.contains(broker) && !env.is_draining(*broker);
            *broker != self.member.broker && env.is_alive(*broker) && stays
        };
        let Some(toward) = state.isr.iter().map(|m| m.broker).find(may_lead) else { return };
        reached!("replica.full_leader_passes_on");
        let state = PartitionState { leader: None, hint: Some(toward), ..state.clone() };
        let (expected_version, attempt) = (known.version, self.next_attempt);
        self.next_attempt = Attempt(attempt.0 + 1);
        let (kind, joining, toward) = (WriteKind::Resign, Vec::new(), Some(toward));
        out.push(Effect::WriteState { attempt, kind, expected_version, state, joining, toward });
    }

    /// Tells a broker that leads in an epoch that is over here: it does not hear it from
    /// anybody else if the later epoch has no leader.
    fn tell_later_epoch(&self, to: BrokerId, out: &mut Vec<Effect>) {
        if to == self.member.broker {
            return;
        }
        reached!("replica.tells_leader_of_later_epoch");
        let reply = HelloReply { epoch: self.highest_epoch, flow: Flow(0), verdict: HelloVerdict::Fenced };
        out.push(Effect::Send { to, stream: Stream::Live, message: Message::HelloReply(reply) });
    }

    fn epoch_saved(&mut self, epoch: Epoch, env: &Env, out: &mut Vec<Effect>) {
        if epoch <= self.saved_epoch {
            return;
        }
        self.saved_epoch = epoch;
        match &self.role {
            Role::Follower(_) => self.greet(env, out),
            Role::Leader(leader) if epoch >= leader.epoch => self.begin_serving(env, out),
            Role::Leader(_) => {}
            Role::Idle | Role::Halted(_) => {}
        }
    }

    fn log_changed(&mut self, term: LogTerm, producers: ProducerTable, env: &Env, out: &mut Vec<Effect>) {
        if term != self.log.term {
            return;
        }
        self.log.changing = false;
        // What came before the change is on stable storage together with it.
        self.log.durable = self.log.end;
        self.log.producers = producers;
        self.settle_transactions();
        match &self.role {
            Role::Follower(_) => self.log_ready(env, out),
            Role::Leader(_) => self.own_disk_advanced(env, out),
            Role::Idle | Role::Halted(_) => {}
        }
    }

    /// Begins a change of the log: what is in flight belongs to an older term from now on.
    fn cut_log(&mut self, end: Offset) -> LogTerm {
        self.log.term = LogTerm(self.log.term.0 + 1);
        self.log.changing = true;
        self.log.end = end;
        self.log.durable = self.log.durable.min(end);
        self.log.lineage.truncate(end);
        self.log.term
    }

    fn peers_changed(&mut self, env: &Env, out: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            self.review(env, out);
        }
    }

    fn link_reset(&mut self, broker: BrokerId, env: &Env, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Follower(follower) if follower.leader == broker => self.restart_flow(env, out),
            Role::Leader(leader) => {
                leader.close_flow(broker);
                self.announce_to(broker, out);
            }
            _ => {}
        }
    }

    fn tick(&mut self, env: &Env, out: &mut Vec<Effect>) {
        match &self.role {
            Role::Follower(_) => self.follower_tick(env, out),
            Role::Leader(_) => self.leader_tick(env, out),
            Role::Idle | Role::Halted(_) => {}
        }
    }
}

/// What the runtime reads.
impl Replica {
    /// A copy that is opened again in one process must not use the numbers of its predecessor:
    /// an acknowledgement of then, or an append that is durable only now, could be taken for
    /// one of its own.
    pub fn number_from(&mut self, first: u64) {
        self.flow = Flow(self.flow.0.max(first));
        self.log.term = LogTerm(self.log.term.0.max(first));
    }

    /// Forgets producers that wrote nothing for so long. Copies may differ in whom they still
    /// know: of one that is not known the leader takes any sequence, and what it took is in the
    /// log for all of them.
    pub fn expire_producers(&mut self, now_ms: u64, max_age_ms: u64) {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        self.log.producers.expire(ms(now_ms), ms(max_age_ms));
    }

    /// `message.timestamp.type` of the topic was changed.
    pub fn set_log_append_time(&mut self, on: bool) {
        self.config.log_append_time = on;
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.member.generation
    }
}
