//! What Baton's own topics need: that of the history to be there, and all of them to have three
//! copies once they can. The topics of groups and transactions are made by the first
//! broker that needs them, perhaps before others have come.

use std::collections::BTreeMap;

use baton_broker::group::GROUPS_TOPIC;
use baton_broker::transaction::TRANSACTIONS_TOPIC;
use baton_core::partition::{Assignment, PartitionState};
use baton_core::placement::{PlacementLimits, Replicas, place};
use baton_core::{BrokerId, TopicId, TopicPartition};
use baton_registry::recipes::topics::Topic;
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

/// Looks at the topics. `waited_enough`: with fewer than three brokers the history is made all
/// the same.
#[must_use]
pub fn next_step(snapshot: &Snapshot, limits: PlacementLimits, waited_enough: bool, seed: u64) -> Option<InternalStep> {
    let loads = snapshot.loads();
    let live = u32::try_from(loads.len()).unwrap_or(u32::MAX);
    if snapshot.topic_named(EVENTS_TOPIC).is_none() && (live >= COPIES || (live > 0 && waited_enough)) {
        // The history does not grow old.
        let config = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let creation = Creation { name: EVENTS_TOPIC.to_owned(), internal: true, config, ..Creation::default() };
        return Some(InternalStep::Create(creation));
    }
    let topics =
        [EVENTS_TOPIC, GROUPS_TOPIC, TRANSACTIONS_TOPIC].into_iter().filter_map(|name| snapshot.topic_named(name));
    let mut settled = topics.filter(|topic| topic.node.intent == Intent::None);
    settled
        .find_map(|topic| add_copies(snapshot, topic, live, limits, seed).or_else(|| raise_min_insync(snapshot, topic)))
}

/// The first partition with too few copies that is led and not on the move.
fn add_copies(
    snapshot: &Snapshot,
    topic: &Topic,
    live: u32,
    limits: PlacementLimits,
    seed: u64,
) -> Option<InternalStep> {
    snapshot.states_of(topic.id).find_map(|(id, known)| {
        let state = &known.state;
        let few = (state.assignment.replicas.len() as u32) < COPIES.min(live);
        if !few || state.leader.is_none() || reassign::under_way(&state.assignment) {
            return None;
        }
        let target = with_more_copies(snapshot, &state.assignment, limits, seed)?;
        let assignment = reassign::toward(&state.assignment, &target);
        let state = Box::new(PartitionState { assignment, ..state.clone() });
        Some(InternalStep::AddCopies { id, version: known.version, state })
    })
}

fn raise_min_insync(snapshot: &Snapshot, topic: &Topic) -> Option<InternalStep> {
    let lowered = topic.node.config.get(MIN_INSYNC).is_some_and(|value| value == "1");
    let ready = |state: &PartitionState| {
        state.leader.is_some() && !reassign::under_way(&state.assignment) && state.isr.len() as u32 >= COPIES
    };
    let mut states = snapshot.states_of(topic.id).peekable();
    let all = states.peek().is_some() && states.all(|(_, known)| ready(&known.state));
    (lowered && all).then(|| {
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
    fn every_partition_of_the_groups_grows() {
        let mut cluster = snapshot(3);
        add_topic(&mut cluster, 1, EVENTS_TOPIC, &[&[1, 2, 3]]);
        add_topic(&mut cluster, 2, GROUPS_TOPIC, &[&[1], &[1, 2, 3], &[2]]);
        let lowered = BTreeMap::from([(MIN_INSYNC.to_owned(), "1".to_owned())]);
        cluster.topics.get_mut(&TopicId(2)).unwrap().node.config = lowered;
        for partition in [0, 2] {
            let Some(InternalStep::AddCopies { id, state, .. }) = step(&cluster, false) else { panic!("no growth") };
            assert_eq!(id, TopicPartition { topic: TopicId(2), partition });
            cluster.states.get_mut(&id).unwrap().state = *state;
        }
        assert_eq!(step(&cluster, false), None, "copies are on their way");
        for known in cluster.states.values_mut() {
            let target = reassign::target_of(&known.state.assignment);
            known.state.isr = target.iter().map(|broker| member(broker.0)).collect();
            known.state.assignment = Assignment { replicas: target, adding: vec![], removing: vec![] };
        }
        let raised = Some(InternalStep::RaiseMinInsync { id: TopicId(2), config: BTreeMap::new() });
        assert_eq!(step(&cluster, false), raised);
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
