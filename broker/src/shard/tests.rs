//! One shard on a log in memory, stepped by hand: the test is its leader, its clients and the
//! one who decides when something is done.

mod full;
mod refusals;
mod retention;
mod roles;
mod snapshots;
mod space;

use std::sync::Arc;
use std::time::Duration;

use baton_core::batch::{BatchHeader, Stamp, stamp};
use baton_core::ids::CandidateSeq;
use baton_core::lineage::Lineage;
use baton_core::partition::LeaderId;
use baton_core::producer::ProducerTable;
use baton_core::replica::{
    Announce, Append, Env, Flow, HelloReply, HelloVerdict, Message, ReplicaConfig, RoleView, StoredBatch,
};
use baton_core::topic::TopicConfig;
use baton_core::transaction::Producer;
use baton_core::transaction::partition::EndMarker;
use baton_core::{BrokerId, DiskId, Epoch, Incarnation, Member, Offset, ProducerEpoch, ProducerId, TopicPartition};
use bytes::Bytes;
use futures::stream::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::clock::{Monotonic, SimulatedClock};
use crate::log::contract::{batch, identity};
use crate::log::memory::{MemoryDisk, MemoryLog, MemoryOptions};
use crate::log::{Log, Recovered};
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::peers::PeerSender;
use crate::peers::pace::Pace;
use crate::shard::input::{OpenPartition, ShardInput};
use crate::shard::open::open;
use crate::shard::partition::Partition;
use crate::shard::run::{Shard, ShardParts};
use crate::shard::status::PartitionStatus;

const ME: BrokerId = BrokerId(3);
const LEADER: BrokerId = BrokerId(2);

/// A shard that nobody listens to: what it asks of the registry is up to the test.
fn parts(log: Arc<dyn Log>) -> ShardParts {
    let (registry, _) = mpsc::unbounded_channel();
    let (fatal, _) = mpsc::unbounded_channel();
    let (verifier, _) = mpsc::unbounded_channel();
    let (_, inputs) = mpsc::channel(1);
    let (_, shown) = watch::channel(Arc::new(Env { registry_connected: true, ..Env::default() }));
    ShardParts {
        index: 0,
        inputs,
        log,
        peers: PeerSender::new(Pace::new(u64::MAX)),
        registry,
        verifier,
        env: shown,
        clock: Arc::new(SimulatedClock::starting_at(0)),
        monotonic: Monotonic::start(),
        incarnation: Incarnation(7),
        config: ReplicaConfig::default(),
        scrub: crate::shard::ScrubConfig { interval: Duration::ZERO, bytes_per_s: 1 },
        retention: crate::shard::RetentionConfig { interval: Duration::from_secs(1) },
        compaction: crate::shard::CompactionConfig {
            interval: Duration::from_secs(1),
            bytes_per_s: 1 << 30,
            map_bytes: 1 << 16,
            seed: 1,
        },
        tail_cache_bytes: 1 << 20,
        tick: Duration::from_millis(100),
        metrics: Metrics::new(ME),
        fatal,
        mutations: Mutations::default(),
    }
}

/// The member that this disk is, and what is shown of it at first.
fn shown(
    generation: baton_core::Generation,
) -> (Member, watch::Sender<PartitionStatus>, watch::Receiver<PartitionStatus>) {
    let member = Member { broker: ME, disk: identity().disk, generation };
    let (sender, receiver) = watch::channel(PartitionStatus {
        role: RoleView::Idle,
        member,
        epoch: Epoch::NONE,
        version: -1,
        log_start: Offset::ZERO,
        log_end: Offset::ZERO,
        high_watermark: Offset::ZERO,
        latest: None,
        last_stable: Offset::ZERO,
        in_sync: 0,
        assigned: 0,
        damaged: false,
        follows_in_sync: false,
        yields: false,
    });
    (member, sender, receiver)
}

struct Bench {
    shard: Shard,
}

impl Bench {
    fn new(disk: &MemoryDisk, options: MemoryOptions) -> Self {
        Self::on(Arc::new(MemoryLog::open(disk, options)))
    }

    fn on(log: Arc<dyn Log>) -> Self {
        Self { shard: Shard::new(parts(log)) }
    }

    /// Opens the copy that the log knows, or a new one.
    async fn open(&mut self, id: TopicPartition) {
        let found = self.shard.parts.log.recovered().into_values().find(|found| found.id == id);
        self.open_found(id, found).await;
    }

    /// Opens a new copy, whatever there was before.
    async fn reopen_new(&mut self, id: TopicPartition) {
        self.open_found(id, None).await;
    }

