//! ZooKeeper as the replicas see it: a versioned state, sessions, the queue of candidates, and
//! writes that wait to happen or to be answered.

use std::hash::{Hash, Hasher};

use baton_core::election::Candidate;
use baton_core::ids::{BrokerId, CandidateSeq, DiskId, Generation, Incarnation, Member};
use baton_core::partition::{PartitionState, VersionedState};
use baton_core::replica::{Attempt, WriteKind, WriteOutcome};

use crate::names::{BROKERS_MAX, Places, index};

/// A broker's node in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// Counts the sessions of this broker.
    pub session: u8,
    /// The disk that it registered, by its number.
    pub disk: u8,
}

/// A change of the partition's state that a leader asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    pub from: BrokerId,
    pub incarnation: Incarnation,
    pub session: u8,
    pub attempt: Attempt,
    pub kind: WriteKind,
    pub expected_version: i32,
    pub state: PartitionState,
    pub joining: Vec<Member>,
    pub toward: Option<BrokerId>,
    /// What its writer took for the minimum of in-sync replicas.
    pub min_insync: usize,
    /// None until it happened or failed.
    pub outcome: Option<WriteOutcome>,
    /// Nobody waits for the answer any more.
    pub forgotten: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registry {
    pub state: PartitionState,
    pub version: i32,
    /// Earlier states with their versions, as a lagging server may still show them.
    pub earlier: Vec<(i32, PartitionState)>,
    pub registered: [Option<Registration>; BROKERS_MAX],
    pub candidates: Vec<Candidate>,
    pub writes: Vec<Write>,
}

impl Registry {
    #[must_use]
    pub fn latest(&self) -> VersionedState {
        VersionedState { state: self.state.clone(), version: self.version }
    }

    /// The state of a version, if it is remembered.
    #[must_use]
    pub fn at(&self, version: i32) -> Option<VersionedState> {
        if version == self.version {
            return Some(self.latest());
        }
        let (version, state) = self.earlier.iter().find(|(v, _)| *v == version)?;
        Some(VersionedState { state: state.clone(), version: *version })
    }

    /// Whether a late read may show an earlier state.
    #[must_use]
    pub fn remembers(&self) -> bool {
        !self.earlier.is_empty()
    }

    pub fn replace(&mut self, state: PartitionState, remember: bool) {
        let old = std::mem::replace(&mut self.state, state);
        if remember {
            self.earlier.push((self.version, old));
        }
        self.version += 1;
    }

    /// Everything ephemeral of the session goes at once, and the answers to what it wrote
    /// get lost; what it had not written yet never happens.
    pub fn end_session(&mut self, broker: BrokerId) {
        self.registered[index(broker)] = None;
        self.candidates.retain(|c| c.member.broker != broker);
        self.writes.retain(|w| w.from != broker || !w.forgotten);
        for write in self.writes.iter_mut().filter(|w| w.from == broker) {
            write.outcome = Some(WriteOutcome::Unknown);
        }
    }

    /// What would become of this write now.
    #[must_use]
    pub fn judge(&self, write: &Write, unchecked: bool) -> WriteOutcome {
        let session = self.registered[index(write.from)].map(|r| r.session);
        if session != Some(write.session) {
            return WriteOutcome::Unknown;
        }
        if write.expected_version != self.version && write.expected_version != -1 {
            return WriteOutcome::Conflict;
        }
        let stands = |b: &BrokerId| self.candidates.iter().any(|c| c.member.broker == *b);
        let admitted = unchecked || write.joining.iter().all(|m| self.admits(m));
        if !admitted || !write.toward.iter().all(stands) {
            return WriteOutcome::Refused;
        }
        WriteOutcome::Done { version: self.version + 1 }
    }

    fn admits(&self, member: &Member) -> bool {
        let place = index(member.broker);
        self.registered[place].is_some_and(|r| crate::names::disk(place, r.disk) == member.disk)
    }

    /// Whether this write, which is not carried out yet, will be turned down for its version:
    /// versions only rise.
    #[must_use]
    pub fn is_doomed(&self, write: &Write) -> bool {
        write.outcome.is_none() && write.expected_version != self.version && write.expected_version != -1
    }

    /// Without the writes under way. Of versions it matters only whether they are the latest,
    /// unless earlier states may still be read.
    pub fn fingerprint(&self, names: &impl Places, into: &mut impl Hasher) {
        names.hash_state(&self.state, into);
        if names.exact() || self.remembers() {
            self.version.hash(into);
        }
        for (version, state) in &self.earlier {
            version.hash(into);
            names.hash_state(state, into);
        }
        let mut registered = [None; BROKERS_MAX];
        for (at, registration) in self.registered.iter().enumerate() {
            registered[names.place(at)] = registration.map(|r| {
                (names.candidate(crate::names::candidate(at, r.session)), names.disk(crate::names::disk(at, r.disk)))
            });
        }
        registered.hash(into);
        let renamed = |c: &Candidate| Candidate {
            seq: names.candidate(c.seq),
            member: names.member(&c.member),
            incarnation: names.incarnation(c.incarnation),
        };
        let mut candidates: [Candidate; 8] = [NOBODY; 8];
        let count = self.candidates.len().min(candidates.len());
        for (to, from) in candidates.iter_mut().zip(&self.candidates) {
            *to = renamed(from);
        }
        candidates[..count].sort_unstable();
        self.candidates.len().hash(into);
        candidates[..count].hash(into);
    }
}

const NOBODY: Candidate = Candidate {
    seq: CandidateSeq(0),
    member: Member { broker: BrokerId(0), disk: DiskId(0), generation: Generation(0) },
    incarnation: Incarnation(0),
};

impl Write {
    /// Instead of its attempt: whether its leader waits for it. Of one that will be turned down
    /// only that matters.
    pub fn fingerprint(&self, registry: &Registry, awaited: bool, names: &impl Places, into: &mut impl Hasher) {
        names.broker(self.from).hash(into);
        names.incarnation(self.incarnation).hash(into);
        (self.kind, self.forgotten, awaited).hash(into);
        let doomed = registry.is_doomed(self);
        doomed.hash(into);
        match self.outcome {
            Some(WriteOutcome::Done { version }) if !names.exact() => (1u8, version == registry.version).hash(into),
            Some(outcome) => (2u8, outcome).hash(into),
            None => 3u8.hash(into),
        }
        if names.exact() {
            (self.session, self.expected_version).hash(into);
        }
        if self.outcome.is_none() && (!doomed || names.exact()) {
            names.candidate(crate::names::candidate(crate::names::index(self.from), self.session)).hash(into);
            names.hash_state(&self.state, into);
            self.min_insync.hash(into);
            names.hash_members(&self.joining, into);
            self.toward.map(|b| names.broker(b)).hash(into);
        }
    }
}
