//! Wall clock and randomness come from outside, so that a simulation replays exactly.
//!
//! Monotonic time is always `tokio::time::Instant`, which a simulated runtime advances by
//! itself. Only the wall clock, which is written into batches and events and compared with
//! retention times, needs a trait.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// The time of day. It may jump either way; nothing that safety rests on reads it.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }
    }
}

/// A clock that follows tokio's time from a given start, plus a skew that a test may change:
/// simulated runtimes have no clock skew of their own.
#[derive(Debug)]
pub struct SimulatedClock {
    started: Instant,
    started_ms: i64,
    skew_ms: AtomicI64,
}

impl SimulatedClock {
    /// Shows `started_ms` now. Call it inside the simulated runtime.
    #[must_use]
    pub fn starting_at(started_ms: i64) -> Self {
        Self { started: Instant::now(), started_ms, skew_ms: AtomicI64::new(0) }
    }

    /// From now on the clock is `skew_ms` ahead (or, negative, behind).
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        self.started_ms
            .saturating_add(millis(self.started.elapsed()))
            .saturating_add(self.skew_ms.load(Ordering::Relaxed))
    }
}

/// Monotonic milliseconds since the broker started, as the core counts time.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    started: Instant,
}

impl Monotonic {
    /// Counts from now. Call it inside the broker's runtime.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment at which [`Monotonic::now_ms`] will show `at_ms`.
    #[must_use]
    pub fn at(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    pub fn set_ms(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The root of a broker's randomness. Each user splits off its own seed by a label, so that
/// a new user of randomness does not change what the others draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed that nobody can guess, for production.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The seed of the part named `label`.
    #[must_use]
    pub fn split(self, label: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(label.as_bytes(), self.0))
    }

    /// The seed of the part with this number (a shard, a peer).
    #[must_use]
    pub fn split_number(self, number: u64) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), self.0))
    }

    /// A generator that draws the same numbers for the same seed, within one build.
    #[must_use]
    pub fn rng(self) -> StdRng {
        StdRng::seed_from_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn the_system_clock_is_after_this_code_was_written() {
        assert!(SystemClock.now_ms() > 1_700_000_000_000);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(5);
        assert_eq!(clock.now_ms(), 5);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now_ms(), 2_005);
        clock.set_ms(1);
        assert_eq!(clock.now_ms(), 1);
    }

    #[tokio::test]
    async fn a_simulated_clock_follows_tokios_time_and_its_skew() {
        tokio::time::pause();
        let clock = SimulatedClock::starting_at(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now_ms(), 1_250);
        clock.set_skew_ms(-50);
        assert_eq!(clock.now_ms(), 1_200);
    }

    #[test]
    fn equal_seeds_draw_equally_and_labels_draw_apart() {
        let draw = |seed: Seed| -> [u64; 4] { seed.rng().random() };
        let root = Seed(7);
        assert_eq!(draw(root.split("elections")), draw(Seed(7).split("elections")));
        assert_ne!(draw(root.split("elections")), draw(root.split("retries")));
        assert_ne!(draw(root.split_number(0)), draw(root.split_number(1)));
        assert_ne!(draw(root.split("elections")), draw(Seed(8).split("elections")));
    }
}
