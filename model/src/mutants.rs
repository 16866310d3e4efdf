//! The rules of the protocol, each with a run that notices when it is gone.

use baton_core::ids::BrokerId;
use baton_core::replica::{Mutation, Mutations};

use crate::action::Action;
use crate::bounds::{Bounds, Delays, Limits, Outside};
use crate::explore::{Effort, Order, Report, Trail, explore_from};
use crate::network::Link;
use crate::walk;

/// A rule that is switched off, and within which bounds that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    pub name: &'static str,
    /// The rule, as it would have to be kept.
    pub rule: &'static str,
    /// All of these switched off at once: a rule that others back up is missed with them only.
    pub off: &'static [Mutation],
    pub outside: Outside,
    pub bounds: fn() -> Bounds,
    /// Steps from the initial state to where the search begins: a history that would take a
    /// search from the beginning too long. Each is one that can happen.
    pub start: &'static [Action],
    pub how: How,
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Breadth first over at most so many steps.
    Breadth(usize),
    /// So many walks from seed 0 on, of at most so many steps each.
    Walks(u64, usize),
}

/// How a mutant was found.
#[derive(Debug)]
pub struct Found {
    pub trail: Trail,
    /// The seed of the walk that found it.
    pub seed: Option<u64>,
    pub states: usize,
}

impl Mutant {
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let mutations = self.off.iter().fold(Mutations::default(), |all, one| all.and(*one));
        Bounds { mutations, outside: self.outside, ..(self.bounds)() }
    }

    #[must_use]
    pub fn hunt(&self) -> Option<Found> {
        match self.how {
            How::Breadth(states) => {
                let effort = Effort { order: Order::Breadth, states_max: Some(states), ..Effort::default() };
                let Report { trail, unique, .. } = explore_from(self.bounds(), self.start, &effort);
                trail.map(|trail| Found { trail, seed: None, states: unique })
            }
            How::Walks(count, steps) => {
                let (seed, trail) = walk::walks(self.bounds(), 0, count, steps).err()?;
                Some(Found { states: trail.actions.len(), trail: *trail, seed: Some(seed) })
            }
        }
    }
}

const KEPT: Outside = Outside {
    lost_disk_keeps_identity: false,
    election_below_min: false,
    join_unchecked: false,
    damage_unnoticed: false,
};

const STEPS: How = How::Breadth(400_000);

/// Nothing waits but what a bound names; no healing runs.
fn quick(min_insync: u8, limits: Limits) -> Bounds {
    Bounds { min_insync, limits, delays: Delays::NONE, heal_one_in: 0, ..Bounds::default() }
}

fn limits(writes: u8, epochs: u8, isr_changes: u8) -> Limits {
    Limits { writes, epochs, isr_changes, ..Limits::default() }
}

/// Everything at once, for walks.
fn anything() -> Bounds {
    Bounds {
        limits: Limits {
            writes: 4,
            retries: 2,
            epochs: 6,
            isr_changes: 8,
            crashes: 4,
            expiries: 3,
            disk_losses: 2,
            damages: 1,
            resigns: 1,
            reassigns: 0,
            uncleans: 0,
            min_changes: 1,
            resets: 3,
            unknowns: 2,
            isolations: 2,
            full_disks: 1,
        },
        announces: true,
        reorders: true,
        lazy_disks: true,
        late_reads: true,
        ticks: true,
        heal_one_in: 0,
        ..Bounds::default()
    }
}

macro_rules! mutant {
    ($name:literal, $rule:literal, [$($off:ident),*], $bounds:expr, $how:expr) => {
        Mutant { name: $name, rule: $rule, off: &[$(Mutation::$off),*], outside: KEPT, bounds: || $bounds, start: &[], how: $how }
    };
}

