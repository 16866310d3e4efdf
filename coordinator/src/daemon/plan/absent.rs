//! Who is away, and new homes for their copies.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::partition::PartitionState;
use baton_core::placement::{self, Move, NoHome, PlacementLimits, Replicas};
use baton_core::{BrokerId, TopicPartition};
use baton_registry::znode::Absence;

use super::Snapshot;
use super::reassign;

/// What is to be noted about the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attendance {
    /// Away, and not noted yet.
    pub gone: Vec<BrokerId>,
    /// Noted as away, and registered.
    pub back: Vec<BrokerId>,
}

/// Compares who is registered with who should be: whoever was, or holds a copy.
#[must_use]
pub fn attendance(
    snapshot: &Snapshot,
    were_live: &BTreeSet<BrokerId>,
    noted: &BTreeMap<BrokerId, Absence>,
) -> Attendance {
    let mut expected = snapshot.assigned();
    expected.extend(were_live);
    let live = |broker: &BrokerId| snapshot.brokers.contains_key(broker);
    Attendance {
        gone: expected.into_iter().filter(|broker| !live(broker) && !noted.contains_key(broker)).collect(),
        back: noted.keys().filter(|broker| live(broker)).copied().collect(),
    }
}

/// Who has been away for so long that new homes are due.
#[must_use]
pub fn overdue(
    snapshot: &Snapshot,
    noted: &BTreeMap<BrokerId, Absence>,
    now_unix_ms: u64,
    after_ms: u64,
) -> BTreeSet<BrokerId> {
    // A clock that was set back makes an absence look younger, never older than it is.
    let away_ms = |absence: &Absence| now_unix_ms.saturating_sub(absence.since_unix_ms);
    let due = |(broker, absence): &(&BrokerId, &Absence)| {
        !snapshot.brokers.contains_key(broker) && away_ms(absence) >= after_ms
    };
    noted.iter().filter(due).map(|(broker, _)| *broker).collect()
}

/// One write that gives copies new homes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehoming {
    pub id: TopicPartition,
    pub version: i32,
    pub state: PartitionState,
    pub moves: Vec<Move>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealingPlan {
    pub rehomings: Vec<Rehoming>,
    /// Copies that find no home: how many per absent broker, and why the first of them.
    pub stuck: BTreeMap<BrokerId, (usize, NoHome)>,
    /// Partitions whose turn comes when others are done.
    pub waiting: usize,
}

