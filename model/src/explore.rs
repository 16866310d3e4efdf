//! Visits every state within the bounds, and tells how a broken promise came about.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::action::Action;
use crate::bounds::Bounds;
use crate::depth;
use crate::heal;
use crate::model::Replication;
use crate::network;
use crate::state::{State, Violation};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The shortest way to a violation; needs memory for all states that wait.
    Breadth,
    Depth,
}

#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub order: Order,
    pub threads: usize,
    pub seconds: u64,
    /// States beyond this many steps are not visited.
    pub depth_max: Option<usize>,
    /// Breadth first only: so many steps are tried. (Its clock stands still with one thread.)
    pub states_max: Option<usize>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { order: Order::Breadth, threads: 1, seconds: 60, depth_max: None, states_max: None }
    }
}

/// A way to a violation.
#[derive(Clone, Debug)]
pub struct Trail {
    pub property: &'static str,
    pub actions: Vec<Action>,
    pub violation: Box<Violation>,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub unique: usize,
    pub generated: usize,
    pub depth: usize,
    pub elapsed: Duration,
    /// Every state within the bounds was visited.
    pub exhausted: bool,
    pub trail: Option<Trail>,
    /// What a run should have reached and did not.
    pub unreached: Vec<&'static str>,
}

#[must_use]
pub fn explore(bounds: Bounds, effort: &Effort) -> Report {
    let began = Instant::now();
    let limit = Duration::from_secs(effort.seconds);
    if effort.order == Order::Depth {
        return depth::search(&Replication::new(bounds), limit, effort.depth_max);
    }
    let mut builder = Replication::new(bounds)
        .checker()
        .threads(effort.threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .timeout(limit);
    if let Some(depth) = effort.depth_max {
        builder = builder.target_max_depth(depth);
    }
    if let Some(states) = effort.states_max {
        builder = builder.target_state_count(states);
    }
    report(&builder.spawn_bfs().join(), began, limit, effort)
}

fn report(checker: &impl Checker<Replication>, began: Instant, limit: Duration, effort: &Effort) -> Report {
    let elapsed = began.elapsed();
    let model = checker.model();
    let mut trail: Option<Trail> = None;
    let mut unreached = Vec::new();
    for property in model.properties() {
        let Some(path) = checker.discovery(property.name) else {
            if property.expectation == stateright::Expectation::Sometimes {
                unreached.push(property.name);
            }
            continue;
        };
        if property.expectation == stateright::Expectation::Sometimes {
            continue;
        }
        let last = path.last_state().clone();
        let found = Trail { property: property.name, actions: path.into_actions(), violation: why(model, &last) };
        if trail.as_ref().is_none_or(|known| known.actions.len() > found.actions.len()) {
            trail = Some(found);
        }
    }
    Report {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        elapsed,
        exhausted: elapsed < limit
            && trail.is_none()
            && effort.depth_max.is_none()
            && effort.states_max.is_none_or(|max| checker.state_count() < max),
        trail,
        unreached,
    }
}

fn why(model: &Replication, state: &State) -> Box<Violation> {
    match &state.violation {
        Some(violation) => violation.clone(),
        None => heal::heal(model, state).err().unwrap_or_else(|| Violation::new(11, "it recovers on second sight")),
    }
}

/// The steps in words, each with what it delivered.
#[must_use]
pub fn retell(bounds: Bounds, actions: &[Action]) -> Vec<String> {
    let model = Replication::new(bounds);
    let mut state = model.initial();
    let mut lines = Vec::new();
    for action in actions {
        let carried = match action {
            Action::Deliver(link) => state.network.iter().find(|(l, _)| l == link),
            Action::Overtake(link, count) => state.network.iter().filter(|(l, _)| l == link).nth(usize::from(*count)),
            _ => None,
        };
        let carried = carried.map(|(_, packet)| format!(": {}", network::describe(&packet.cargo)));
        lines.push(format!("{action}{}", carried.unwrap_or_default()));
        match model.next_state(&state, *action) {
            Some(next) => state = next,
            None => break,
        }
        lines.push(format!("    {}", portrait(&state)));
    }
    lines
}

fn portrait(state: &State) -> String {
    let registry = &state.registry;
    let isr: Vec<String> = registry.state.isr.iter().map(|m| m.broker.to_string()).collect();
    let leader = registry.state.leader.map_or_else(|| "-".into(), |l| l.broker.to_string());
    let mut text =
        format!("[registry v{} epoch {} leader {leader} isr {}", registry.version, registry.state.epoch, isr.join("+"));
    for node in &state.nodes {
        let records: Vec<String> = node.image().records.iter().map(|r| format!("r{}e{}", r.id, r.epoch)).collect();
        let role = node.process.as_ref().map_or_else(
            || "down".into(),
            |p| format!("{:?} e{} hw{}", p.replica.role(), p.replica.epoch(), p.replica.high_watermark()),
        );
        text.push_str(&format!(" | {} {role} {{{}}}", node.broker(), records.join(" ")));
    }
    text.push(']');
    text
}
