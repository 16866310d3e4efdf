//! A broker of the model: a disk that keeps what was synced, and a process that may die.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use baton_core::ids::{BrokerId, Incarnation, Member};
use baton_core::replica::{Names, Replica, RoleView};

use crate::disk::{Image, LogOp};
use crate::hasher::Digest;
use crate::names::{self, Renaming};

/// A running broker's copy of the partition.
#[derive(Clone, Debug)]
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

#[derive(Clone, Debug)]
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
    /// Under each renaming.
    pub digests: Vec<u64>,
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

    pub fn seal(&mut self, renamings: &[Renaming]) {
        self.digests = renamings.iter().map(|names| self.digest(names)).collect();
    }

    fn digest(&self, names: &Renaming) -> u64 {
        let mut digest = Digest::default();
        let into = &mut digest;
        (self.disk, self.starts, self.sessions, self.damaged).hash(into);
        self.stable.hash(into);
        if let Some(process) = &self.process {
            process.fingerprint(names, into);
        }
        digest.finish()
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

    fn fingerprint(&self, names: &Renaming, into: &mut impl Hasher) {
        self.replica.fingerprint(names, into);
        names.incarnation(self.incarnation).hash(into);
        (self.connected, self.reads).hash(into);
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
            self.image.hash(into);
        }
    }
}
