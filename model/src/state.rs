//! One state of the cluster, and its fingerprint.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use baton_core::ids::{Epoch, Offset};

use crate::disk::Record;
use crate::hasher::{Digest, Nothing};
use crate::model::Replication;
use crate::names::{BROKERS_MAX, Canon, Places, Remembered, index};
use crate::network::{Link, Packet};
use crate::node::{Node, Process};
use crate::registry::{Registry, Write};

/// What was promised so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Of everything but how much of the limits is used up.
    pub core: u64,
    /// Of everything.
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
    pub fn seal(&mut self, model: &Replication) {
        let remembered = Remembered::default();
        if model.reduced {
            self.hash_parts(&remembered, &mut [Nothing; BROKERS_MAX + 1]);
        }
        let each = model.renamings.iter().map(|renaming| {
            let remembered = model.reduced.then_some(&remembered);
            let ticks = model.bounds.has_ticks();
            let names = Canon { renaming: *renaming, remembered, ticks, compares_flows: model.compares_flows() };
            let mut parts = [Digest::default(); BROKERS_MAX + 1];
            self.hash_parts(&names, &mut parts);
            let mut all = Digest::default();
            parts.iter().for_each(|part| part.finish().hash(&mut all));
            all.finish()
        });
        self.core = each.min().unwrap_or_default();
        let mut all = Digest::default();
        (self.core, &self.used).hash(&mut all);
        self.fingerprint = all.finish();
    }

    /// One part for each broker, in the order of their new names, and one for what they share.
    fn hash_parts<H: Hasher>(&self, names: &impl Places, parts: &mut [H; BROKERS_MAX + 1]) {
        for node in &self.nodes {
            node.fingerprint(&self.registry, names, &mut parts[names.place(node.place)]);
        }
        let into = &mut parts[BROKERS_MAX];
        self.registry.fingerprint(names, into);
        self.hash_writes(names, into);
        self.hash_network(names, into);
        self.hash_flows(names, into);
        self.hash_ledger(names, into);
        (self.used.writes, self.used.retries, self.min_insync).hash(into);
        self.violation.as_ref().map(|v| v.invariant).hash(into);
    }

    fn hash_network(&self, names: &impl Places, into: &mut impl Hasher) {
        if self.network.is_empty() {
            return 0usize.hash(into);
        }
        let packet = |packet: &Packet| {
            let mut digest = Digest::default();
            packet.fingerprint(names, &mut digest);
            digest.finish()
        };
        let mut links: Vec<(Link, u64)> = self.network.iter().map(|(l, p)| (l.renamed(names), packet(p))).collect();
        // Stable: the order on each stream is kept.
        links.sort_by_key(|(link, _)| *link);
        links.hash(into);
    }

    /// Of the numbers of a follower's flows only the order matters: each is replaced by its
    /// rank among those that anybody remembers.
    fn hash_flows(&self, names: &impl Places, into: &mut impl Hasher) {
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
        // Without messages under way nothing compares a leader's number but with the follower's.
        let coarse = self.network.is_empty() && names.compares_flows();
        let mut hashes = [0; BROKERS_MAX];
        for place in 0..BROKERS_MAX {
            hashes[names.place(place)] = flows.digest(place, coarse);
        }
        hashes.hash(into);
    }

    /// The writes under way, and which of them their leaders still wait for.
    fn hash_writes(&self, names: &impl Places, into: &mut impl Hasher) {
        let mut hashes = [0; 16];
        let mut rest = Digest::default();
        for (at, write) in self.registry.writes.iter().enumerate() {
            let mut digest = Digest::default();
            write.fingerprint(&self.registry, self.is_awaited(write), names, &mut digest);
            match hashes.get_mut(at) {
                Some(slot) => *slot = digest.finish(),
                None => digest.finish().hash(&mut rest),
            }
        }
        hashes.sort_unstable();
        (hashes, rest.finish()).hash(into);
    }

    /// Whether the leader that asked for a write still waits for its answer.
    #[must_use]
    pub fn is_awaited(&self, write: &Write) -> bool {
        let process = self.nodes[index(write.from)].process.as_ref();
        let waits =
            |p: &Process| p.incarnation == write.incarnation && p.replica.awaited_attempt() == Some(write.attempt);
        !write.forgotten && process.is_some_and(waits)
    }

    /// Of an earlier leader whose process is gone it matters only that there was one; of what
    /// was shown, the most up to each epoch.
    fn hash_ledger(&self, names: &impl Places, into: &mut impl Hasher) {
        self.ledger.committed.hash(into);
        for (epoch, place, start) in &self.ledger.leaders {
            let node = &self.nodes[*place];
            let lives = node.process.is_some() && node.starts == *start;
            let who = (lives || names.exact()).then(|| names.place(*place));
            (epoch, who).hash(into);
            if names.exact() {
                start.hash(into);
            }
        }
        let mut most = None;
        for (epoch, offset) in &self.ledger.shown {
            if names.exact() || most < Some(*offset) {
                most = Some(*offset);
                (epoch, offset).hash(into);
            }
        }
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

    /// Coarse: whether a number is the follower's own.
    fn digest(&mut self, follower: usize, coarse: bool) -> u64 {
        let numbers = &mut self.numbers[follower][..self.count[follower]];
        numbers.sort_unstable();
        let own = numbers.first().filter(|(holder, _)| *holder == 0).map(|(_, flow)| *flow);
        let mut digest = Digest::default();
        self.rest.hash(&mut digest);
        for (holder, flow) in numbers.iter() {
            let rank = match coarse {
                true => usize::from(Some(*flow) == own),
                false => numbers.iter().filter(|(_, other)| other < flow).count(),
            };
            (holder, rank).hash(&mut digest);
        }
        digest.finish()
    }
}
