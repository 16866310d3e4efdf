//! Copies that come and go, on a log and a registry in memory, stepped by hand. The shard is a
//! list of what it was told.

use std::time::Duration;

use baton_core::election::ElectionConfig;
use baton_core::partition::{Assignment, PartitionState, VersionedState};
use baton_core::replica::Env;
use baton_core::{BrokerId, Epoch, Generation, Incarnation};
use baton_registry::Registry;
use baton_registry::memory::{MemoryEnsemble, MemoryRegistry};
use baton_registry::pool::SessionPool;
use baton_registry::recipes::coordinator_election::{self, Term};
use baton_registry::recipes::membership::LiveBrokers;
use baton_registry::recipes::topics::{self, NewTopic};
use baton_registry::recipes::{layout, partition_state};
use baton_registry::znode::{CoordinatorCandidate, PlannedPartition, Znode};
use futures::stream::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Monotonic;
use crate::cluster::ClusterParts;
use crate::cluster::view::ClusterView;
use crate::log::contract::{batch, identity};
use crate::log::memory::{MemoryDisk, MemoryLog, MemoryOptions};
use crate::log::{Append, LocalPartition};
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::shard::{Partitions, Shards};

const ME: BrokerId = BrokerId(3);

struct Bench {
    disk: MemoryDisk,
    task: ClusterTask,
    zk: MemoryRegistry,
    term: Term,
    inputs: mpsc::Receiver<ShardInput>,
    /// The copies in the shard.
    open: BTreeMap<TopicPartition, (LocalPartition, Generation)>,
}

impl Bench {
    async fn start() -> Self {
        let ensemble = MemoryEnsemble::new();
        let zk = ensemble.connect("coordinator");
        layout::prepare(&zk).await.unwrap();
        let mine = CoordinatorCandidate { nonce: 1, name: "c".into(), host: "h".into(), port: 1 };
        let term = coordinator_election::campaign(&zk, &mine).await.unwrap();
        let disk = MemoryDisk::new(identity());
        let (told, inputs) = mpsc::channel(1_000);
        let task = Self::task(&ensemble, &disk, told);
        Self { disk, task, zk, term, inputs, open: BTreeMap::new() }
    }

    fn task(ensemble: &MemoryEnsemble, disk: &MemoryDisk, told: mpsc::Sender<ShardInput>) -> ClusterTask {
        let registry: Arc<dyn Registry> = Arc::new(ensemble.connect("broker"));
        let session = Arc::clone(&registry);
        let (_, brokers) = watch::channel(Arc::new(LiveBrokers::default()));
        let (_, env) = watch::channel(Arc::new(Env::default()));
        let (_, calls) = mpsc::unbounded_channel();
        let (_, draining) = watch::channel(false);
        ClusterTask::new(ClusterParts {
            registry,
            sessions: Arc::new(SessionPool::new(1, Box::new(move |_| Ok(Arc::clone(&session)))).unwrap()),
            remembered: Vec::new(),
            view: ClusterView::new(brokers.clone()),
            brokers,
            shards: Shards::new(vec![told]),
            partitions: Partitions::default(),
            log: Arc::new(MemoryLog::open(disk, MemoryOptions::default())),
            env,
            calls,
            draining,
            me: ME,
            disk: identity().disk,
            incarnation: Incarnation(7),
            seed: 1,
            election: ElectionConfig::default(),
            reread: Duration::from_secs(30),
            partitions_max: 100,
            monotonic: Monotonic::start(),
            metrics: Metrics::new(ME),
            loaded: watch::Sender::new(false),
            stop: CancellationToken::new(),
            mutations: Mutations::default(),
        })
    }

