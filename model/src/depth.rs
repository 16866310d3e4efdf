//! Depth first, remembering nothing but fingerprints: for bounds whose states that wait would
//! not fit into memory. It minds the clock, too: a checker of one thread does not.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use stateright::Model;

use crate::action::Action;
use crate::explore::{Report, Trail};
use crate::heal;
use crate::model::Replication;
use crate::state::{State, Violation};

/// Fingerprints are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Frame {
    state: State,
    /// The step that led here; none at the beginning.
    by: Option<Action>,
    left: Vec<Action>,
}

struct Search<'a> {
    model: &'a Replication,
    visited: HashSet<u64, BuildHasherDefault<Identity>>,
    stack: Vec<Frame>,
    generated: usize,
    depth: usize,
    reached: Vec<bool>,
}

/// Visits everything, or what there is time for.
#[must_use]
pub fn search(model: &Replication, limit: Duration, depth_max: Option<usize>) -> Report {
    let began = Instant::now();
    let properties = model.properties();
    let mut search = Search {
        model,
        visited: HashSet::default(),
        stack: Vec::new(),
        generated: 1,
        depth: 0,
        reached: vec![false; properties.len()],
    };
    let mut found = search.enter(model.initial(), None);
    let mut in_time = true;
    while found.is_none() && !search.stack.is_empty() {
        if search.generated.is_multiple_of(4096) && began.elapsed() > limit {
            in_time = false;
            break;
        }
        found = search.step(depth_max);
    }
    let trail = found.map(|violation| Trail {
        property: "depth first",
        actions: search.stack.iter().filter_map(|frame| frame.by).collect(),
        violation,
    });
    let sometimes = properties.iter().zip(&search.reached);
    let unreached = sometimes
        .filter(|(property, reached)| property.expectation == stateright::Expectation::Sometimes && !**reached)
        .map(|(property, _)| property.name);
    Report {
        unique: search.visited.len(),
        generated: search.generated,
        depth: search.depth,
        elapsed: began.elapsed(),
        exhausted: in_time && trail.is_none() && depth_max.is_none(),
        unreached: unreached.collect(),
        trail,
    }
}

impl Search<'_> {
    /// One step from the newest state, or back.
    fn step(&mut self, depth_max: Option<usize>) -> Option<Box<Violation>> {
        let deep = depth_max.is_some_and(|max| self.stack.len() > max);
        let frame = self.stack.last_mut()?;
        let action = if deep { None } else { frame.left.pop() };
        let Some(action) = action else {
            self.stack.pop();
            return None;
        };
        let next = self.model.next_state(&frame.state, action)?;
        self.generated += 1;
        self.enter(next, Some(action))
    }

    /// A state that is new is looked at, and waits for its steps.
    fn enter(&mut self, state: State, by: Option<Action>) -> Option<Box<Violation>> {
        if !self.visited.insert(state.fingerprint) {
            return None;
        }
        let mut left = Vec::new();
        self.model.actions(&state, &mut left);
        for (property, reached) in self.model.properties().iter().zip(&mut self.reached) {
            if property.expectation == stateright::Expectation::Sometimes && !*reached {
                *reached = (property.condition)(self.model, &state);
            }
        }
        let broken = state.violation.clone();
        let broken = broken.or_else(|| {
            let looked_at = left.is_empty() || heal::is_sampled(self.model, &state);
            if looked_at { heal::heal(self.model, &state).err() } else { None }
        });
        self.stack.push(Frame { state, by, left });
        self.depth = self.depth.max(self.stack.len());
        broken
    }
}
