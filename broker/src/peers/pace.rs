//! How fast lagging replicas are refilled: so many bytes per second for all of them together,
//! so that live appends and the disk's other readers keep their share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out turns; they are paid for afterwards. Clones share the rate.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_s: u64,
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), free_at: Arc::default() }
    }

    /// Waits until everything that was paid for so far fits into the rate.
    pub async fn turn(&self) {
        while let Some(at) = self.free_at().filter(|at| *at > Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// Counts what was read: often far less than what a read may bring.
    pub fn pay(&self, bytes: usize) {
        let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let now = Instant::now();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = Some(free_at.map_or(now, |at| at.max(now)) + took);
    }

    fn free_at(&self) -> Option<Instant> {
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_several_callers() {
        let pace = Pace::new(1_000);
        let started = Instant::now();
        for _ in 0..4 {
            let pace = pace.clone();
            pace.turn().await;
            pace.pay(500);
        }
        assert_eq!(started.elapsed().as_millis(), 1_500, "the first one starts at once");
        pace.turn().await;
        for _ in 0..1_000 {
            pace.turn().await;
            pace.pay(0);
        }
        assert_eq!(started.elapsed().as_millis(), 2_000, "what brings nothing costs nothing");
    }
}
