//! ZooKeeper as the replicas see it: versioned state, sessions, the queue of candidates.
//! Writes wait in `pending` until somebody lets them happen, and their answers may get lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::election::Candidate;
use crate::ids::{BrokerId, CandidateSeq, DiskId, Incarnation, Member};
use crate::partition::{PartitionState, VersionedState};
use crate::replica::{Attempt, WriteKind, WriteOutcome};

pub type SessionId = u64;

#[derive(Clone, Debug)]
pub struct Registration {
    pub session: SessionId,
    pub disk: DiskId,
    pub draining: bool,
}

/// Who asked for a write.
#[derive(Clone, Debug)]
pub enum Request {
    State { attempt: Attempt, kind: WriteKind, joining: Vec<Member>, toward: Option<BrokerId> },
    Elect { candidate: CandidateSeq },
}

#[derive(Clone, Debug)]
pub struct Write {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub session: Option<SessionId>,
    pub expected_version: i32,
    pub state: PartitionState,
    pub request: Request,
    /// None until it happened or failed.
    pub outcome: Option<WriteOutcome>,
    /// Nobody waits for the answer any more; it may still take effect.
    pub forgotten: bool,
}

#[derive(Clone, Debug)]
pub struct Registry {
    /// The state at each version.
    pub history: Vec<PartitionState>,
    pub candidates: Vec<(Candidate, SessionId)>,
    pub brokers: BTreeMap<BrokerId, Registration>,
    pub sessions: BTreeSet<SessionId>,
    pub pending: Vec<Write>,
    pub down: bool,
    next_session: SessionId,
    next_seq: i64,
}

impl Registry {
    pub fn new(state: PartitionState) -> Self {
        Self {
            history: vec![state],
            candidates: Vec::new(),
            brokers: BTreeMap::new(),
            sessions: BTreeSet::new(),
            pending: Vec::new(),
            down: false,
            next_session: 1,
            next_seq: 0,
        }
    }

    pub fn latest(&self) -> VersionedState {
        self.at(self.history.len() - 1)
    }

    pub fn at(&self, version: usize) -> VersionedState {
        VersionedState { state: self.history[version].clone(), version: version as i32 }
    }

    pub fn open_session(&mut self, broker: BrokerId, disk: DiskId) -> SessionId {
        let session = self.next_session;
        self.next_session += 1;
        self.sessions.insert(session);
        let registration = Registration { session, disk, draining: false };
        self.brokers.insert(broker, registration);
        session
    }

    /// Everything ephemeral of the session goes at once, and what it still had to write fails.
    pub fn expire(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.candidates.retain(|(_, owner)| *owner != session);
        self.brokers.retain(|_, broker| broker.session != session);
    }

    pub fn queue(&mut self, session: SessionId, member: Member, incarnation: Incarnation) {
        let candidate = Candidate { seq: CandidateSeq(self.next_seq), member, incarnation };
        self.next_seq += 1;
        self.candidates.push((candidate, session));
    }

    pub fn candidates(&self) -> Vec<Candidate> {
        self.candidates.iter().map(|(c, _)| *c).collect()
    }

    /// Lets a pending write happen, or fail. Returns whether the state changed.
    pub fn carry_out(&mut self, index: usize) -> bool {
        let write = self.pending[index].clone();
        let outcome = self.judge(&write);
        if matches!(outcome, WriteOutcome::Done { .. }) {
            if let Request::Elect { .. } = write.request {
                let old = self.latest().state.leader.map(|l| l.candidate);
                self.candidates.retain(|(c, _)| Some(c.seq) != old || c.member.broker == write.broker);
            }
            self.history.push(write.state);
        }
        self.pending[index].outcome = Some(outcome);
        matches!(outcome, WriteOutcome::Done { .. })
    }

    fn judge(&self, write: &Write) -> WriteOutcome {
        if write.session.is_none_or(|s| !self.sessions.contains(&s)) {
            return WriteOutcome::Unknown;
        }
        let version = self.latest().version;
        if write.expected_version != version && write.expected_version != -1 {
            return WriteOutcome::Conflict;
        }
        let allowed = match &write.request {
            Request::Elect { candidate } => self.candidates.iter().any(|(c, _)| c.seq == *candidate),
            Request::State { joining, toward, .. } => {
                let stands = |b: &BrokerId| self.candidates.iter().any(|(c, _)| c.member.broker == *b);
                joining.iter().all(|m| self.admits(m)) && toward.iter().all(stands)
            }
        };
        if !allowed {
            return WriteOutcome::Refused;
        }
        WriteOutcome::Done { version: version + 1 }
    }

    fn admits(&self, member: &Member) -> bool {
        self.brokers.get(&member.broker).is_some_and(|b| b.disk == member.disk && !b.draining)
    }
}
