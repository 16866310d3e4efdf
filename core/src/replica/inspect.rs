//! What a model checker needs: a replica without its clock, a fingerprint that is the same
//! for two replicas that behave alike, and the members that a leader counts.

use std::hash::{Hash, Hasher};

use crate::ids::{BrokerId, CandidateSeq, DiskId, Epoch, Incarnation, Member, Offset};
use crate::partition::{Assignment, LeaderId, PartitionState};
use crate::replica::follower::Follower;
use crate::replica::isr::PendingWrite;
use crate::replica::leader::Leader;
use crate::replica::{Flow, Progress, Replica, Role};

/// How identities are renamed before they enter a fingerprint: two states of a cluster that
/// differ only in which broker is which get the same one.
pub trait Names {
    fn broker(&self, broker: BrokerId) -> BrokerId;
    fn disk(&self, disk: DiskId) -> DiskId;
    fn incarnation(&self, incarnation: Incarnation) -> Incarnation;
    fn candidate(&self, candidate: CandidateSeq) -> CandidateSeq;

    /// Whether members and brokers are hashed in the order of their new names. Renaming is
    /// sound only where no decision depends on their order.
    fn sorted(&self) -> bool;

    /// Whether what no later step reads is hashed as well: for comparing a run that leaves it
    /// out with one that does not.
    fn exact(&self) -> bool;

    /// Whether leaders tick: only then it matters which high watermark a follower was told.
    fn ticks(&self) -> bool;

    fn member(&self, member: &Member) -> Member {
        Member { broker: self.broker(member.broker), disk: self.disk(member.disk), generation: member.generation }
    }

    fn leader(&self, leader: &LeaderId) -> LeaderId {
        LeaderId {
            broker: self.broker(leader.broker),
            disk: self.disk(leader.disk),
            incarnation: self.incarnation(leader.incarnation),
            candidate: self.candidate(leader.candidate),
        }
    }

    fn hash_members(&self, members: &[Member], into: &mut impl Hasher) {
        hash_in_order(members, |m| self.member(m), self.sorted(), into);
    }

    fn hash_brokers(&self, brokers: &[BrokerId], into: &mut impl Hasher) {
        hash_in_order(brokers, |b| self.broker(*b), self.sorted(), into);
    }

    fn hash_state(&self, state: &PartitionState, into: &mut impl Hasher) {
        let PartitionState { leader, hint, epoch, isr, assignment, last_unclean_epoch } = state;
        leader.map(|l| self.leader(&l)).hash(into);
        hint.map(|b| self.broker(b)).hash(into);
        epoch.hash(into);
        self.hash_members(isr, into);
        let Assignment { replicas, adding, removing } = assignment;
        for brokers in [replicas, adding, removing] {
            self.hash_brokers(brokers, into);
        }
        last_unclean_epoch.hash(into);
    }
}

/// Renames and hashes; without an allocation for as many as a small cluster has.
fn hash_in_order<T>(items: &[T], rename: impl Fn(&T) -> T, sorted: bool, into: &mut impl Hasher)
where
    T: Copy + Default + Ord + Hash,
{
    items.len().hash(into);
    let mut few = [T::default(); 8];
    let Some(renamed) = few.get_mut(..items.len()) else {
        let mut many: Vec<T> = items.iter().map(rename).collect();
        if sorted {
            many.sort_unstable();
        }
        return many.hash(into);
    };
    for (to, from) in renamed.iter_mut().zip(items) {
        *to = rename(from);
    }
    if sorted {
        renamed.sort_unstable();
    }
    renamed.iter().for_each(|item| item.hash(into));
}

impl Replica {
    /// Moves every moment that the replica remembers to the beginning of time, so that states
    /// that differ only in when something happened are the same.
    pub fn forget_time(&mut self) {
        self.yields_until_ms = 0;
        match &mut self.role {
            Role::Idle | Role::Halted(_) => {}
            Role::Follower(follower) => follower.forget_time(),
            Role::Leader(leader) => leader.forget_time(),
        }
    }

