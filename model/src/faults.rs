//! Steps of the registry, and everything that goes wrong.

use std::sync::Arc;

use baton_core::ids::{BrokerId, Generation, Offset, TopicPartition};
use baton_core::partition::Assignment;
use baton_core::replica::{Input, Replica, Stream, WriteKind, WriteOutcome};

use crate::action::Action;
use crate::names::{self, index};
use crate::network::{Cargo, Link};
use crate::node::Process;
use crate::registry::Registration;
use crate::state::Checked;
use crate::step::World;

impl World<'_> {
    /// The registry carries out one write, or turns it down. A conflict is known at once:
    /// versions only rise, so that a later answer is that of a later attempt.
    pub fn apply(&mut self, at: usize) -> Checked {
        let write = self.state.registry.writes[at].clone();
        let outcome = self.state.registry.judge(&write, self.model.bounds.outside.join_unchecked);
        let remember = self.model.bounds.late_reads;
        if matches!(outcome, WriteOutcome::Done { .. }) {
            self.check_minimum(index(write.from), &write.state, write.min_insync)?;
        }
        let registry = self.registry();
        if matches!(outcome, WriteOutcome::Done { .. }) {
            registry.replace(write.state, remember);
            self.state.used.isr_changes += u8::from(write.kind == WriteKind::Isr);
        }
        if write.forgotten {
            self.registry().writes.remove(at);
            return Ok(());
        }
        self.registry().writes[at].outcome = Some(outcome);
        if outcome == WriteOutcome::Conflict { self.answer(at) } else { Ok(()) }
    }

    pub fn answer(&mut self, at: usize) -> Checked {
        let write = self.registry().writes.remove(at);
        let Some(outcome) = write.outcome else { return Ok(()) };
        self.written(&write, outcome)
    }

    pub fn lose_answer(&mut self, at: usize) -> Checked {
        self.state.used.unknowns += 1;
        let registry = self.registry();
        let write = registry.writes[at].clone();
        if write.outcome.is_some() {
            registry.writes.remove(at);
        } else {
            registry.writes[at].forgotten = true;
        }
        self.written(&write, WriteOutcome::Unknown)
    }

    fn written(&mut self, write: &crate::registry::Write, outcome: WriteOutcome) -> Checked {
        let place = index(write.from);
        let same = self.state.nodes[place].process.as_ref().is_some_and(|p| p.incarnation == write.incarnation);
        if !same {
            return Ok(());
        }
        self.input(place, Input::Written { attempt: write.attempt, outcome })
    }

    pub fn fault(&mut self, action: Action) -> Checked {
        match action {
            Action::Expire(at) => self.expire(index(at)),
            Action::Rejoin(at) => self.open_session(index(at)),
            Action::Crash(at) => self.crash(index(at)),
            Action::Restart(at) => return self.start(index(at)),
            Action::LoseDisk(at) => self.lose_disk(index(at)),
            Action::Damage(at, keep) => self.damage(index(at), keep),
            Action::Resign(at, toward) => return self.resign(index(at), toward),
            Action::Reassign(leaving) => self.reassign(leaving),
            Action::Unclean(chosen) => return self.choose(index(chosen)),
            Action::SetMin(min) => self.set_min(min),
            Action::LearnMin(at) => return self.learn_min(index(at)),
            _ => {}
        }
        Ok(())
    }

    /// Every broker starts, and broker 1 elects itself; everything is delivered.
    pub fn begin(&mut self) -> Checked {
        let places = 0..self.state.nodes.len();
        for place in places.clone() {
            self.start(place)?;
            self.process(place).into_iter().for_each(|p| p.silent = 0);
        }
        for place in places.clone() {
            self.perform(Action::Learn(names::broker(place), 0))?;
        }
        self.perform(Action::Elect(names::broker(0)))?;
        self.registry().earlier.clear();
        for place in places {
            self.perform(Action::Learn(names::broker(place), 1))?;
        }
        for round in 0..2 {
            while let Some((link, _)) = self.state.network.first().cloned() {
                self.perform(Action::Deliver(link))?;
            }
            for place in 0..self.state.nodes.len() {
                while self.state.nodes[place].process.as_ref().is_some_and(|p| !p.ops.is_empty()) {
                    self.perform(Action::Sync(names::broker(place)))?;
                }
                if round == 0 {
                    self.perform(Action::Tick(names::broker(place)))?;
                }
            }
        }
        while let Some((link, _)) = self.state.network.first().cloned() {
            self.perform(Action::Deliver(link))?;
        }
        self.state.used = crate::state::Used::default();
        Ok(())
    }

    pub fn open_session(&mut self, place: usize) {
        let node = self.node(place);
        node.sessions += 1;
        let registration = Registration { session: node.sessions, disk: node.disk };
        if let Some(process) = &mut node.process {
            process.connected = true;
        }
        self.registry().registered[place] = Some(registration);
    }

    /// A process without a session reads no more, and its candidate is gone.
    fn expire(&mut self, place: usize) {
        self.state.used.expiries += 1;
        if let Some(process) = self.process(place) {
            process.connected = false;
        }
        self.registry().end_session(names::broker(place));
    }

    /// What was not synced is gone, and what was on the streams. A write that was sent may
    /// still happen while the session lives.
    fn crash(&mut self, place: usize) {
        self.state.used.crashes += 1;
        let forgets = self.model.bounds.forgets_high_watermark;
        let node = self.node(place);
        if let Some(process) = node.process.take() {
            let known = if forgets { Offset::ZERO } else { process.replica.high_watermark() };
            node.stable.high_watermark = known.min(node.stable.end()).max(node.stable.start);
        }
        let broker = names::broker(place);
        let outlive = self.model.bounds.reorders;
        self.state.network.retain(|(link, _)| link.to != broker && (outlive || link.from != broker));
        let registry = self.registry();
        registry.writes.retain(|w| w.from != broker || w.outcome.is_none());
        for write in registry.writes.iter_mut().filter(|w| w.from == broker) {
            write.forgotten = true;
        }
    }

    /// A new process with a new session; the old one's is given up first.
    pub fn start(&mut self, place: usize) -> Checked {
        let model = self.model;
        self.registry().end_session(names::broker(place));
        let min = usize::from(self.state.min_insync);
        let node = self.node(place);
        node.starts += 1;
        let damaged = std::mem::take(&mut node.damaged);
        let found = node.stable.recovered(damaged, &model.records);
        let (member, incarnation) = (node.member(), node.incarnation());
        let replica = Replica::new(TopicPartition::default(), member, incarnation, model.config.clone(), found);
        node.process = Some(Process {
            replica,
            incarnation,
            image: node.stable.clone(),
            ops: std::collections::VecDeque::new(),
            connected: false,
            reads: false,
            silent: 0,
        });
        self.open_session(place);
        self.input(place, Input::MinInsync(min))
    }

    fn lose_disk(&mut self, place: usize) {
        self.state.used.disk_losses += 1;
        let keeps = self.model.bounds.outside.lost_disk_keeps_identity;
        let node = self.node(place);
        node.stable = crate::disk::Image::default();
        node.damaged = false;
        node.disk += u8::from(!keeps);
    }

    fn damage(&mut self, place: usize, keep: u8) {
        self.state.used.damages += 1;
        let unnoticed = self.model.bounds.outside.damage_unnoticed;
        let node = self.node(place);
        node.stable.records.truncate(usize::from(keep));
        node.stable.high_watermark = node.stable.high_watermark.min(node.stable.end());
        if !unnoticed {
            node.stable.generation = Generation(node.stable.generation.0 + 1);
            node.damaged = true;
        }
    }

    pub fn reset(&mut self, from: BrokerId, to: BrokerId) -> Checked {
        self.state.used.resets += 1;
        self.state.network.retain(|(link, _)| link.from != from || link.to != to);
        self.post(Link::new(from, to, Stream::Live), Cargo::Opened);
        self.input(index(from), Input::LinkReset(to))
    }

    fn resign(&mut self, place: usize, toward: BrokerId) -> Checked {
        self.state.used.resigns += 1;
        self.input(place, Input::Resign { toward })
    }

    fn reassign(&mut self, leaving: BrokerId) {
        self.state.used.reassigns += 1;
        let mut state = self.state.registry.state.clone();
        let spare = names::broker(names::BROKERS_MAX - 1);
        let mut replicas = state.assignment.replicas.clone();
        replicas.push(spare);
        state.assignment = Assignment { replicas, adding: vec![spare], removing: vec![leaving] };
        let remember = self.model.bounds.late_reads;
        self.registry().replace(state, remember);
    }

    /// Whoever can be reached is told first to acknowledge nothing more in the old epoch.
    fn choose(&mut self, place: usize) -> Checked {
        self.state.used.uncleans += 1;
        let epoch = self.state.registry.state.epoch;
        for other in 0..self.state.nodes.len() {
            if self.state.nodes[other].process.is_some() {
                self.input(other, Input::Fence { epoch })?;
            }
        }
        let node = Arc::clone(&self.state.nodes[place]);
        let mut state = self.state.registry.state.clone();
        state.epoch = epoch.next();
        state.isr = vec![node.member()];
        state.leader = None;
        state.hint = None;
        state.last_unclean_epoch = state.epoch;
        self.abandon_what_is_not_in(&node.stable);
        let remember = self.model.bounds.late_reads;
        self.registry().replace(state, remember);
        Ok(())
    }

    fn set_min(&mut self, min: u8) {
        self.state.used.min_changes += 1;
        self.state.min_insync = min;
    }

    fn learn_min(&mut self, place: usize) -> Checked {
        let min = usize::from(self.state.min_insync);
        self.input(place, Input::MinInsync(min))
    }
}
