//! Visits every state within the bounds, and tells how a broken promise came about.

use std::time::Duration;

use stateright::Model;

use crate::action::Action;
use crate::bounds::Bounds;
use crate::model::Replication;
use crate::network;
use crate::search;
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
    pub seconds: u64,
    /// States beyond this many steps are not visited.
    pub depth_max: Option<usize>,
    /// So many steps are tried.
    pub states_max: Option<usize>,
    /// Whether a state that was reached with less of the limits used up stands for one with more.
    pub dominance: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Self { order: Order::Breadth, seconds: 60, depth_max: None, states_max: None, dominance: true }
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
    /// What was remembered of the states, without those that waited.
    pub bytes: usize,
    pub waiting_max: usize,
    /// Different brokers, registries and ledgers at the end.
    pub parts: usize,
    /// How many states are this many steps away.
    pub levels: Vec<usize>,
}

#[must_use]
pub fn explore(bounds: Bounds, effort: &Effort) -> Report {
    explore_from(bounds, &[], effort)
}

/// Begins where the steps of `start` lead.
///
/// # Panics
/// If one of them cannot happen.
#[must_use]
pub fn explore_from(bounds: Bounds, start: &[Action], effort: &Effort) -> Report {
    let model = Replication::new(bounds);
    let mut state = model.initial();
    for action in start {
        let mut possible = Vec::new();
        model.actions(&state, &mut possible);
        assert!(possible.contains(action), "`{action}` cannot happen, only {possible:?}");
        state = model.next_state(&state, *action).expect("a step that can happen leads somewhere");
    }
    search::search(&model, state, start, effort)
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
