//! A cluster of production replicas: carries out their effects as `effect.rs` documents them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ErrorCode;
use crate::batch::{BatchBuilder, BatchHeader, BuildOptions, Codec, ProducerStamp, Pushed};
use crate::election::{Decision, ElectionConfig, Elector, View};
use crate::ids::*;
use crate::partition::{Assignment, LeaderId, PartitionState};
use crate::replica::tests::checks::{Checked, Identity, Ledger};
use crate::replica::tests::node::{Image, LogOp, Node, Process};
use crate::replica::tests::registry::{Registry, Request, Write};
use crate::replica::tests::rng::Rng;
use crate::replica::{
    Acks, Effect, Env, Health, HelloVerdict, Input, Message, Mutation, Mutations, Peer, Produce, Refusal, Replica,
    ReplicaConfig, RequestId, Role, RoleView, Stream, WriteKind, WriteOutcome,
};

/// What a directed link carries.
#[derive(Clone, Debug)]
pub enum Packet {
    /// The stream was opened anew.
    Opened,
    Carries(Message),
}

#[derive(Clone, Debug, Default)]
pub struct Link {
    pub queue: VecDeque<Packet>,
    pub broken: bool,
}

/// An idempotent producer with one request in flight.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: ProducerId,
    pub next: i32,
    pub waits_for: Option<(RequestId, BrokerId)>,
    pub acknowledged: usize,
}

pub type LinkId = (BrokerId, BrokerId, bool);

pub struct Cluster {
    pub nodes: BTreeMap<BrokerId, Node>,
    pub registry: Registry,
    pub links: BTreeMap<LinkId, Link>,
    pub clients: Vec<Client>,
    pub ledger: Ledger,
    /// Requests that only the leader's disk answers for: outside the guarantee.
    pub local: BTreeSet<RequestId>,
    pub now_ms: u64,
    pub min_insync: usize,
    pub mutations: Mutations,
    pub rng: Rng,
    pub coverage: BTreeMap<&'static str, u64>,
    pub trace: Option<Vec<String>>,
    /// Records were given up by an operator's choice.
    pub unclean: bool,
    pub elect_below_min: bool,
    pub forget_disks: bool,
    next_id: u64,
}

pub fn config(mutations: Mutations) -> ReplicaConfig {
    ReplicaConfig { window_bytes: 200, catch_up_bytes: 150, pending_max: 4, mutations, ..ReplicaConfig::default() }
}

pub fn batch(id: Identity, records: usize) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(4096);
    for _ in 0..records {
        let pushed = builder.push(0, None, Some(b"x"), &[]);
        assert_eq!(pushed, Ok(Pushed::Added));
    }
    let producer = ProducerStamp { id: id.0, epoch: ProducerEpoch(0), base_sequence: id.1 };
    let options = BuildOptions { codec: Codec::None, producer: Some(producer), ..BuildOptions::default() };
    builder.build(&options).unwrap()
}

impl Cluster {
    /// Brokers 1 to `replicas` hold the partition and are in sync; one more stands by.
    pub fn new(replicas: u32, min_insync: usize, seed: u64) -> Self {
        let mut nodes = BTreeMap::new();
        for broker in (1..=replicas + 1).map(BrokerId) {
            let node = Node {
                broker,
                disk: DiskId(u128::from(broker.0)),
                stable: Image::default(),
                damaged: false,
                process: None,
            };
            nodes.insert(broker, node);
        }
        let assigned: Vec<BrokerId> = (1..=replicas).map(BrokerId).collect();
        let state = PartitionState {
            hint: Some(BrokerId(1)),
            isr: assigned.iter().map(|b| nodes[b].member()).collect(),
            assignment: Assignment { replicas: assigned, ..Assignment::default() },
            ..PartitionState::default()
        };
        let clients = (1..=2).map(|id| Client { id: ProducerId(id), next: 0, waits_for: None, acknowledged: 0 });
        Self {
            registry: Registry::new(state),
            nodes,
            links: BTreeMap::new(),
            clients: clients.collect(),
            ledger: Ledger::default(),
            local: BTreeSet::new(),
            now_ms: 1_000,
            min_insync,
            mutations: Mutations::default(),
            rng: Rng::new(seed),
            coverage: BTreeMap::new(),
            trace: None,
            unclean: false,
            elect_below_min: false,
            forget_disks: false,
            next_id: 1_000,
        }
    }

