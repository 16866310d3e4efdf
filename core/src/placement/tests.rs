use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::partition::Assignment;

const ROOMY: PlacementLimits = PlacementLimits { copies_per_broker_max: u32::MAX };

fn broker(id: u32, rack: Option<&str>, copies: u32) -> BrokerLoad {
    BrokerLoad { id: BrokerId(id), rack: rack.map(str::to_owned), copies, leaders: 0 }
}

fn equal(count: u32) -> Vec<BrokerLoad> {
    (1..=count).map(|id| broker(id, None, 0)).collect()
}

/// Copies and preferred leaders per broker.
fn counts(brokers: &[BrokerLoad], plan: &[Replicas]) -> (Vec<usize>, Vec<usize>) {
    let copies = |b: &BrokerLoad| plan.iter().filter(|r| r.contains(&b.id)).count();
    let leaders = |b: &BrokerLoad| plan.iter().filter(|r| r[0] == b.id).count();
    (brokers.iter().map(copies).collect(), brokers.iter().map(leaders).collect())
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<BTreeSet<_>>().len()
}

fn racks_of(brokers: &[BrokerLoad], replicas: &[BrokerId]) -> usize {
    let holds = |b: &&BrokerLoad| replicas.contains(&b.id);
    distinct(brokers.iter().filter(holds).map(|b| b.rack.clone()))
}

#[test]
fn what_cannot_be_placed_says_why() {
    let brokers = equal(2);
    let place = |replication, limit| {
        let limits = PlacementLimits { copies_per_broker_max: limit };
        place(&brokers, &[], 3, replication, limits, 0)
    };
    assert_eq!(place(0, 9), Err(PlacementError::NoReplicas));
    let error = place(3, 9).unwrap_err();
    let (replication, live) = (3, 2);
    assert_eq!(error, PlacementError::TooFewBrokers { replication, live });
    assert_eq!(error.code(), ErrorCode::InvalidReplication);
    let error = place(2, 2).unwrap_err();
    let expected = PlacementError::NoRoom { partition: 2, replication: 2, with_room: 0, max: 2 };
    assert_eq!(error, expected);
    assert_eq!(error.code(), ErrorCode::PolicyViolation);
    assert_eq!(place(2, 3).unwrap().len(), 3);
    let none = super::place(&[], &[], 1, 1, ROOMY, 5).unwrap_err();
    let (replication, live) = (1, 0);
    assert_eq!(none, PlacementError::TooFewBrokers { replication, live });
}

#[test]
fn small_topics_go_where_least_is() {
    let brokers = [broker(1, None, 9), broker(2, None, 2), broker(3, None, 1)];
    for seed in 0..10 {
        let plan = place(&brokers, &[], 1, 2, ROOMY, seed).unwrap();
        assert_eq!(plan, [[BrokerId(3), BrokerId(2)]]);
    }
}

#[test]
fn the_seed_says_where_to_start() {
    let brokers = equal(5);
    let leader = |seed| place(&brokers, &[], 1, 3, ROOMY, seed).unwrap()[0][0];
    assert_eq!(distinct((0..5).map(leader)), 5);
    assert_eq!(leader(7), leader(2));
}

/// Found by the property test: broker 3 had a copy too many, and followed only where broker 4,
/// which had one too few, was a replica already. The way leads through a third.
#[test]
fn copies_are_evened_out_through_third_brokers() {
    let brokers = equal(4);
    let seeds = (596_325_791_146_400_583, 9_344_795_970_282_095_537);
    let mut plan = place(&brokers, &[], 26, 3, ROOMY, seeds.0).unwrap();
    plan.extend(place(&brokers, &plan, 2, 3, ROOMY, seeds.1).unwrap());
    assert_eq!(counts(&brokers, &plan).0, [21; 4]);
}

/// If pairs were fixed, all that a dead broker led would fall to one other.
#[test]
fn the_followers_of_a_leader_are_spread() {
    let brokers = equal(5);
    let plan = place(&brokers, &[], 40, 2, ROOMY, 3).unwrap();
    for b in &brokers {
        let followers = plan.iter().filter(|r| r[0] == b.id).map(|r| r[1]);
        assert_eq!(distinct(followers), 4, "leader {}", b.id);
    }
}

#[test]
fn a_broker_without_a_rack_is_a_rack_of_its_own() {
    let brokers = [broker(1, Some("a"), 0), broker(2, Some("a"), 0), broker(3, None, 0), broker(4, None, 0)];
    for replicas in place(&brokers, &[], 20, 3, ROOMY, 0).unwrap() {
        assert!(replicas.contains(&BrokerId(3)) && replicas.contains(&BrokerId(4)));
    }
}

