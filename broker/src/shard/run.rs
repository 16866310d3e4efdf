//! The task of one shard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use baton_core::replica::{Effect, Env, Input, Message, Produce, Refusal, Replica, ReplicaConfig, RequestId};
use baton_core::topic::TopicConfig;
use baton_core::{BrokerId, Epoch, Error, ErrorCode, Incarnation, Offset, TopicPartition};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::{Clock, Monotonic};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::peers::PeerSender;
use crate::shard::catch_up::CatchUp;
use crate::shard::compact::{Compact, CompactionConfig};
use crate::shard::completion::Completion;
use crate::shard::expiry::Expiry;
use crate::shard::input::{
    ClosedCopy, InTransaction, OpenPartition, ProduceCall, Produced, RegistryCall, ShardInput, VerifyCall,
};
use crate::shard::partition::{Partition, env_at, unknown};
use crate::shard::retention::{Retain, Retention, RetentionConfig};
use crate::shard::scrub::{Scrub, ScrubConfig};
use crate::shard::transactions::Verifying;
use crate::shard::turn::Turn;
use crate::tail_cache::TailCache;

/// Inputs handled before their effects are handed on.
const TURN_MAX: usize = 512;

/// What a shard is made of.
pub struct ShardParts {
    pub index: usize,
    pub inputs: mpsc::Receiver<ShardInput>,
    pub log: Arc<dyn Log>,
    pub peers: PeerSender,
    pub registry: mpsc::UnboundedSender<RegistryCall>,
    /// Who asks the coordinators of transactions. Not bounded by itself: a producer has one
    /// question at a time in a partition, and what waits for it was admitted.
    pub verifier: mpsc::UnboundedSender<VerifyCall>,
    pub env: watch::Receiver<Arc<Env>>,
    pub clock: Arc<dyn Clock>,
    pub monotonic: Monotonic,
    pub incarnation: Incarnation,
    pub config: ReplicaConfig,
    pub scrub: ScrubConfig,
    pub retention: RetentionConfig,
    pub compaction: CompactionConfig,
    pub tail_cache_bytes: u64,
    pub tick: Duration,
    pub metrics: Metrics,
    /// The log failed: the process has to end.
    pub fatal: mpsc::UnboundedSender<String>,
    pub mutations: Mutations,
}

type Reply = Box<dyn FnOnce(Result<Produced, Error>) + Send>;

pub(super) struct Pending {
    id: TopicPartition,
    pub(super) transaction: Option<InTransaction>,
    reply: Reply,
    started: Instant,
    bytes: u64,
}

pub(super) struct Shard {
    pub(super) parts: ShardParts,
    pub(super) partitions: BTreeMap<TopicPartition, Partition>,
    pub(super) cache: TailCache,
    cache_shown_bytes: u64,
    pub(super) expiry: Expiry,
    pub(super) env: Env,
    pub(super) running: FuturesUnordered<BoxFuture<'static, Completion>>,
    pub(super) catch_up: CatchUp,
    pub(super) scrub: Scrub,
    pub(super) retain: Retain,
    pub(super) compact: Compact,
    pub(super) requests: BTreeMap<RequestId, Pending>,
    next_request: u64,
    pub(super) verifying: Verifying,
    pub(super) turn: Turn,
    effects: Vec<Effect>,
}

/// Starts the task; it ends when every sender of its inputs is gone.
pub fn spawn(parts: ShardParts) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(parts))
}

async fn run(mut parts: ShardParts) {
    let (_, closed) = mpsc::channel(1);
    let mut inputs = std::mem::replace(&mut parts.inputs, closed);
    let mut tick = tokio::time::interval(parts.tick);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shard = Shard::new(parts);
    let mut buffer = Vec::with_capacity(TURN_MAX);
    loop {
        tokio::select! {
            biased;
            Some(done) = shard.running.next(), if !shard.running.is_empty() => {
                shard.begin_turn();
                shard.complete(done);
            }
            _ = tick.tick() => {
                shard.begin_turn();
                shard.tick();
            }
            taken = inputs.recv_many(&mut buffer, TURN_MAX) => {
                if taken == 0 {
                    break;
                }
                shard.begin_turn();
                for input in buffer.drain(..) {
                    shard.input(input);
                }
            }
        }
        shard.end_turn();
    }
}