    pub fn note(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn brokers(&self) -> Vec<BrokerId> {
        self.nodes.keys().copied().collect()
    }

    pub fn running(&self) -> Vec<BrokerId> {
        let running = self.nodes.values().filter(|n| n.process.is_some());
        running.map(|n| n.broker).collect()
    }

    pub fn process(&self, broker: BrokerId) -> Option<&Process> {
        self.nodes.get(&broker)?.process.as_ref()
    }

    pub fn process_mut(&mut self, broker: BrokerId) -> Option<&mut Process> {
        self.nodes.get_mut(&broker)?.process.as_mut()
    }

    pub fn leader(&self) -> Option<BrokerId> {
        let named = self.registry.latest().state.leader?;
        let process = self.process(named.broker)?;
        let leads = matches!(process.replica.role(), RoleView::Leader { .. });
        (leads && process.incarnation == named.incarnation).then_some(named.broker)
    }

    pub fn env(&self, broker: BrokerId) -> Env {
        let process = self.process(broker);
        Env {
            now_ms: self.now_ms,
            peers: process.map(|p| p.peers.clone()).unwrap_or_default(),
            registry_connected: !self.registry.down && process.is_some_and(|p| p.session.is_some()),
        }
    }

    pub fn start(&mut self, broker: BrokerId) -> Checked {
        let incarnation = Incarnation(self.fresh());
        let (min_insync, mutations) = (self.min_insync, self.mutations);
        let Some(node) = self.nodes.get_mut(&broker) else {
            return Ok(());
        };
        if node.process.is_some() {
            return Ok(());
        }
        let damaged = std::mem::take(&mut node.damaged);
        let found = node.stable.recovered(damaged);
        let id = TopicPartition::default();
        let replica = Replica::new(id, node.member(), incarnation, config(mutations), found);
        let session = self.registry.open_session(broker, node.disk);
        node.process = Some(Process {
            replica,
            elector: Elector::default(),
            incarnation,
            session: Some(session),
            image: node.stable.clone(),
            ops: VecDeque::new(),
            peers: BTreeMap::new(),
            draining: false,
            min_insync,
            seen: 0,
            candidates: Vec::new(),
            reads: VecDeque::new(),
            log_reads: VecDeque::new(),
            electing: false,
        });
        self.say(|| format!("start {broker} as {incarnation}"));
        self.input(broker, Input::MinInsync(min_insync))?;
        self.show(broker, self.registry.history.len() - 1)
    }

    /// The process dies; what was not synced is gone.
    pub fn crash(&mut self, broker: BrokerId) -> Checked {
        self.say(|| format!("crash {broker}"));
        if let Some(node) = self.nodes.get_mut(&broker) {
            node.process = None;
        }
        for ((from, to, _), link) in &mut self.links {
            if *from == broker || *to == broker {
                link.queue.clear();
                link.broken = true;
            }
        }
        for client in &mut self.clients {
            client.waits_for = client.waits_for.filter(|(_, at)| *at != broker);
        }
        self.ledger.dirty = true;
        self.check(broker)
    }

    /// The version of the state, or a later one, reaches the process.
    pub fn show(&mut self, broker: BrokerId, version: usize) -> Checked {
        let (candidates, state) = (self.registry.candidates(), self.registry.at(version));
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        process.seen = process.seen.max(version);
        process.candidates = candidates;
        self.input(broker, Input::State(state))
    }

    pub fn input(&mut self, broker: BrokerId, input: Input) -> Checked {
        let env = self.env(broker);
        self.say(|| format!("{broker} <- {input:?}"));
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        let before = process.replica.role();
        let expected_halt = matches!(input, Input::StorageFailed(_));
        let ticked = matches!(input, Input::Tick);
        let mut effects = Vec::new();
        process.replica.step(input, &env, &mut effects);
        let after = process.replica.role();
        if ticked && matches!(before, RoleView::Leader { .. }) && after == RoleView::Idle {
            self.note("isolated leader steps down");
        }
        for effect in effects {
            self.say(|| format!("{broker} -> {effect:?}"));
            if matches!(effect, Effect::Halt(_)) && expected_halt {
                self.note("storage failed");
                continue;
            }
            self.carry_out(broker, effect)?;
        }
        self.check(broker)
    }

    fn carry_out(&mut self, broker: BrokerId, effect: Effect) -> Checked {
        match effect {
            Effect::SaveEpoch(epoch) => self.log(broker, LogOp::SaveEpoch(epoch)),
            Effect::Append { term, batches } => self.log(broker, LogOp::Append { term, batches }),
            Effect::Truncate { term, to } => self.log(broker, LogOp::Truncate { term, to }),
            Effect::Restart { term, generation, start, producers } => {
                self.note("copy emptied");
                self.log(broker, LogOp::Restart { term, generation, start, producers })
            }
            Effect::Trim { term, start } => self.log(broker, LogOp::Trim { term, start }),
            Effect::Send { to, stream, message } => {
                self.send(broker, to, stream, message);
                Ok(())
            }
            Effect::ReadForFollower { to, flow, from, max_bytes } => self.read_log(broker, (to, flow, from, max_bytes)),
            Effect::WriteState { attempt, kind, expected_version, state, joining, toward } => {
                let request = Request::State { attempt, kind, joining, toward };
                self.write(broker, expected_version, state, request)
            }
            Effect::ReadRegistry => {
                if let Some(process) = self.process_mut(broker) {
                    process.reads.push_back(None);
                }
                Ok(())
            }
            Effect::Acknowledge { request, base, duplicate, .. } => {
                if duplicate {
                    self.note("duplicate acknowledged");
                }
                self.answered(broker, request, base)
            }
            Effect::Reject { request, why } => self.rejected(request, &why),
            Effect::Halt(why) => Err(format!("7: {broker} halts: {why}")),
            // Nobody sends batches of transactions here.
            Effect::Verify { produce, .. } => Err(format!("{broker} asks about {:?}", produce.request)),
            Effect::HighWatermark(_) | Effect::RoleChanged => Ok(()),
        }
    }

    /// Applied at once to what the process sees, and later to what survives a crash.
    fn log(&mut self, broker: BrokerId, op: LogOp) -> Checked {
        self.ledger.dirty = true;
        let anywhere = self.mutations.has(Mutation::AppendAnywhere);
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        match &op {
            LogOp::SaveEpoch(_) => {}
            LogOp::Append { batches, .. } => {
                for batch in batches {
                    if batch.base != process.image.end() && !anywhere {
                        return Err(format!("{broker} appends {batch:?} at {}", process.image.end()));
                    }
                    process.image.batches.push(batch.clone());
                }
            }
            LogOp::Truncate { to, .. } => process.image.truncate(*to),
            LogOp::Restart { generation, start, producers, .. } => {
                process.image.restart(*generation, *start, producers.clone());
            }
            LogOp::Trim { start, .. } => process.image.drop_below(*start),
        }
        process.ops.push_back(op);
        Ok(())
    }

    /// The oldest of what waits becomes durable.
    pub fn sync(&mut self, broker: BrokerId) -> Checked {
        let Some(node) = self.nodes.get_mut(&broker) else {
            return Ok(());
        };
        let Some(process) = &mut node.process else {
            return Ok(());
        };
        let Some(op) = process.ops.pop_front() else {
            return Ok(());
        };
        self.ledger.dirty = true;
        let (stable, damaged) = (&mut node.stable, &mut node.damaged);
        let input = match op {
            LogOp::SaveEpoch(epoch) => {
                stable.epoch = stable.epoch.max(epoch);
                Input::EpochSaved(epoch)
            }
            LogOp::Append { term, batches } => {
                stable.batches.extend(batches);
                let end = stable.end();
                stable.high_watermark = process.replica.high_watermark().min(end).max(stable.high_watermark);
                Input::Durable { term, end }
            }
            LogOp::Truncate { term, to } => {
                stable.truncate(to);
                let producers = stable.producers();
                Input::LogChanged { term, producers }
            }
            LogOp::Restart { term, generation, start, producers } => {
                stable.restart(generation, start, producers);
                *damaged = false;
                Input::LogChanged { term, producers: stable.producers() }
            }
            LogOp::Trim { term, start } => {
                stable.drop_below(start);
                stable.high_watermark = stable.high_watermark.max(start);
                Input::Trimmed { term, start, floor: stable.floor() }
            }
        };
        self.input(broker, input)
    }

    /// The disk refuses the oldest append, and what was to follow it.
    pub fn refuse_append(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        let Some(LogOp::Append { term, .. }) = process.ops.front() else {
            return Ok(());
        };
        let failed = *term;
        process.ops.retain(|op| !matches!(op, LogOp::Append { term, .. } if *term == failed));
        self.note("append refused for space");
        self.input(broker, Input::AppendFailed { term: failed })
    }

    fn read_log(&mut self, broker: BrokerId, read: (BrokerId, crate::replica::Flow, Offset, usize)) -> Checked {
        let later = self.rng.percent(40);
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        process.log_reads.push_back(read);
        if later { Ok(()) } else { self.finish_read(broker) }
    }

    pub fn finish_read(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        let Some((to, flow, from, max_bytes)) = process.log_reads.pop_front() else {
            return Ok(());
        };
        let batches = process.image.read(from, max_bytes);
        self.input(broker, Input::ReadForFollower { to, flow, batches })
    }

    fn send(&mut self, from: BrokerId, to: BrokerId, stream: Stream, message: Message) {
        self.note(kind(&message, stream));
        if let Some(link) = self.link((from, to, stream == Stream::CatchUp)) {
            link.queue.push_back(Packet::Carries(message));
        }
    }

    /// The link, if it carries anything.
    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        let up = self.process(id.0).is_some() && self.process(id.1).is_some();
        let link = self.links.entry(id).or_default();
        (up && !link.broken).then_some(link)
    }

