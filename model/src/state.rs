//! One state of the cluster, and its fingerprint.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use baton_core::ids::{Epoch, Offset};

use crate::disk::Record;
use crate::hasher::Digest;
use crate::names::{BROKERS_MAX, Renaming, index};
use crate::network::{Link, Packet};
use crate::node::Node;
use crate::registry::Registry;

/// What was promised so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The committed records, one per offset.
    pub committed: Vec<Record>,
    /// Who led in each epoch: its place, and the number of its start.
    pub leaders: Vec<(Epoch, usize, u8)>,
    /// The end that clients were shown in each epoch.
    pub shown: Vec<(Epoch, Offset)>,
    /// An operator gave records up.
    pub abandoned: bool,
}

/// How much of its limits a path has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    pub writes: u8,
    pub retries: u8,
    pub isr_changes: u8,
    pub crashes: u8,
    pub expiries: u8,
    pub disk_losses: u8,
    pub damages: u8,
    pub resigns: u8,
    pub reassigns: u8,
    pub uncleans: u8,
    pub min_changes: u8,
    pub resets: u8,
    pub unknowns: u8,
    pub isolations: u8,
    pub full_disks: u8,
}

/// A broken promise: the number of the invariant, 0 for a panic of the core, 11 for a state
/// that stands still for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: u8,
    pub what: String,
}

impl Violation {
    #[must_use]
    pub fn new(invariant: u8, what: impl Into<String>) -> Box<Self> {
        Box::new(Self { invariant, what: what.into() })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.invariant {
            0 => write!(f, "panic: {}", self.what),
            number => write!(f, "invariant {number}: {}", self.what),
        }
    }
}

pub type Checked = Result<(), Box<Violation>>;

/// A message on its stream.
pub type Flight = (Link, Arc<Packet>);

/// Parts that a step leaves alone are shared with the state before it.
#[derive(Clone, Debug)]
pub struct State {
    pub nodes: Vec<Arc<Node>>,
    pub registry: Arc<Registry>,
    /// In the order of sending.
    pub network: Vec<Flight>,
    pub ledger: Arc<Ledger>,
    pub used: Used,
    /// `min.insync.replicas` as it is configured.
    pub min_insync: u8,
    pub violation: Option<Box<Violation>>,
    pub fingerprint: u64,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, into: &mut H) {
        into.write_u64(self.fingerprint);
    }
}

/// States with the same fingerprint behave alike.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl State {
    /// The smallest fingerprint over all renamings.
    pub fn seal(&mut self, renamings: &[Renaming]) {
        let each = renamings.iter().enumerate().map(|(at, names)| self.digest(at, names));
        self.fingerprint = each.min().unwrap_or_default();
    }

    fn digest(&self, renaming: usize, names: &Renaming) -> u64 {
        let mut digest = Digest::default();
        let into = &mut digest;
        let mut nodes = [0; BROKERS_MAX];
        for node in &self.nodes {
            nodes[names.place(node.place)] = node.digests[renaming];
        }
        nodes.hash(into);
        self.registry.digests[renaming].hash(into);
        self.hash_network(renaming, names, into);
        self.hash_flows(names, into);
        self.hash_awaited(names, into);
        self.hash_ledger(names, into);
        self.used.hash(into);
        self.min_insync.hash(into);
        self.violation.as_ref().map(|v| v.invariant).hash(into);
        digest.finish()
    }

    fn hash_network(&self, renaming: usize, names: &Renaming, into: &mut impl Hasher) {
        let mut links: Vec<(Link, u64)> =
            self.network.iter().map(|(link, packet)| (link.renamed(names), packet.digest(renaming))).collect();
        // Stable: the order on each stream is kept.
        links.sort_by_key(|(link, _)| *link);
        links.hash(into);
    }

    /// Of the numbers of a follower's flows only the order matters: each is replaced by its
    /// rank among those that anybody remembers.
    fn hash_flows(&self, names: &Renaming, into: &mut impl Hasher) {
        let mut flows = Flows::default();
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let (own, served) = process.replica.flows();
            flows.note(node.place, 0, own.0);
            let holder = 1 + names.place(node.place) as u64;
            for (broker, flow) in served {
                flows.note(index(broker), holder, flow.0);
            }
        }
        let mut positions: [u64; BROKERS_MAX * BROKERS_MAX * 2] = [0; BROKERS_MAX * BROKERS_MAX * 2];
        for (link, packet) in &self.network {
            let Some((flow, by_sender)) = packet.flow() else { continue };
            let renamed = link.renamed(names);
            let slot = (index(renamed.from) * BROKERS_MAX + index(renamed.to)) * 2 + usize::from(link.catch_up);
            positions[slot] += 1;
            let follower = index(if by_sender { link.from } else { link.to });
            flows.note(follower, 100 + slot as u64 * 100 + positions[slot], flow.0);
        }
        let mut hashes = [0; BROKERS_MAX];
        for place in 0..BROKERS_MAX {
            hashes[names.place(place)] = flows.digest(place);
        }
        hashes.hash(into);
    }

    /// Which of the writes under way their leaders still wait for.
    fn hash_awaited(&self, names: &Renaming, into: &mut impl Hasher) {
        let mut awaited: Vec<(u32, i32, bool)> = Vec::new();
        for write in self.registry.writes.iter().filter(|w| !w.forgotten) {
            let node = &self.nodes[index(write.from)];
            let waits = |p: &crate::node::Process| {
                p.incarnation == write.incarnation && p.replica.awaited_attempt() == Some(write.attempt)
            };
            let broker = u32::from(names.place(node.place) as u8);
            awaited.push((broker, write.expected_version, node.process.as_ref().is_some_and(waits)));
        }
        awaited.sort_unstable();
        awaited.hash(into);
    }

    fn hash_ledger(&self, names: &Renaming, into: &mut impl Hasher) {
        self.ledger.committed.hash(into);
        for (epoch, place, start) in &self.ledger.leaders {
            (epoch, names.place(*place), start).hash(into);
        }
        self.ledger.shown.hash(into);
        self.ledger.abandoned.hash(into);
    }
}

/// Who remembers which number of each follower's flows; more than fit are hashed as they are.
#[derive(Default)]
struct Flows {
    numbers: [[(u64, u64); 16]; BROKERS_MAX],
    count: [usize; BROKERS_MAX],
    rest: u64,
}

impl Flows {
    fn note(&mut self, follower: usize, holder: u64, flow: u64) {
        let count = &mut self.count[follower];
        match self.numbers[follower].get_mut(*count) {
            Some(slot) => {
                *slot = (holder, flow);
                *count += 1;
            }
            None => {
                let mut digest = Digest::default();
                (self.rest, holder, flow).hash(&mut digest);
                self.rest = digest.finish();
            }
        }
    }

    fn digest(&mut self, follower: usize) -> u64 {
        let numbers = &mut self.numbers[follower][..self.count[follower]];
        numbers.sort_unstable();
        let mut digest = Digest::default();
        self.rest.hash(&mut digest);
        for (holder, flow) in numbers.iter() {
            let rank = numbers.iter().filter(|(_, other)| other < flow).count();
            (holder, rank).hash(&mut digest);
        }
        digest.finish()
    }
}
