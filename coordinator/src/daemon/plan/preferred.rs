//! Which leaders hand over to the preferred ones.
//!
//! A leader that comes back must not take everything at once, nor a flapping one again and
//! again: the preferred leader has to be in sync for a while, and a partition is moved rarely.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::partition::PartitionState;
use baton_core::{BrokerId, Epoch, TopicPartition};

use super::{Snapshot, reassign};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceLimits {
    /// So long the preferred leader has to be in sync before it takes over.
    pub in_sync_for: Duration,
    /// So long a partition stays after it was moved.
    pub every: Duration,
    /// Partitions moved in one pass.
    pub at_once: usize,
}

/// A partition whose leader should ask another replica to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    pub id: TopicPartition,
    pub epoch: Epoch,
    pub leader: BrokerId,
    pub toward: BrokerId,
}

/// Remembers since when preferred leaders could lead. Times are monotonic milliseconds.
#[derive(Debug, Default)]
pub struct Balancer {
    waiting: BTreeMap<TopicPartition, (Handover, u64)>,
    moved_ms: BTreeMap<TopicPartition, u64>,
}

impl Balancer {
    /// Looks at the cluster; returns the handovers that are due, which count as done.
    pub fn pass(&mut self, snapshot: &Snapshot, limits: BalanceLimits, now_ms: u64) -> Vec<Handover> {
        self.moved_ms
            .retain(|id, at| snapshot.states.contains_key(id) && now_ms.saturating_sub(*at) < millis(limits.every));
        let mut waiting = BTreeMap::new();
        let mut due = Vec::new();
        for (id, known) in &snapshot.states {
            let Some(handover) = wanted(snapshot, *id, &known.state) else { continue };
            let since = match self.waiting.get(id) {
                Some((before, since)) if *before == handover => *since,
                _ => now_ms,
            };
            let ripe = now_ms.saturating_sub(since) >= millis(limits.in_sync_for);
            if ripe && due.len() < limits.at_once && !self.moved_ms.contains_key(id) {
                due.push(handover);
                self.moved_ms.insert(*id, now_ms);
            }
            waiting.insert(*id, (handover, since));
        }
        self.waiting = waiting;
        due
    }
}

/// The handover that a partition would need, if it can be made.
#[must_use]
pub fn wanted(snapshot: &Snapshot, id: TopicPartition, state: &PartitionState) -> Option<Handover> {
    let leader = state.leader?.broker;
    let toward = *reassign::target_of(&state.assignment).first()?;
    let lives = snapshot.brokers.get(&toward).is_some_and(|live| {
        let in_sync = state.isr_member(toward).is_some_and(|member| member.disk == live.registration.disk);
        in_sync && !live.registration.draining
    });
    (leader != toward && lives && !reassign::under_way(&state.assignment)).then_some(Handover {
        id,
        epoch: state.epoch,
        leader,
        toward,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{add_topic, settled, snapshot};
    use super::*;
    use baton_core::TopicId;

    const LIMITS: BalanceLimits =
        BalanceLimits { in_sync_for: Duration::from_secs(60), every: Duration::from_secs(300), at_once: 2 };

    fn id(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(1), partition }
    }

    /// Broker 2 leads, and broker 1 should.
    fn unbalanced(partitions: usize) -> Snapshot {
        let mut cluster = snapshot(3);
        add_topic(&mut cluster, 1, "t", &vec![&[1_u32, 2, 3][..]; partitions]);
        for known in cluster.states.values_mut() {
            known.state.leader = settled(&[2]).leader;
        }
        cluster
    }

    #[test]
    fn a_leader_hands_over_after_a_minute_and_then_not_for_five() {
        let mut balancer = Balancer::default();
        let cluster = unbalanced(1);
        assert_eq!(balancer.pass(&cluster, LIMITS, 1_000), []);
        assert_eq!(balancer.pass(&cluster, LIMITS, 60_999), []);
        let due = balancer.pass(&cluster, LIMITS, 61_000);
        let expected = Handover { id: id(0), epoch: Epoch(1), leader: BrokerId(2), toward: BrokerId(1) };
        assert_eq!(due, [expected]);
        assert_eq!(balancer.pass(&cluster, LIMITS, 121_000), []);
        assert_eq!(balancer.pass(&cluster, LIMITS, 361_000), [expected]);
    }

    #[test]
    fn a_preferred_leader_that_falls_out_of_sync_waits_again() {
        let mut balancer = Balancer::default();
        let mut cluster = unbalanced(1);
        balancer.pass(&cluster, LIMITS, 0);
        let isr = cluster.states[&id(0)].state.isr.clone();
        cluster.states.get_mut(&id(0)).unwrap().state.isr.retain(|member| member.broker != BrokerId(1));
        balancer.pass(&cluster, LIMITS, 30_000);
        cluster.states.get_mut(&id(0)).unwrap().state.isr = isr;
        balancer.pass(&cluster, LIMITS, 31_000);
        assert_eq!(balancer.pass(&cluster, LIMITS, 61_000), []);
        assert_eq!(balancer.pass(&cluster, LIMITS, 91_000).len(), 1);
    }

    #[test]
    fn few_move_at_once_and_the_others_follow() {
        let mut balancer = Balancer::default();
        let cluster = unbalanced(3);
        balancer.pass(&cluster, LIMITS, 0);
        assert_eq!(balancer.pass(&cluster, LIMITS, 60_000).len(), 2);
        assert_eq!(balancer.pass(&cluster, LIMITS, 61_000).len(), 1);
    }

    #[test]
    fn nothing_is_wanted_of_a_draining_absent_or_other_disk() {
        let mut cluster = unbalanced(1);
        let state = cluster.states[&id(0)].state.clone();
        assert!(wanted(&cluster, id(0), &state).is_some());
        let one = BrokerId(1);
        cluster.brokers.get_mut(&one).unwrap().registration.draining = true;
        assert_eq!(wanted(&cluster, id(0), &state), None);
        cluster.brokers.get_mut(&one).unwrap().registration.draining = false;
        cluster.brokers.get_mut(&one).unwrap().registration.disk = super::super::fixtures::disk(9);
        assert_eq!(wanted(&cluster, id(0), &state), None);
        cluster.brokers.remove(&one);
        assert_eq!(wanted(&cluster, id(0), &state), None);
    }
}
