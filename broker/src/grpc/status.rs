//! How the cluster stands, as this broker knows it: works without a coordinator, and while
//! ZooKeeper is away.

use std::collections::BTreeMap;

use baton_core::BrokerId;
use baton_proto::v1;
use baton_registry::SessionState;
use baton_registry::recipes::absences;

use crate::grpc::metadata::endpoint_to_wire;
use crate::grpc::service::GrpcService;

/// Problems shown; all are counted.
const PROBLEMS_MAX: usize = 1_000;

#[derive(Default)]
struct Counts {
    leads: u32,
    replicas: u32,
}

impl GrpcService {
    pub(super) async fn status(&self) -> v1::ClusterStatusResponse {
        let mut counts: BTreeMap<BrokerId, Counts> = BTreeMap::new();
        let mut problems = Vec::new();
        let (mut partitions, mut problems_total) = (0, 0);
        let view = &self.parts.view;
        let topics: BTreeMap<_, _> = view.topics().into_iter().map(|topic| (topic.id, topic)).collect();
        view.for_each_state(|id, known| {
            let Some(topic) = topics.get(&id.topic) else { return };
            partitions += 1;
            let state = &known.state;
            for broker in &state.assignment.replicas {
                counts.entry(*broker).or_default().replicas += 1;
            }
            if let Some(leader) = state.leader {
                counts.entry(leader.broker).or_default().leads += 1;
            }
            let min = usize::try_from(topic.config.min_insync_replicas).unwrap_or(1);
            let problem = match (state.leader, state.isr.len()) {
                (None, _) => "no_leader",
                (_, isr) if isr < min => "below_min_isr",
                (_, isr) if isr < state.assignment.replicas.len().saturating_sub(state.assignment.adding.len()) => {
                    "under_replicated"
                }
                _ => return,
            };
            problems_total += 1;
            if problems.len() < PROBLEMS_MAX {
                problems.push(v1::PartitionProblem {
                    topic: topic.name.to_string(),
                    partition: id.partition,
                    problem: problem.to_owned(),
                });
            }
        });
        v1::ClusterStatusResponse {
            cluster_id: self.parts.cluster.clone(),
            brokers: self.broker_states(&counts).await,
            coordinator: self.coordinator.current().await,
            registry_connected: matches!(*self.parts.session.borrow(), SessionState::Connected(_)),
            topics: u32::try_from(topics.len()).unwrap_or(u32::MAX),
            partitions,
            problems,
            problems_total,
        }
    }

    /// The registered brokers, and those that hold replicas and are not registered.
    async fn broker_states(&self, counts: &BTreeMap<BrokerId, Counts>) -> Vec<v1::BrokerStatus> {
        let live = self.parts.view.brokers();
        let absences = absences::read_all(&*self.parts.registry).await.unwrap_or_default();
        let absent_since: BTreeMap<BrokerId, i64> = absences
            .iter()
            .map(|(broker, absence)| (*broker, i64::try_from(absence.since_unix_ms).unwrap_or(i64::MAX)))
            .collect();
        let mut all: Vec<BrokerId> =
            live.brokers.keys().chain(counts.keys()).chain(absent_since.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        let state = |id: BrokerId| {
            let registration = live.brokers.get(&id).map(|live| &live.registration);
            let count = counts.get(&id);
            v1::BrokerStatus {
                id: id.0,
                state: match registration {
                    // Its session has not ended yet, but nobody hears it.
                    Some(_) if self.parts.env.borrow().is_gone(id) => "unreachable",
                    Some(registration) if registration.draining => "draining",
                    Some(_) => "live",
                    None => "absent",
                }
                .to_owned(),
                rack: registration.and_then(|r| r.rack.clone()).unwrap_or_default(),
                endpoints: registration.iter().flat_map(|r| &r.endpoints).map(endpoint_to_wire).collect(),
                leads: count.map_or(0, |c| c.leads),
                replicas: count.map_or(0, |c| c.replicas),
                absent_since_ms: absent_since.get(&id).copied().filter(|_| registration.is_none()),
            }
        };
        all.into_iter().map(state).collect()
    }
}