    /// A topic of one partition on brokers 1, 2 and 3, with an open copy here.
    async fn topic(&mut self) -> TopicPartition {
        let member = |broker| Member { broker: BrokerId(broker), disk: identity().disk, generation: Generation(0) };
        let plan = vec![PlannedPartition { members: vec![member(1), member(2), member(3)] }];
        let new = NewTopic { namespace: "default".into(), name: "t".into(), config: BTreeMap::new(), plan };
        let topic = topics::create(&self.zk, self.term.fence, &new).await.unwrap();
        self.task.reading.want(Item::Topics);
        self.settle().await;
        TopicPartition { topic, partition: 0 }
    }

    /// Another assignment, with everybody in it in sync.
    async fn assign(&self, id: TopicPartition, brokers: &[u32]) -> VersionedState {
        let known = partition_state::read(&self.zk, id).await.unwrap().unwrap();
        let replicas: Vec<BrokerId> = brokers.iter().copied().map(BrokerId).collect();
        let isr = known.state.isr.iter().filter(|m| replicas.contains(&m.broker)).copied().collect();
        let assignment = Assignment { replicas, ..Assignment::default() };
        let state = PartitionState { isr, assignment, ..known.state };
        let path = baton_registry::znode::partition::path(id);
        self.zk.set(&path, state.encode(), Some(known.version)).await.unwrap();
        VersionedState { state, version: known.version + 1 }
    }

    /// One thing that was started is done; false if there is none.
    async fn step(&mut self) -> bool {
        self.task.go_on();
        let next = tokio::time::timeout(Duration::from_millis(50), self.task.running.next());
        let done = next.await.ok().flatten();
        let any = done.is_some();
        if let Some(done) = done {
            self.task.complete(done).await;
        }
        self.be_the_shard() || any
    }

    async fn settle(&mut self) {
        while self.step().await {}
    }

    fn be_the_shard(&mut self) -> bool {
        let mut any = false;
        while let Ok(input) = self.inputs.try_recv() {
            any = true;
            match input {
                ShardInput::Open(open) => {
                    self.open.insert(open.id, (open.local, open.member.generation));
                }
                ShardInput::Close { id, done } => {
                    let closed = self.open.remove(&id);
                    let copy =
                        closed.map(|(local, generation)| ClosedCopy { local, generation, highest_epoch: Epoch(5) });
                    let _ = done.send(copy);
                }
                _ => {}
            }
        }
        any
    }

    /// Ten records come into the open copy.
    async fn fill(&self, id: TopicPartition) {
        let (partition, _) = self.open[&id];
        let append = Append { partition, batches: vec![batch(0, 10, 5, 0, 100)] };
        self.task.parts.log.append(vec![append]).await.unwrap();
    }

    fn copies(&self) -> Vec<(Generation, Offset)> {
        self.disk.copies().into_iter().map(|copy| (copy.generation, copy.end)).collect()
    }

    async fn is_buried(&self, topic: TopicId) -> bool {
        tombstones::read(&self.zk, topic).await.unwrap().is_none_or(|(grave, _)| !grave.brokers.contains(&ME))
    }
}

/// What a broker acknowledged with the copy that it had says nothing about the one that it gets.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_assigned_again_is_another_member() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    bench.assign(id, &[1, 2]).await;
    bench.task.reading.want(Item::State(id));
    bench.settle().await;
    assert!(bench.open.is_empty());
    assert_eq!(bench.copies(), [(Generation(1), Offset::ZERO)], "emptied, and remembered");
    bench.assign(id, &[1, 3]).await;
    bench.task.reading.want(Item::State(id));
    bench.settle().await;
    assert_eq!(bench.open[&id].1, Generation(1));
    // Also after a restart in between.
    bench.fill(id).await;
    bench.task = Bench::task(&MemoryEnsemble::new(), &bench.disk, mpsc::channel(1).0);
    assert_eq!(bench.task.copies.found[&id].generation, Generation(1));
}

/// The state that was read says that this broker left; by now it is back, and its copy counts.
#[tokio::test(start_paused = true)]
async fn records_stay_when_a_reading_is_late() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    let without = bench.assign(id, &[1, 2]).await;
    bench.assign(id, &[1, 2, 3]).await;
    bench.task.learn_state(id, without, false).await;
    bench.settle().await;
    assert_eq!(bench.copies(), [(Generation(0), Offset(10))]);
    assert!(bench.task.copies.is_open(id));
}

