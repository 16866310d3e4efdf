//! One step: an action is carried out, and what replicas want done in return.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use baton_core::election::{Decision, Elector, View};
use baton_core::ids::{BrokerId, CandidateSeq};
use baton_core::partition::{LeaderId, VersionedState};
use baton_core::replica::{Attempt, Effect, Env, Health, Input, Message, RequestId, RoleView, Stream, WriteOutcome};

use crate::action::Action;
use crate::disk::{LogOp, Record};
use crate::model::{Replication, alone, believed, produced};
use crate::names::{self, index};
use crate::network::{Cargo, Link, Packet};
use crate::node::{Node, Process};
use crate::registry::{Registration, Registry, Write};
use crate::state::{Checked, State, Violation};

/// After this long a Hello is repeated and a refused member asked in again, and nobody is late.
const TICK_MS: u64 = 600;
/// Longer than a leader goes on alone, and shorter than a follower may lag.
const ISOLATED_MS: u64 = 4_000;

/// A state that is being changed.
pub struct World<'a> {
    pub model: &'a Replication,
    pub state: State,
    /// While faults heal, time passes.
    pub healing_ms: Option<u64>,
    /// How many members counted towards the minimum when the last input was taken.
    pub confirmed: usize,
    touched: u8,
}

impl<'a> World<'a> {
    #[must_use]
    pub fn new(model: &'a Replication, state: State) -> Self {
        Self { model, state, healing_ms: None, confirmed: 0, touched: 0 }
    }

    pub fn node(&mut self, place: usize) -> &mut Node {
        self.touched |= 1 << place;
        Arc::make_mut(&mut self.state.nodes[place])
    }

    pub fn process(&mut self, place: usize) -> Option<&mut Process> {
        self.node(place).process.as_mut()
    }

    pub fn registry(&mut self) -> &mut Registry {
        Arc::make_mut(&mut self.state.registry)
    }

    /// The state after the step.
    #[must_use]
    pub fn finish(mut self) -> State {
        self.state.seal(self.model);
        self.state
    }

    pub fn perform(&mut self, action: Action) -> Checked {
        match action {
            Action::Produce(at) => self.produce(index(at)),
            Action::Retry(at, id) => self.retry(index(at), id),
            Action::Deliver(link) => self.deliver(link, 0),
            Action::Overtake(link, count) => self.deliver(link, usize::from(count)),
            Action::Reset(from, to) => self.reset(from, to),
            Action::Sync(at) => self.sync(index(at)),
            Action::FullDisk(at) => self.refuse_append(index(at)),
            Action::Learn(at, version) => self.learn(index(at), version),
            Action::Elect(at) => self.elect(index(at)),
            Action::Silent(at, about) => self.suspect(index(at), about, true),
            Action::Heard(at, about) => self.suspect(index(at), about, false),
            Action::Tick(at) => self.tick(index(at)),
            Action::Apply(at) => self.apply(at),
            Action::Answer(at) => self.answer(at),
            Action::LoseAnswer(at) => self.lose_answer(at),
            Action::Isolate(at) => self.isolate(index(at)),
            fault => self.fault(fault),
        }?;
        self.deliver_at_once()?;
        self.learn_at_once()?;
        self.tidy();
        self.drop_what_is_void();
        self.check_everything()
    }

    fn produce(&mut self, place: usize) -> Checked {
        self.state.used.writes += 1;
        let id = self.state.used.writes;
        self.input(place, produced(&self.model.records, id))
    }

    fn retry(&mut self, place: usize, id: u8) -> Checked {
        self.state.used.retries += 1;
        self.input(place, produced(&self.model.records, id))
    }

    fn learn(&mut self, place: usize, version: i32) -> Checked {
        let Some(state) = self.state.registry.at(version) else { return Ok(()) };
        let latest = version == self.state.registry.version;
        if let Some(process) = self.process(place).filter(|_| latest) {
            process.reads = false;
        }
        self.input(place, Input::State(state))
    }

