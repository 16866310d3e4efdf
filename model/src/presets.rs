//! The runs that are made.

use crate::bounds::{Bounds, Delays, Limits};

/// A named run.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// Small enough for every test run.
    pub small: bool,
    /// A run that does not visit every state within these bounds has failed.
    pub promised: bool,
    pub bounds: fn() -> Bounds,
}

macro_rules! presets {
    ($($size:ident $name:literal: $bounds:expr,)*) => {
        pub const PRESETS: &[Preset] = &[
            $(Preset {
                name: $name,
                small: presets!(@small $size),
                promised: presets!(@promised $size),
                bounds: || $bounds,
            },)*
        ];
    };
    (@small small) => { true };
    (@small $size:ident) => { false };
    (@promised open) => { false };
    (@promised $size:ident) => { true };
}

presets! {
    small "all-delayed": Bounds { limits: limits(1, 2, 0), ..Bounds::default() },
    small "shrink-and-grow": instant(1, limits(1, 2, 2)),
    large "shrink-and-grow-twice": instant(1, limits(2, 2, 2)),
    small "shrink-and-grow-min2": instant(2, limits(2, 2, 2)),
    small "crash": instant(1, Limits { crashes: 1, ..limits(1, 2, 1) }),
    small "lost-disk": instant(2, Limits { crashes: 1, disk_losses: 1, ..limits(1, 1, 2) }),
    small "damage": instant(2, Limits { crashes: 1, damages: 1, ..limits(1, 1, 2) }),
    small "expiry": instant(1, Limits { expiries: 1, ..limits(1, 2, 0) }),
    large "expiry-and-changes": instant(1, Limits { expiries: 1, ..limits(1, 2, 1) }),
    small "lazy-disks": Bounds { lazy_disks: true, ..instant(1, Limits { crashes: 1, ..limits(2, 1, 0) }) },
    small "resign": instant(1, Limits { resigns: 1, ..limits(1, 2, 1) }),
    small "unclean": instant(1, Limits { uncleans: 1, ..limits(1, 1, 1) }),
    small "min-changes": instant(1, Limits { min_changes: 1, ..limits(1, 1, 1) }),
    small "unknown-outcomes": instant(1, Limits { unknowns: 1, ..limits(1, 1, 2) }),
    small "reassign": instant(1, Limits { reassigns: 1, ..limits(1, 1, 1) }),
    small "two-replicas": Bounds { replicas: 2, ..instant(1, Limits { crashes: 1, ..limits(2, 2, 2) }) },
    large "main-min1": instant(1, main()),
    large "main-min2": instant(2, main()),
    open "resign-faults": instant(1, Limits { resigns: 1, ..faults() }),
    open "resign-faults-min2": instant(2, Limits { resigns: 1, ..faults() }),
    open "unclean-faults": instant(1, Limits { uncleans: 1, ..faults() }),
    large "unclean-faults-min2": instant(2, Limits { uncleans: 1, ..faults() }),
    large "reassign-changes": instant(1, Limits { reassigns: 1, ..limits(1, 1, 2) }),
    large "reassign-changes-min2": instant(2, Limits { reassigns: 1, ..limits(1, 1, 2) }),
    open "reassign-elections": instant(1, Limits { reassigns: 1, ..limits(1, 2, 2) }),
    open "reassign-crash": instant(1, Limits { reassigns: 1, crashes: 1, ..limits(1, 2, 2) }),
    open "main-min1-resign": instant(1, Limits { resigns: 1, ..main() }),
    open "main-min2-resign": instant(2, Limits { resigns: 1, ..main() }),
    open "main-min1-unclean": instant(1, Limits { uncleans: 1, ..main() }),
    open "main-min2-unclean": instant(2, Limits { uncleans: 1, ..main() }),
    open "main-min1-reassign": instant(1, Limits { reassigns: 1, ..main() }),
    open "main-min2-reassign": instant(2, Limits { reassigns: 1, ..main() }),
    open "main-min1-appends": Bounds { delays: APPENDS, ..instant(1, main()) },
    open "main-min2-appends": Bounds { delays: APPENDS, ..instant(2, main()) },
    open "main-min1-delayed": Bounds { delays: Delays::ALL, ..instant(1, main()) },
    open "main-min2-delayed": Bounds { delays: Delays::ALL, ..instant(2, main()) },
    open "delayed": Bounds { delays: Delays::ALL, ..instant(1, Limits { crashes: 1, ..limits(2, 2, 1) }) },
    open "delayed-min2": Bounds { delays: Delays::ALL, ..instant(2, Limits { crashes: 1, ..limits(2, 2, 1) }) },
    large "lazy-disks-late-reads": Bounds {
        lazy_disks: true,
        late_reads: true,
        ..instant(1, Limits { crashes: 1, ..limits(1, 2, 1) })
    },
    open "operator": instant(1, Limits { resigns: 1, uncleans: 1, min_changes: 1, crashes: 1, ..limits(1, 2, 1) }),
    open "operator-min2": instant(2, Limits { resigns: 1, uncleans: 1, min_changes: 1, crashes: 1, ..limits(1, 2, 1) }),
    open "reassign-and-resign": instant(1, Limits { reassigns: 1, resigns: 1, ..limits(1, 3, 2) }),
    open "retries": instant(1, Limits { retries: 1, crashes: 1, ..limits(2, 2, 1) }),
    large "three-epochs": instant(2, Limits { crashes: 1, ..limits(2, 3, 2) }),
}

const APPENDS: Delays = Delays { appends: true, ..Delays::NONE };

fn limits(writes: u8, epochs: u8, isr_changes: u8) -> Limits {
    Limits { writes, epochs, isr_changes, ..Limits::default() }
}

/// The bounds to which the first, more abstract model of the protocol was exhausted.
fn main() -> Limits {
    Limits { crashes: 1, expiries: 2, disk_losses: 1, ..limits(2, 2, 3) }
}

/// One of each of the faults above, for runs with an operator's step as well.
fn faults() -> Limits {
    Limits { crashes: 1, expiries: 1, disk_losses: 1, ..limits(1, 2, 1) }
}

/// Messages arrive at once, and one state in 64 is healed.
fn instant(min_insync: u8, limits: Limits) -> Bounds {
    Bounds { min_insync, limits, delays: Delays::NONE, heal_one_in: 64, ..Bounds::default() }
}

#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