/// It was away while its copy got a new home.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_held_no_more_is_emptied_after_a_restart() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    bench.assign(id, &[1, 2]).await;
    let found = bench.task.parts.log.recovered();
    assert!(found.is_empty(), "it was created by this process");
    let log = MemoryLog::open(&bench.disk, MemoryOptions::default());
    bench.task.copies = LocalCopies::new(&log);
    bench.task.parts.log = Arc::new(log);
    bench.task.reading.want(Item::State(id));
    bench.settle().await;
    assert_eq!(bench.copies(), [(Generation(1), Offset::ZERO)]);
    bench.task.reading.want(Item::State(id));
    bench.settle().await;
    assert_eq!(bench.copies(), [(Generation(1), Offset::ZERO)], "once");
}

/// What is on disk of a copy is not forgotten when it cannot be opened.
#[tokio::test(start_paused = true)]
async fn a_copy_that_could_not_be_opened_is_opened_later() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    let log = MemoryLog::open(&bench.disk, MemoryOptions::default());
    bench.task.copies = LocalCopies::new(&log);
    bench.task.parts.log = Arc::new(log);
    let found = bench.task.copies.found.remove(&id);
    bench.task.copies.opening.insert(id);
    let error = LogError::Overloaded { queued: 2, limit: 1 };
    bench.task.opened(id, Err(NotOpened { error, found })).await;
    bench.task.reading.want(Item::SyncedState(id));
    bench.settle().await;
    assert!(bench.task.copies.is_open(id));
    assert_eq!(bench.copies(), [(Generation(0), Offset(10))]);
}

/// The topic is not shown at the moment at which its copy is ready.
#[tokio::test(start_paused = true)]
async fn a_copy_whose_topic_is_not_shown_for_a_moment_is_opened_later() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    let log = MemoryLog::open(&bench.disk, MemoryOptions::default());
    bench.task.copies = LocalCopies::new(&log);
    bench.task.parts.log = Arc::new(log);
    bench.task.start_opening(id);
    bench.task.parts.view.forget_topic(id.topic);
    bench.settle().await;
    assert!(!bench.task.copies.is_open(id));
    bench.task.reading.want(Item::Topics);
    bench.settle().await;
    assert!(bench.task.copies.is_open(id));
    assert_eq!(bench.copies(), [(Generation(0), Offset(10))]);
}

/// After a restart the copy is being opened when the partition goes elsewhere: by the time it is
/// open the state is known, and nothing asks again.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_assigned_away_while_it_is_opened_is_emptied() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    let log = MemoryLog::open(&bench.disk, MemoryOptions::default());
    bench.task.copies = LocalCopies::new(&log);
    bench.task.parts.log = Arc::new(log);
    bench.task.start_opening(id);
    let without = bench.assign(id, &[1, 2]).await;
    bench.task.learn_state(id, without, true).await;
    assert!(!bench.task.copies.is_open(id), "it is still being opened");
    bench.settle().await;
    assert!(!bench.task.copies.is_open(id));
    assert_eq!(bench.copies(), [(Generation(1), Offset::ZERO)]);
}

/// Whether the copy is open, or just being opened: its deletion is confirmed when it is done.
#[tokio::test(start_paused = true)]
async fn a_deletion_is_confirmed_when_the_data_is_gone() {
    for opening in [false, true] {
        let mut bench = Bench::start().await;
        let id = bench.topic().await;
        bench.fill(id).await;
        if opening {
            let log = MemoryLog::open(&bench.disk, MemoryOptions::default());
            bench.task.copies = LocalCopies::new(&log);
            bench.task.parts.log = Arc::new(log);
            bench.task.start_opening(id);
        }
        topics::delete(&bench.zk, bench.term.fence, id.topic, 77).await.unwrap();
        bench.disk.set_slow(Duration::from_millis(20));
        bench.task.reading.want(Item::Tombstones);
        while bench.step().await {
            assert!(!bench.is_buried(id.topic).await || bench.copies().is_empty(), "opening: {opening}");
        }
        assert!(bench.is_buried(id.topic).await, "opening: {opening}");
        assert!(bench.copies().is_empty());
    }
}

