//! What a broker knows of the world while it decides: passed in with every step.

use std::collections::BTreeMap;

use crate::ids::{BrokerId, Incarnation};

/// What the failure detector thinks of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Heard within the last beats, under this incarnation.
    Alive(Incarnation),
    /// Not heard of yet since this process started, or not for a moment.
    Unknown,
    /// Confirmed silent: nobody hears it.
    Silent,
    /// Its process is gone: the port refuses, or another incarnation answers.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub health: Health,
    /// It is on its way out: it leaves the in-sync replicas and is not let in.
    pub draining: bool,
}

/// The moment and the neighbourhood of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Env {
    /// Monotonic, in ms since an arbitrary start.
    pub now_ms: u64,
    pub peers: BTreeMap<BrokerId, Peer>,
    pub registry_connected: bool,
}

impl Env {
    #[must_use]
    pub fn health(&self, broker: BrokerId) -> Health {
        self.peers.get(&broker).map_or(Health::Unknown, |peer| peer.health)
    }

    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        matches!(self.health(broker), Health::Alive(_))
    }

    /// Confirmed, not merely unheard of.
    #[must_use]
    pub fn is_gone(&self, broker: BrokerId) -> bool {
        matches!(self.health(broker), Health::Dead | Health::Silent)
    }

    #[must_use]
    pub fn is_draining(&self, broker: BrokerId) -> bool {
        self.peers.get(&broker).is_some_and(|peer| peer.draining)
    }
}