impl Shard {
    pub(super) fn new(parts: ShardParts) -> Self {
        let env = Env::clone(&parts.env.borrow());
        let turn = Turn::new(parts.config.catch_up_bytes);
        Self {
            cache: TailCache::new(parts.tail_cache_bytes),
            cache_shown_bytes: 0,
            expiry: Expiry::new(parts.tick),
            env,
            scrub: Scrub::new(parts.scrub),
            retain: Retain::new(parts.retention),
            compact: Compact::new(parts.compaction),
            parts,
            partitions: BTreeMap::new(),
            running: FuturesUnordered::new(),
            catch_up: CatchUp::default(),
            requests: BTreeMap::new(),
            next_request: 0,
            verifying: Verifying::default(),
            turn,
            effects: Vec::new(),
        }
    }

    fn begin_turn(&mut self) {
        self.env.now_ms = self.parts.monotonic.now_ms();
    }

    pub(super) fn input(&mut self, input: ShardInput) {
        match input {
            ShardInput::Open(open) => self.open(*open),
            ShardInput::Close { id, done } => self.close(id, done),
            ShardInput::Replica { id, input } => self.step(id, input),
            ShardInput::Messages { from, messages } => self.messages(from, messages),
            ShardInput::Produce(call) => self.produce(call),
            ShardInput::Verified { id, guard, result } => self.verified(id, guard, &result),
            ShardInput::Mark(call) => self.mark(call),
            ShardInput::Fetch(call) => self.fetch(call),
            ShardInput::FindTime { id, timestamp_ms, reply } => self.find_time(id, timestamp_ms, reply),
            ShardInput::Producers { id, reply } => {
                let producers = self.partitions.get(&id).map(Partition::active_producers);
                // Whoever asked may be gone.
                let _ = reply.send(producers.unwrap_or_default());
            }
            ShardInput::EpochEnd { id, epoch, reply } => {
                let partition = self.partitions.get(&id).ok_or_else(|| unknown(id));
                // Whoever asked may be gone.
                let _ = reply.send(partition.and_then(|partition| partition.end_of_epoch(epoch)));
            }
            ShardInput::DeleteRecords { id, before, reply } => self.delete_records(id, before, reply),
            ShardInput::Measure { id, reply } => self.measure(id, reply),
            ShardInput::Settings { id, settings } => self.settings(id, settings),
            ShardInput::Fence { id, epoch, done } => {
                self.step(id, Input::Fence { epoch });
                let copy = self.partitions.get(&id).map(|p| (p.replica.generation(), p.replica.durable_end()));
                // Whoever asked may be gone.
                let _ = done.send(copy);
            }
            ShardInput::LinkReset(broker) => self.step_all(|_| Input::LinkReset(broker)),
            ShardInput::PeersChanged => self.peers_changed(),
            ShardInput::Ping { done } => drop(done.send(())),
            ShardInput::Checkpoint { done } => self.checkpoint(done),
        }
    }

    fn open(&mut self, open: OpenPartition) {
        let config = ReplicaConfig { log_append_time: append_time(&open.settings), ..self.parts.config.clone() };
        let mut replica = Replica::new(open.id, open.member, self.parts.incarnation, config, open.recovered);
        // Flows and terms are far rarer than one a microsecond.
        replica.number_from(self.env.now_ms * 1_000);
        let min_insync = min_insync(&open.settings);
        let partition = Partition {
            replica,
            local: open.local,
            topic: open.topic,
            settings: open.settings,
            meta: open.meta,
            status: open.status,
            unsaved_bytes: 0,
            changing: None,
            refused: false,
            changed: true,
            retention: Retention::default(),
        };
        self.partitions.insert(open.id, partition);
        self.scrub.opened(open.id);
        self.retain.opened(open.id);
        self.compact.opened(open.id);
        if self.partitions.get(&open.id).is_some_and(|partition| partition.replica.is_damaged()) {
            self.parts.metrics.found_damaged();
        }
        self.step(open.id, Input::MinInsync(min_insync));
    }

