//! Candidates and elections of the partitions that this broker holds.

use std::sync::Arc;

use baton_core::election::{Candidate, Decision, Trigger, View};
use baton_core::partition::{LeaderId, PartitionState, VersionedState};
use baton_core::replica::{Env, RoleView};
use baton_core::{CandidateSeq, TopicPartition};
use baton_registry::recipes::candidates::QueuedCandidate;
use baton_registry::recipes::partition_state::{self, Outcome, StateWrite};
use baton_registry::recipes::{RecipeError, candidates};
use baton_registry::{RegistryError, znode};

use crate::cluster::reading::Item;
use crate::cluster::task::{ClusterTask, Done};
use crate::mutation::Mutation;

impl ClusterTask {
    pub(super) fn decide_all(&mut self) {
        self.to_decide.extend(self.copies.open_ids());
    }

    pub(super) fn queue_read(&mut self, id: TopicPartition, result: Result<Vec<QueuedCandidate>, RecipeError>) {
        self.reading.done(Item::Queue(id));
        match result {
            Ok(found) => {
                let queue = found.iter().map(|q| Candidate {
                    seq: q.sequence,
                    member: q.candidate.member,
                    incarnation: q.candidate.incarnation,
                });
                self.learn_queue(id, queue.collect());
            }
            // The topic's node, or its tombstone, says what became of it; until then nobody stands
            // for what is not there. Who asked again would never have read everything.
            Err(RecipeError::Registry(RegistryError::NoNode(_))) => drop(self.queues.remove(&id)),
            Err(error) => {
                tracing::debug!(partition = %id, %error, "cannot read the candidates");
                self.retry_later(Item::Queue(id));
            }
        }
    }

    /// A reading that is to be repeated may be older than a candidate that was made meanwhile:
    /// without it this broker would stand twice.
    fn learn_queue(&mut self, id: TopicPartition, mut queue: Vec<Candidate>) {
        let before = self.queues.remove(&id).unwrap_or_default();
        if self.reading.is_wanted(Item::Queue(id)) {
            let mine = |c: &Candidate| c.incarnation == self.parts.incarnation;
            let newest = queue.last().map(|c| c.seq);
            queue.extend(before.into_iter().filter(|c| mine(c) && newest.is_none_or(|newest| c.seq > newest)));
        }
        self.queues.insert(id, queue);
        self.to_decide.insert(id);
    }

    /// A leader whose candidate is not in the queue as it was last read: the queue was read
    /// before that candidate stood in it, or after it left. Nothing is decided until it is
    /// read again.
    pub(super) fn refresh_queue(&mut self, id: TopicPartition, state: &VersionedState) {
        let Some(leader) = state.state.leader else { return };
        let stands = |queue: &Vec<Candidate>| queue.iter().any(|c| c.seq == leader.candidate);
        if !self.queues.get(&id).is_some_and(stands) {
            self.queues.remove(&id);
            self.reading.want(Item::Queue(id));
        }
    }

    /// Decides for every partition of which something changed, and writes all elections together.
    pub(super) fn start_elections(&mut self) {
        let mut env = Env::clone(&self.parts.env.borrow());
        env.now_ms = self.parts.monotonic.now_ms();
        let mut elections = Vec::new();
        for id in std::mem::take(&mut self.to_decide) {
            if self.busy.contains(&id) {
                continue;
            }
            match self.decide(id, &env) {
                Some(Decision::Queue) => self.start_queueing(id),
                Some(Decision::Leave) => self.start_leaving(id),
                Some(Decision::WaitUntil(at)) => {
                    self.due.insert((at, id));
                }
                Some(Decision::Elect { candidate, trigger }) => {
                    elections.extend(self.election(id, candidate, trigger));
                }
                Some(Decision::Nothing) | None => {}
            }
        }
        if elections.is_empty() {
            return;
        }
        let registry = Arc::clone(&self.parts.registry);
        self.running.push(Box::pin(async move {
            let writes: Vec<StateWrite> = elections.iter().map(|(write, _)| StateWrite::clone(write)).collect();
            let outcomes = partition_state::write_many(&*registry, &writes).await;
            Done::Elected { writes: elections, outcomes }
        }));
    }

    fn decide(&mut self, id: TopicPartition, env: &Env) -> Option<Decision> {
        let known = self.parts.view.state(id)?;
        let handle = self.parts.partitions.get(id)?;
        let status = handle.status.now();
        // Without having read the queue nobody knows whether a candidate of ours stands in it.
        let queue = self.queues.get(&id)?;
        let view = View {
            state: &known.state,
            candidates: queue,
            me: status.member,
            incarnation: self.parts.incarnation,
            // A shard that has not taken in this state yet may be about to lead.
            leading: status.leads() || status.version < known.version,
            eligible: status.role != RoleView::Halted && !status.damaged && !status.yields,
            draining: *self.parts.draining.borrow(),
            env,
        };
        Some(self.electors.entry(id).or_default().decide(&view, &self.parts.election))
    }