#[test]
fn a_copy_without_a_home_stays_and_says_why() {
    let ids = |list: [u32; 3]| list.map(BrokerId).to_vec();
    let brokers = [broker(1, None, 1), broker(2, None, 1), broker(4, None, 5)];
    let limits = PlacementLimits { copies_per_broker_max: 5 };
    let absent = BTreeSet::from([BrokerId(3)]);
    let result = rehome(&[ids([1, 3, 2])], &absent, &brokers, limits, 0);
    let stuck = NoHome { absent: BrokerId(3), live: 3, holding: 2, full: 1 };
    assert_eq!(result[0].replicas, ids([1, 3, 2]));
    assert_eq!((&result[0].moves, result[0].assignment()), (&vec![], None));
    assert_eq!(result[0].stuck, [stuck]);
    let text = stuck.to_string();
    assert!(text.contains("of 3 live brokers, 2 hold") && text.contains("1 have no room"));

    let result = rehome(&[ids([1, 3, 2])], &absent, &brokers, ROOMY, 0);
    assert_eq!(result[0].replicas, ids([1, 4, 2]));
    let expected = Assignment {
        replicas: [1, 4, 2, 3].map(BrokerId).to_vec(),
        adding: vec![BrokerId(4)],
        removing: vec![BrokerId(3)],
    };
    assert_eq!(result[0].assignment(), Some(expected));
}

#[test]
fn a_new_home_is_on_a_free_rack_even_if_that_has_more_copies() {
    let brokers = [
        broker(1, Some("a"), 0),
        broker(2, Some("b"), 0),
        broker(4, Some("a"), 0),
        broker(5, Some("c"), 50),
        broker(6, Some("c"), 40),
    ];
    let partitions = [vec![BrokerId(1), BrokerId(2), BrokerId(3)]];
    let absent = BTreeSet::from([BrokerId(3)]);
    let result = rehome(&partitions, &absent, &brokers, ROOMY, 0);
    assert_eq!(result[0].replicas, [1, 2, 6].map(BrokerId));
}