    async fn open_found(&mut self, id: TopicPartition, found: Option<Recovered>) {
        let log = Arc::clone(&self.shard.parts.log);
        let opened = open(&*log, id, found, Mutations::default()).await.unwrap();
        let (member, status, _) = shown(opened.generation);
        self.input(ShardInput::Open(Box::new(OpenPartition {
            id,
            topic: "t".into(),
            local: opened.local,
            member,
            recovered: opened.recovered,
            meta: opened.meta,
            settings: TopicConfig { min_insync_replicas: 1, ..TopicConfig::default() },
            status,
        })));
    }

    fn input(&mut self, input: ShardInput) {
        self.shard.input(input);
    }

    fn partition(&self, id: TopicPartition) -> &Partition {
        &self.shard.partitions[&id]
    }

    /// Hands on what was decided, and completes the oldest thing that is under way.
    async fn complete_one(&mut self) -> bool {
        self.shard.end_turn();
        let Some(done) = self.shard.running.next().await else { return false };
        self.shard.complete(done);
        true
    }

    /// Until nothing is under way any more.
    async fn settle(&mut self) {
        while self.complete_one().await {}
    }

    /// What was sent since the last time.
    fn sent(&mut self) -> Vec<(TopicPartition, Message)> {
        let frames = self.shard.turn.take_frames();
        frames.into_values().flat_map(|frame| baton_proto::peer::messages(frame).unwrap()).collect()
    }

    fn message(&mut self, id: TopicPartition, message: Message) {
        self.input(ShardInput::Messages { from: LEADER, messages: vec![(id, message)] });
    }

    /// A new leader says so, and the copy says Hello to it.
    async fn announce(&mut self, id: TopicPartition, epoch: Epoch) -> Flow {
        let candidate = CandidateSeq(0);
        let leader = LeaderId { broker: LEADER, disk: DiskId(9), incarnation: Incarnation(1), candidate };
        self.message(id, Message::Announce(Announce { epoch, leader }));
        loop {
            let hello = self.sent().into_iter().find_map(|(to, message)| match message {
                Message::Hello(hello) if to == id && hello.epoch == epoch => Some(hello.flow),
                _ => None,
            });
            if let Some(flow) = hello {
                return flow;
            }
            assert!(self.complete_one().await, "nobody says Hello");
        }
    }

    fn accept(&mut self, id: TopicPartition, epoch: Epoch, flow: Flow, truncate_to: Offset) {
        let verdict = HelloVerdict::Accepted { truncate_to, high_watermark: Offset::ZERO, log_start: Offset::ZERO };
        self.message(id, Message::HelloReply(HelloReply { epoch, flow, verdict }));
    }

    fn append(&mut self, id: TopicPartition, epoch: Epoch, flow: Flow, batches: Vec<StoredBatch>, high: Offset) {
        let replica = &self.partition(id).replica;
        let base = replica.log_end();
        let previous_epoch = replica.lineage().last_epoch().unwrap_or(Epoch::NONE);
        let log_start = Offset::ZERO;
        let append = Append { epoch, flow, base, previous_epoch, batches, high_watermark: high, log_start };
        self.message(id, Message::Append(append));
    }
}

/// A batch of an idempotent producer.
fn produced(base: u64, count: u32, epoch: u32, producer: u64, sequence: i32) -> StoredBatch {
    let plain = batch(base, count, epoch, 1_000 + base as i64, 64);
    let mut bytes = plain.bytes.to_vec();
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&0_i16.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    StoredBatch { bytes: Bytes::from(bytes), ..plain }
}

/// The same as part of a transaction.
fn transactional(plain: StoredBatch) -> StoredBatch {
    let mut bytes = plain.bytes.to_vec();
    bytes[22] |= 1 << 4;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    StoredBatch { bytes: Bytes::from(bytes), ..plain }
}

/// The end of a producer's transaction.
fn ended(base: u64, epoch: u32, producer: u64, commit: bool) -> StoredBatch {
    let producer = Producer { id: ProducerId(producer as i64), epoch: ProducerEpoch(0) };
    let marker = EndMarker { producer, commit, coordinator_epoch: Epoch(1) };
    let place = Stamp { base_offset: Offset(base), leader_epoch: Epoch(epoch), append_time_ms: None };
    let (header, bytes) = stamp(marker.batch(1_000 + base as i64).unwrap(), place).unwrap();
    let last = header.last_offset();
    StoredBatch { base: Offset(base), last, epoch: Epoch(epoch), max_timestamp_ms: header.max_timestamp_ms, bytes }
}

/// Epochs and producers as a function of nothing but the batches.
fn from_scratch(batches: &[StoredBatch]) -> (Lineage, ProducerTable) {
    let (mut lineage, mut producers) = (Lineage::default(), ProducerTable::default());
    for batch in batches {
        lineage.record(batch.epoch, batch.base);
        producers.applied_batch(&BatchHeader::parse(&batch.bytes).unwrap(), batch.base, &batch.bytes);
    }
    (lineage, producers)
}