/// Each of these is found.
pub const MUTANTS: &[Mutant] = &[
    mutant!(
        "truncate-to-high-watermark",
        "a log is never cut by its high watermark (KIP-101)",
        [TruncateToHighWatermark],
        Bounds { delays: Delays { appends: true, ..Delays::NONE }, ..quick(1, limits(1, 2, 0)) },
        STEPS
    ),
    mutant!(
        "single-step-search",
        "the common prefix is sought through the whole lineage (KIP-279)",
        [SingleStepSearch],
        Bounds { delays: Delays { appends: true, ..Delays::NONE }, ..quick(2, limits(2, 3, 0)) },
        STEPS
    ),
    mutant!(
        "expand-before-epoch-start",
        "a joiner covers the start of the epoch",
        [ExpandBeforeEpochStart],
        Bounds { delays: Delays { appends: true, ..Delays::NONE }, ..quick(2, limits(1, 2, 2)) },
        STEPS
    ),
    mutant!(
        "expand-after-epoch-start",
        "a joiner does not wait for the high watermark to reach the start of the epoch",
        [ExpandAfterEpochStart],
        Bounds {
            replicas: 2,
            forgets_high_watermark: true,
            heal_one_in: 1,
            ..quick(1, Limits { crashes: 1, min_changes: 1, ..limits(1, 2, 1) })
        },
        STEPS
    ),
    mutant!(
        "shrink-before-confirmation",
        "a removed member counts until the registry confirms it",
        [ShrinkBeforeConfirmation],
        quick(1, limits(1, 1, 1)),
        STEPS
    ),
    mutant!(
        "ignore-pending-expansion",
        "a joining member counts from the write on",
        [IgnorePendingExpansion],
        quick(1, limits(1, 1, 2)),
        STEPS
    ),
    mutant!(
        "forget-unknown-write",
        "a write of unknown outcome counts until a new version shows what became of it",
        [ForgetUnknownWrite],
        quick(1, Limits { expiries: 2, unknowns: 1, ..limits(1, 1, 2) }),
        How::Breadth(1_000_000)
    ),
    mutant!(
        "unversioned-write",
        "the state is written at a known version only",
        [UnversionedWrite],
        quick(1, limits(1, 2, 1)),
        STEPS
    ),
    mutant!(
        "shrink-below-min",
        "no write takes the in-sync replicas below min.insync.replicas",
        [ShrinkBelowMin],
        quick(2, limits(1, 1, 2)),
        STEPS
    ),
    Mutant {
        name: "elect-below-min",
        rule: "no election takes the in-sync replicas below min.insync.replicas",
        off: &[],
        outside: Outside { election_below_min: true, ..KEPT },
        bounds: || quick(2, limits(1, 3, 0)),
        start: &[],
        how: STEPS,
    },
    mutant!(
        "commit-below-min",
        "nothing is acknowledged with fewer confirmed in-sync replicas than the minimum",
        [CommitBelowMin],
        Bounds {
            delays: Delays { acks: true, ..Delays::NONE },
            ..quick(1, Limits { min_changes: 1, ..limits(1, 1, 1) })
        },
        STEPS
    ),
    mutant!(
        "winner-outside-isr",
        "only an in-sync replica elects itself",
        [WinnerOutsideIsr],
        quick(1, limits(2, 2, 1)),
        STEPS
    ),
    mutant!(
        "ack-before-fsync",
        "a follower acknowledges what is durable only",
        [AckBeforeFsync],
        Bounds { lazy_disks: true, ..quick(1, limits(2, 1, 0)) },
        STEPS
    ),
    mutant!(
        "commit-before-fsync",
        "a leader counts its own disk like any other",
        [CommitBeforeFsync],
        Bounds { lazy_disks: true, ..quick(1, limits(1, 1, 0)) },
        STEPS
    ),
    mutant!(
        "resume-leadership",
        "nobody resumes leadership after a restart",
        [ResumeLeadership],
        quick(1, Limits { crashes: 1, ..limits(1, 1, 0) }),
        STEPS
    ),
    mutant!(
        "resume-epoch",
        "a leader that gave up an epoch never leads in it again",
        [ResumeEpoch],
        Bounds { lazy_disks: true, ..quick(1, Limits { full_disks: 1, ..limits(2, 1, 0) }) },
        STEPS
    ),
    mutant!(
        "serve-before-epoch-saved",
        "a leader serves nobody before its own epoch is durable",
        [ServeBeforeEpochSaved],
        Bounds {
            lazy_disks: true,
            late_reads: true,
            delays: Delays::NONE,
            ..quick(1, Limits { crashes: 1, ..limits(1, 2, 0) })
        },
        How::Breadth(6_000_000)
    ),
    Mutant {
        name: "disk-identity-ignored",
        rule: "a broker that returns with an empty disk is another member (KIP-903)",
        off: &[],
        outside: Outside { lost_disk_keeps_identity: true, ..KEPT },
        bounds: || quick(1, Limits { crashes: 1, disk_losses: 1, ..limits(1, 1, 0) }),
        start: &[],
        how: STEPS,
    },
    Mutant {
        name: "damage-unnoticed",
        rule: "a copy that was found damaged is another member",
        off: &[],
        outside: Outside { damage_unnoticed: true, ..KEPT },
        bounds: || quick(1, Limits { crashes: 1, damages: 1, ..limits(1, 1, 0) }),
        start: &[],
        how: STEPS,
    },
    mutant!(
        "ack-from-another-disk",
        "an acknowledgement counts from its disk and process only",
        [AckFromAnotherDisk, AckFromAnotherIncarnation],
        Bounds {
            replicas: 2,
            reorders: true,
            delays: Delays { appends: true, acks: true, ..Delays::NONE },
            ..quick(1, Limits { crashes: 1, disk_losses: 1, ..limits(1, 1, 2) })
        },
        How::Breadth(1_000_000)
    ),
    mutant!(
        "append-anywhere",
        "a follower appends only what continues its log, of its flow",
        [AppendAnywhere],
        Bounds { reorders: true, delays: Delays { appends: true, ..Delays::NONE }, ..quick(1, limits(2, 1, 0)) },
        STEPS
    ),
];

