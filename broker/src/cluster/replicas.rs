//! Opens and closes local copies as the assignment says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use baton_core::replica::{Input, RoleView};
use baton_core::{Member, Offset, TopicId, TopicPartition};
use baton_registry::recipes::{RecipeError, candidates, tombstones};
use baton_registry::znode::Tombstone;
use tokio::sync::{oneshot, watch};

use crate::cluster::reading::Item;
use crate::cluster::task::{ClusterTask, Done};
use crate::cluster::view::TopicView;
use crate::log::{Damage, Log, LogError, PartitionMeta, Recovered};
use crate::mutation::Mutation;
use crate::shard::open::{Opened, open};
use crate::shard::{ClosedCopy, OpenPartition, PartitionHandle, PartitionStatus, ShardInput, StatusWatch};

/// Which copies there are, and what is being done to them.
#[derive(Debug, Default)]
pub(super) struct LocalCopies {
    /// On disk and in no shard: not asked for yet, or held no more and empty.
    found: BTreeMap<TopicPartition, Recovered>,
    open: BTreeSet<TopicPartition>,
    opening: BTreeSet<TopicPartition>,
    closing: BTreeSet<TopicPartition>,
    /// Deleted topics; true: their data is being removed, and that is to be confirmed.
    buried: BTreeMap<TopicId, bool>,
}

/// A copy that could not be brought up, and what is on disk of it.
pub(super) struct NotOpened {
    error: LogError,
    found: Option<Recovered>,
}

/// What is left of a copy that left its shard.
pub(super) struct Closed {
    id: TopicPartition,
    left: Option<Recovered>,
    result: Result<(), LogError>,
}

impl LocalCopies {
    pub(super) fn new(log: &dyn Log) -> Self {
        let found = log.recovered().into_values().map(|recovered| (recovered.id, recovered)).collect();
        Self { found, ..Self::default() }
    }

    /// Records of a partition lie on the disk and nobody asked for them yet.
    fn holds_records(&self, id: TopicPartition) -> bool {
        self.found.get(&id).is_some_and(|found| found.end > Offset::ZERO || found.damage.is_some())
    }

    fn any_of(&self, topic: TopicId) -> bool {
        let all = all_of(topic);
        let busy = [&self.open, &self.opening, &self.closing];
        busy.iter().any(|ids| ids.range(all.clone()).next().is_some()) || self.found.range(all).next().is_some()
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
        let found = self.found.range(all_of(topic)).map(|(id, _)| *id);
        self.open.range(all_of(topic)).copied().chain(found).collect()
    }
}

/// Every partition that a topic could have.
fn all_of(topic: TopicId) -> RangeInclusive<TopicPartition> {
    TopicPartition { topic, partition: 0 }..=TopicPartition { topic, partition: u32::MAX }
}