    pub fn deliver(&mut self, id: LinkId) -> Checked {
        let Some(packet) = self.link(id).and_then(|l| l.queue.pop_front()) else {
            return Ok(());
        };
        let (from, to, _) = id;
        match packet {
            Packet::Opened => self.input(to, Input::LinkReset(from)),
            Packet::Carries(message) => self.input(to, Input::Message { from, message }),
        }
    }

    pub fn break_link(&mut self, id: LinkId) {
        self.say(|| format!("{id:?} breaks"));
        let link = self.links.entry(id).or_default();
        link.queue.clear();
        link.broken = true;
    }

    /// Both ends learn of it: the sender now, the receiver before anything else on it.
    pub fn reopen_link(&mut self, id: LinkId) -> Checked {
        if self.process(id.0).is_none() || self.process(id.1).is_none() {
            return Ok(());
        }
        let link = self.links.entry(id).or_default();
        if !link.broken {
            return Ok(());
        }
        link.broken = false;
        link.queue.push_back(Packet::Opened);
        self.note("link reset");
        self.input(id.0, Input::LinkReset(id.1))
    }

    fn write(&mut self, broker: BrokerId, expected_version: i32, state: PartitionState, request: Request) -> Checked {
        let min = self.min_insync;
        let Some(process) = self.process(broker) else {
            return Ok(());
        };
        if let (Request::State { kind: WriteKind::Isr, .. }, Some(known)) = (&request, process.replica.known()) {
            let least = process.replica.min_insync().min(known.state.isr.len());
            let (old, new) = (&known.state.isr, &state.isr);
            let swap = new.iter().any(|m| !old.contains(m) && old.iter().any(|o| o.broker == m.broker));
            let what = match (new.len(), old.len()) {
                _ if swap => "isr member replaced",
                (n, o) if n > o => "isr grows",
                (n, o) if n < o => "isr shrinks",
                _ => "isr written again",
            };
            if new.len() < least {
                return Err(format!("{broker} shrinks to {} below min {min}", new.len()));
            }
            if !known.state.assignment.adding.is_empty() && state.assignment.adding.is_empty() {
                self.note("reassignment settled");
            }
            self.note(what);
        }
        let process = self.process(broker).ok_or("gone")?;
        let (incarnation, session) = (process.incarnation, process.session);
        self.registry.pending.push(Write {
            broker,
            incarnation,
            session,
            expected_version,
            state,
            request,
            outcome: None,
            forgotten: false,
        });
        Ok(())
    }

