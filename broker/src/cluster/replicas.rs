//! Opens and closes local copies as the assignment says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_core::partition::PartitionState;
use baton_core::replica::{Input, RoleView};
use baton_core::{Member, Offset, TopicId, TopicPartition};
use baton_registry::recipes::{candidates, tombstones};
use baton_registry::znode::Tombstone;
use tokio::sync::{oneshot, watch};

use crate::cluster::reading::Item;
use crate::cluster::task::{ClusterTask, Done};
use crate::cluster::view::TopicView;
use crate::log::{Log, LogError, Recovered};
use crate::mutation::Mutation;
use crate::shard::open::{Opened, open};
use crate::shard::{OpenPartition, PartitionHandle, PartitionStatus, ShardInput};

/// Which copies there are, and what is being done to them.
#[derive(Debug, Default)]
pub(super) struct LocalCopies {
    /// Found on disk and not asked for yet.
    found: BTreeMap<TopicPartition, Recovered>,
    open: BTreeSet<TopicPartition>,
    opening: BTreeSet<TopicPartition>,
    closing: BTreeSet<TopicPartition>,
    buried: BTreeSet<TopicId>,
}

impl LocalCopies {
    pub(super) fn new(log: &dyn Log) -> Self {
        let found = log.recovered().into_values().map(|recovered| (recovered.id, recovered)).collect();
        Self { found, ..Self::default() }
    }

    pub(super) fn is_open(&self, id: TopicPartition) -> bool {
        self.open.contains(&id)
    }

    pub(super) fn wanted(&self, id: TopicPartition) -> bool {
        self.open.contains(&id) || self.opening.contains(&id)
    }

    pub(super) fn open_ids(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.open.iter().copied()
    }

    pub(super) fn settled(&self) -> bool {
        self.opening.is_empty()
    }

    fn of_topic(&self, topic: TopicId) -> Vec<TopicPartition> {
        let all = self.open.iter().chain(self.found.keys());
        all.filter(|id| id.topic == topic).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl ClusterTask {
    /// Opens or closes the copy of this partition, if the state asks for it.
    pub(super) fn settle_copy(&mut self, id: TopicPartition, state: &PartitionState) {
        let me = self.parts.me;
        let assigned = state.assignment.replicas.contains(&me);
        let in_sync = state.isr_member(me).is_some() && !self.parts.mutations.lacks(Mutation::CloseWhileInSync);
        if assigned && !self.copies.wanted(id) && !self.copies.closing.contains(&id) {
            self.start_opening(id);
        } else if !assigned && !in_sync && self.copies.is_open(id) {
            tracing::info!(partition = %id, "this broker holds no copy of the partition any more");
            self.start_closing(id);
        }
    }

    fn start_opening(&mut self, id: TopicPartition) {
        if self.parts.view.topic_by_id(id.topic).is_none_or(|topic| topic.deleting) {
            return;
        }
        if self.copies.open.len() + self.copies.opening.len() >= self.parts.partitions_max {
            tracing::error!(partition = %id, max = self.parts.partitions_max,
                "this broker holds as many partitions as limits.partitions allows: it does not take another one");
            return;
        }
        self.copies.opening.insert(id);
        let found = self.copies.found.remove(&id);
        let mutations = self.parts.mutations;
        let (log, registry) = (Arc::clone(&self.parts.log), Arc::clone(&self.parts.registry));
        let remembered = if found.is_some() { self.parts.remembered.clone() } else { Vec::new() };
        self.running.push(Box::pin(async move {
            // Candidates of this broker's previous process must not stand in the way.
            if let Err(error) = candidates::delete_ghosts(&*registry, &[id], &remembered).await {
                tracing::debug!(partition = %id, %error, "candidates of an earlier session stay until it ends");
            }
            Done::Opened { id, result: open(&*log, id, found, mutations).await }
        }));
    }

    pub(super) async fn opened(&mut self, id: TopicPartition, result: Result<Opened, LogError>) {
        self.copies.opening.remove(&id);
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(partition = %id, %error, "cannot open the copy of a partition");
                return self.retry_later(Item::SyncedState(id));
            }
        };
        let Some(topic) = self.parts.view.topic_by_id(id.topic) else { return };
        let member = Member { broker: self.parts.me, disk: self.parts.disk, generation: opened.generation };
        let (status, shown) = watch::channel(first_status(member, &opened));
        let open = OpenPartition {
            id,
            topic: Arc::clone(&topic.name),
            local: opened.local,
            member,
            recovered: opened.recovered,
            meta: opened.meta,
            settings: topic.config.clone(),
            status,
        };
        self.copies.open.insert(id);
        let handle =
            PartitionHandle { id, topic: Arc::clone(&topic.name), settings: topic.config.clone(), status: shown };
        self.parts.partitions.insert(handle);
        self.parts.shards.tell(id, ShardInput::Open(Box::new(open))).await;
        if let Some(state) = self.parts.view.state(id) {
            self.parts.shards.tell(id, ShardInput::Replica { id, input: Input::State(state) }).await;
        }
        self.reading.want(Item::Queue(id));
    }

