//! What to record when a partition's state changed.

use std::collections::BTreeMap;

use baton_core::event::{Event, EventKind};
use baton_core::partition::PartitionState;
use baton_core::{BrokerId, Member};

use super::reassign;

/// More changes of one sort within one pass are recorded as one event.
const APART_MAX: usize = 16;

/// The events of one partition between two of its states.
#[must_use]
pub fn changes(topic: &str, partition: u32, old: &PartitionState, new: &PartitionState, now_ms: i64) -> Vec<Event> {
    let event = |kind| {
        let who = new.leader.map_or_else(|| "broker".to_owned(), |leader| format!("broker {}", leader.broker));
        Event::new(now_ms, kind).topic(topic).partition(partition).epoch(new.epoch).who(who)
    };
    let mut events = Vec::new();
    if old.leader != new.leader {
        events.push(leader_moved(event(EventKind::LeaderMoved), old, new));
    }
    if old.isr != new.isr {
        let before: Vec<_> = old.isr.iter().map(|member| member.broker).collect();
        let after: Vec<_> = new.isr.iter().map(|member| member.broker).collect();
        let seen = format!("in sync: {}", reassign::list(&before));
        let decided = isr_decision(&old.isr, &new.isr);
        let result = format!("in sync: {}", reassign::list(&after));
        events.push(event(EventKind::IsrChanged).seen(seen).decided(decided).result(result));
    }
    if reassign::under_way(&old.assignment) && !reassign::under_way(&new.assignment) {
        let seen = format!(
            "joined: {}; left: {}",
            reassign::list(&old.assignment.adding),
            reassign::list(&old.assignment.removing)
        );
        let result = format!("replicas: {}", reassign::list(&new.assignment.replicas));
        events.push(event(EventKind::ReassignmentFinished).seen(seen).result(result));
    }
    events
}

fn leader_moved(event: Event, old: &PartitionState, new: &PartitionState) -> Event {
    let seen = match old.leader {
        Some(leader) => format!("broker {} led in epoch {}", leader.broker, old.epoch),
        None => format!("nobody led in epoch {}", old.epoch),
    };
    match (new.leader, new.hint) {
        (Some(leader), _) => {
            let result = format!("broker {} leads in epoch {}", leader.broker, new.epoch);
            event.broker(leader.broker).seen(seen).decided("elected itself").result(result)
        }
        (None, Some(hint)) => {
            let decided = format!("handed over to broker {hint}");
            event.seen(seen).decided(decided).result("nobody leads yet")
        }
        (None, None) => event.seen(seen).result("nobody leads"),
    }
}

fn isr_decision(old: &[Member], new: &[Member]) -> String {
    let missing_in = |these: &[Member], others: &[Member]| -> Vec<BrokerId> {
        these.iter().filter(|member| !others.contains(member)).map(|member| member.broker).collect()
    };
    let (joined, left) = (missing_in(new, old), missing_in(old, new));
    match (joined.is_empty(), left.is_empty()) {
        (false, true) => format!("added {}", reassign::list(&joined)),
        (true, false) => format!("removed {}", reassign::list(&left)),
        _ => format!("added {}, removed {}", reassign::list(&joined), reassign::list(&left)),
    }
}

/// Joins what many partitions of a topic have in common: a broker that goes away moves as many
/// leaders as it led, and the history would drown in them.
#[must_use]
pub fn coalesce(events: Vec<Event>) -> Vec<Event> {
    let sort_of = |event: &Event| (event.kind, event.topic.clone(), event.broker);
    let mut sorts: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for event in &events {
        sorts.entry(sort_of(event)).or_default().extend(event.partition);
    }
    let mut joined = Vec::with_capacity(events.len());
    for event in events {
        match sorts.get_mut(&sort_of(&event)) {
            Some(partitions) if partitions.len() > APART_MAX => {
                let together = std::mem::take(partitions);
                joined.push(summary(event, together));
            }
            // The summary has been made.
            Some(partitions) if partitions.is_empty() && event.partition.is_some() => {}
            _ => joined.push(event),
        }
    }
    joined
}

fn summary(first: Event, mut partitions: Vec<u32>) -> Event {
    partitions.sort_unstable();
    partitions.dedup();
    let mut seen = format!("{} partitions; the first: {}; all:", partitions.len(), first.seen);
    for partition in &partitions {
        seen.push_str(&format!(" {partition}"));
    }
    Event { partition: None, epoch: None, seen, ..first }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ids, member, settled};
    use super::*;
    use baton_core::Epoch;

    fn kinds(old: &PartitionState, new: &PartitionState) -> Vec<EventKind> {
        changes("t", 0, old, new, 5).into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn a_failover_is_a_moved_leader_and_a_changed_isr() {
        let old = settled(&[1, 2, 3]);
        let mut new = settled(&[2]);
        new.epoch = Epoch(2);
        new.assignment = old.assignment.clone();
        new.isr = vec![member(2), member(3)];
        let events = changes("t", 7, &old, &new, 5);
        assert_eq!(events.len(), 2);
        let moved = &events[0];
        assert_eq!((moved.kind, moved.partition, moved.broker), (EventKind::LeaderMoved, Some(7), Some(BrokerId(2))));
        assert_eq!(moved.epoch, Some(Epoch(2)));
        assert_eq!(moved.seen, "broker 1 led in epoch 1");
        assert_eq!(events[1].decided, "removed 1");
        assert_eq!(events[1].result, "in sync: 2, 3");
    }

    #[test]
    fn a_finished_reassignment_is_recorded_and_nothing_is_nothing() {
        let new = settled(&[4, 2, 3]);
        let mut old = new.clone();
        old.assignment.adding = ids(&[4]);
        old.assignment.removing = ids(&[1]);
        assert_eq!(kinds(&old, &new), [EventKind::ReassignmentFinished]);
        assert_eq!(kinds(&new, &new), []);
        assert_eq!(kinds(&new, &old), [], "who asked for it records that");
    }

    #[test]
    fn a_storm_becomes_one_event_and_the_rest_stays() {
        let moved = |partition: u32, broker: u32| {
            Event::new(1, EventKind::LeaderMoved).topic("t").partition(partition).broker(BrokerId(broker))
        };
        let mut events: Vec<_> = (0..1_000).map(|partition| moved(partition, 2)).collect();
        events.extend((0..5).map(|partition| moved(partition, 3)));
        events.push(Event::new(1, EventKind::BrokerGone).broker(BrokerId(1)));
        let joined = coalesce(events);
        assert_eq!(joined.len(), 7, "{joined:?}");
        assert!(joined[0].seen.starts_with("1000 partitions"), "{}", joined[0].seen);
        assert_eq!(joined[0].partition, None);
        assert_eq!(joined[6].kind, EventKind::BrokerGone);
    }

    #[test]
    fn few_changes_stay_apart() {
        let event = |partition| Event::new(1, EventKind::IsrChanged).topic("t").partition(partition);
        let events: Vec<_> = (0..16).map(event).collect();
        assert_eq!(coalesce(events.clone()), events);
    }
}