    /// The registry carries out one write.
    pub fn happen(&mut self, index: usize) -> Checked {
        let forgotten = self.registry.pending[index].forgotten;
        let changed = self.registry.carry_out(index);
        let write = self.registry.pending[index].clone();
        self.say(|| format!("registry: {:?} of {} {:?}", write.request, write.broker, write.outcome));
        if changed && forgotten {
            self.note("lost write takes effect late");
        }
        if forgotten {
            self.registry.pending.remove(index);
        }
        self.ledger.dirty |= changed;
        self.check(write.broker)
    }

    /// The answer to one write comes, or the news that there will be none.
    pub fn answer(&mut self, index: usize, lost: bool) -> Checked {
        let write = self.registry.pending[index].clone();
        let outcome = if lost { Some(WriteOutcome::Unknown) } else { write.outcome };
        let Some(outcome) = outcome else { return Ok(()) };
        if write.outcome.is_some() {
            self.registry.pending.remove(index);
        } else {
            self.registry.pending[index].forgotten = true;
        }
        let alive = self.process(write.broker).is_some_and(|p| p.incarnation == write.incarnation);
        if write.forgotten || !alive {
            return Ok(());
        }
        self.note(match outcome {
            WriteOutcome::Done { .. } => "write done",
            WriteOutcome::Conflict => "write conflicts",
            WriteOutcome::Unknown => "write of unknown outcome",
            WriteOutcome::Refused => "write refused",
        });
        match write.request {
            Request::State { attempt, kind, .. } => {
                if kind == WriteKind::Resign && matches!(outcome, WriteOutcome::Done { .. }) {
                    self.note("resigned");
                }
                self.input(write.broker, Input::Written { attempt, outcome })
            }
            Request::Elect { .. } => self.elected(write.broker, outcome, write.state),
        }
    }

