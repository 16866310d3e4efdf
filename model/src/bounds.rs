//! What a run explores: how much of everything may happen, and which steps may be delayed.

use baton_core::replica::Mutations;

/// How often each event may happen. Within these, everything happens in every order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Records that clients send.
    pub writes: u8,
    /// Records that a client sends again, to whoever leads then.
    pub retries: u8,
    /// The highest leader epoch by elections; the run begins in epoch 1.
    pub epochs: u8,
    /// Changes of the in-sync replicas that the registry carries out.
    pub isr_changes: u8,
    pub crashes: u8,
    /// Sessions that end while their process lives or after it died.
    pub expiries: u8,
    pub disk_losses: u8,
    /// Copies that are found damaged when they are opened.
    pub damages: u8,
    pub resigns: u8,
    pub reassigns: u8,
    pub uncleans: u8,
    /// Changes of `min.insync.replicas`.
    pub min_changes: u8,
    /// Streams that break with everything that is on them.
    pub resets: u8,
    /// Writes of the state whose answer gets lost, and which may still take effect.
    pub unknowns: u8,
    /// Leaders that are cut off from everybody until they step down.
    pub isolations: u8,
    /// Appends that the disk has no space for.
    pub full_disks: u8,
}

/// Which messages wait on the network; the others arrive at once, behind what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delays {
    pub hellos: bool,
    pub replies: bool,
    pub appends: bool,
    pub acks: bool,
}

impl Delays {
    pub const ALL: Self = Self { hellos: true, replies: true, appends: true, acks: true };
    pub const NONE: Self = Self { hellos: false, replies: false, appends: false, acks: false };
}

/// Rules that are kept by those who call the core, and not by the core itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outside {
    /// A new disk is taken for the one that was lost.
    pub lost_disk_keeps_identity: bool,
    /// An election takes the in-sync replicas below `min.insync.replicas`.
    pub election_below_min: bool,
    /// The registry adds a member without looking at which disk its broker has.
    pub join_unchecked: bool,
    /// A copy that was found damaged keeps its generation.
    pub damage_unnoticed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Two or three.
    pub replicas: u8,
    pub min_insync: u8,
    pub limits: Limits,
    pub delays: Delays,
    /// Whether new leaders announce themselves; otherwise the registry is the only news.
    pub announces: bool,
    /// Whether messages overtake each other on a stream, and outlive the process that sent them:
    /// more than the streams of one connection do, and what those of several may.
    pub reorders: bool,
    /// Whether fsync is a step of its own; otherwise a disk is done at once.
    pub lazy_disks: bool,
    /// Whether a read of the registry may show any state since the last one that was seen.
    pub late_reads: bool,
    /// Whether leaders tick, and with it tell the high watermark to idle followers.
    pub ticks: bool,
    /// Whether a crashed broker has forgotten its high watermark; otherwise it knows it well.
    pub forgets_high_watermark: bool,
    /// One state in so many is checked for whether it could stand still for ever (invariant 11),
    /// apart from those in which nothing can happen any more; 0: only those.
    pub heal_one_in: u32,
    pub mutations: Mutations,
    pub outside: Outside,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            replicas: 3,
            min_insync: 1,
            limits: Limits { writes: 1, epochs: 2, ..Limits::default() },
            delays: Delays::ALL,
            announces: false,
            reorders: false,
            lazy_disks: false,
            late_reads: false,
            ticks: false,
            forgets_high_watermark: false,
            heal_one_in: 1,
            mutations: Mutations::default(),
            outside: Outside::default(),
        }
    }
}

impl Bounds {
    /// Whether states that differ only in the names of brokers are taken for one. Not where a
    /// choice among several depends on their order: who of two leaves first at the minimum
    /// (two identities changed), or who is handed over to (a reassignment).
    #[must_use]
    pub fn symmetric(&self) -> bool {
        let limits = &self.limits;
        self.replicas == 3 && limits.reassigns == 0 && limits.disk_losses + limits.damages <= 1
    }

    /// Whether leaders ever look at their followers without a message.
    #[must_use]
    pub fn has_ticks(&self) -> bool {
        self.ticks || self.limits.isolations > 0
    }

    /// Brokers of the cluster: one stands by if there may be a reassignment.
    #[must_use]
    pub fn brokers(&self) -> usize {
        usize::from(self.replicas) + usize::from(self.limits.reassigns > 0)
    }
}
