//! Invariant 11: once faults end, nothing stands still. From a state a fair run without faults
//! goes on for a bounded time; then everybody is in sync, the logs are equal, and a new record
//! is acknowledged.

use baton_core::election::{Decision, Elector};
use baton_core::replica::{Input, RoleView};

use crate::model::{Replication, produced};
use crate::names;
use crate::state::{Checked, State, Violation};
use crate::step::World;

/// Records that a healing run sends.
pub const WRITES: u8 = 1;

/// Elections that a healing run may hold.
pub const EPOCHS: usize = 12;

const ROUND_MS: u64 = 250;
const ROUNDS_MAX: u64 = 160;

/// Whether this state does not stand still, or is not one of those that are looked at.
pub fn recovers(model: &Replication, state: &State) -> bool {
    check(model, state).is_ok()
}

/// Heals the state if it is one of those that are looked at.
///
/// # Errors
/// What goes wrong then.
pub fn check(model: &Replication, state: &State) -> Checked {
    if state.violation.is_none() && (is_sampled(model, state) || is_last(model, state)) {
        return heal(model, state);
    }
    Ok(())
}

#[must_use]
pub fn is_sampled(model: &Replication, state: &State) -> bool {
    let one_in = u64::from(model.bounds.heal_one_in);
    one_in > 0 && state.core.is_multiple_of(one_in)
}

/// Nothing can happen any more within the bounds.
fn is_last(model: &Replication, state: &State) -> bool {
    let mut actions = Vec::new();
    crate::enabled::enabled(model, state, &mut actions);
    actions.is_empty()
}

/// # Errors
/// An invariant that breaks on the way, or the eleventh.
pub fn heal(model: &Replication, state: &State) -> Checked {
    let mut world = World::new(model, state.clone());
    world.healing_ms = Some(1_000);
    world.end_faults()?;
    let mut electors = vec![Elector::default(); world.state.nodes.len()];
    let sent = world.state.used.writes + 1;
    for _ in 0..ROUNDS_MAX {
        world.round(&mut electors)?;
        let committed = world.state.ledger.committed.iter().any(|r| r.id == sent);
        if world.is_settled() && committed {
            return world.check_everything();
        }
        // A record that was refused is sent again; one that is stored may yet be acknowledged.
        if world.is_settled() && !world.holds(sent) {
            world.send_record(sent)?;
        }
    }
    Err(Violation::new(11, world.standstill()))
}

impl World<'_> {
    /// Everybody runs, is connected, hears the others, and begins its streams anew.
    fn end_faults(&mut self) -> Checked {
        self.finish_writes()?;
        self.state.network.clear();
        let places = 0..self.state.nodes.len();
        for place in places.clone() {
            let halted = |p: &crate::node::Process| p.replica.role() == RoleView::Halted;
            if self.state.nodes[place].process.as_ref().is_none_or(halted) {
                self.start(place)?;
            }
            if let Some(process) = self.process(place) {
                process.silent = 0;
                if !process.connected {
                    self.open_session(place);
                }
            }
            let min = usize::from(self.state.min_insync);
            self.input(place, Input::MinInsync(min))?;
        }
        for from in places.clone() {
            for to in places.clone().filter(|to| *to != from) {
                self.input(from, Input::LinkReset(names::broker(to)))?;
            }
        }
        Ok(())
    }

    fn round(&mut self, electors: &mut [Elector]) -> Checked {
        self.healing_ms = self.healing_ms.map(|now_ms| now_ms + ROUND_MS);
        for (place, elector) in electors.iter_mut().enumerate() {
            self.input(place, Input::Tick)?;
            self.read_latest(place)?;
            self.keep_candidate(place);
            let env = self.env(place);
            if let Some((Decision::Elect { candidate, .. }, known)) = self.decide(place, &env, elector) {
                self.write_election(place, candidate, &known)?;
                self.read_latest(place)?;
            }
        }
        for _ in 0..200 {
            self.finish_writes()?;
            match self.state.network.first().map(|(link, _)| *link) {
                Some(link) => self.deliver(link, 0)?,
                None if self.state.registry.writes.is_empty() => return Ok(()),
                None => {}
            }
        }
        Err(Violation::new(11, "messages or writes without end"))
    }

    fn read_latest(&mut self, place: usize) -> Checked {
        let latest = self.state.registry.latest();
        let Some(process) = self.process(place) else { return Ok(()) };
        let news = process.replica.known().is_none_or(|known| known.version < latest.version);
        if news || std::mem::take(&mut process.reads) {
            return self.input(place, Input::State(latest));
        }
        Ok(())
    }

    fn finish_writes(&mut self) -> Checked {
        while let Some(write) = self.state.registry.writes.first() {
            if write.outcome.is_none() {
                let before = self.state.registry.writes.len();
                self.apply(0)?;
                if self.state.registry.writes.len() < before {
                    continue;
                }
            }
            if !self.state.registry.writes.is_empty() {
                self.answer(0)?;
            }
            // A leader whose write was in vain reads again before it tries once more.
            for place in 0..self.state.nodes.len() {
                let reads = self.state.nodes[place].process.as_ref().is_some_and(|p| p.reads && p.connected);
                if reads {
                    self.read_latest(place)?;
                }
            }
        }
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        let named = self.state.registry.state.leader?;
        let place = names::index(named.broker);
        let process = self.state.nodes[place].process.as_ref()?;
        (process.leads() && process.incarnation == named.incarnation).then_some(place)
    }

    fn is_settled(&self) -> bool {
        let state = &self.state.registry.state;
        let assignment = &state.assignment;
        let Some(leader) = self.leader() else { return false };
        let end = self.state.nodes[leader].stable.end();
        let in_sync = |broker: &baton_core::ids::BrokerId| {
            let node = &self.state.nodes[names::index(*broker)];
            state.in_isr(&node.member()) && node.stable.end() == end
        };
        assignment.adding.is_empty()
            && assignment.removing.is_empty()
            && state.isr.len() == assignment.replicas.len()
            && assignment.replicas.iter().all(in_sync)
    }

    fn holds(&self, id: u8) -> bool {
        self.state.nodes.iter().any(|node| node.image().records.iter().any(|r| r.id == id))
    }

    fn send_record(&mut self, id: u8) -> Checked {
        match self.leader() {
            Some(place) => self.input(place, produced(&self.model.records, id)),
            None => Ok(()),
        }
    }

    fn standstill(&self) -> String {
        let role = |node: &std::sync::Arc<crate::node::Node>| node.process.as_ref().map(|p| p.replica.role());
        let roles: Vec<_> = self.state.nodes.iter().map(role).collect();
        let members: Vec<_> = self.state.nodes.iter().map(|n| n.member()).collect();
        format!("it stands still with {:?}, {roles:?}, {members:?}", self.state.registry.latest())
    }
}