impl ClusterTask {
    /// Opens or closes the copy of this partition, if the newest state asks for it. Records go
    /// only after a `synced` reading of the state: an older one may say that this broker left,
    /// when it is back already and its copy counts.
    pub(super) fn settle_copy(&mut self, id: TopicPartition, synced: bool) {
        let Some(known) = self.parts.view.state(id) else { return };
        let me = self.parts.me;
        let assigned = known.state.assignment.replicas.contains(&me);
        let in_sync = known.state.isr_member(me).is_some() && !self.parts.mutations.lacks(Mutation::CloseWhileInSync);
        let free = !self.copies.wanted(id) && !self.copies.closing.contains(&id);
        if assigned && free {
            return self.start_opening(id);
        }
        let open = self.copies.is_open(id);
        if assigned || in_sync || !(open || free && self.copies.holds_records(id)) {
            return;
        }
        if !synced {
            return self.reading.want(Item::SyncedState(id));
        }
        tracing::info!(partition = %id, "this broker holds no copy of the partition any more");
        self.start_closing(id, Fate::Retire);
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
            let result = open(&*log, id, found.clone(), mutations).await;
            Done::Opened { id, result: result.map_err(|error| NotOpened { error, found }) }
        }));
    }

    pub(super) async fn opened(&mut self, id: TopicPartition, result: Result<Opened, NotOpened>) {
        self.copies.opening.remove(&id);
        let opened = match result {
            Ok(opened) => opened,
            Err(NotOpened { error, found }) => {
                tracing::error!(partition = %id, %error, "cannot open the copy of a partition");
                self.copies.found.extend(found.map(|found| (id, found)));
                self.retry_later(Item::SyncedState(id));
                if self.copies.buried.contains_key(&id.topic) {
                    self.close_all_of(id.topic);
                    self.confirm_burials();
                }
                return;
            }
        };
        let topic = self.parts.view.topic_by_id(id.topic).filter(|_| !self.copies.buried.contains_key(&id.topic));
        let Some(topic) = topic else {
            // Deleted meanwhile, or not shown for a moment: it is opened again when it is.
            self.copies.found.insert(id, put_back(id, opened));
            if self.copies.buried.contains_key(&id.topic) {
                self.start_closing(id, Fate::Delete);
            }
            return;
        };
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
        let handle = PartitionHandle {
            id,
            topic: Arc::clone(&topic.name),
            settings: topic.config.clone(),
            status: StatusWatch::new(shown),
        };
        self.parts.partitions.insert(handle);
        self.parts.shards.tell(id, ShardInput::Open(Box::new(open))).await;
        if let Some(state) = self.parts.view.state(id) {
            self.parts.shards.tell(id, ShardInput::Replica { id, input: Input::State(state) }).await;
        }
        self.reading.want(Item::Queue(id));
        // It may have been assigned away while it was being opened, and nothing else says so again.
        self.settle_copy(id, false);
    }

    fn start_closing(&mut self, id: TopicPartition, fate: Fate) {
        self.copies.open.remove(&id);
        self.copies.closing.insert(id);
        self.queues.remove(&id);
        self.electors.remove(&id);
        self.parts.partitions.remove(id);
        self.parts.sessions.release(&baton_registry::znode::candidate::prefix(id));
        let (shards, log) = (self.parts.shards.clone(), Arc::clone(&self.parts.log));
        let found = self.copies.found.remove(&id);
        self.running.push(Box::pin(async move {
            let copy = match found {
                Some(found) => Some(found),
                None => {
                    let (done, closed) = oneshot::channel();
                    shards.tell(id, ShardInput::Close { id, done }).await;
                    closed.await.ok().flatten().map(|closed| unopened(id, closed))
                }
            };
            Done::Closed(match copy {
                Some(copy) => fate.befall(&*log, copy).await,
                None => Closed { id, left: None, result: Ok(()) },
            })
        }));
    }

    pub(super) fn closed(&mut self, closed: Closed) {
        let Closed { id, left, result } = closed;
        self.copies.closing.remove(&id);
        self.copies.found.extend(left.map(|left| (id, left)));
        if let Err(error) = result {
            tracing::error!(partition = %id, %error, "the data of a partition was not removed: trying again");
            self.copies.buried.remove(&id.topic);
            self.retry_later(Item::Tombstones);
            return self.retry_later(Item::SyncedState(id));
        }
        // It may have been assigned again meanwhile.
        self.settle_copy(id, false);
        self.confirm_burials();
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

    /// A deleted topic: its data goes, and once it is gone the coordinator learns of it.
    pub(super) fn bury(&mut self, topic: TopicId, tombstone: &Tombstone) {
        if self.parts.mutations.lacks(Mutation::IgnoreTombstone) || self.copies.buried.contains_key(&topic) {
            return;
        }
        self.copies.buried.insert(topic, tombstone.brokers.contains(&self.parts.me));
        self.parts.view.forget_topic(topic);
        self.close_all_of(topic);
        self.confirm_burials();
    }

    /// Confirms the deletion of every topic of which nothing is left here.
    fn confirm_burials(&mut self) {
        let due = self.copies.buried.iter().filter(|(topic, owed)| **owed && !self.copies.any_of(**topic));
        let due: Vec<TopicId> = due.map(|(topic, _)| *topic).collect();
        for topic in due {
            self.copies.buried.insert(topic, false);
            let (registry, me) = (Arc::clone(&self.parts.registry), self.parts.me);
            self.running.push(Box::pin(async move {
                Done::Confirmed(topic, tombstones::acknowledge(&*registry, topic, me).await)
            }));
        }
    }

    pub(super) fn confirmed(&mut self, topic: TopicId, result: Result<(), RecipeError>) {
        if let Err(error) = result {
            tracing::warn!(%topic, %error, "cannot confirm the deletion of a topic yet");
            self.copies.buried.remove(&topic);
            self.retry_later(Item::Tombstones);
        }
    }

    /// Forgets deleted topics of which there is no tombstone any more.
    pub(super) fn forget_burials(&mut self, tombstones: &BTreeSet<TopicId>) {
        self.copies.buried.retain(|topic, owed| *owed || tombstones.contains(topic));
    }

    /// Closes every copy of a topic, open or not, and deletes its data. What is just being
    /// opened follows when it is there.
    pub(super) fn close_all_of(&mut self, topic: TopicId) {
        for id in self.copies.of_topic(topic) {
            self.start_closing(id, Fate::Delete);
        }
    }
}