    fn start_closing(&mut self, id: TopicPartition) {
        self.copies.open.remove(&id);
        self.copies.closing.insert(id);
        self.queues.remove(&id);
        self.electors.remove(&id);
        self.parts.partitions.remove(id);
        self.parts.sessions.release(&baton_registry::znode::candidate::prefix(id));
        let (shards, log) = (self.parts.shards.clone(), Arc::clone(&self.parts.log));
        self.running.push(Box::pin(async move {
            let (done, closed) = oneshot::channel();
            shards.tell(id, ShardInput::Close { id, done }).await;
            let result = match closed.await {
                Ok(Some(local)) => log.delete(local).await,
                Ok(None) | Err(_) => Ok(()),
            };
            Done::Closed(id, result)
        }));
    }

    pub(super) fn closed(&mut self, id: TopicPartition, result: Result<(), LogError>) {
        self.copies.closing.remove(&id);
        if let Err(error) = result {
            tracing::error!(partition = %id, %error, "the data of a partition was not removed");
        }
        // It may have been assigned again meanwhile.
        if let Some(known) = self.parts.view.state(id) {
            self.settle_copy(id, &known.state);
        }
    }

    /// A topic's settings reach every copy that is open.
    pub(super) async fn apply_settings(&mut self, topic: &TopicView) {
        for id in self.copies.of_topic(topic.id) {
            let Some(mut handle) = self.parts.partitions.get(id) else { continue };
            if handle.settings == topic.config {
                continue;
            }
            handle.settings = topic.config.clone();
            self.parts.partitions.insert(handle);
            let settings = topic.config.clone();
            self.parts.shards.tell(id, ShardInput::Settings { id, settings }).await;
        }
    }

    /// A deleted topic: its data goes, and the coordinator learns that it is gone here.
    pub(super) async fn bury(&mut self, topic: TopicId, tombstone: &Tombstone) {
        let ignored = self.parts.mutations.lacks(Mutation::IgnoreTombstone);
        if ignored || !tombstone.brokers.contains(&self.parts.me) || !self.copies.buried.insert(topic) {
            return;
        }
        self.parts.view.forget_topic(topic);
        self.close_all_of(topic);
        let (registry, me) = (Arc::clone(&self.parts.registry), self.parts.me);
        self.running.push(Box::pin(async move {
            if let Err(error) = tombstones::acknowledge(&*registry, topic, me).await {
                tracing::warn!(%topic, %error, "cannot confirm the deletion of a topic");
            }
            Done::BestEffort
        }));
    }

    /// Closes every copy of a topic, open or not, and deletes its data.
    pub(super) fn close_all_of(&mut self, topic: TopicId) {
        for id in self.copies.of_topic(topic) {
            if let Some(found) = self.copies.found.remove(&id) {
                let log = Arc::clone(&self.parts.log);
                self.copies.closing.insert(id);
                self.running.push(Box::pin(async move { Done::Closed(id, log.delete(found.partition).await) }));
            } else {
                self.start_closing(id);
            }
        }
    }
}

fn first_status(member: Member, opened: &Opened) -> PartitionStatus {
    PartitionStatus {
        role: RoleView::Idle,
        member,
        epoch: opened.recovered.highest_epoch,
        version: -1,
        log_start: opened.recovered.start,
        log_end: opened.recovered.end,
        high_watermark: Offset::ZERO,
        latest: None,
        in_sync: 0,
        assigned: 0,
        damaged: opened.recovered.damaged,
    }
}