/// The store does not take the deletion now: it is tried again, and not confirmed before.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_is_tried_again() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    bench.fill(id).await;
    topics::delete(&bench.zk, bench.term.fence, id.topic, 77).await.unwrap();
    bench.task.copies.buried.insert(id.topic, true);
    bench.task.copies.open.remove(&id);
    bench.task.copies.closing.insert(id);
    let local = bench.open[&id].0;
    let copy = unopened(id, ClosedCopy { local, generation: Generation(0), highest_epoch: Epoch(5) });
    let result = Err(LogError::Overloaded { queued: 2, limit: 1 });
    bench.task.closed(Closed { id, left: Some(doubtful(copy, "a test")), result });
    bench.settle().await;
    assert!(!bench.is_buried(id.topic).await);
    bench.task.reading.want(Item::Tombstones);
    bench.settle().await;
    assert!(bench.is_buried(id.topic).await);
    assert!(bench.copies().is_empty());
}

/// A reading of the queue that began before this broker stood in it ends after.
#[tokio::test(start_paused = true)]
async fn a_late_reading_of_the_queue_does_not_make_it_stand_twice() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    let old = candidates::list(&bench.zk, id).await.unwrap();
    assert_eq!(old.len(), 1, "it stands");
    bench.task.reading.want(Item::Queue(id));
    bench.task.queue_read(id, Ok(Vec::new()));
    bench.settle().await;
    let now = candidates::list(&bench.zk, id).await.unwrap();
    assert_eq!(now, old);
}

/// Every event makes the queue be read once more, the event of its own leaving included.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_while_it_is_read_leaves_it_once() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    assert_eq!(candidates::list(&bench.zk, id).await.unwrap().len(), 1, "it stands");
    let known = partition_state::read(&bench.zk, id).await.unwrap().unwrap();
    let isr = known.state.isr.iter().filter(|member| member.broker != ME).copied().collect();
    let state = PartitionState { isr, ..known.state };
    let path = baton_registry::znode::partition::path(id);
    bench.zk.set(&path, state.encode(), Some(known.version)).await.unwrap();
    bench.task.reading.want(Item::State(id));
    let (mut left, mut read) = (0, 0);
    for _ in 0..20 {
        bench.task.go_on();
        let done = bench.task.running.next().await.unwrap();
        left += usize::from(matches!(done, Done::Left { .. }));
        if matches!(done, Done::Queue(..)) {
            read += 1;
            bench.task.reading.want(Item::Queue(id));
        }
        bench.task.complete(done).await;
        bench.be_the_shard();
    }
    assert!(left == 1 && read > 10, "left {left} times, read {read} times");
    assert!(candidates::list(&bench.zk, id).await.unwrap().is_empty());
}

/// A topic is deleted while a broker that has just started reads its queue: it would ask for what
/// is not there for ever, and never be ready.
#[tokio::test(start_paused = true)]
async fn a_queue_that_is_gone_is_not_asked_for_again() {
    let mut bench = Bench::start().await;
    let id = bench.topic().await;
    for candidate in candidates::list(&bench.zk, id).await.unwrap() {
        candidates::delete(&bench.zk, id, candidate.sequence).await.unwrap();
    }
    bench.zk.delete(&baton_registry::znode::partition::path(id), None).await.unwrap();
    bench.task.parts.loaded.send_replace(false);
    bench.task.reading.want(Item::Queue(id));
    bench.settle().await;
    assert!(*bench.task.parts.loaded.borrow(), "everything that is there was read");
}