    fn start_queueing(&mut self, id: TopicPartition) {
        let Some(handle) = self.parts.partitions.get(id) else { return };
        self.next_nonce = self.next_nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mine = znode::Candidate {
            member: handle.status.now().member,
            incarnation: self.parts.incarnation,
            nonce: self.next_nonce,
        };
        let key = znode::candidate::prefix(id);
        let session = match self.parts.sessions.reserve(&key, key.len() + 10) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(partition = %id, %error, "this broker cannot stand for election: it holds too many partitions");
                return;
            }
        };
        self.busy.insert(id);
        let registry = Arc::clone(&self.parts.registry);
        self.running.push(Box::pin(async move {
            let queued = candidates::queue(&*session, id, &mine).await;
            if queued.is_ok() && session.session_id() != registry.session_id() {
                // What one session wrote, another may read late. If it stays unknown here, the
                // queue is read again in any case.
                let _ = registry.sync(&znode::partition::path(id)).await;
            }
            let candidate = |seq| Candidate { seq, member: mine.member, incarnation: mine.incarnation };
            Done::Queued(id, queued.map(candidate))
        }));
    }

    pub(super) fn queued(&mut self, id: TopicPartition, result: Result<Candidate, RecipeError>) {
        self.busy.remove(&id);
        match result {
            Ok(mine) => {
                if let Some(queue) = self.queues.get_mut(&id)
                    && queue.iter().all(|c| c.seq != mine.seq)
                {
                    queue.push(mine);
                }
                self.reading.want(Item::Queue(id));
            }
            Err(error) => {
                tracing::debug!(partition = %id, %error, "cannot stand for election yet");
                self.retry_later(Item::Queue(id));
            }
        }
    }

    /// Deletes every candidate node of this process for the partition.
    fn start_leaving(&mut self, id: TopicPartition) {
        let mine: Vec<CandidateSeq> = self
            .queues
            .get(&id)
            .into_iter()
            .flatten()
            .filter(|c| c.incarnation == self.parts.incarnation)
            .filter(|_| !self.parts.mutations.lacks(Mutation::KeepCandidate))
            .map(|c| c.seq)
            .collect();
        self.busy.insert(id);
        self.parts.sessions.release(&znode::candidate::prefix(id));
        let registry = Arc::clone(&self.parts.registry);
        self.running.push(Box::pin(async move {
            let mut gone = Vec::with_capacity(mine.len());
            for seq in mine {
                if let Err(error) = candidates::delete(&*registry, id, seq).await {
                    tracing::debug!(partition = %id, %error, "cannot leave the queue yet");
                    return Done::Left { id, gone, all: false };
                }
                gone.push(seq);
            }
            Done::Left { id, gone, all: true }
        }));
    }

    /// What is deleted is forgotten at once: a reading that is to be repeated would keep it, and
    /// this broker would leave again, and so on.
    pub(super) fn left(&mut self, id: TopicPartition, gone: &[CandidateSeq], all: bool) {
        self.busy.remove(&id);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.retain(|candidate| !gone.contains(&candidate.seq));
        }
        if all {
            self.reading.want(Item::Queue(id));
        } else {
            self.retry_later(Item::Queue(id));
        }
    }

    fn election(
        &mut self,
        id: TopicPartition,
        candidate: CandidateSeq,
        trigger: Trigger,
    ) -> Option<(StateWrite, PartitionState)> {
        let known = self.parts.view.state(id)?;
        let topic = self.parts.view.topic_by_id(id.topic)?;
        let me =
            LeaderId { broker: self.parts.me, disk: self.parts.disk, incarnation: self.parts.incarnation, candidate };
        let min_insync = usize::try_from(topic.config.min_insync_replicas).unwrap_or(1);
        let state = known.state.elected(me, min_insync);
        tracing::info!(partition = %id, ?trigger, epoch = state.epoch.0, "electing this broker");
        self.parts.metrics.elected(metric(trigger));
        self.busy.insert(id);
        Some((StateWrite::elect(id, known.version, state, candidate), known.state))
    }

    pub(super) async fn elected(&mut self, writes: Vec<(StateWrite, PartitionState)>, outcomes: Vec<Outcome>) {
        for ((write, before), outcome) in writes.into_iter().zip(outcomes) {
            let id = write.partition;
            self.busy.remove(&id);
            let outcome = match outcome {
                Outcome::Unknown if self.parts.mutations.lacks(Mutation::BelieveUnknownElection) => {
                    Outcome::Done { version: write.version + 1 }
                }
                known => known,
            };
            match outcome {
                Outcome::Done { version } => {
                    self.clear_old_candidate(id, &before);
                    self.learn_state(id, VersionedState { state: write.state, version }, false).await;
                }
                Outcome::Failed(error) => {
                    tracing::warn!(partition = %id, %error, "the election could not be written");
                    self.read_again(id);
                }
                other => {
                    tracing::debug!(partition = %id, ?other, "the election did not take place");
                    self.read_again(id);
                }
            }
            self.to_decide.insert(id);
        }
    }

    fn read_again(&mut self, id: TopicPartition) {
        self.reading.want(Item::SyncedState(id));
        self.reading.want(Item::Queue(id));
    }

    /// The old leader's node would stand first in the queue until its session ends. Best effort.
    fn clear_old_candidate(&mut self, id: TopicPartition, before: &PartitionState) {
        let Some(old) = before.leader.filter(|old| old.incarnation != self.parts.incarnation) else { return };
        let stands = self
            .queues
            .get(&id)
            .into_iter()
            .flatten()
            .any(|c| c.seq == old.candidate && c.incarnation == old.incarnation);
        if !stands {
            return;
        }
        let registry = Arc::clone(&self.parts.registry);
        self.running.push(Box::pin(async move {
            let _ = candidates::delete(&*registry, id, old.candidate).await;
            Done::BestEffort
        }));
    }
}

fn metric(trigger: Trigger) -> crate::metrics::Trigger {
    match trigger {
        Trigger::NoLeader => crate::metrics::Trigger::NoLeader,
        Trigger::CandidateGone => crate::metrics::Trigger::CandidateGone,
        Trigger::Detector => crate::metrics::Trigger::Detector,
        Trigger::OwnSession => crate::metrics::Trigger::OwnSession,
    }
}
