//! When the space of deleted partitions and expired batches is asked back.
//!
//! While batches flow in, the store's compactions meet what the retention filter destroys. On
//! an idle broker nothing is compacted; so after something ended, tables are rewritten on a
//! thread of its own.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::store::{Reading, StoreError, reclaim};

pub(super) struct Reclaim {
    interval: Duration,
    /// Rounds still to do: what one round finds stale, the next one drops.
    rounds: u8,
    last: Instant,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

const ROUNDS: u8 = 2;

impl Reclaim {
    pub(super) fn new(interval: Duration) -> Self {
        // After opening, once: a killed process may have left something.
        Self { interval, rounds: ROUNDS, last: Instant::now(), running: None }
    }

    /// There is space to give back.
    pub(super) fn something_ended(&mut self) {
        self.rounds = ROUNDS;
    }

    pub(super) fn due(&self) -> bool {
        let finished = self.running.as_ref().is_none_or(JoinHandle::is_finished);
        self.rounds > 0 && finished && self.last.elapsed() >= self.interval
    }

    /// Ends the last round, and begins the next.
    pub(super) fn step(&mut self, reading: Reading) -> Result<(), StoreError> {
        self.finish()?;
        self.rounds = self.rounds.saturating_sub(1);
        self.last = Instant::now();
        let spawned = std::thread::Builder::new().name("log-reclaim".to_owned()).spawn(move || reclaim(&reading));
        self.running = Some(spawned.map_err(|cause| StoreError::Io { what: "starting a thread", cause })?);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        match self.running.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(StoreError::Record("a compaction panicked".to_owned())),
        }
    }
}

impl Drop for Reclaim {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!("the last compaction: {error}");
        }
    }
}
