//! The assignment on the way to other replicas.
//!
//! The coordinator writes the assignment and nothing else; the leader lets the added replicas
//! catch up and join, and takes the removed ones out last.

use baton_core::partition::{Assignment, PartitionState};
use baton_core::placement::Replicas;
use baton_core::{BrokerId, Error, ErrorCode};

use super::Snapshot;
use super::create::{check_distinct, check_live};

/// Where the copies are to be once everything under way is done.
#[must_use]
pub fn target_of(assignment: &Assignment) -> Replicas {
    let stays = |broker: &&BrokerId| !assignment.removing.contains(broker);
    assignment.replicas.iter().filter(stays).copied().collect()
}

/// Whether copies are on their way.
#[must_use]
pub fn under_way(assignment: &Assignment) -> bool {
    !assignment.adding.is_empty() || !assignment.removing.is_empty()
}

/// The assignment that leads from `current` to `target`, whatever is under way.
#[must_use]
pub fn toward(current: &Assignment, target: &[BrokerId]) -> Assignment {
    let joins = |broker: &&BrokerId| !current.replicas.contains(broker) || current.adding.contains(broker);
    let adding: Vec<_> = target.iter().filter(joins).copied().collect();
    let leaves = |broker: &&BrokerId| !target.contains(broker);
    let removing: Vec<_> = current.replicas.iter().filter(leaves).copied().collect();
    let replicas = target.iter().chain(&removing).copied().collect();
    Assignment { replicas, adding, removing }
}

/// What an operator asked for: other replicas, or (with none) an end to what is under way.
/// None if there is nothing to do.
///
/// # Errors
/// A broker is named twice or is not alive; another reassignment is under way; fewer replicas
/// than have to be in sync.
pub fn plan_reassignment(
    snapshot: &Snapshot,
    state: &PartitionState,
    wanted: &[BrokerId],
    min_insync: u32,
) -> Result<Option<Assignment>, Error> {
    let current = &state.assignment;
    if wanted.is_empty() {
        return Ok(plan_cancellation(current));
    }
    check_distinct(wanted)?;
    if wanted.len() < min_insync as usize {
        let cause = format!("{} replicas cannot hold min.insync.replicas = {min_insync}", wanted.len());
        return Err(Error::new(ErrorCode::InvalidReplication, cause));
    }
    if target_of(current) == wanted {
        return Ok(None);
    }
    if under_way(current) {
        let cause =
            format!("copies are on their way to {} and from {}", list(&current.adding), list(&current.removing));
        return Err(Error::new(ErrorCode::ReassignmentInProgress, cause));
    }
    // Who holds a copy already may stay while it is away; a new home has to be alive.
    for broker in wanted.iter().filter(|broker| !current.replicas.contains(broker)) {
        check_live(snapshot, *broker)?;
    }
    Ok(Some(toward(current, wanted)))
}

/// Back to the replicas from before; none if nobody is joining. Copies that were being added may
/// be in sync already, so that they leave as others do: by the leader. What is only leaving has
/// nothing to wait for, and would be brought back by a repeated cancellation.
fn plan_cancellation(current: &Assignment) -> Option<Assignment> {
    let before: Vec<_> = current.replicas.iter().filter(|broker| !current.adding.contains(broker)).copied().collect();
    (!current.adding.is_empty()).then(|| toward(current, &before))
}

/// Brokers, for people.
#[must_use]
pub fn list(brokers: &[BrokerId]) -> String {
    if brokers.is_empty() {
        return "none".to_owned();
    }
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ids, settled, snapshot};
    use super::*;
    use proptest::prelude::*;

    fn assignment(replicas: &[u32], adding: &[u32], removing: &[u32]) -> Assignment {
        Assignment { replicas: ids(replicas), adding: ids(adding), removing: ids(removing) }
    }

    #[test]
    fn replicas_are_added_and_removed() {
        let plan = plan_reassignment(&snapshot(4), &settled(&[1, 2, 3]), &ids(&[4, 2, 1]), 2);
        assert_eq!(plan, Ok(Some(assignment(&[4, 2, 1, 3], &[4], &[3]))));
        let order_only = plan_reassignment(&snapshot(3), &settled(&[1, 2, 3]), &ids(&[3, 2, 1]), 2);
        assert_eq!(order_only, Ok(Some(assignment(&[3, 2, 1], &[], &[]))));
        let same = plan_reassignment(&snapshot(3), &settled(&[1, 2, 3]), &ids(&[1, 2, 3]), 2);
        assert_eq!(same, Ok(None));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let state = settled(&[1, 2, 3]);
        for (wanted, code) in [
            (&[1, 1, 2][..], ErrorCode::InvalidRequest),
            (&[1, 2, 9], ErrorCode::UnknownBroker),
            (&[1], ErrorCode::InvalidReplication),
        ] {
            let error = plan_reassignment(&snapshot(4), &state, &ids(wanted), 2).unwrap_err();
            assert_eq!(error.code, code, "{wanted:?}");
        }
    }

    #[test]
    fn a_second_reassignment_waits_but_a_repeated_one_is_done() {
        let mut state = settled(&[1, 2, 3]);
        state.assignment = assignment(&[4, 2, 3, 1], &[4], &[1]);
        let again = plan_reassignment(&snapshot(5), &state, &ids(&[4, 2, 3]), 2);
        assert_eq!(again, Ok(None));
        let other = plan_reassignment(&snapshot(5), &state, &ids(&[5, 2, 3]), 2).unwrap_err();
        assert_eq!(other.code, ErrorCode::ReassignmentInProgress);
    }

    #[test]
    fn cancelling_goes_back_through_the_leader() {
        let mut state = settled(&[1, 2, 3]);
        state.assignment = assignment(&[4, 2, 3, 1], &[4], &[1]);
        let cancelled = plan_reassignment(&snapshot(4), &state, &[], 2).unwrap().unwrap();
        assert_eq!(cancelled, assignment(&[2, 3, 1, 4], &[], &[4]));
        state.assignment = cancelled;
        assert_eq!(plan_reassignment(&snapshot(4), &state, &[], 2), Ok(None), "a repeated cancellation");
        assert_eq!(plan_reassignment(&snapshot(4), &settled(&[1]), &[], 1), Ok(None));
    }

    proptest! {
        #[test]
        fn every_assignment_leads_to_its_target(
            start in prop::sample::subsequence(vec![1_u32, 2, 3, 4, 5], 1..4),
            via in prop::sample::subsequence(vec![1_u32, 2, 3, 4, 5], 1..4),
            end in prop::sample::subsequence(vec![1_u32, 2, 3, 4, 5], 1..4),
        ) {
            let first = toward(&settled(&start).assignment, &ids(&via));
            let second = toward(&first, &ids(&end));
            for (assignment, target) in [(first, via), (second, end)] {
                prop_assert_eq!(target_of(&assignment), ids(&target));
                let all = &assignment.replicas;
                prop_assert!(assignment.adding.iter().chain(&assignment.removing).all(|b| all.contains(b)));
                prop_assert!(assignment.adding.iter().all(|b| !assignment.removing.contains(b)));
                prop_assert!(check_distinct(all).is_ok());
                prop_assert!(start.iter().all(|b| all.contains(&BrokerId(*b))), "a copy was forgotten");
            }
        }
    }
}