    fn elected(&mut self, broker: BrokerId, outcome: WriteOutcome, state: PartitionState) -> Checked {
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        process.electing = false;
        if let WriteOutcome::Done { version } = outcome {
            return self.input(broker, Input::State(crate::partition::VersionedState { state, version }));
        }
        process.reads.push_back(None);
        Ok(())
    }

    /// One of the reads of the state under way goes on: first it reads, then it is delivered.
    pub fn read_registry(&mut self, broker: BrokerId) -> Checked {
        let latest = self.registry.history.len() - 1;
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        if process.session.is_none() {
            return Ok(());
        }
        match process.reads.front_mut() {
            None => Ok(()),
            Some(read @ None) => {
                *read = Some(latest);
                Ok(())
            }
            Some(Some(version)) => {
                let version = *version;
                process.reads.pop_front();
                self.show(broker, version)
            }
        }
    }

    /// The elector of a broker decides, and its decision is carried out.
    pub fn decide(&mut self, broker: BrokerId) -> Checked {
        let env = self.env(broker);
        let config = ElectionConfig { mutations: self.mutations, ..ElectionConfig::default() };
        let below_min = self.elect_below_min;
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        let (Some(session), Some(known), false) = (process.session, process.replica.known(), process.electing) else {
            return Ok(());
        };
        let (known, me, incarnation) = (known.clone(), process.replica.member(), process.incarnation);
        let view = View {
            state: &known.state,
            candidates: &process.candidates,
            me,
            incarnation,
            leading: matches!(process.replica.role, Role::Leader(_)),
            eligible: !matches!(process.replica.role, Role::Halted(_))
                && !process.replica.is_damaged()
                && !process.replica.yields(env.now_ms),
            draining: process.draining,
            env: &env,
        };
        let decision = process.elector.decide(&view, &config);
        let min = if below_min { 0 } else { process.min_insync };
        match decision {
            Decision::Nothing | Decision::WaitUntil(_) => Ok(()),
            Decision::Queue => {
                self.registry.queue(session, me, incarnation);
                self.refresh_candidates(broker);
                Ok(())
            }
            Decision::Leave => {
                self.note("ineligible candidate leaves");
                self.registry.candidates.retain(|(c, _)| c.incarnation != incarnation);
                self.refresh_candidates(broker);
                Ok(())
            }
            Decision::Elect { candidate, trigger } => {
                self.note(match trigger {
                    crate::election::Trigger::NoLeader => "elects: no leader",
                    crate::election::Trigger::CandidateGone => "elects: candidate gone",
                    crate::election::Trigger::Detector => "elects: detector",
                    crate::election::Trigger::OwnSession => "elects: own session",
                });
                process_electing(self, broker);
                let leader = LeaderId { broker, disk: me.disk, incarnation, candidate };
                let state = known.state.elected(leader, min);
                if state.isr.len() < min.min(known.state.isr.len())
                    || below_min && state.isr.len() < self.min_insync.min(known.state.isr.len())
                {
                    return Err(format!("{broker} elects itself below min"));
                }
                self.write(broker, known.version, state, Request::Elect { candidate })
            }
        }
    }