/// What becomes of a copy that is held no more.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Another broker has it: it is emptied, and stays as a later generation, so that a copy
    /// that this broker gets later is never taken for the one that it had ★.
    Retire,
    /// Its topic is gone, and no id is used again.
    Delete,
}

impl Fate {
    async fn befall(self, log: &dyn Log, copy: Recovered) -> Closed {
        let Recovered { partition, id, generation, .. } = copy;
        let (left, result) = match self {
            Self::Delete => (None, log.delete(partition).await),
            Self::Retire => {
                let generation = generation.next();
                let meta = PartitionMeta { highest_epoch: copy.meta.highest_epoch, ..PartitionMeta::default() };
                let (start, end, damage) = (Offset::ZERO, Offset::ZERO, None);
                let empty = Recovered { partition, id, generation, start, end, meta, damage };
                (Some(empty), log.reset(partition, generation, Offset::ZERO, bytes::Bytes::new()).await)
            }
        };
        match result {
            Ok(()) => Closed { id, left, result },
            Err(_) => Closed { id, left: Some(doubtful(copy, "it could not be removed")), result },
        }
    }
}

/// A copy whose contents are not known here: whoever opens it has it refilled.
fn doubtful(copy: Recovered, what: &str) -> Recovered {
    Recovered { damage: copy.damage.or_else(|| Some(Damage::Unreadable { what: what.to_owned() })), ..copy }
}

/// A copy that left its shard: what is in it is not asked any more.
fn unopened(id: TopicPartition, closed: ClosedCopy) -> Recovered {
    let ClosedCopy { local, generation, highest_epoch } = closed;
    let meta = PartitionMeta { highest_epoch, ..PartitionMeta::default() };
    let (start, end) = (Offset::ZERO, Offset::ZERO);
    Recovered { partition: local, id, generation, start, end, meta, damage: None }
}

/// What was opened and never reached a shard is on disk as it was.
fn put_back(id: TopicPartition, opened: Opened) -> Recovered {
    let Opened { local, generation, recovered, meta } = opened;
    let (start, end) = (recovered.start, recovered.end);
    let damage = recovered.damaged.then(|| Damage::Unreadable { what: "found damaged".to_owned() });
    Recovered { partition: local, id, generation, start, end, meta, damage }
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
        last_stable: Offset::ZERO,
        in_sync: 0,
        assigned: 0,
        damaged: opened.recovered.damaged,
        follows_in_sync: false,
        yields: false,
    }
}

#[cfg(test)]
mod tests;