    fn close(&mut self, id: TopicPartition, done: oneshot::Sender<Option<ClosedCopy>>) {
        self.flush_appends();
        let closed = self.partitions.remove(&id);
        let gone: Vec<RequestId> = self.requests.iter().filter(|(_, p)| p.id == id).map(|(r, _)| *r).collect();
        for request in gone {
            self.refuse(
                request,
                Refusal::new(ErrorCode::UnknownPartition, "the partition was removed from this broker"),
            );
        }
        if let Some(partition) = &closed {
            self.cache.remove(partition.local);
        }
        // Whoever asked may have given up meanwhile.
        let _ = done.send(closed.map(|partition| ClosedCopy {
            local: partition.local,
            generation: partition.replica.generation(),
            highest_epoch: partition.replica.saved_epoch(),
        }));
    }

    fn messages(&mut self, from: BrokerId, messages: Vec<(TopicPartition, Message)>) {
        for (id, message) in messages {
            self.step(id, Input::Message { from, message });
        }
    }

    fn settings(&mut self, id: TopicPartition, settings: TopicConfig) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.replica.set_log_append_time(append_time(&settings));
        let min = min_insync(&settings);
        partition.settings = settings;
        self.step(id, Input::MinInsync(min));
    }

    fn peers_changed(&mut self) {
        let now_ms = self.env.now_ms;
        self.env = env_at(&self.parts.env.borrow_and_update(), now_ms);
        self.step_all(|_| Input::PeersChanged);
    }

    fn step_all(&mut self, mut make: impl FnMut(TopicPartition) -> Input) {
        let ids: Vec<TopicPartition> = self.partitions.keys().copied().collect();
        for id in ids {
            self.step(id, make(id));
        }
    }

    fn tick(&mut self) {
        let now_ms = self.env.now_ms;
        self.env = env_at(&self.parts.env.borrow(), now_ms);
        self.step_all(|_| Input::Tick);
        let wanting: Vec<TopicPartition> =
            self.partitions.iter().filter(|(_, p)| p.wants_snapshot()).map(|(id, _)| *id).collect();
        for id in wanting {
            self.save_snapshot(id);
        }
        self.scrub();
        self.expire_producers();
        self.retain();
        self.compact();
        let bytes = self.cache.bytes();
        self.parts.metrics.tail_cache_changed(self.cache_shown_bytes, bytes);
        self.cache_shown_bytes = bytes;
    }

    fn produce(&mut self, call: ProduceCall) {
        let Some(partition) = self.partitions.get(&call.id) else {
            return (call.reply)(Err(unknown(call.id)));
        };
        if partition.replica.role() != (baton_core::replica::RoleView::Leader { resigning: false }) {
            let error = partition.error(
                ErrorCode::NotLeader,
                match partition.leader_hint() {
                    Some(leader) => format!("broker {leader} leads"),
                    None => "this broker does not lead the partition".to_owned(),
                },
            );
            return (call.reply)(Err(error));
        }
        if let Some(expected) = call.epoch
            && expected != partition.replica.epoch()
        {
            let cause = format!("the batch is for leader epoch {expected} only");
            return (call.reply)(Err(partition.error(ErrorCode::NotLeader, cause)));
        }
        let usage = self.parts.log.usage();
        if usage.below_reserve {
            let cause = format!("broker has {} free bytes on its disk, which is below its reserve", usage.free_bytes);
            return (call.reply)(Err(partition.error(ErrorCode::DiskFull, cause)));
        }
        let ProduceCall { id, acks, transaction, header, bytes, reply, .. } = call;
        let protocol = transaction.as_ref().map(|transaction| transaction.protocol);
        let request = self.request(id, transaction, bytes.len() as u64, reply);
        let produce = Produce { request, acks, header, bytes, wall_ms: self.parts.clock.now_ms() };
        let input = match protocol {
            Some(protocol) => Input::ProduceIn { produce, protocol, guard: None },
            None => Input::Produce(produce),
        };
        self.step(id, input);
    }

    /// Notes whoever waits for an answer.
    pub(super) fn request(
        &mut self,
        id: TopicPartition,
        transaction: Option<InTransaction>,
        bytes: u64,
        reply: Reply,
    ) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, Pending { id, transaction, reply, started: Instant::now(), bytes });
        request
    }

    /// One input of one partition, and everything that follows from it at once.
    pub(super) fn step(&mut self, id: TopicPartition, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(partition) = self.partitions.get_mut(&id) else { return };
            let mut effects = std::mem::take(&mut self.effects);
            partition.replica.step(input, &self.env, &mut effects);
            partition.changed = true;
            for effect in effects.drain(..) {
                if let Some(next) = self.carry_out(id, effect) {
                    inputs.push_back(next);
                }
            }
            self.effects = effects;
        }
    }

    /// Returns an input that is known at once.
    fn carry_out(&mut self, id: TopicPartition, effect: Effect) -> Option<Input> {
        match effect {
            Effect::SaveEpoch(epoch) => self.save_epoch(id, epoch),
            Effect::Append { term, batches } => self.append(id, term, batches),
            Effect::Truncate { term, to } => self.truncate(id, term, to),
            Effect::Restart { term, generation, start, producers } => {
                self.restart(id, term, generation, start, producers);
            }
            Effect::Trim { term, start } => self.trim(id, term, start),
            Effect::Send { to, stream, message } => self.turn.send(to, stream, id, message),
            Effect::ReadForFollower { to, flow, from, max_bytes } => {
                return self.read_for_follower(id, to, flow, from, max_bytes);
            }
            Effect::WriteState { attempt, kind, expected_version, state, joining, toward } => {
                let state = Box::new(state);
                let call = RegistryCall::Write { id, attempt, kind, expected_version, state, joining, toward };
                self.ask_registry(call);
            }
            Effect::ReadRegistry => self.ask_registry(RegistryCall::Read(id)),
            Effect::Acknowledge { request, base, append_time_ms, duplicate } => {
                self.acknowledge(id, request, base, append_time_ms, duplicate);
            }
            Effect::Reject { request, why } => self.refuse(request, why),
            Effect::Verify { produce, guard } => self.verify(id, produce, guard),
            Effect::HighWatermark(_) => {}
            // Whoever asks for the role is told at the end of the turn, when it is shown.
            Effect::RoleChanged => {}
            Effect::Halt(why) => {
                tracing::error!(partition = %id, why, "this copy contradicts itself and is not served any more");
            }
        }
        None
    }

    /// The other side outlives every shard but during the stop of the broker.
    fn ask_registry(&self, call: RegistryCall) {
        let _ = self.parts.registry.send(call);
    }

    fn acknowledge(
        &mut self,
        id: TopicPartition,
        request: RequestId,
        base: Offset,
        append_time_ms: Option<i64>,
        duplicate: bool,
    ) {
        let Some(pending) = self.requests.remove(&request) else { return };
        let epoch = self.partitions.get(&id).map_or(Epoch::NONE, |p| p.replica.epoch());
        self.parts.metrics.produce_acknowledged(1, pending.bytes, pending.started.elapsed());
        self.turn.acknowledge(pending.reply, Produced { base, append_time_ms, duplicate, epoch });
    }

    pub(super) fn refuse(&mut self, request: RequestId, why: Refusal) {
        let Some(pending) = self.requests.remove(&request) else { return };
        self.parts.metrics.produce_failed(why.code);
        let error = match self.partitions.get(&pending.id) {
            Some(partition) => partition.error(why.code, why.cause),
            None => Error::new(why.code, why.cause).partition(pending.id.partition),
        };
        (pending.reply)(Err(error));
    }

    pub(super) fn end_turn(&mut self) {
        self.flush_appends();
        for ((to, catch_up, _), frame) in self.turn.take_frames() {
            self.parts.peers.send(to, catch_up, frame);
        }
        self.answer_deletions();
        // Elections read what is shown: they look again only when it is there.
        for (id, partition) in self.partitions.iter_mut().filter(|(_, p)| p.changed) {
            if partition.show(self.env.now_ms) {
                // The other side outlives every shard but during the stop of the broker.
                let _ = self.parts.registry.send(RegistryCall::Role(*id));
            }
        }
        // Whoever was told that a record is stored and asks where the end is has to hear of an
        // end behind that record.
        for (reply, produced) in self.turn.take_acknowledged() {
            reply(Ok(produced));
        }
    }
}

fn append_time(settings: &TopicConfig) -> bool {
    settings.timestamp_type == baton_core::batch::TimestampType::LogAppendTime
}

fn min_insync(settings: &TopicConfig) -> usize {
    usize::try_from(settings.min_insync_replicas).unwrap_or(1)
}