#[test]
fn what_a_dead_broker_held_is_spread_over_the_others() {
    let brokers = equal(5);
    let plan = place(&brokers, &[], 50, 3, ROOMY, 1).unwrap();
    let (copies, _) = counts(&brokers, &plan);
    assert_eq!(copies, [30; 5]);
    let live: Vec<_> = (1..5).map(|id| broker(id, None, 30)).collect();
    let absent = BTreeSet::from([BrokerId(5)]);
    let after: Vec<_> = rehome(&plan, &absent, &live, ROOMY, 1).into_iter().map(|r| r.replicas).collect();
    let (copies, _) = counts(&live, &after);
    assert!(spread(&copies) <= 2, "copies {copies:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equal_brokers_get_equal_shares(
        n in 1..13_u32, partitions in 0..60_u32, replication in 1..6_u32, seed: u64,
    ) {
        let replication = replication.min(n);
        let brokers = equal(n);
        let plan = place(&brokers, &[], partitions, replication, ROOMY, seed).unwrap();
        prop_assert_eq!(plan.len(), partitions as usize);
        for replicas in &plan {
            prop_assert_eq!(replicas.len(), replication as usize);
            prop_assert_eq!(distinct(replicas.iter()), replicas.len());
        }
        let (copies, leaders) = counts(&brokers, &plan);
        prop_assert!(spread(&copies) <= 1, "copies {:?}", copies);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    /// The next leader is given by the leaders so far, and may be a broker that has a copy
    /// more than others; what is placed does not move, so that the copies may differ by two.
    #[test]
    fn added_partitions_go_on_where_the_others_ended(
        n in 1..10_u32, first in 0..30_u32, added in 0..30_u32, replication in 1..4_u32, seeds: (u64, u64),
    ) {
        let replication = replication.min(n);
        let brokers = equal(n);
        let mut plan = place(&brokers, &[], first, replication, ROOMY, seeds.0).unwrap();
        let more = place(&brokers, &plan, added, replication, ROOMY, seeds.1).unwrap();
        prop_assert_eq!(more.len(), added as usize);
        plan.extend(more);
        let (copies, leaders) = counts(&brokers, &plan);
        prop_assert!(spread(&copies) <= 2, "copies {:?}", copies);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    #[test]
    fn copies_are_on_as_many_racks_as_there_are(
        racks in prop::collection::vec(0..4_u8, 1..12), partitions in 1..40_u32,
        replication in 1..5_u32, seed: u64,
    ) {
        let replication = replication.min(racks.len() as u32);
        let names = ["a", "b", "c", "d"];
        let brokers: Vec<_> = (1..)
            .zip(&racks)
            .map(|(id, rack)| broker(id, Some(names[usize::from(*rack)]), 0))
            .collect();
        let possible = distinct(racks.iter()).min(replication as usize);
        let plan = place(&brokers, &[], partitions, replication, ROOMY, seed).unwrap();
        for replicas in &plan {
            prop_assert_eq!(distinct(replicas.iter()), replication as usize);
            prop_assert_eq!(racks_of(&brokers, replicas), possible);
        }
        let (_, leaders) = counts(&brokers, &plan);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    #[test]
    fn equal_racks_get_equal_shares(
        racks in 1..4_u32, per_rack in 1..4_u32, partitions in 0..40_u32, replication in 1..5_u32, seed: u64,
    ) {
        let n = racks * per_rack;
        let replication = replication.min(n);
        let names = ["a", "b", "c"];
        let brokers: Vec<_> = (0..n)
            .map(|i| broker(i + 1, Some(names[(i % racks) as usize]), 0))
            .collect();
        let plan = place(&brokers, &[], partitions, replication, ROOMY, seed).unwrap();
        let (copies, leaders) = counts(&brokers, &plan);
        prop_assert!(spread(&copies) <= 1, "copies {:?}", copies);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    #[test]
    fn no_broker_goes_above_the_limit(
        loads in prop::collection::vec(0..12_u32, 1..8), partitions in 0..20_u32,
        replication in 1..4_u32, seed: u64,
    ) {
        let brokers: Vec<_> = (1..).zip(&loads).map(|(id, c)| broker(id, None, *c)).collect();
        let limits = PlacementLimits { copies_per_broker_max: 10 };
        let plan = place(&brokers, &[], partitions, replication, limits, seed);
        if let Ok(plan) = plan {
            let (copies, _) = counts(&brokers, &plan);
            for (before, added) in loads.iter().zip(copies) {
                prop_assert!(added == 0 || *before as usize + added <= 10);
            }
        }
    }

    #[test]
    fn rehoming_moves_what_is_away_and_nothing_else(
        n in 2..10_u32, partitions in 0..40_u32, replication in 1..4_u32,
        away in prop::collection::btree_set(1..10_u32, 1..3), limit in 5..60_u32, seed: u64,
    ) {
        let replication = replication.min(n);
        let brokers = equal(n);
        let plan = place(&brokers, &[], partitions, replication, ROOMY, seed).unwrap();
        let (copies, _) = counts(&brokers, &plan);
        let loaded: Vec<_> = brokers
            .into_iter()
            .zip(copies)
            .map(|(b, copies)| BrokerLoad { copies: copies as u32, ..b })
            .collect();
        let absent: BTreeSet<_> = away.into_iter().map(BrokerId).collect();
        let live: Vec<_> = loaded.iter().filter(|b| !absent.contains(&b.id)).cloned().collect();
        let limits = PlacementLimits { copies_per_broker_max: limit };
        let result = rehome(&plan, &absent, &loaded, limits, seed);
        prop_assert_eq!(result.len(), plan.len());
        for (before, after) in plan.iter().zip(&result) {
            prop_assert_eq!(distinct(after.replicas.iter()), before.len());
            for (old, new) in before.iter().zip(&after.replicas) {
                let stuck = after.stuck.iter().any(|s| s.absent == *old);
                prop_assert_eq!(old != new, absent.contains(old) && !stuck);
                let moved = Move { from: *old, to: *new };
                prop_assert_eq!(old != new, after.moves.contains(&moved));
                prop_assert!(old == new || !absent.contains(new));
            }
            for stuck in &after.stuck {
                prop_assert_eq!(stuck.live as usize, live.len());
                prop_assert_eq!(stuck.holding + stuck.full, stuck.live);
            }
        }
        let plan_after: Vec<_> = result.into_iter().map(|r| r.replicas).collect();
        let (copies, _) = counts(&live, &plan_after);
        for (b, copies) in live.iter().zip(&copies) {
            prop_assert!(*copies as u32 <= limit.max(b.copies));
        }
    }
}
