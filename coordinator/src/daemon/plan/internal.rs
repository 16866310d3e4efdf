//! What the topic of the history needs: to be there, and to have three copies once it can.

use std::collections::BTreeMap;

use baton_core::partition::{Assignment, PartitionState};
use baton_core::placement::{PlacementLimits, Replicas, place};
use baton_core::{BrokerId, TopicId, TopicPartition};
use baton_registry::znode::Intent;

use super::Snapshot;
use super::create::Creation;
use super::reassign;

/// The topic that keeps the history.
pub const EVENTS_TOPIC: &str = "__events";
/// Copies that it should have.
const COPIES: u32 = 3;
const MIN_INSYNC: &str = "min.insync.replicas";

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InternalStep {
    Create(Creation),
    /// More brokers are here than when it was made.
    AddCopies {
        id: TopicPartition,
        version: i32,
        state: Box<PartitionState>,
    },
    /// All copies are in sync: from now on two of them have to be.
    RaiseMinInsync {
        id: TopicId,
        config: BTreeMap<String, String>,
    },
}

/// Looks at the topic. `waited_enough`: with fewer than three brokers it is made all the same.
#[must_use]
pub fn next_step(snapshot: &Snapshot, limits: PlacementLimits, waited_enough: bool, seed: u64) -> Option<InternalStep> {
    let loads = snapshot.loads();
    let live = u32::try_from(loads.len()).unwrap_or(u32::MAX);
    let Some(topic) = snapshot.topic_named(EVENTS_TOPIC) else {
        // The history does not grow old.
        let config = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let creation = Creation { name: EVENTS_TOPIC.to_owned(), internal: true, config, ..Creation::default() };
        return (live >= COPIES || (live > 0 && waited_enough)).then_some(InternalStep::Create(creation));
    };
    if topic.node.intent != Intent::None {
        return None;
    }
    let (id, known) = snapshot.states_of(topic.id).next()?;
    let state = &known.state;
    if state.leader.is_none() || reassign::under_way(&state.assignment) {
        return None;
    }
    if (state.assignment.replicas.len() as u32) < COPIES.min(live) {
        let target = with_more_copies(snapshot, &state.assignment, limits, seed)?;
        let assignment = reassign::toward(&state.assignment, &target);
        let state = Box::new(PartitionState { assignment, ..state.clone() });
        return Some(InternalStep::AddCopies { id, version: known.version, state });
    }
    let lowered = topic.node.config.get(MIN_INSYNC).is_some_and(|value| value == "1");
    (lowered && state.isr.len() as u32 >= COPIES).then(|| {
        let mut config = topic.node.config.clone();
        config.remove(MIN_INSYNC);
        InternalStep::RaiseMinInsync { id: topic.id, config }
    })
}

/// The copies that there are, and others where the planner would put them.
fn with_more_copies(snapshot: &Snapshot, current: &Assignment, limits: PlacementLimits, seed: u64) -> Option<Replicas> {
    let others: Vec<_> = snapshot.loads().into_iter().filter(|load| !current.replicas.contains(&load.id)).collect();
    let missing = COPIES.saturating_sub(current.replicas.len() as u32).min(others.len() as u32);
    let added: Vec<BrokerId> = place(&others, &[], 1, missing, limits, seed).ok()?.into_iter().flatten().collect();
    Some(current.replicas.iter().copied().chain(added).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{LIMITS, add_topic, ids, member, snapshot};
    use super::*;

    fn step(snapshot: &Snapshot, waited: bool) -> Option<InternalStep> {
        next_step(snapshot, LIMITS.placement, waited, 0)
    }

    #[test]
    fn it_is_made_with_three_brokers_or_after_a_while() {
        assert_eq!(step(&snapshot(0), true), None);
        assert_eq!(step(&snapshot(2), false), None);
        for (live, waited) in [(3, false), (1, true)] {
            assert!(matches!(step(&snapshot(live), waited), Some(InternalStep::Create(_))));
        }
    }

    #[test]
    fn it_grows_to_three_copies_and_then_asks_two_to_be_in_sync() {
        let mut cluster = snapshot(4);
        add_topic(&mut cluster, 1, EVENTS_TOPIC, &[&[2]]);
        let topic = cluster.topics.get_mut(&TopicId(1)).unwrap();
        topic.node.config.insert(MIN_INSYNC.to_owned(), "1".to_owned());
        let Some(InternalStep::AddCopies { id, state, .. }) = step(&cluster, false) else { panic!("no growth") };
        assert_eq!(state.assignment.replicas.len(), 3);
        assert_eq!(state.assignment.replicas[0], BrokerId(2));
        assert_eq!(state.assignment.adding.len(), 2);
        let target = reassign::target_of(&state.assignment);
        let known = cluster.states.get_mut(&id).unwrap();
        known.state = *state;
        assert_eq!(step(&cluster, false), None, "copies are on their way");
        let known = cluster.states.get_mut(&id).unwrap();
        known.state.assignment = Assignment { replicas: target.clone(), adding: vec![], removing: vec![] };
        assert_eq!(step(&cluster, false), None, "not all are in sync");
        let known = cluster.states.get_mut(&id).unwrap();
        known.state.isr = target.iter().map(|broker| member(broker.0)).collect();
        let raised = Some(InternalStep::RaiseMinInsync { id: TopicId(1), config: BTreeMap::new() });
        assert_eq!(step(&cluster, false), raised);
        cluster.topics.get_mut(&TopicId(1)).unwrap().node.config.clear();
        assert_eq!(step(&cluster, false), None);
    }

    #[test]
    fn with_two_brokers_two_copies_are_enough() {
        let mut cluster = snapshot(2);
        add_topic(&mut cluster, 1, EVENTS_TOPIC, &[&[1, 2]]);
        assert_eq!(step(&cluster, true), None);
        let known = cluster.states.values().next().unwrap();
        assert_eq!(known.state.assignment.replicas, ids(&[1, 2]));
    }
}
