//! The one task that speaks with the registry for all partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::election::{Candidate, ElectionConfig, Elector};
use baton_core::partition::{PartitionState, VersionedState};
use baton_core::replica::{Env, Input};
use baton_core::{BrokerId, CandidateSeq, DiskId, Incarnation, TopicId, TopicPartition};
use baton_registry::pool::SessionPool;
use baton_registry::recipes::membership::LiveBrokers;
use baton_registry::recipes::partition_state::{Outcome, StateWrite};
use baton_registry::recipes::topics::{Topic, TopicList};
use baton_registry::recipes::{RecipeError, candidates, partition_state, tombstones, topics};
use baton_registry::znode::{self, Tombstone};
use baton_registry::{Event, Registry, RegistryError, SessionId, Watch};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Monotonic;
use crate::cluster::reading::{Item, Reading};
use crate::cluster::replicas::{Closed, LocalCopies, NotOpened};
use crate::cluster::view::ClusterView;
use crate::cluster::writing::WriteOrder;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::mutation::{Mutation, Mutations};
use crate::shard::input::RegistryCall;
use crate::shard::{Partitions, ShardInput, Shards, open::Opened};

/// What the task is made of.
pub struct ClusterParts {
    pub registry: Arc<dyn Registry>,
    pub sessions: Arc<SessionPool>,
    pub remembered: Vec<SessionId>,
    pub view: ClusterView,
    pub brokers: watch::Receiver<Arc<LiveBrokers>>,
    pub shards: Shards,
    pub partitions: Partitions,
    pub log: Arc<dyn Log>,
    pub env: watch::Receiver<Arc<Env>>,
    pub calls: mpsc::UnboundedReceiver<RegistryCall>,
    pub draining: watch::Receiver<bool>,
    pub me: BrokerId,
    pub disk: DiskId,
    pub incarnation: Incarnation,
    pub seed: u64,
    pub election: ElectionConfig,
    pub reread: Duration,
    pub partitions_max: usize,
    pub monotonic: Monotonic,
    pub metrics: Metrics,
    /// Set once everything was read for the first time.
    pub loaded: watch::Sender<bool>,
    pub stop: CancellationToken,
    pub mutations: Mutations,
}

/// Something that was started is done.
pub(super) enum Done {
    Topics(Result<TopicList, RecipeError>),
    Topic(TopicId, Result<Option<Topic>, RecipeError>),
    State { id: TopicPartition, item: Item, result: Result<Option<VersionedState>, RecipeError> },
    Queue(TopicPartition, Result<Vec<candidates::QueuedCandidate>, RecipeError>),
    Tombstones(Result<Vec<(TopicId, Tombstone)>, RecipeError>),
    Written { orders: Vec<WriteOrder>, outcomes: Vec<Outcome> },
    Elected { writes: Vec<(StateWrite, PartitionState)>, outcomes: Vec<Outcome> },
    Queued(TopicPartition, Result<Candidate, RecipeError>),
    Left { id: TopicPartition, gone: Vec<CandidateSeq>, all: bool },
    Opened { id: TopicPartition, result: Result<Opened, NotOpened> },
    Closed(Closed),
    Confirmed(TopicId, Result<(), RecipeError>),
    BestEffort,
}

pub struct ClusterTask {
    pub(super) parts: ClusterParts,
    pub(super) reading: Reading,
    pub(super) queues: BTreeMap<TopicPartition, Vec<Candidate>>,
    pub(super) electors: BTreeMap<TopicPartition, Elector>,
    pub(super) due: BTreeSet<(u64, TopicPartition)>,
    /// Partitions of which a candidate is being made or removed, or an election is being written.
    pub(super) busy: BTreeSet<TopicPartition>,
    pub(super) to_decide: BTreeSet<TopicPartition>,
    pub(super) orders: Vec<WriteOrder>,
    pub(super) copies: LocalCopies,
    pub(super) next_nonce: u64,
    pub(super) running: FuturesUnordered<BoxFuture<'static, Done>>,
    retry_at: BTreeSet<(u64, Item)>,
}

/// After a failed read it is tried again so much later.
const RETRY_MS: u64 = 200;

impl ClusterTask {
    #[must_use]
    pub fn new(parts: ClusterParts) -> Self {
        let copies = LocalCopies::new(&*parts.log);
        Self {
            next_nonce: parts.seed,
            parts,
            reading: Reading::default(),
            queues: BTreeMap::new(),
            electors: BTreeMap::new(),
            due: BTreeSet::new(),
            busy: BTreeSet::new(),
            to_decide: BTreeSet::new(),
            orders: Vec::new(),
            copies,
            running: FuturesUnordered::new(),
            retry_at: BTreeSet::new(),
        }
    }

