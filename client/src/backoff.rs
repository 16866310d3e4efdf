//! Waiting between attempts, and the random choices of a client, all from one seed.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// One generator for all random choices of a client.
pub(crate) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed.unwrap_or_else(rand::random))))
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&self, end: usize) -> usize {
        self.rng(|rng| rng.random_range(0..end.max(1)))
    }

    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        self.rng(|rng| items.shuffle(rng));
    }

    /// `base` doubled with every failure up to `most`, then between half of it and all of it,
    /// so that clients that failed together do not come back together.
    pub(crate) fn backoff(&self, base: Duration, most: Duration, failures: u32) -> Duration {
        let full = base.saturating_mul(1 << failures.min(16)).min(most);
        full.mul_f64(self.rng(|rng| rng.random_range(0.5..=1.0)))
    }

    fn rng<T>(&self, use_it: impl FnOnce(&mut StdRng) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_is_capped_and_follows_the_seed() {
        let (base, most) = (Duration::from_millis(10), Duration::from_millis(100));
        let waits = |seed| {
            let dice = Dice::new(Some(seed));
            (0..40).map(|n| dice.backoff(base, most, n)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
        assert!(waits(1).iter().all(|w| *w >= base / 2 && *w <= most));
        assert!(waits(1)[20..].iter().all(|w| *w >= most / 2));
    }
}
