//! A broker of the model: a disk that keeps what was synced, and a process that may die.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use baton_core::ids::{BrokerId, Incarnation, Member};
use baton_core::replica::{Replica, RoleView};

use crate::disk::{Image, LogOp};
use crate::names::{self, Places};
use crate::registry::Registry;

/// A running broker's copy of the partition.
#[derive(Clone, Debug, Hash)]
pub struct Process {
    pub replica: Replica,
    pub incarnation: Incarnation,
    /// The log as the process sees it.
    pub image: Image,
    /// Handed to the disk, and not durable yet; in order.
    pub ops: VecDeque<LogOp>,
    /// Whether its session with the registry lives.
    pub connected: bool,
    /// It asked for a read of the registry.
    pub reads: bool,
    /// The brokers that its detector takes for silent, one bit each.
    pub silent: u8,
}

#[derive(Clone, Debug, Hash)]
pub struct Node {
    pub place: usize,
    /// Counts the disks that this broker has had.
    pub disk: u8,
    /// Counts its starts.
    pub starts: u8,
    /// Counts its sessions.
    pub sessions: u8,
    pub stable: Image,
    /// Found damaged, to be noticed by the next process.
    pub damaged: bool,
    pub process: Option<Process>,
}

impl Node {
    #[must_use]
    pub fn broker(&self) -> BrokerId {
        names::broker(self.place)
    }

    /// What its copy is, by what is on its disk.
    #[must_use]
    pub fn member(&self) -> Member {
        let disk = names::disk(self.place, self.disk);
        Member { broker: self.broker(), disk, generation: self.stable.generation }
    }

    /// The incarnation of its last process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        names::incarnation(self.place, self.starts)
    }

    /// The log as its process sees it, or as it lies on the disk.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.process.as_ref().map_or(&self.stable, |p| &p.image)
    }

    #[must_use]
    pub fn leads(&self) -> bool {
        self.process.as_ref().is_some_and(Process::leads)
    }

    /// Everything that decides what it will do, as the registry is now.
    pub fn fingerprint(&self, registry: &Registry, names: &impl Places, into: &mut impl Hasher) {
        names.member(&self.member()).hash(into);
        names.incarnation(self.incarnation()).hash(into);
        self.damaged.hash(into);
        self.stable.fingerprint(into);
        if names.exact() {
            (self.disk, self.starts, self.sessions, self.stable.high_watermark).hash(into);
        }
        match &self.process {
            // A process knows a later one, and leaves its own behind when it dies.
            None => self.stable.high_watermark.hash(into),
            Some(process) => process.fingerprint(registry, names, into),
        }
    }
}

impl Process {
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.replica.role(), RoleView::Leader { .. })
    }

    #[must_use]
    pub fn hears(&self, place: usize) -> bool {
        self.silent & 1 << place == 0
    }

    fn fingerprint(&self, registry: &Registry, names: &impl Places, into: &mut impl Hasher) {
        self.replica.fingerprint(names, into);
        self.hash_known(registry, names, into);
        self.connected.hash(into);
        let mut silent = 0u8;
        for place in 0..names::BROKERS_MAX {
            silent |= (self.silent >> place & 1) << names.place(place);
        }
        silent.hash(into);
        let current = self.replica.log_term();
        self.ops.len().hash(into);
        for op in &self.ops {
            op.fingerprint(current, into);
        }
        // The log is what is durable and what is under way.
        if self.ops.is_empty() {
            self.image.fingerprint(into);
        }
    }

    /// What it read of the registry. Unless reads are late, the next one shows the latest state:
    /// then a broker that does not lead needs of an older one only what the rules for
    /// truncation and for candidates ask for.
    fn hash_known(&self, registry: &Registry, names: &impl Places, into: &mut impl Hasher) {
        let Some(known) = self.replica.known() else {
            return (0u8, self.reads).hash(into);
        };
        let role = self.replica.role();
        let (leads, idle) = (self.leads(), role == RoleView::Idle);
        if names.exact() || registry.remembers() {
            (1u8, known.version, self.reads).hash(into);
            return names.hash_state(&known.state, into);
        }
        let latest = known.version == registry.version;
        // Reading the same again matters to a leader, or to who looks for a role.
        (latest, self.reads && (leads || (idle && latest))).hash(into);
        if latest {
            return;
        }
        if leads || self.replica.yields(0) {
            return names.hash_state(&known.state, into);
        }
        let in_sync = known.state.in_isr(&self.replica.member());
        let behind = known.state.epoch < self.replica.epoch();
        (in_sync, behind, known.state.last_unclean_epoch).hash(into);
    }
}