    fn suspect(&mut self, place: usize, about: BrokerId, silent: bool) -> Checked {
        if let Some(process) = self.process(place) {
            let bit = 1 << index(about);
            process.silent = if silent { process.silent | bit } else { process.silent & !bit };
        }
        self.input(place, Input::PeersChanged)
    }

    fn tick(&mut self, place: usize) -> Checked {
        let env = believed(&self.state, place, TICK_MS);
        self.input_with(place, Input::Tick, &env)
    }

    fn isolate(&mut self, place: usize) -> Checked {
        self.state.used.isolations += 1;
        let env = alone(&self.state, place, ISOLATED_MS, Health::Unknown);
        self.input_with(place, Input::Tick, &env)
    }

    pub fn env(&self, place: usize) -> Env {
        match self.healing_ms {
            None => believed(&self.state, place, 0),
            Some(now_ms) => believed(&self.state, place, now_ms),
        }
    }

    pub fn input(&mut self, place: usize, input: Input) -> Checked {
        let env = self.env(place);
        self.input_with(place, input, &env)
    }

    /// One input, and the completions that do not wait: reads of the log, and a quick disk.
    pub fn input_with(&mut self, place: usize, input: Input, env: &Env) -> Checked {
        let mut inputs = VecDeque::from([input]);
        loop {
            while let Some(input) = inputs.pop_front() {
                self.step(place, input, env, &mut inputs)?;
            }
            let lazy = self.model.bounds.lazy_disks && self.healing_ms.is_none();
            let next = if lazy { None } else { self.next_completion(place) };
            match next {
                Some(completion) => inputs.push_back(completion),
                None => return Ok(()),
            }
        }
    }

