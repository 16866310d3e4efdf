//! When the space of deleted partitions and expired batches is asked back.
//!
//! While batches flow in, the store's compactions meet what the retention filter destroys,
//! but only among keys near the new ones, and on an idle broker nothing is compacted. So after
//! something ended, all tables are rewritten on a thread of its own. Tables hold keys, the
//! batches are elsewhere; yet a long rewriting holds up the compactions that writers need, so
//! it is done only while few tables are there or little is written.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::store::{Reading, StoreError, reclaim};

pub(super) struct Reclaim {
    interval: Duration,
    /// Rounds still to do: what one round finds stale, the next one drops.
    rounds: u8,
    last: Instant,
    took: Duration,
    running: Option<JoinHandle<Result<Duration, StoreError>>>,
}

const ROUNDS: u8 = 2;
/// At most one part in this of the time is spent rewriting.
const SHARE: u32 = 20;

impl Reclaim {
    /// `leftovers`: a killed process may have left something to do.
    pub(super) fn new(interval: Duration, leftovers: bool) -> Self {
        let rounds = if leftovers { ROUNDS } else { 0 };
        Self { interval, rounds, last: Instant::now(), took: Duration::ZERO, running: None }
    }

    /// There is space to give back.
    pub(super) fn something_ended(&mut self) {
        self.rounds = ROUNDS;
    }

    pub(super) fn due(&self) -> bool {
        let finished = self.running.as_ref().is_none_or(JoinHandle::is_finished);
        let pause = self.interval.max(self.took * SHARE);
        self.rounds > 0 && finished && self.last.elapsed() >= pause
    }

    /// Ends the last round, and begins the next.
    pub(super) fn step(&mut self, reading: Reading) -> Result<(), StoreError> {
        self.finish()?;
        self.rounds = self.rounds.saturating_sub(1);
        self.last = Instant::now();
        let spawned = std::thread::Builder::new().name("log-reclaim".to_owned()).spawn(move || {
            let began = Instant::now();
            reclaim(&reading).map(|()| began.elapsed())
        });
        self.running = Some(spawned.map_err(|cause| StoreError::Io { what: "starting a thread", cause })?);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(Ok(took))) => {
                self.took = took;
                Ok(())
            }
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
