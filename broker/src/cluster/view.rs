//! The cluster as this broker knows it. It may lag behind; nothing that safety rests on reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use baton_core::partition::VersionedState;
use baton_core::topic::TopicConfig;
use baton_core::{BrokerId, TopicId, TopicPartition};
use baton_registry::recipes::membership::LiveBrokers;
use baton_registry::znode::{Intent, TopicNode};
use tokio::sync::watch;

/// One topic, as its node says.
#[derive(Clone, Debug)]
pub struct TopicView {
    pub id: TopicId,
    pub name: Arc<str>,
    pub config: TopicConfig,
    pub partitions: u32,
    pub deleting: bool,
    /// Still being created: it shows up in lists when it is there.
    pub creating: bool,
}

#[derive(Debug, Default)]
struct Known {
    topics: BTreeMap<TopicId, Arc<TopicView>>,
    by_name: BTreeMap<Arc<str>, TopicId>,
    states: BTreeMap<TopicPartition, VersionedState>,
}

/// Shared by listeners, elections and admin calls. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct ClusterView {
    known: Arc<RwLock<Known>>,
    brokers: watch::Receiver<Arc<LiveBrokers>>,
    changes: Arc<watch::Sender<u64>>,
    /// Whether everything was read once.
    whole: Arc<watch::Sender<bool>>,
}

impl ClusterView {
    #[must_use]
    pub fn new(brokers: watch::Receiver<Arc<LiveBrokers>>) -> Self {
        Self {
            known: Arc::default(),
            brokers,
            changes: Arc::new(watch::Sender::new(0)),
            whole: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Changes with every change of a topic or of a partition's state.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Everything was read once: what is not known is not there, or very young.
    pub(super) fn is_read(&self) {
        self.whole.send_if_modified(|whole| !std::mem::replace(whole, true));
    }

    /// Whether everything was read once since this broker started. Before that nothing can be
    /// said of what is not known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self.whole.borrow()
    }

    /// Waits for that.
    pub async fn whole(&self, within: Duration) -> bool {
        let mut whole = self.whole.subscribe();
        tokio::time::timeout(within, whole.wait_for(|whole| *whole)).await.is_ok_and(|waited| waited.is_ok())
    }

    #[must_use]
    pub fn brokers(&self) -> Arc<LiveBrokers> {
        Arc::clone(&self.brokers.borrow())
    }

    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<TopicView>> {
        let known = self.read();
        let id = known.by_name.get(name)?;
        known.topics.get(id).filter(|topic| !topic.deleting).cloned()
    }

    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicView>> {
        self.read().topics.get(&id).cloned()
    }

    /// In the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<TopicView>> {
        let known = self.read();
        let ids = known.by_name.values();
        ids.filter_map(|id| known.topics.get(id)).filter(|topic| !topic.deleting).cloned().collect()
    }

    #[must_use]
    pub fn state(&self, id: TopicPartition) -> Option<VersionedState> {
        self.read().states.get(&id).cloned()
    }

    /// The states of a topic's partitions, in their order, as far as they are known.
    #[must_use]
    pub fn states_of(&self, topic: TopicId) -> Vec<(u32, VersionedState)> {
        let first = TopicPartition { topic, partition: 0 };
        let last = TopicPartition { topic, partition: u32::MAX };
        self.read().states.range(first..=last).map(|(id, state)| (id.partition, state.clone())).collect()
    }

    /// Calls `see` for every partition, under the lock: it has to be quick.
    pub fn for_each_state(&self, mut see: impl FnMut(TopicPartition, &VersionedState)) {
        for (id, state) in &self.read().states {
            see(*id, state);
        }
    }

    /// The leader that the registry names, and its epoch.
    #[must_use]
    pub fn leader(&self, id: TopicPartition) -> (Option<BrokerId>, u32) {
        let known = self.read();
        known.states.get(&id).map_or((None, 0), |v| (v.state.leader.map(|l| l.broker), v.state.epoch.0))
    }

    /// Takes a state if it is newer; returns whether it was.
    pub(super) fn learn_state(&self, id: TopicPartition, state: VersionedState) -> bool {
        let mut known = self.write();
        if known.states.get(&id).is_some_and(|old| old.version >= state.version) {
            return false;
        }
        known.states.insert(id, state);
        drop(known);
        self.changed();
        true
    }

    pub(super) fn forget_state(&self, id: TopicPartition) {
        self.write().states.remove(&id);
        self.changed();
    }

    /// A configuration that does not parse (a newer coordinator wrote it) is shown as the
    /// defaults, and said in the log.
    pub(super) fn learn_topic(&self, id: TopicId, node: &TopicNode) -> Arc<TopicView> {
        let config = TopicConfig::from_map(&node.config).unwrap_or_else(|error| {
            tracing::error!(topic = node.name, %error, "the topic's configuration is not understood: using the defaults");
            TopicConfig::default()
        });
        let topic = Arc::new(TopicView {
            id,
            name: node.name.as_str().into(),
            config,
            partitions: node.partitions,
            deleting: node.intent == Intent::Deleting,
            creating: matches!(node.intent, Intent::Creating { .. }),
        });
        let mut known = self.write();
        // A deleted topic's successor has the same name and a higher id.
        let newer = known.by_name.get(&topic.name).is_none_or(|other| *other <= id);
        if newer {
            known.by_name.insert(Arc::clone(&topic.name), id);
        }
        known.topics.insert(id, Arc::clone(&topic));
        drop(known);
        self.changed();
        topic
    }

    pub(super) fn forget_topic(&self, id: TopicId) {
        let mut known = self.write();
        if let Some(topic) = known.topics.remove(&id)
            && known.by_name.get(&topic.name) == Some(&id)
        {
            known.by_name.remove(&topic.name);
        }
        let first = TopicPartition { topic: id, partition: 0 };
        let last = TopicPartition { topic: id, partition: u32::MAX };
        let gone: Vec<TopicPartition> = known.states.range(first..=last).map(|(id, _)| *id).collect();
        for id in gone {
            known.states.remove(&id);
        }
        drop(known);
        self.changed();
    }

    pub(super) fn topic_ids(&self) -> Vec<TopicId> {
        self.read().topics.keys().copied().collect()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The lock guards maps that no panic can leave half-written.
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