    fn step(&mut self, place: usize, input: Input, env: &Env, inputs: &mut VecDeque<Input>) -> Checked {
        let healing = self.healing_ms.is_some();
        let Some(process) = self.process(place) else { return Ok(()) };
        let mut effects = Vec::new();
        let before = Confirmed::of(process, &input);
        let step = || process.replica.step(input, env, &mut effects);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
            return Err(Violation::new(0, message_of(panic.as_ref())));
        }
        if !healing {
            process.replica.forget_time();
        }
        let confirmed = before.then(process);
        self.confirmed = confirmed;
        for effect in effects {
            self.carry_out(place, effect, inputs)?;
        }
        self.note_commits(place)
    }

    fn carry_out(&mut self, place: usize, effect: Effect, inputs: &mut VecDeque<Input>) -> Checked {
        let from = names::broker(place);
        match effect {
            Effect::SaveEpoch(epoch) => self.log(place, LogOp::SaveEpoch(epoch)),
            Effect::Append { term, batches } => {
                let records = batches.iter().map(Record::of).collect();
                self.log(place, LogOp::Append { term, records });
            }
            Effect::Truncate { term, to } => self.log(place, LogOp::Truncate { term, to }),
            Effect::Restart { term, generation, start, producers: _ } => {
                self.log(place, LogOp::Restart { term, generation, start });
            }
            // Nobody asks for it here: the walks of the core do.
            Effect::Trim { .. } => {}
            Effect::Send { to, stream, message } => self.send(from, to, stream, message),
            Effect::ReadForFollower { to, flow, from, max_bytes: _ } => {
                let image = self.state.nodes[place].image();
                let read = |(at, r): (u64, &Record)| self.model.records.stored(*r, at);
                let from_here = (image.start.0..).zip(&image.records).filter(|(at, _)| *at >= from.0);
                let batches = from_here.map(read).collect();
                inputs.push_front(Input::ReadForFollower { to, flow, batches });
            }
            Effect::WriteState { attempt, kind, expected_version, state, joining, toward } => {
                let min_insync = self.process(place).map_or(1, |p| p.replica.min_insync());
                self.write(place, |from, incarnation, session| Write {
                    min_insync,
                    from,
                    incarnation,
                    session,
                    attempt,
                    kind,
                    expected_version,
                    state,
                    joining,
                    toward,
                    outcome: None,
                    forgotten: false,
                });
            }
            Effect::ReadRegistry => {
                if let Some(process) = self.process(place) {
                    process.reads = true;
                }
            }
            Effect::Acknowledge { request: RequestId(id), base, .. } => {
                self.note_commits(place)?;
                return self.check_acknowledgement(id as u8, base);
            }
            // No batch of a transaction is sent here.
            Effect::Verify { .. } => {}
            Effect::Reject { .. } | Effect::HighWatermark(_) | Effect::RoleChanged => {}
            Effect::Halt(why) => return Err(Violation::new(7, format!("broker {from} halts: {why}"))),
        }
        Ok(())
    }

    fn log(&mut self, place: usize, op: LogOp) {
        if let Some(process) = self.process(place) {
            process.image.apply(&op);
            process.ops.push_back(op);
        }
    }

    fn write(&mut self, place: usize, make: impl FnOnce(BrokerId, baton_core::ids::Incarnation, u8) -> Write) {
        let node = &self.state.nodes[place];
        let session = self.state.registry.registered[place].map_or(0, |r| r.session);
        let connected = node.process.as_ref().is_some_and(|p| p.connected);
        let mut write = make(node.broker(), node.incarnation(), session);
        if !connected {
            // Without a session nothing is sent, and that is all the leader learns.
            write.outcome = Some(WriteOutcome::Unknown);
        }
        self.registry().writes.push(write);
    }

    fn send(&mut self, from: BrokerId, to: BrokerId, stream: Stream, message: Message) {
        let quiet = matches!(message, Message::Announce(_)) && !self.model.bounds.announces;
        let known = index(to) < self.state.nodes.len();
        if !known || self.state.nodes[index(to)].process.is_none() || (quiet && self.healing_ms.is_none()) {
            return;
        }
        self.post(Link::new(from, to, stream), Cargo::Carries(message));
    }

    pub fn post(&mut self, link: Link, cargo: Cargo) {
        let packet = Packet { cargo };
        self.state.network.push((link, Arc::new(packet)));
    }

    /// The first message on a stream, or one behind so many others.
    pub fn deliver(&mut self, link: Link, overtaken: usize) -> Checked {
        let on_it = self.state.network.iter().enumerate().filter(|(_, (l, _))| *l == link);
        let Some(at) = on_it.map(|(at, _)| at).nth(overtaken) else {
            return Ok(());
        };
        let (_, packet) = self.state.network.remove(at);
        let input = match &packet.cargo {
            Cargo::Opened => Input::LinkReset(link.from),
            Cargo::Carries(message) => Input::Message { from: link.from, message: message.clone() },
        };
        self.input(index(link.to), input)
    }

    /// What does not wait arrives now, unless something on the same stream is before it.
    fn deliver_at_once(&mut self) -> Checked {
        loop {
            let first = |at: usize| !self.state.network[..at].iter().any(|(l, _)| *l == self.state.network[at].0);
            let due = |at: &usize| !self.state.network[*at].1.delayed(&self.model.bounds.delays) && first(*at);
            let Some(at) = (0..self.state.network.len()).find(due) else {
                return Ok(());
            };
            let link = self.state.network[at].0;
            self.deliver(link, 0)?;
        }
    }

    /// News of the registry that change nothing for a follower reach it at once: its leader, its
    /// epoch, and whether it is in sync are the same. With the latest state it may elect itself,
    /// and with an older one it may only do less.
    fn learn_at_once(&mut self) -> Checked {
        if !self.model.reduced || self.model.bounds.late_reads {
            return Ok(());
        }
        for place in 0..self.state.nodes.len() {
            if self.is_no_news(place) {
                let latest = self.state.registry.latest();
                self.process(place).into_iter().for_each(|p| p.reads = false);
                self.input(place, Input::State(latest))?;
            }
        }
        Ok(())
    }

    fn is_no_news(&self, place: usize) -> bool {
        let registry = &self.state.registry;
        let process = self.state.nodes[place].process.as_ref().filter(|p| p.connected);
        let Some((process, known)) = process.and_then(|p| p.replica.known().map(|known| (p, known))) else {
            return false;
        };
        let RoleView::Follower { leader, .. } = process.replica.role() else { return false };
        let (old, new, me) = (&known.state, &registry.state, process.replica.member());
        known.version < registry.version
            && process.replica.epoch() == new.epoch
            && old.epoch == new.epoch
            && old.leader == new.leader
            && new.leader.is_some_and(|named| named.broker == leader)
            && old.in_isr(&me) == new.in_isr(&me)
            && old.last_unclean_epoch == new.last_unclean_epoch
    }

    /// The oldest change becomes durable; its completion is the next input.
    fn next_completion(&mut self, place: usize) -> Option<Input> {
        self.state.nodes[place].process.as_ref()?.ops.front()?;
        let records = &self.model.records;
        let node = self.node(place);
        let process = node.process.as_mut()?;
        let op = process.ops.pop_front()?;
        node.stable.apply(&op);
        Some(match op {
            LogOp::SaveEpoch(epoch) => Input::EpochSaved(epoch),
            LogOp::Append { term, .. } => Input::Durable { term, end: node.stable.end() },
            LogOp::Truncate { term, .. } | LogOp::Restart { term, .. } => {
                Input::LogChanged { term, producers: node.stable.producers(records) }
            }
        })
    }

    pub fn sync(&mut self, place: usize) -> Checked {
        match self.next_completion(place) {
            Some(completion) => self.input(place, completion),
            None => Ok(()),
        }
    }

    /// The disk refuses the oldest append, and what was to follow it.
    fn refuse_append(&mut self, place: usize) -> Checked {
        self.state.used.full_disks += 1;
        let Some(process) = self.process(place) else { return Ok(()) };
        let Some(LogOp::Append { term, .. }) = process.ops.front() else { return Ok(()) };
        let failed = *term;
        process.ops.retain(|op| !matches!(op, LogOp::Append { term, .. } if *term == failed));
        self.input(place, Input::AppendFailed { term: failed })
    }

    /// Everything that a decision depends on, but the time.
    pub fn decide(&self, place: usize, env: &Env, elector: &mut Elector) -> Option<(Decision, VersionedState)> {
        let node = &self.state.nodes[place];
        let process = node.process.as_ref().filter(|p| p.connected)?;
        let known = process.replica.known()?;
        let role = process.replica.role();
        let view = View {
            state: &known.state,
            candidates: &self.state.registry.candidates,
            me: process.replica.member(),
            incarnation: process.incarnation,
            leading: matches!(role, RoleView::Leader { .. }),
            eligible: role != RoleView::Halted && !process.replica.is_damaged(),
            draining: false,
            env,
        };
        Some((elector.decide(&view, &self.model.election), known.clone()))
    }

    fn elect(&mut self, place: usize) -> Checked {
        let env = alone(&self.state, place, 0, Health::Dead);
        let decision = self.decide(place, &env, &mut Elector::default());
        if let Some((Decision::Elect { candidate, .. }, known)) = decision {
            self.write_election(place, candidate, &known)?;
        }
        Ok(())
    }

    /// Happens at once or not at all: the registry compares the version, and a later answer
    /// is no other than a later read.
    pub fn write_election(&mut self, place: usize, candidate: CandidateSeq, known: &VersionedState) -> Checked {
        let node = &self.state.nodes[place];
        let Some(process) = &node.process else { return Ok(()) };
        let stands = self.state.registry.candidates.iter().any(|c| c.seq == candidate);
        if !stands || known.version != self.state.registry.version {
            return Ok(());
        }
        let winner =
            LeaderId { broker: node.broker(), disk: node.member().disk, incarnation: process.incarnation, candidate };
        let below = self.model.bounds.outside.election_below_min;
        let min = if below { 0 } else { process.replica.min_insync() };
        let state = known.state.elected(winner, min);
        self.check_minimum(place, &state, process.replica.min_insync())?;
        let old = known.state.leader.filter(|old| old.broker != winner.broker).map(|old| old.candidate);
        let remember = self.model.bounds.late_reads;
        let registry = self.registry();
        registry.candidates.retain(|c| Some(c.seq) != old);
        registry.replace(state, remember);
        Ok(())
    }

    /// The queue follows what the processes know; who leads no more takes nobody for silent.
    pub fn tidy(&mut self) {
        for place in 0..self.state.nodes.len() {
            if self.touched & 1 << place == 0 {
                continue;
            }
            let leads = self.state.nodes[place].leads();
            if let Some(process) = self.process(place).filter(|p| !leads && p.silent != 0) {
                process.silent = 0;
            }
            self.keep_candidate(place);
        }
    }

    /// Messages of flows and epochs that are over change nothing, now or later: numbers only
    /// rise. Without the rules that say so they have to be tried.
    /// The same goes for writes that will be turned down, and for answers, if nobody waits.
    fn drop_what_is_void(&mut self) {
        let void = |write: &Write| {
            let over = write.outcome.is_some() || self.state.registry.is_doomed(write);
            over && !self.state.is_awaited(write)
        };
        if self.model.reduced && self.state.registry.writes.iter().any(void) {
            let kept = self.state.registry.writes.iter().filter(|w| !void(w)).cloned().collect();
            self.registry().writes = kept;
        }
        if self.model.bounds.mutations != baton_core::replica::Mutations::default() {
            return;
        }
        let nodes = &self.state.nodes;
        self.state.network.retain(|(link, packet)| {
            let replica = nodes[index(link.to)].process.as_ref().map(|p| &p.replica);
            replica.is_some_and(|replica| !packet.is_void_at(replica))
        });
    }

    /// Queues, or leaves the queue, as the elector says when there is nothing to elect for.
    pub fn keep_candidate(&mut self, place: usize) {
        let mut env = self.env(place);
        for (broker, peer) in &mut env.peers {
            peer.health = Health::Alive(self.state.nodes[index(*broker)].incarnation());
        }
        let decision = self.decide(place, &env, &mut Elector::default()).map(|(decision, _)| decision);
        match decision {
            Some(Decision::Queue) => self.queue(place),
            Some(Decision::Leave) => {
                let broker = names::broker(place);
                self.registry().candidates.retain(|c| c.member.broker != broker);
            }
            _ => {}
        }
    }

    fn queue(&mut self, place: usize) {
        let Some(process) = &self.state.nodes[place].process else { return };
        let (member, incarnation) = (process.replica.member(), process.incarnation);
        let session = self.state.registry.registered[place].map_or(0, |r: Registration| r.session);
        let seq = names::candidate(place, session);
        let registry = self.registry();
        registry.candidates.retain(|c| c.seq != seq);
        registry.candidates.push(baton_core::election::Candidate { seq, member, incarnation });
    }
}

/// A leader commits first and then may ask for another change of the in-sync replicas, which
/// makes fewer of them count: what it committed is judged by those that counted before.
struct Confirmed {
    members: usize,
    attempt: Option<Attempt>,
    settles: bool,
}

impl Confirmed {
    fn of(process: &Process, input: &Input) -> Self {
        let settles = matches!(input, Input::Written { .. } | Input::State(_));
        let members = process.replica.confirmed_members().unwrap_or_default();
        Self { members, attempt: process.replica.awaited_attempt(), settles }
    }

    fn then(self, process: &Process) -> usize {
        let now = process.replica.confirmed_members().unwrap_or_default();
        let attempt = process.replica.awaited_attempt();
        if attempt.is_none() || attempt == self.attempt {
            return now;
        }
        let known = process.replica.known().map_or(0, |known| known.state.isr.len());
        let settled = if self.settles { known } else { 0 };
        now.max(self.members).max(settled)
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".into())
}