    /// Runs until the broker stops or its registry is closed.
    pub async fn run(mut self) {
        let watch = |path| Self::watch(Arc::clone(&self.parts.registry), self.parts.stop.clone(), path);
        let Some(mut topics) = watch(znode::topic::ROOT).await else { return };
        let Some(mut states) = watch(znode::partition::ROOT).await else { return };
        let Some(mut deleted) = watch(znode::tombstone::ROOT).await else { return };
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reread = tokio::time::interval(self.parts.reread);
        let stop = self.parts.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.running.next(), if !self.running.is_empty() => self.complete(done).await,
                call = self.parts.calls.recv() => match call {
                    Some(call) => self.called(call),
                    None => return,
                },
                event = states.next() => match event {
                    Some(event) => self.state_event(&event),
                    None => return,
                },
                event = topics.next() => match event {
                    Some(event) => self.reading.topic_event(&event),
                    None => return,
                },
                event = deleted.next() => match event {
                    Some(_) => self.reading.want(Item::Tombstones),
                    None => return,
                },
                Ok(()) = self.parts.env.changed() => self.decide_all(),
                Ok(()) = self.parts.draining.changed() => self.decide_all(),
                Ok(()) = self.parts.brokers.changed() => {}
                _ = reread.tick() => {
                    self.reading.want(Item::Topics);
                    self.reading.want(Item::Tombstones);
                }
                _ = tick.tick() => self.tick(),
            }
            self.drain_calls();
            self.go_on();
        }
    }

    async fn watch(registry: Arc<dyn Registry>, stop: CancellationToken, path: &str) -> Option<Watch> {
        loop {
            match registry.watch(path, true).await {
                Ok(watch) => return Some(watch),
                Err(RegistryError::Closed) => return None,
                Err(error) => tracing::warn!(path, %error, "cannot watch yet"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)) => {}
            }
        }
    }

    fn state_event(&mut self, event: &Event) {
        if *event == Event::Reset && self.parts.mutations.lacks(Mutation::LoseWatch) {
            return;
        }
        let Self { reading, copies, .. } = self;
        reading.partition_event(event, |id| copies.wanted(id));
    }

    /// What is already waiting is taken together, so that many writes become one.
    fn drain_calls(&mut self) {
        while let Ok(call) = self.parts.calls.try_recv() {
            self.called(call);
        }
    }

    fn called(&mut self, call: RegistryCall) {
        match call {
            RegistryCall::Read(id) => self.reading.want(Item::SyncedState(id)),
            RegistryCall::Role(id) => {
                self.to_decide.insert(id);
            }
            RegistryCall::Write { id, attempt, kind, expected_version, state, joining, toward } => {
                self.orders.push(WriteOrder { id, attempt, kind, expected_version, state: *state, joining, toward });
            }
        }
    }

    fn tick(&mut self) {
        let now_ms = self.parts.monotonic.now_ms();
        while let Some((at, id)) = self.due.first().copied()
            && at <= now_ms
        {
            self.due.remove(&(at, id));
            self.to_decide.insert(id);
        }
        while let Some((at, item)) = self.retry_at.first().copied()
            && at <= now_ms
        {
            self.retry_at.remove(&(at, item));
            self.reading.want(item);
        }
    }

    pub(super) fn retry_later(&mut self, item: Item) {
        self.retry_at.insert((self.parts.monotonic.now_ms() + RETRY_MS, item));
    }

    /// What cannot be understood stays so until somebody writes it anew: the watch says when, and
    /// everything is read again from time to time. Until then what was known goes on to count.
    fn retry_unless_unreadable(&mut self, error: &RecipeError, item: Item) {
        if !matches!(error, RecipeError::Znode(_)) {
            self.retry_later(item);
        }
    }

    /// Starts whatever is ready: writes first, since others wait for them.
    pub(super) fn go_on(&mut self) {
        self.start_writes();
        self.start_elections();
        for item in self.reading.start() {
            let read = self.read(item);
            self.running.push(read);
        }
        let read = self.reading.is_idle() && self.retry_at.is_empty();
        if read {
            self.parts.view.is_read();
        }
        if read && self.copies.settled() {
            self.parts.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
        }
    }

    fn read(&self, item: Item) -> BoxFuture<'static, Done> {
        let registry = Arc::clone(&self.parts.registry);
        match item {
            Item::Topics => Box::pin(async move { Done::Topics(topics::read_all(&*registry).await) }),
            Item::Topic(id) => Box::pin(async move { Done::Topic(id, topics::read(&*registry, id).await) }),
            Item::State(id) => {
                Box::pin(async move { Done::State { id, item, result: partition_state::read(&*registry, id).await } })
            }
            Item::SyncedState(id) => {
                Box::pin(
                    async move { Done::State { id, item, result: partition_state::read_synced(&*registry, id).await } },
                )
            }
            Item::Queue(id) => Box::pin(async move { Done::Queue(id, candidates::list(&*registry, id).await) }),
            Item::Tombstones => Box::pin(async move { Done::Tombstones(tombstones::list(&*registry).await) }),
        }
    }

    pub(super) async fn complete(&mut self, done: Done) {
        match done {
            Done::Topics(result) => self.topics_read(result).await,
            Done::Topic(id, result) => self.topic_read(id, result).await,
            Done::State { id, item, result } => self.state_read(id, item, result).await,
            Done::Queue(id, result) => self.queue_read(id, result),
            Done::Tombstones(result) => self.tombstones_read(result).await,
            Done::Written { orders, outcomes } => self.written(orders, outcomes).await,
            Done::Elected { writes, outcomes } => self.elected(writes, outcomes).await,
            Done::Queued(id, result) => self.queued(id, result),
            Done::Left { id, gone, all } => self.left(id, &gone, all),
            Done::Opened { id, result } => self.opened(id, result).await,
            Done::Closed(closed) => self.closed(closed),
            Done::Confirmed(topic, result) => self.confirmed(topic, result),
            Done::BestEffort => {}
        }
    }

    async fn topics_read(&mut self, result: Result<TopicList, RecipeError>) {
        self.reading.done(Item::Topics);
        let TopicList { topics, unreadable } = match result {
            Ok(topics) => topics,
            Err(error) => {
                tracing::warn!(%error, "cannot read the topics");
                return self.retry_later(Item::Topics);
            }
        };
        // What was known of an unreadable one goes on to count.
        let present: BTreeSet<TopicId> = topics.iter().map(|topic| topic.id).chain(unreadable).collect();
        for id in self.parts.view.topic_ids() {
            if !present.contains(&id) {
                // Only a tombstone deletes data; this only stops showing the topic.
                self.parts.view.forget_topic(id);
                if self.parts.mutations.lacks(Mutation::DeleteUnlisted) {
                    self.close_all_of(id);
                }
            }
        }
        for topic in topics {
            self.learn_topic(topic).await;
        }
    }

    async fn topic_read(&mut self, id: TopicId, result: Result<Option<Topic>, RecipeError>) {
        self.reading.done(Item::Topic(id));
        match result {
            Ok(Some(topic)) => self.learn_topic(topic).await,
            Ok(None) => self.parts.view.forget_topic(id),
            Err(error) => {
                tracing::warn!(topic = %id, %error, "cannot read a topic");
                self.retry_unless_unreadable(&error, Item::Topic(id));
            }
        }
    }

    /// Reads all of its partitions: events about them may have come before the topic was known.
    async fn learn_topic(&mut self, topic: Topic) {
        let view = self.parts.view.learn_topic(topic.id, &topic.node);
        for partition in 0..view.partitions {
            let id = TopicPartition { topic: topic.id, partition };
            self.reading.want(Item::State(id));
            if self.copies.wanted(id) {
                self.reading.want(Item::Queue(id));
            }
        }
        self.apply_settings(&view).await;
    }

    async fn state_read(
        &mut self,
        id: TopicPartition,
        item: Item,
        result: Result<Option<VersionedState>, RecipeError>,
    ) {
        self.reading.done(item);
        let forced = matches!(item, Item::SyncedState(_));
        match result {
            Ok(Some(state)) => self.learn_state(id, state, forced).await,
            // The topic's node, or its tombstone, says what became of it.
            Ok(None) => self.parts.view.forget_state(id),
            Err(error) => {
                tracing::warn!(partition = %id, %error, "cannot read the state of a partition");
                self.retry_unless_unreadable(&error, item);
            }
        }
    }

    /// With `forced`, from a reading after a sync, it is told to the shard even if it is no news.
    pub(super) async fn learn_state(&mut self, id: TopicPartition, state: VersionedState, forced: bool) {
        let news = self.parts.view.learn_state(id, state.clone());
        // In any case: the state may have been read before the topic was known, and a copy is
        // opened only when both are.
        self.settle_copy(id, forced);
        if !news && !forced {
            return;
        }
        if self.copies.is_open(id) {
            self.parts.shards.tell(id, ShardInput::Replica { id, input: Input::State(state.clone()) }).await;
            self.refresh_queue(id, &state);
            self.to_decide.insert(id);
        }
    }

    async fn tombstones_read(&mut self, result: Result<Vec<(TopicId, Tombstone)>, RecipeError>) {
        self.reading.done(Item::Tombstones);
        match result {
            Ok(found) => {
                self.forget_burials(&found.iter().map(|(topic, _)| *topic).collect());
                for (topic, tombstone) in found {
                    self.bury(topic, &tombstone);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the tombstones of deleted topics");
                self.retry_later(Item::Tombstones);
            }
        }
    }
}
