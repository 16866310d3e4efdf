//! The cluster as it was read. It may lag behind: every write names the version that it was made
//! from.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::partition::VersionedState;
use baton_core::placement::{BrokerLoad, Replicas};
use baton_core::topic::{NAMESPACE_DEFAULT, TopicConfig};
use baton_core::{BrokerId, Error, ErrorCode, TopicId, TopicPartition};
use baton_registry::recipes::membership::LiveBroker;
use baton_registry::recipes::topics::Topic;
use baton_registry::znode::Intent;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub brokers: BTreeMap<BrokerId, LiveBroker>,
    pub topics: BTreeMap<TopicId, Topic>,
    pub states: BTreeMap<TopicPartition, VersionedState>,
    /// The brokers have been read at least once.
    pub brokers_read: bool,
    /// So have all topics and partitions.
    pub topics_read: bool,
}

impl Snapshot {
    /// Everything has been read at least once: before that, nobody is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.brokers_read && self.topics_read
    }

    /// The topic of this name that is not being deleted.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topics.values().find(|topic| {
            topic.node.name == name
                && topic.node.namespace == NAMESPACE_DEFAULT
                && topic.node.intent != Intent::Deleting
        })
    }

    /// As [`Self::topic_named`].
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`.
    pub fn topic(&self, name: &str) -> Result<&Topic, Error> {
        let missing = || Error::new(ErrorCode::UnknownTopic, "there is no such topic").topic(shown(name));
        self.topic_named(name).ok_or_else(missing)
    }

    /// The states of a topic's partitions, in their order.
    pub fn states_of(&self, id: TopicId) -> impl Iterator<Item = (TopicPartition, &VersionedState)> {
        let first = TopicPartition { topic: id, partition: 0 };
        let last = TopicPartition { topic: id, partition: u32::MAX };
        self.states.range(first..=last).map(|(id, state)| (*id, state))
    }

    /// Which of a topic's partitions are led.
    #[must_use]
    pub fn led_of(&self, id: TopicId) -> u32 {
        let led = self.states_of(id).filter(|(_, known)| known.state.leader.is_some()).count();
        u32::try_from(led).unwrap_or(u32::MAX)
    }

    /// The replicas of a topic's partitions once everything under way is done.
    #[must_use]
    pub fn replicas_of(&self, id: TopicId) -> Vec<Replicas> {
        self.states_of(id).map(|(_, known)| super::reassign::target_of(&known.state.assignment)).collect()
    }

    /// How many copies each partition of a topic has; the fewest.
    #[must_use]
    pub fn replication_of(&self, id: TopicId) -> u32 {
        let fewest = self.replicas_of(id).iter().map(Vec::len).min().unwrap_or_default();
        u32::try_from(fewest).unwrap_or(u32::MAX)
    }

    /// The brokers that may take copies, with what they hold.
    #[must_use]
    pub fn loads(&self) -> Vec<BrokerLoad> {
        let mut loads: BTreeMap<BrokerId, BrokerLoad> = self
            .brokers
            .iter()
            .filter(|(_, live)| !live.registration.draining)
            .map(|(id, live)| {
                let rack = live.registration.rack.clone();
                (*id, BrokerLoad { id: *id, rack, copies: 0, leaders: 0 })
            })
            .collect();
        for known in self.states.values() {
            let replicas = &known.state.assignment.replicas;
            for broker in replicas {
                if let Some(load) = loads.get_mut(broker) {
                    load.copies += 1;
                }
            }
            if let Some(load) = replicas.first().and_then(|preferred| loads.get_mut(preferred)) {
                load.leaders += 1;
            }
        }
        loads.into_values().collect()
    }

    /// Every broker that holds a copy of something.
    #[must_use]
    pub fn assigned(&self) -> BTreeSet<BrokerId> {
        self.states.values().flat_map(|known| known.state.assignment.replicas.iter().copied()).collect()
    }

    /// The name of a partition's topic.
    #[must_use]
    pub fn name_of(&self, id: TopicPartition) -> String {
        self.topics.get(&id.topic).map_or_else(|| id.topic.to_string(), |topic| topic.node.name.clone())
    }

    /// `min.insync.replicas` of a topic; the default if its configuration cannot be read.
    #[must_use]
    pub fn min_insync_of(&self, id: TopicId) -> u32 {
        let config = self.topics.get(&id).and_then(|topic| TopicConfig::from_map(&topic.node.config).ok());
        config.unwrap_or_default().min_insync_replicas
    }
}

/// The start of a name from outside, for an error.
#[must_use]
pub fn shown(name: &str) -> String {
    name.chars().take(249).collect()
}
