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
    rounds: Rounds,
    /// The memtables were rotated, and the next round waits until they are tables: it would
    /// not see what they refer to.
    flushing: bool,
    last: Instant,
    took: Duration,
    running: Option<JoinHandle<Result<Duration, StoreError>>>,
}

/// How many rounds are still to do. What one round finds stale, the next one drops, and the
/// versions of the tree that hold it go later still; so it goes on while it has an effect.
#[derive(Debug, Default)]
struct Rounds {
    left: u8,
    /// What the store held when the last round began.
    bytes: Option<u64>,
}

impl Rounds {
    fn again(&mut self) {
        self.left = ROUNDS;
    }

    /// One begins, with so many bytes on the disk.
    fn begin(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(1);
        if self.bytes.is_some_and(|before| before >= bytes.saturating_add(EFFECT_BYTES)) {
            self.again();
        }
        self.bytes = Some(bytes);
    }
}

const ROUNDS: u8 = 3;
/// Less is no reason to go on.
const EFFECT_BYTES: u64 = 1 << 20;
/// At most one part in this of the time is spent rewriting.
const SHARE: u32 = 20;

impl Reclaim {
    /// `leftovers`: a killed process may have left something to do.
    pub(super) fn new(interval: Duration, leftovers: bool) -> Self {
        let rounds = Rounds { left: if leftovers { ROUNDS } else { 0 }, bytes: None };
        Self { interval, rounds, flushing: false, last: Instant::now(), took: Duration::ZERO, running: None }
    }

    /// There is space to give back.
    pub(super) fn something_ended(&mut self) {
        self.rounds.again();
    }

    /// A round is to be prepared now.
    pub(super) fn due(&self) -> bool {
        let finished = self.running.as_ref().is_none_or(JoinHandle::is_finished);
        let pause = self.interval.max(self.took * SHARE);
        self.rounds.left > 0 && !self.flushing && finished && self.last.elapsed() >= pause
    }

    /// The memtables were rotated for a round.
    pub(super) fn prepared(&mut self) {
        self.flushing = true;
    }

    pub(super) fn waits_for_flush(&self) -> bool {
        self.flushing
    }

    /// Ends the last round, and begins the next; the store has `bytes` now.
    pub(super) fn step(&mut self, reading: Reading, bytes: u64) -> Result<(), StoreError> {
        self.finish()?;
        self.flushing = false;
        self.rounds.begin(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_on_while_they_give_something_back() {
        let mut rounds = Rounds::default();
        rounds.again();
        rounds.begin(100 << 20);
        rounds.begin(60 << 20);
        assert_eq!(rounds.left, ROUNDS, "the first round had an effect");
        rounds.begin(60 << 20);
        rounds.begin((60 << 20) - 1);
        rounds.begin(60 << 20);
        assert_eq!(rounds.left, 0, "what has no effect is not repeated for ever");
    }

    #[test]
    fn growth_is_no_effect() {
        let mut rounds = Rounds::default();
        rounds.again();
        rounds.begin(10 << 20);
        rounds.begin(20 << 20);
        rounds.begin(30 << 20);
        assert_eq!(rounds.left, 0);
    }
}
