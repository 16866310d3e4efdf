//! Which of the states that a cut may leave it is: a function of a seed, a file and a place.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Sectors are written whole or not at all, as disks promise.
pub(crate) const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// What a cut leaves of one file: for each of its sectors a moment, counted in changes since
/// the last sync. Moment 0 is the synced state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    seed: u64,
    moments: usize,
    /// Sectors of one unit share a moment.
    unit: u64,
    kind: Kind,
    /// The moment of the length.
    pub(crate) length: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The whole file as it was at one moment.
    Whole(usize),
    /// Whole until a moment; the change after it is torn.
    Torn(usize),
    /// Each unit was written back at a moment of its own, or not at all.
    Scattered,
}

impl Fate {
    /// Draws the fate of a file with `changes` unsynced changes.
    pub(crate) fn draw(seed: u64, file: u64, changes: usize) -> Self {
        let mut random = StdRng::seed_from_u64(mix(seed, file));
        let unit = if random.random_bool(0.5) { SECTOR } else { PAGE };
        let kind = match random.random_range(0..10) {
            0..3 => Kind::Whole(0),
            3..5 => Kind::Whole(changes),
            5 => Kind::Whole(random.random_range(0..=changes)),
            6..8 => Kind::Torn(random.random_range(0..=changes)),
            _ => Kind::Scattered,
        };
        let length = match kind {
            Kind::Whole(moment) => moment,
            // The length may be ahead of the data, which are zeros then, or behind them.
            Kind::Torn(moment) => random.random_range(moment..=changes.min(moment + 1)),
            Kind::Scattered => random.random_range(0..=changes),
        };
        // A length that survived although no data did.
        let length = if random.random_bool(0.1) { changes } else { length };
        Self { seed: random.random(), moments: changes, unit, kind, length }
    }

    /// The moment of the sector that begins at `at`.
    pub(crate) fn moment(&self, at: u64) -> usize {
        let dice = mix(self.seed, at / self.unit);
        match self.kind {
            Kind::Whole(moment) => moment,
            Kind::Torn(moment) => moment + usize::from(dice.is_multiple_of(2) && moment < self.moments),
            // As often everything or nothing as anything between.
            Kind::Scattered => match dice % 4 {
                0 => 0,
                1 => self.moments,
                _ => (dice / 4) as usize % (self.moments + 1),
            },
        }
    }
}

/// How many of the unsynced changes of names survive.
pub(crate) fn names_kept(seed: u64, changes: usize) -> usize {
    let mut random = StdRng::seed_from_u64(mix(seed, u64::MAX));
    match random.random_range(0..4) {
        0 => 0,
        1 => changes,
        _ => random.random_range(0..=changes),
    }
}

/// Spreads two numbers over all bits (the finalizer of SplitMix64).
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