/// Gives copies of `absent` brokers new homes, with at most `at_once` partitions under way.
///
/// Partitions without a leader are left alone: nobody would let the new copies catch up, and
/// those that they wait for may be the only ones with everything.
#[must_use]
pub fn plan_rehoming(
    snapshot: &Snapshot,
    absent: &BTreeSet<BrokerId>,
    limits: PlacementLimits,
    at_once: usize,
    seed: u64,
) -> HealingPlan {
    let mut plan = HealingPlan::default();
    let led = |state: &PartitionState| state.leader.is_some_and(|leader| snapshot.brokers.contains_key(&leader.broker));
    let affected: Vec<(TopicPartition, Replicas)> = snapshot
        .states
        .iter()
        .filter(|(_, known)| led(&known.state))
        .map(|(id, known)| (*id, reassign::target_of(&known.state.assignment)))
        .filter(|(_, target)| target.iter().any(|broker| absent.contains(broker)))
        .collect();
    let is_affected: BTreeSet<TopicPartition> = affected.iter().map(|(id, _)| *id).collect();
    let busy = |(id, known): &(&TopicPartition, &baton_core::partition::VersionedState)| {
        reassign::under_way(&known.state.assignment) && led(&known.state) && !is_affected.contains(id)
    };
    let mut room = at_once.saturating_sub(snapshot.states.iter().filter(busy).count());
    let targets: Vec<Replicas> = affected.iter().map(|(_, target)| target.clone()).collect();
    let homes = placement::rehome(&targets, absent, &snapshot.loads(), limits, seed);
    for ((id, _), home) in affected.into_iter().zip(homes) {
        for stuck in home.stuck {
            plan.stuck.entry(stuck.absent).or_insert((0, stuck)).0 += 1;
        }
        if home.moves.is_empty() {
            continue;
        }
        if room == 0 {
            plan.waiting += 1;
            continue;
        }
        room -= 1;
        if let Some(known) = snapshot.states.get(&id) {
            let assignment = reassign::toward(&known.state.assignment, &home.replicas);
            let state = PartitionState { assignment, ..known.state.clone() };
            plan.rehomings.push(Rehoming { id, version: known.version, state, moves: home.moves });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{LIMITS, add_topic, ids, snapshot};
    use super::*;
    use baton_core::TopicId;

    fn away(brokers: &[u32]) -> BTreeSet<BrokerId> {
        ids(brokers).into_iter().collect()
    }

    fn noted(broker: u32, since_unix_ms: u64) -> BTreeMap<BrokerId, Absence> {
        BTreeMap::from([(BrokerId(broker), Absence { since_unix_ms })])
    }

    /// Brokers 1 to `live` are alive, and broker 3 is not among them.
    fn without_broker_3(live: u32, partitions: usize) -> Snapshot {
        let mut cluster = snapshot(live);
        cluster.brokers.remove(&BrokerId(3));
        add_topic(&mut cluster, 1, "t", &vec![&[1_u32, 2, 3][..]; partitions]);
        cluster
    }

    #[test]
    fn who_is_gone_and_who_is_back() {
        let cluster = without_broker_3(4, 1);
        let found = attendance(&cluster, &away(&[1, 5]), &noted(2, 0));
        assert_eq!(found, Attendance { gone: ids(&[3, 5]), back: ids(&[2]) });
        let again = attendance(&cluster, &away(&[]), &noted(3, 0));
        assert_eq!(again, Attendance::default());
    }

    #[test]
    fn an_absence_is_overdue_after_its_time_and_a_clock_set_back_is_no_reason() {
        let cluster = without_broker_3(3, 1);
        let due = |now| overdue(&cluster, &noted(3, 1_000), now, 500);
        assert_eq!(due(1_499), away(&[]));
        assert_eq!(due(1_500), away(&[3]));
        assert_eq!(due(0), away(&[]));
        assert_eq!(overdue(&cluster, &noted(1, 0), 9_999, 1), away(&[]), "it is registered");
    }

    #[test]
    fn copies_move_in_batches_and_the_rest_waits() {
        let mut cluster = without_broker_3(4, 10);
        let plan = plan_rehoming(&cluster, &away(&[3]), LIMITS.placement, 4, 0);
        assert_eq!((plan.rehomings.len(), plan.waiting), (4, 6));
        for rehoming in &plan.rehomings {
            let assignment = &rehoming.state.assignment;
            assert_eq!(assignment.adding, ids(&[4]));
            assert_eq!(assignment.removing, ids(&[3]));
            cluster.states.get_mut(&rehoming.id).unwrap().state = rehoming.state.clone();
        }
        let meanwhile = plan_rehoming(&cluster, &away(&[3]), LIMITS.placement, 4, 0);
        assert_eq!((meanwhile.rehomings.len(), meanwhile.waiting), (0, 6), "four are under way");
    }

    #[test]
    fn without_room_copies_stay_and_it_is_said_why() {
        let cluster = without_broker_3(2, 5);
        let plan = plan_rehoming(&cluster, &away(&[3]), LIMITS.placement, 10, 0);
        assert!(plan.rehomings.is_empty());
        let (count, why) = &plan.stuck[&BrokerId(3)];
        assert_eq!((*count, why.live, why.holding), (5, 2, 2));
    }

    #[test]
    fn a_partition_without_a_leader_is_left_alone() {
        let mut cluster = without_broker_3(4, 1);
        for known in cluster.states.values_mut() {
            known.state.leader = None;
        }
        let plan = plan_rehoming(&cluster, &away(&[3]), LIMITS.placement, 10, 0);
        assert_eq!(plan, HealingPlan::default());
    }

    #[test]
    fn a_new_home_that_goes_away_as_well_is_replaced() {
        let mut cluster = without_broker_3(5, 1);
        let id = TopicPartition { topic: TopicId(1), partition: 0 };
        let first = plan_rehoming(&cluster, &away(&[3]), LIMITS.placement, 10, 0).rehomings.remove(0);
        let home = first.state.assignment.adding[0];
        let other = BrokerId(9 - home.0); // 4 and 5 are free.
        cluster.states.get_mut(&id).unwrap().state = first.state;
        cluster.brokers.remove(&home);
        let absent = [BrokerId(3), home].into_iter().collect();
        let second = plan_rehoming(&cluster, &absent, LIMITS.placement, 10, 0).rehomings.remove(0);
        assert_eq!(second.state.assignment.adding, [other]);
        assert_eq!(second.state.assignment.removing, [home, BrokerId(3)]);
    }
}
