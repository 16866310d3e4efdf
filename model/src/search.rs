//! Visits every state within the bounds, breadth or depth first. It remembers a fingerprint of
//! each, the step that led there, and the states that wait for their turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stateright::{Expectation, Model, Property};

use crate::action::Action;
use crate::explore::{Effort, Order, Report, Trail};
use crate::heal;
use crate::model::Replication;
use crate::shared::Shared;
use crate::state::{State, Violation};
use crate::visited::Visited;

/// How a state was reached: from which one, and by which of its possible steps.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: u32,
    choice: u16,
}

struct Waiting {
    state: State,
    /// Its place among all states.
    at: u32,
    depth: u32,
}

struct Search<'a> {
    model: &'a Replication,
    properties: Vec<Property<Replication>>,
    visited: Visited,
    shared: Shared,
    steps: Vec<Step>,
    waiting: VecDeque<Waiting>,
    generated: usize,
    /// How many states are this many steps away.
    levels: Vec<usize>,
    waiting_max: usize,
    reached: Vec<bool>,
}

/// Visits everything from `start` on, to which `prefix` led, or what there is time for.
#[must_use]
pub fn search(model: &Replication, start: State, prefix: &[Action], effort: &Effort) -> Report {
    let began = Instant::now();
    let properties = model.properties();
    let mut search = Search {
        model,
        visited: Visited::new(model.reduced && effort.dominance),
        shared: Shared::default(),
        steps: Vec::new(),
        waiting: VecDeque::new(),
        generated: 1,
        levels: Vec::new(),
        waiting_max: 0,
        reached: vec![false; properties.len()],
        properties,
    };
    let first = start.clone();
    let mut found = search.enter(start, Step { from: 0, choice: 0 }, 0);
    let mut complete = true;
    while found.is_none() {
        let next = match effort.order {
            Order::Breadth => search.waiting.pop_front(),
            Order::Depth => search.waiting.pop_back(),
        };
        let Some(next) = next else { break };
        let tried = effort.states_max.is_some_and(|max| search.generated >= max);
        if tried || (next.at.is_multiple_of(1024) && began.elapsed() > Duration::from_secs(effort.seconds)) {
            complete = false;
            break;
        }
        if effort.depth_max.is_some_and(|max| next.depth as usize >= max) {
            complete = false;
            continue;
        }
        found = search.expand(&next);
    }
    let trail = found.map(|(at, violation)| {
        let actions = prefix.iter().copied().chain(search.way_to(first, at)).collect();
        Trail { property: "within bounds", actions, violation }
    });
    search.report(began, complete, trail)
}

impl Search<'_> {
    /// Every step from one state.
    fn expand(&mut self, from: &Waiting) -> Option<(u32, Box<Violation>)> {
        let mut actions = Vec::new();
        self.model.actions(&from.state, &mut actions);
        for (choice, action) in actions.into_iter().enumerate() {
            let Some(next) = self.model.next_state(&from.state, action) else { continue };
            self.generated += 1;
            let step = Step { from: from.at, choice: choice as u16 };
            let found = self.enter(next, step, from.depth + 1);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A state that is new is looked at, and waits for its turn.
    fn enter(&mut self, state: State, step: Step, depth: u32) -> Option<(u32, Box<Violation>)> {
        if !self.visited.insert(state.core, &state.used) {
            return None;
        }
        let at = self.steps.len() as u32;
        self.steps.push(step);
        if self.levels.len() <= depth as usize {
            self.levels.push(0);
        }
        self.levels[depth as usize] += 1;
        if at.is_multiple_of(1 << 20) && at > 0 {
            let (waiting, parts, mb) = (self.waiting.len(), self.shared.len(), self.visited.bytes() >> 20);
            eprintln!("{at} states, {waiting} wait, depth {depth}, {parts} parts, table of {mb} MB");
        }
        for (property, reached) in self.properties.iter().zip(&mut self.reached) {
            if property.expectation == Expectation::Sometimes && !*reached {
                *reached = (property.condition)(self.model, &state);
            }
        }
        let broken = state.violation.clone().or_else(|| heal::check(self.model, &state).err());
        let mut state = state;
        if state.nodes.iter().any(|node| Arc::strong_count(node) == 1) || Arc::strong_count(&state.registry) == 1 {
            self.shared.share(&mut state);
        }
        self.waiting.push_back(Waiting { state, at, depth });
        self.waiting_max = self.waiting_max.max(self.waiting.len());
        broken.map(|violation| (at, violation))
    }

    /// The steps that led to a state, from the first one.
    fn way_to(&self, first: State, mut at: u32) -> Vec<Action> {
        let mut choices = Vec::new();
        while at != 0 {
            let step = self.steps[at as usize];
            choices.push(usize::from(step.choice));
            at = step.from;
        }
        let (mut state, mut way) = (first, Vec::new());
        for choice in choices.into_iter().rev() {
            let mut actions = Vec::new();
            self.model.actions(&state, &mut actions);
            let Some(next) = self.model.next_state(&state, actions[choice]) else { break };
            way.push(actions[choice]);
            state = next;
        }
        way
    }

    fn report(self, began: Instant, complete: bool, trail: Option<Trail>) -> Report {
        let sometimes = self.properties.iter().zip(&self.reached);
        let unreached = sometimes
            .filter(|(property, reached)| property.expectation == Expectation::Sometimes && !**reached)
            .map(|(property, _)| property.name);
        Report {
            unique: self.visited.len(),
            generated: self.generated,
            depth: self.levels.len().saturating_sub(1),
            elapsed: began.elapsed(),
            exhausted: complete && trail.is_none(),
            unreached: unreached.collect(),
            bytes: self.visited.bytes() + self.steps.len() * size_of::<Step>(),
            waiting_max: self.waiting_max,
            levels: self.levels,
            parts: self.shared.len(),
            trail,
        }
    }
}
