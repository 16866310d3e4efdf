//! The runs that are made.

use crate::bounds::{Bounds, Delays, Limits};

/// A named run.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    pub bounds: fn() -> Bounds,
}

pub const PRESETS: &[Preset] = &[
    Preset { name: "tiny", bounds: tiny },
    Preset { name: "main-min1", bounds: || main_bounds(1) },
    Preset { name: "main-min2", bounds: || main_bounds(2) },
];

fn tiny() -> Bounds {
    Bounds { limits: Limits { writes: 1, epochs: 2, isr_changes: 1, ..Limits::default() }, ..Bounds::default() }
}

fn main_bounds(min_insync: u8) -> Bounds {
    Bounds {
        min_insync,
        limits: Limits {
            writes: 2,
            epochs: 2,
            isr_changes: 3,
            crashes: 1,
            expiries: 2,
            disk_losses: 1,
            ..Limits::default()
        },
        delays: Delays::ALL,
        heal_one_in: 1000,
        ..Bounds::default()
    }
}

#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