    pub fn refresh_candidates(&mut self, broker: BrokerId) {
        let candidates = self.registry.candidates();
        if let Some(process) = self.process_mut(broker) {
            process.candidates = candidates;
        }
    }

    /// A client sends its next batch, or the same one again, to this broker.
    pub fn produce(&mut self, client: usize, broker: BrokerId) -> Checked {
        let request = RequestId(self.fresh());
        let client = &mut self.clients[client];
        client.waits_for = Some((request, broker));
        let id = (client.id, client.next);
        self.ledger.asked.insert(request, id);
        self.produce_batch(broker, request, id, size(id.1), Acks::All)
    }

    pub fn produce_batch(
        &mut self,
        broker: BrokerId,
        request: RequestId,
        id: Identity,
        records: usize,
        acks: Acks,
    ) -> Checked {
        if acks == Acks::Leader {
            self.local.insert(request);
        }
        let bytes = batch(id, records);
        let header = BatchHeader::parse(&bytes).unwrap();
        let produce = Produce { request, acks, header, bytes, wall_ms: 0 };
        self.input(broker, Input::Produce(produce))
    }

    fn answered(&mut self, broker: BrokerId, request: RequestId, base: Offset) -> Checked {
        // The ledger learns what the leader committed before it hears of answers.
        self.check(broker)?;
        if self.local.remove(&request) {
            return Ok(());
        }
        self.ledger.acknowledged(request, base)?;
        for client in &mut self.clients {
            if client.waits_for.is_some_and(|(waiting, _)| waiting == request) {
                client.waits_for = None;
                client.next += size(client.next) as i32;
                client.acknowledged += 1;
            }
        }
        Ok(())
    }

    fn rejected(&mut self, request: RequestId, why: &Refusal) -> Checked {
        let Some(client) = self.clients.iter_mut().find(|c| c.waits_for.is_some_and(|(r, _)| r == request)) else {
            return Ok(());
        };
        client.waits_for = None;
        let lost = matches!(why.code, ErrorCode::OutOfOrderSequence | ErrorCode::DuplicateSequence);
        if !lost {
            return Ok(());
        }
        if !self.unclean {
            return Err(format!("10: the batch of {request:?} was refused: {}", why.cause));
        }
        client.id = ProducerId(client.id.0 + 100);
        client.next = 0;
        Ok(())
    }

    /// What the detector says of a peer from now on.
    pub fn judge(&mut self, broker: BrokerId, about: BrokerId, health: Health) -> Checked {
        let draining = self.process(about).is_some_and(|p| p.draining);
        let Some(process) = self.process_mut(broker) else {
            return Ok(());
        };
        process.peers.insert(about, Peer { health, draining });
        self.input(broker, Input::PeersChanged)
    }

    /// The truth about a peer, as a detector would find it in time.
    pub fn truth(&self, broker: BrokerId, about: BrokerId) -> Health {
        let Some(process) = self.process(about) else {
            return Health::Dead;
        };
        let cut = |id| self.links.get(&id).is_some_and(|l: &Link| l.broken);
        if cut((about, broker, false)) || cut((broker, about, false)) {
            return Health::Silent;
        }
        Health::Alive(process.incarnation)
    }
}

/// The same each time that a batch is sent.
fn size(sequence: i32) -> usize {
    1 + sequence as usize % 3
}

fn process_electing(cluster: &mut Cluster, broker: BrokerId) {
    if let Some(process) = cluster.process_mut(broker) {
        process.electing = true;
    }
}

fn kind(message: &Message, stream: Stream) -> &'static str {
    match message {
        Message::Announce(_) => "announce",
        Message::Hello(_) => "hello",
        Message::HelloReply(reply) => match reply.verdict {
            HelloVerdict::Accepted { .. } => "hello accepted",
            HelloVerdict::RestartAt { .. } => "hello: restart",
            HelloVerdict::Damaged => "hello: damaged",
            HelloVerdict::NotYet => "hello: not yet",
            HelloVerdict::Fenced => "hello: fenced",
        },
        Message::Append(append) if append.batches.is_empty() => "append of the high watermark",
        Message::Append(_) if stream == Stream::CatchUp => "append to catch up",
        Message::Append(_) => "append",
        Message::Ack(_) => "ack",
    }
}
