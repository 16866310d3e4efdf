//! The leader's half: what it knows, and how its term begins. What it does is in `produce`,
//! `commit`, `greeting` and `flow`.

use std::collections::{BTreeMap, VecDeque};

use crate::ErrorCode;
use crate::branches::reached;
use crate::ids::{BrokerId, Epoch, Member, Offset};
use crate::partition::LeaderId;
use crate::replica::isr::PendingWrite;
use crate::replica::progress::Progress;
use crate::replica::{
    Announce, Effect, Env, Message, Mutation, Refusal, Replica, ReplicaConfig, RequestId, Role, Stream,
};
use crate::transaction::partition::Verification;

/// Producers whose transactions are being asked about at once, in one partition.
pub(super) const VERIFIED_MAX: usize = 4_096;

/// A produce request that waits for its records to be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) append_time_ms: Option<i64>,
    pub(super) duplicate: bool,
}

impl Waiting {
    pub(super) fn acknowledge(self) -> Effect {
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
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) waiting_local: VecDeque<Waiting>,
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
}