const B1: BrokerId = BrokerId(1);
const B2: BrokerId = BrokerId(2);
const B3: BrokerId = BrokerId(3);

const fn live(from: BrokerId, to: BrokerId) -> Link {
    Link { from, to, catch_up: false }
}

/// Record 1 of epoch 1 is on brokers 1 and 2. Broker 3 was elected without it, in epoch 2, but
/// serves nobody yet; broker 2 leads in epoch 3 and commits it alone. Broker 1 joins, forgets
/// epoch 3 in a crash, and finds broker 3.
const LEADER_OF_ANOTHER_PAST: &[Action] = &[
    Action::Produce(B1),
    Action::Deliver(live(B1, B2)),
    Action::Sync(B1),
    Action::Sync(B2),
    Action::Elect(B3),
    Action::Learn(B3, 2),
    Action::Learn(B2, 2),
    Action::Elect(B2),
    Action::Learn(B2, 3),
    Action::Sync(B2),
    Action::Sync(B2),
];

/// Broker 2 acknowledged record 1 in epoch 1, and cut it off for broker 3 in epoch 2. Its
/// acknowledgement is still under way when broker 1, with the record, leads again in epoch 3.
const LATE_ACKNOWLEDGEMENT: &[Action] = &[
    Action::Produce(B1),
    Action::Deliver(live(B1, B2)),
    Action::Elect(B3),
    Action::Learn(B3, 2),
    Action::Learn(B2, 2),
    Action::Deliver(live(B2, B3)),
    Action::Learn(B1, 2),
    Action::Elect(B1),
    Action::Learn(B1, 3),
    Action::Learn(B2, 3),
    Action::Overtake(live(B2, B1), 1),
    Action::Overtake(live(B2, B1), 1),
];

/// Rules whose breach takes three epochs and many steps: looked for from the middle of the
/// history in which they matter.
pub const DEEP: &[Mutant] = &[
    Mutant {
        start: LEADER_OF_ANOTHER_PAST,
        ..mutant!(
            "forget-highest-epoch",
            "a follower says Hello after the highest epoch is durable",
            [ForgetHighestEpoch],
            Bounds {
                lazy_disks: true,
                late_reads: true,
                forgets_high_watermark: true,
                delays: Delays { appends: true, ..Delays::NONE },
                ..quick(1, Limits { crashes: 1, ..limits(1, 3, 1) })
            },
            How::Breadth(1_000_000)
        )
    },
    Mutant {
        start: LATE_ACKNOWLEDGEMENT,
        ..mutant!(
            "ack-without-epoch-and-flow",
            "an acknowledgement counts in its epoch (or flow) only",
            [AckWithoutEpoch, AckWithoutFlow],
            late_acknowledgement(),
            How::Breadth(1_000_000)
        )
    },
    Mutant {
        start: LATE_ACKNOWLEDGEMENT,
        ..mutant!(
            "handshake-without-epoch",
            "a Hello, its answer and what follows belong to one epoch (or flow)",
            [
                HelloWithoutEpoch,
                ReplyWithoutEpoch,
                ReplyWithoutFlow,
                AppendWithoutEpoch,
                AppendWithoutFlow,
                AckWithoutEpoch,
                AckWithoutFlow
            ],
            late_acknowledgement(),
            How::Breadth(1_000_000)
        )
    },
];

fn late_acknowledgement() -> Bounds {
    Bounds { reorders: true, delays: Delays { replies: false, ..Delays::ALL }, ..quick(3, limits(1, 3, 0)) }
}

/// Checks that others may back up, each for itself.
pub const BACKED_UP: &[Mutation] = &[
    Mutation::AckWithoutEpoch,
    Mutation::AckWithoutFlow,
    Mutation::AckWhileClosed,
    Mutation::AckBeyondSent,
    Mutation::AckFromAnotherDisk,
    Mutation::AckFromAnotherIncarnation,
    Mutation::AckOutlivesHello,
    Mutation::HelloWithoutEpoch,
    Mutation::HelloOvertaken,
    Mutation::HelloOfDamagedMember,
    Mutation::ReplyWithoutEpoch,
    Mutation::ReplyWithoutFlow,
    Mutation::AppendAnywhere,
    Mutation::AppendWithoutEpoch,
    Mutation::AppendWithoutFlow,
    Mutation::AppendWithoutPreviousEpoch,
    Mutation::JoinOfAnotherProcess,
    Mutation::CommitBeforeEpochSaved,
    Mutation::StateGoesBack,
    Mutation::IneligibleStays,
];

/// Looks for one of [`BACKED_UP`] by walks.
#[must_use]
pub fn hunt_alone(rule: Mutation, walks: u64, steps: usize) -> Option<(u64, Box<Trail>)> {
    let bounds = Bounds { mutations: Mutations::only(rule), ..anything() };
    walk::walks(bounds, 0, walks, steps).err()
}

/// The bounds of the walks.
#[must_use]
pub fn walk_bounds() -> Bounds {
    anything()
}
