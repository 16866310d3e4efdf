//! State writes for the shards: many in one transaction, each with its own outcome.

use std::sync::Arc;

use baton_core::partition::{PartitionState, VersionedState};
use baton_core::replica::{Attempt, Input, WriteKind, WriteOutcome};
use baton_core::{BrokerId, Member, TopicPartition};
use baton_registry::recipes::membership::LiveBrokers;
use baton_registry::recipes::partition_state::{self, Outcome, StateWrite};

use crate::cluster::task::{ClusterTask, Done};
use crate::mutation::Mutation;
use crate::shard::ShardInput;

/// A write that a shard asked for.
#[derive(Clone, Debug)]
pub(super) struct WriteOrder {
    pub(super) id: TopicPartition,
    pub(super) attempt: Attempt,
    pub(super) kind: WriteKind,
    pub(super) expected_version: i32,
    pub(super) state: PartitionState,
    pub(super) joining: Vec<Member>,
    pub(super) toward: Option<BrokerId>,
}

impl ClusterTask {
    pub(super) fn start_writes(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let brokers = self.parts.view.brokers();
        let mut orders = Vec::new();
        let mut writes = Vec::new();
        let mut refused = Vec::new();
        for order in std::mem::take(&mut self.orders) {
            match self.guarded(&order, &brokers) {
                Some(write) => {
                    writes.push(write);
                    orders.push(order);
                }
                None => refused.push(order),
            }
        }
        if !refused.is_empty() {
            // BrokerChanged: a guard cannot be named because what it would check is not there.
            let outcomes = vec![Outcome::BrokerChanged; refused.len()];
            self.running.push(Box::pin(async move { Done::Written { orders: refused, outcomes } }));
        }
        if writes.is_empty() {
            return;
        }
        let registry = Arc::clone(&self.parts.registry);
        self.running.push(Box::pin(async move {
            let outcomes = partition_state::write_many(&*registry, &writes).await;
            Done::Written { orders, outcomes }
        }));
    }

    /// None if a joining broker is not registered under that disk, or draining (KAFKA-14140),
    /// or the successor has no candidate.
    fn guarded(&self, order: &WriteOrder, brokers: &LiveBrokers) -> Option<StateWrite> {
        let WriteOrder { id, expected_version, state, .. } = order;
        if let Some(toward) = order.toward {
            let queue = self.queues.get(id)?;
            let successor = queue.iter().find(|c| c.member.broker == toward && state.in_isr(&c.member))?;
            return Some(StateWrite::resign(*id, *expected_version, state.clone(), successor.seq));
        }
        let mut added = Vec::with_capacity(order.joining.len());
        for member in &order.joining {
            let live = brokers.brokers.get(&member.broker)?;
            if live.registration.draining || live.registration.disk != member.disk {
                return None;
            }
            added.push((member.broker, live.version));
        }
        Some(StateWrite::change_isr(*id, *expected_version, state.clone(), &added))
    }

    pub(super) async fn written(&mut self, orders: Vec<WriteOrder>, outcomes: Vec<Outcome>) {
        for (order, outcome) in orders.into_iter().zip(outcomes) {
            let told = match outcome {
                Outcome::Done { version } => WriteOutcome::Done { version },
                Outcome::Conflict | Outcome::Missing => WriteOutcome::Conflict,
                Outcome::CandidateGone | Outcome::BrokerChanged | Outcome::Fenced => WriteOutcome::Refused,
                Outcome::Unknown if self.parts.mutations.lacks(Mutation::ForgetUnknownWrite) => WriteOutcome::Refused,
                Outcome::Unknown => WriteOutcome::Unknown,
                Outcome::Failed(error) => {
                    tracing::warn!(partition = %order.id, %error, "the registry refuses a write");
                    WriteOutcome::Refused
                }
            };
            let id = order.id;
            let input = Input::Written { attempt: order.attempt, outcome: told };
            self.parts.shards.tell(id, ShardInput::Replica { id, input }).await;
            if let WriteOutcome::Done { version } = told {
                self.note_isr_change(&order);
                // The replica may have given its role up meanwhile, and then does not care what
                // became of its write; but what is in the view is no news to it later.
                self.learn_state(id, VersionedState { state: order.state, version }, false).await;
            }
            self.to_decide.insert(id);
        }
    }

    fn note_isr_change(&self, order: &WriteOrder) {
        if order.kind == WriteKind::Resign {
            return self.parts.metrics.resigned();
        }
        let before = self.parts.view.state(order.id).map_or(0, |known| known.state.isr.len());
        if order.state.isr.len() < before {
            self.parts.metrics.isr_shrunk();
        } else if order.state.isr.len() > before {
            self.parts.metrics.isr_expanded();
        }
    }
}
