//! The model: production replicas, and every order of what can happen to them.

use std::sync::Arc;

use baton_core::election::ElectionConfig;
use baton_core::ids::{BrokerId, Epoch};
use baton_core::partition::{Assignment, PartitionState};
use baton_core::replica::{Env, Health, Input, Mutations, Peer, ReplicaConfig};
use stateright::{Model, Property};

use crate::action::Action;
use crate::bounds::Bounds;
use crate::heal;
use crate::names::{self, BROKERS_MAX, Renaming};
use crate::node::Node;
use crate::records::Records;
use crate::registry::Registry;
use crate::state::{Ledger, State, Used};
use crate::step::World;

/// One partition of three replicas within some bounds.
#[derive(Debug)]
pub struct Replication {
    pub bounds: Bounds,
    pub records: Records,
    pub config: ReplicaConfig,
    pub election: ElectionConfig,
    pub renamings: &'static [Renaming],
    /// Whether what no later step reads is left out of fingerprints, or dropped.
    pub reduced: bool,
}

impl Replication {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let limits = &bounds.limits;
        // A healing run sends some more, and may elect several times.
        let ids = limits.writes + heal::WRITES;
        let places = usize::from(limits.writes + limits.retries + heal::WRITES) + 1;
        let epochs = usize::from(limits.epochs + limits.uncleans) + heal::EPOCHS;
        let idempotent = limits.retries > 0;
        Self {
            records: Records::new(ids, places, epochs, idempotent),
            config: ReplicaConfig { mutations: bounds.mutations, ..ReplicaConfig::default() },
            election: ElectionConfig { mutations: bounds.mutations, ..ElectionConfig::default() },
            renamings: Renaming::all(bounds.symmetric()),
            reduced: true,
            bounds,
        }
    }

    /// The same without reductions of the state.
    #[must_use]
    pub fn plain(bounds: Bounds) -> Self {
        Self { reduced: false, renamings: Renaming::all(false), ..Self::new(bounds) }
    }

    /// Whether a number of a flow is only ever compared with the follower's own, where no message
    /// is under way: not if a rule about flows may be off.
    #[must_use]
    pub fn compares_flows(&self) -> bool {
        self.reduced && self.bounds.mutations == Mutations::default()
    }

    /// Broker 1 leads in epoch 1, everybody is in sync, and nothing is under way.
    ///
    /// # Panics
    /// If a cluster without faults does not get there.
    #[must_use]
    pub fn initial(&self) -> State {
        let replicas: Vec<BrokerId> = (0..usize::from(self.bounds.replicas)).map(names::broker).collect();
        let nodes = (0..self.bounds.brokers()).map(|place| {
            Arc::new(Node {
                place,
                disk: 0,
                starts: 0,
                sessions: 0,
                stable: crate::disk::Image::default(),
                damaged: false,
                process: None,
            })
        });
        let nodes: Vec<Arc<Node>> = nodes.collect();
        let isr = nodes.iter().take(replicas.len()).map(|n| n.member()).collect();
        let state = PartitionState {
            isr,
            assignment: Assignment { replicas, ..Assignment::default() },
            ..PartitionState::default()
        };
        let registry = Registry {
            state,
            version: 0,
            earlier: Vec::new(),
            registered: [None; BROKERS_MAX],
            candidates: Vec::new(),
            writes: Vec::new(),
        };
        let state = State {
            nodes,
            registry: Arc::new(registry),
            network: Vec::new(),
            ledger: Arc::new(Ledger::default()),
            used: Used::default(),
            min_insync: self.bounds.min_insync,
            violation: None,
            core: 0,
            fingerprint: 0,
        };
        let mut world = World::new(self, state);
        world.begin().expect("a cluster without faults begins");
        world.finish()
    }

    #[must_use]
    pub fn successors(&self, state: &State) -> Vec<(Action, State)> {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        let step = |action| self.next_state(state, action).map(|next| (action, next));
        actions.into_iter().filter_map(step).collect()
    }
}

impl Model for Replication {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_none() {
            crate::enabled::enabled(self, state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut world = World::new(self, state.clone());
        if let Err(violation) = world.perform(action) {
            world.state.violation = Some(violation);
        }
        Some(world.finish())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! holds {
            ($number:literal, $name:literal) => {
                Property::always($name, |_, state: &State| {
                    state.violation.as_ref().is_none_or(|violation| violation.invariant != $number)
                })
            };
        }
        vec![
            holds!(0, "no panic"),
            holds!(1, "1 completeness"),
            holds!(2, "2 one value"),
            holds!(3, "3 one leader per epoch"),
            holds!(4, "4 log matching"),
            holds!(5, "5 below a high watermark is committed"),
            holds!(6, "6 a leader counts all in-sync replicas"),
            holds!(7, "7 no truncation below a high watermark"),
            holds!(8, "8 the high watermark is monotonic"),
            holds!(9, "9 a learned epoch ends those before"),
            holds!(10, "10 one offset per sequence"),
            holds!(12, "12 nothing is acknowledged below the minimum"),
            Property::always("11 nothing stands still for ever", heal::recovers),
            Property::sometimes("a record commits in the last epoch", |model: &Self, state: &State| {
                let last = Epoch(u32::from(model.bounds.limits.epochs));
                state.ledger.committed.iter().any(|record| record.epoch >= last)
            }),
        ]
    }
}

/// What a broker knows of its neighbours when it decides: what its detector last said. Who
/// died without being taken for silent yet is still believed to be alive.
#[must_use]
pub fn believed(state: &State, place: usize, now_ms: u64) -> Env {
    let process = state.nodes[place].process.as_ref();
    let health = |node: &Node| match process {
        Some(process) if !process.hears(node.place) => Health::Silent,
        _ => Health::Alive(node.incarnation()),
    };
    let others = state.nodes.iter().filter(|node| node.place != place);
    let peers = others.map(|node| (node.broker(), Peer { health: health(node), draining: false }));
    Env { now_ms, peers: peers.collect(), registry_connected: process.is_some_and(|p| p.connected) }
}

/// Everybody else is gone, as the last one alive believes.
#[must_use]
pub fn alone(state: &State, place: usize, now_ms: u64, health: Health) -> Env {
    let others = state.nodes.iter().filter(|node| node.place != place);
    let peers = others.map(|node| (node.broker(), Peer { health, draining: false }));
    Env { now_ms, peers: peers.collect(), registry_connected: false }
}

/// The input that a produced record is.
#[must_use]
pub fn produced(records: &Records, id: u8) -> Input {
    Input::Produce(records.request(id))
}