    /// Everything that decides what this replica will do, but for what it read of the registry
    /// (see [`Replica::known`]), its times (see [`Replica::forget_time`]), its configuration, the
    /// numbers of flows (see [`Replica::flows`]), of attempts and of log terms, of which only the
    /// comparison with those under way matters, and the producers' state, which is a function of
    /// the log.
    pub fn fingerprint(&self, names: &impl Names, into: &mut impl Hasher) {
        names.member(&self.member).hash(into);
        names.incarnation(self.incarnation).hash(into);
        self.min_insync.hash(into);
        let log = &self.log;
        (log.start, log.end, log.durable, log.changing, log.damaged).hash(into);
        (log.floor, log.compacted, log.trimming.map(|(_, start)| start)).hash(into);
        log.lineage.hash(into);
        (self.high_watermark, self.highest_epoch, self.saved_epoch).hash(into);
        // An earlier epoch than the highest one cannot be led in anyway.
        let given_up =
            if names.exact() { self.given_up } else { Epoch(u32::from(self.given_up == self.highest_epoch)) };
        given_up.hash(into);
        match &self.role {
            Role::Idle => 0u8.hash(into),
            Role::Halted(_) => 1u8.hash(into),
            Role::Follower(follower) => follower.fingerprint(names, into),
            Role::Leader(leader) => {
                let known = self.known.as_ref().map(|known| known.version);
                leader.fingerprint(names, known, into);
            }
        }
    }

    /// The numbers of this replica's own flow and, if it leads, of those that it serves.
    pub fn flows(&self) -> (Flow, impl Iterator<Item = (BrokerId, Flow)>) {
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        let served = leader.into_iter().flat_map(|l| l.followers.iter().map(|(broker, p)| (*broker, p.flow)));
        (self.flow, served)
    }

    /// The write of the state whose answer this leader waits for.
    #[must_use]
    pub fn awaited_attempt(&self) -> Option<crate::replica::Attempt> {
        match &self.role {
            Role::Leader(leader) => leader.pending.as_ref().filter(|p| p.is_in_flight()).map(PendingWrite::attempt),
            _ => None,
        }
    }

    /// Who has to have a record before this leader calls it committed; none if it does not lead.
    #[must_use]
    pub fn counted_members(&self) -> Option<Vec<Member>> {
        match &self.role {
            Role::Leader(leader) => Some(leader.must_have(&self.config).copied().collect()),
            _ => None,
        }
    }

    /// Members of the in-sync replicas that count towards the minimum, as this leader knows.
    #[must_use]
    pub fn confirmed_members(&self) -> Option<usize> {
        match &self.role {
            Role::Leader(leader) => Some(leader.confirmed(&self.config)),
            _ => None,
        }
    }

    /// Where the epoch of this leader began in its log.
    #[must_use]
    pub fn epoch_start(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) => Some(leader.epoch_start),
            _ => None,
        }
    }

    /// The epoch that this process gave up last.
    #[must_use]
    pub fn given_up(&self) -> Epoch {
        self.given_up
    }

    /// A follower that waits for its Hello to be answered, or that will say a new one.
    #[must_use]
    pub fn would_greet(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.would_greet())
    }
}

impl Leader {
    /// Its identity is left out: of what it announces only the broker and the epoch are read.
    fn fingerprint(&self, names: &impl Names, known: Option<i32>, into: &mut impl Hasher) {
        2u8.hash(into);
        (self.epoch, self.epoch_start, self.joins_from).hash(into);
        names.hash_members(&self.isr, into);
        match &self.pending {
            None => 0u8.hash(into),
            Some(pending) => pending.fingerprint(names, known, into),
        }
        let mut followers: Vec<_> = self.followers.iter().map(|(b, p)| (names.broker(*b), p)).collect();
        if names.sorted() {
            followers.sort_unstable_by_key(|(broker, _)| *broker);
        }
        followers.len().hash(into);
        for (broker, progress) in followers {
            broker.hash(into);
            progress.fingerprint(names, into);
        }
        self.hash_waiting(into);
        self.resigning.map(|r| (names.broker(r.toward), r.wait)).hash(into);
    }
}

impl PendingWrite {
    /// Of versions it matters only whether they are equal.
    fn fingerprint(&self, names: &impl Names, known: Option<i32>, into: &mut impl Hasher) {
        1u8.hash(into);
        let (kind, expected, follows, in_flight) = self.facts();
        (kind, Some(expected) == known, follows, in_flight).hash(into);
        names.hash_state(self.newest(), into);
        for target in self.all_targets() {
            names.hash_members(target, into);
        }
    }
}

impl Follower {
    fn fingerprint(&self, names: &impl Names, into: &mut impl Hasher) {
        3u8.hash(into);
        (names.broker(self.leader), self.epoch, self.leader_start).hash(into);
        self.hash_phase(into);
    }
}

impl Progress {
    /// Without its flow's number and without what only its lag depends on.
    fn fingerprint(&self, names: &impl Names, into: &mut impl Hasher) {
        names.member(&self.member).hash(into);
        names.incarnation(self.incarnation).hash(into);
        (self.mode, self.acked, self.next).hash(into);
        (self.sent_log_start, self.log_start).hash(into);
        self.unacked.hash(into);
        if names.ticks() || names.exact() {
            self.sent_high_watermark.hash(into);
        }
    }
}
