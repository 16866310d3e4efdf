//! The cluster as this coordinator knows it, shared by everything in it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::partition::{PartitionState, VersionedState};
use baton_core::{TopicId, TopicPartition};
use baton_registry::recipes::membership::LiveBrokers;
use baton_registry::recipes::topics::Topic;
use tokio::sync::watch;

use super::plan::Snapshot;

/// A state that took the place of another.
#[derive(Clone, Debug)]
pub struct StateChange {
    pub id: TopicPartition,
    pub topic: String,
    pub old: PartitionState,
    pub new: PartitionState,
}

/// The latest reading. Older readings that arrive late are passed over.
#[derive(Debug)]
pub struct View {
    snapshot: Mutex<Snapshot>,
    changed: watch::Sender<u64>,
}

impl Default for View {
    fn default() -> Self {
        Self { snapshot: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl View {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        // Every change is whole before the lock is given back.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at it. What is done inside holds everybody else up.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.lock())
    }

    /// A copy, for longer work.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Rises with every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn set_brokers(&self, live: &LiveBrokers) {
        if live.known {
            let mut snapshot = self.lock();
            snapshot.brokers = live.brokers.clone();
            snapshot.brokers_read = true;
            drop(snapshot);
            self.touch();
        }
    }

    /// One topic was read; none: it is gone, and its partitions with it.
    pub fn set_topic(&self, id: TopicId, topic: Option<Topic>) {
        {
            let mut snapshot = self.lock();
            match topic {
                Some(topic) if snapshot.topics.get(&id).is_some_and(|known| known.version > topic.version) => {}
                Some(topic) => {
                    snapshot.topics.insert(id, topic);
                }
                None => {
                    snapshot.topics.remove(&id);
                    snapshot.states.retain(|partition, _| partition.topic != id);
                }
            }
        }
        self.touch();
    }

    /// Forgets topics that are not there any more.
    pub fn keep_topics(&self, there: &BTreeSet<TopicId>) {
        let mut snapshot = self.lock();
        snapshot.topics.retain(|id, _| there.contains(id));
        snapshot.states.retain(|id, _| there.contains(&id.topic));
    }

    /// Every topic and partition has been read.
    pub fn set_topics_read(&self) {
        self.lock().topics_read = true;
        self.touch();
    }

    /// States were read; a missing one is gone. Returns what took the place of something else.
    pub fn set_states(&self, read: Vec<(TopicPartition, Option<VersionedState>)>) -> Vec<StateChange> {
        let mut changes = Vec::new();
        {
            let mut snapshot = self.lock();
            for (id, known) in read {
                changes.extend(set_state(&mut snapshot, id, known));
            }
        }
        self.touch();
        changes
    }
}

fn set_state(snapshot: &mut Snapshot, id: TopicPartition, known: Option<VersionedState>) -> Option<StateChange> {
    let Some(known) = known else {
        snapshot.states.remove(&id);
        return None;
    };
    let topic = snapshot.name_of(id);
    match snapshot.states.get_mut(&id) {
        Some(before) if before.version >= known.version => None,
        Some(before) => {
            let new = known.state.clone();
            let old = std::mem::replace(before, known).state;
            Some(StateChange { id, topic, old, new })
        }
        None => {
            snapshot.states.insert(id, known);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::fixtures::settled;
    use super::*;

    fn known(version: i32) -> Option<VersionedState> {
        Some(VersionedState { state: settled(&[version.unsigned_abs()]), version })
    }

    #[test]
    fn late_readings_are_passed_over_and_changes_are_told_once() {
        let view = View::default();
        let id = TopicPartition { topic: TopicId(1), partition: 0 };
        assert!(view.set_states(vec![(id, known(1))]).is_empty(), "the first reading is no change");
        let changed = view.set_states(vec![(id, known(3))]);
        assert_eq!((changed[0].old.clone(), changed[0].new.clone()), (settled(&[1]), settled(&[3])));
        assert!(view.set_states(vec![(id, known(2)), (id, known(3))]).is_empty());
        assert_eq!(view.read(|snapshot| snapshot.states[&id].version), 3);
        view.set_states(vec![(id, None)]);
        assert!(view.read(|snapshot| snapshot.states.is_empty()));
    }

    #[test]
    fn a_topic_goes_with_its_partitions() {
        let view = View::default();
        let id = TopicPartition { topic: TopicId(1), partition: 0 };
        view.set_states(vec![(id, known(1))]);
        view.set_topic(TopicId(1), None);
        assert!(view.read(|snapshot| snapshot.states.is_empty()));
    }
}
