//! How fast lagging replicas are refilled: so many bytes per second for all of them together,
//! so that live appends and the disk's other readers keep their share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Hands out turns in order. Clones share the rate.
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

    /// Waits until `bytes` more fit into the rate.
    pub async fn wait(&self, bytes: usize) {
        let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let due = {
            let mut free_at = self.free_at.lock().await;
            let now = Instant::now();
            let due = free_at.map_or(now, |at| at.max(now));
            *free_at = Some(due + took);
            due
        };
        tokio::time::sleep_until(due).await;
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
            pace.clone().wait(500).await;
        }
        assert_eq!(started.elapsed().as_millis(), 1_500, "the first one starts at once");
    }
}
