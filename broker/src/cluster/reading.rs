//! Which nodes are to be read again. A node is read once however often it changed meanwhile,
//! and again if it changes while it is being read.

use std::collections::BTreeSet;

use baton_core::{TopicId, TopicPartition};
use baton_registry::znode::{candidate, partition, topic};
use baton_registry::{Event, EventKind};

/// Reads under way at once: enough to fill ZooKeeper's pipeline.
pub(super) const READS_MAX: usize = 512;

/// One thing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// The list of topics, and with it everything.
    Topics,
    Topic(TopicId),
    State(TopicPartition),
    /// The same, after a sync, and told to the shard even if it is old news.
    SyncedState(TopicPartition),
    Queue(TopicPartition),
    Tombstones,
}

#[derive(Debug, Default)]
pub(super) struct Reading {
    wanted: BTreeSet<Item>,
    running: BTreeSet<Item>,
}

impl Reading {
    pub(super) fn want(&mut self, item: Item) {
        self.wanted.insert(item);
    }

    /// What to start reading now.
    pub(super) fn start(&mut self) -> Vec<Item> {
        let room = READS_MAX.saturating_sub(self.running.len());
        let ready: Vec<Item> = self.wanted.iter().filter(|i| !self.running.contains(*i)).take(room).copied().collect();
        for item in &ready {
            self.wanted.remove(item);
            self.running.insert(*item);
        }
        ready
    }

    pub(super) fn done(&mut self, item: Item) {
        self.running.remove(&item);
    }

    /// Whether it will be read once more, whatever is read of it now.
    pub(super) fn is_wanted(&self, item: Item) -> bool {
        self.wanted.contains(&item)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.running.is_empty()
    }

    /// An event below `/p`: a state, or a queue.
    pub(super) fn partition_event(&mut self, event: &Event, holds: impl Fn(TopicPartition) -> bool) {
        let Event::Node { path, kind } = event else { return self.want(Item::Topics) };
        let Some(id) = partition::partition_of(path) else { return };
        if candidate::sequence_of(path).is_some() {
            if holds(id) {
                self.want(Item::Queue(id));
            }
        } else if *kind != EventKind::Deleted {
            // A node that is gone is told by the topic's node.
            self.want(Item::State(id));
        }
    }

    /// An event below `/t`.
    pub(super) fn topic_event(&mut self, event: &Event) {
        match event {
            Event::Node { path, .. } => match topic::topic_of(path) {
                Some(id) => self.want(Item::Topic(id)),
                None => self.want(Item::Topics),
            },
            Event::Reset => self.want(Item::Topics),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_during_a_read_is_read_again() {
        let mut reading = Reading::default();
        reading.want(Item::Topics);
        assert_eq!(reading.start(), [Item::Topics]);
        reading.want(Item::Topics);
        assert!(reading.start().is_empty(), "one read of a node at a time");
        reading.done(Item::Topics);
        assert_eq!(reading.start(), [Item::Topics]);
        reading.done(Item::Topics);
        assert!(reading.is_idle());
    }

    #[test]
    fn events_name_what_to_read() {
        let mut reading = Reading::default();
        let id = TopicPartition { topic: TopicId(42), partition: 7 };
        let node = |path: String| Event::Node { path, kind: EventKind::Changed };
        reading.partition_event(&node(partition::path(id)), |_| true);
        reading.partition_event(&node(candidate::path(id, baton_core::CandidateSeq(3))), |_| true);
        reading.partition_event(&node(candidate::path(id, baton_core::CandidateSeq(4))), |_| true);
        reading.topic_event(&node(topic::path(TopicId(42))));
        assert_eq!(reading.start(), [Item::Topic(TopicId(42)), Item::State(id), Item::Queue(id)]);
    }
}
