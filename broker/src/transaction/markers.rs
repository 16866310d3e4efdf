//! Ends a transaction in all of its partitions, whoever leads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::transaction::message::{Input, MarkerOutcome, MarkerRound};
use baton_core::transaction::partition::EndMarker;
use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use baton_registry::Registry;
use baton_registry::recipes::topics;
use baton_registry::znode::topic;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::cluster::ClusterView;
use crate::transaction::{Marking, PeerCalls};

/// One marker in one partition.
pub(super) type Place = (MarkerRound, TopicPartition);

/// How long one attempt may take. Nothing of the same round is sent to the partition meanwhile:
/// two markers of an old client's transaction would look alike.
const WITHIN: Duration = Duration::from_secs(5);

/// Partitions in one call of another broker.
const PARTITIONS_PER_CALL: usize = 1_000;

/// The ways to the leaders.
#[derive(Clone)]
pub(super) struct Markers {
    me: BrokerId,
    view: ClusterView,
    registry: Arc<dyn Registry>,
    marking: Marking,
    peers: Arc<PeerCalls>,
}

impl Markers {
    pub(super) fn new(
        me: BrokerId,
        view: ClusterView,
        registry: Arc<dyn Registry>,
        marking: Marking,
        peers: Arc<PeerCalls>,
    ) -> Self {
        Self { me, view, registry, marking, peers }
    }

    /// What is to be awaited: each attempt says what became of its partitions.
    pub(super) fn write(
        &self,
        round: MarkerRound,
        marker: EndMarker,
        raised: bool,
        partitions: BTreeSet<TopicPartition>,
    ) -> Vec<BoxFuture<'static, Vec<Input>>> {
        let mut by_leader: BTreeMap<Option<BrokerId>, Vec<TopicPartition>> = BTreeMap::new();
        for at in partitions {
            by_leader.entry(self.view.leader(at).0).or_default().push(at);
        }
        let mut attempts: Vec<BoxFuture<'static, Vec<Input>>> = Vec::new();
        for (leader, places) in by_leader {
            for some in places.chunks(PARTITIONS_PER_CALL) {
                let (markers, some) = (self.clone(), some.to_vec());
                attempts.push(Box::pin(async move {
                    let outcomes = markers.attempt(leader, marker, raised, &some).await;
                    let told = some.into_iter().zip(outcomes);
                    told.map(|(at, outcome)| Input::Marked { round, at, outcome }).collect()
                }));
            }
        }
        attempts
    }

    async fn attempt(
        &self,
        leader: Option<BrokerId>,
        marker: EndMarker,
        raised: bool,
        partitions: &[TopicPartition],
    ) -> Vec<MarkerOutcome> {
        let deadline = Instant::now() + WITHIN;
        let results = match leader {
            None => return self.without_leader(partitions, deadline).await,
            Some(leader) if leader == self.me => self.marking.write(marker, raised, partitions, deadline).await,
            Some(leader) => self.peers.write_markers(leader, marker, raised, partitions, deadline).await,
        };
        for error in results.iter().filter_map(|result| result.as_ref().err()).take(1) {
            tracing::debug!(%error, producer = %marker.producer.id, "a marker was not written");
        }
        results.iter().map(outcome).collect()
    }

    /// A topic that is gone needs no marker: ids are never used again, and what this broker has
    /// not heard of yet is there when the registry is asked after a sync.
    async fn without_leader(&self, partitions: &[TopicPartition], deadline: Instant) -> Vec<MarkerOutcome> {
        let mut outcomes = Vec::with_capacity(partitions.len());
        for at in partitions {
            let asked = async {
                self.registry.sync(&topic::path(at.topic)).await.ok()?;
                topics::read(&*self.registry, at.topic).await.ok()
            };
            let known = self.view.topic_by_id(at.topic).is_some();
            let gone = !known && matches!(timeout_at(deadline, asked).await, Ok(Some(None)));
            outcomes.push(if gone { MarkerOutcome::Gone } else { MarkerOutcome::Failed });
        }
        outcomes
    }
}

fn outcome(result: &Result<(), Error>) -> MarkerOutcome {
    match result {
        Ok(()) => MarkerOutcome::Written,
        Err(error) => match error.code {
            // The producer has a later epoch there: its transaction ended long ago.
            ErrorCode::InvalidProducerEpoch => MarkerOutcome::Written,
            ErrorCode::TransactionCoordinatorFenced => MarkerOutcome::Fenced,
            _ => MarkerOutcome::Failed,
        },
    }
}
