//! How many bytes of batches the answers to readers may hold, whoever does not take them.
//!
//! A reader that asks for much and reads slowly keeps its answer in the memory. Beyond the
//! bound nobody waits and nothing fails: answers become small, and are asked for more often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Metrics;

/// What every answer may have, however much is held: less, and readers would not get on.
const LEAST_BYTES: u64 = 64 << 10;

/// The room of one broker, for all its listeners.
pub struct Answers {
    held: AtomicU64,
    bytes_max: u64,
    metrics: Metrics,
}

impl Answers {
    #[must_use]
    pub fn new(bytes_max: u64, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), bytes_max, metrics })
    }

    /// Room for an answer of up to `wanted` bytes, or fewer: see [`Room::bytes`].
    #[must_use]
    pub fn room(self: &Arc<Self>, wanted: usize) -> Room {
        let wanted = wanted as u64;
        let granted = |held: u64| self.bytes_max.saturating_sub(held).max(LEAST_BYTES).min(wanted);
        let (mut held, order) = (self.held.load(Ordering::Relaxed), Ordering::Relaxed);
        while let Err(now) = self.held.compare_exchange_weak(held, held + granted(held), order, order) {
            held = now;
        }
        Room { answers: Arc::clone(self), bytes: granted(held) }
    }

    fn less(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.answers_held(self.held());
    }

    /// Bytes that answers hold now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

/// Room that an answer has until this is dropped.
pub struct Room {
    answers: Arc<Answers>,
    bytes: u64,
}

impl Room {
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// The answer has so many bytes; one batch comes whole, even if there was less room.
    pub fn is(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.answers.held.fetch_add(bytes, Ordering::Relaxed);
        self.answers.less(std::mem::replace(&mut self.bytes, bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.answers.less(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::BrokerId;

    const MIB: usize = 1 << 20;

    #[test]
    fn answers_become_small_when_many_are_held() {
        let answers = Answers::new(20 * MIB as u64, Metrics::new(BrokerId(1)));
        let mut first = answers.room(16 * MIB);
        assert_eq!(first.bytes(), 16 * MIB);
        let second = answers.room(16 * MIB);
        assert_eq!(second.bytes(), 4 * MIB);
        let third = answers.room(16 * MIB);
        assert_eq!(third.bytes() as u64, LEAST_BYTES);
        assert_eq!(answers.room(100).bytes(), 100);
        first.is(MIB);
        assert_eq!(answers.held(), 5 * MIB as u64 + LEAST_BYTES);
        drop((first, second, third));
        assert_eq!(answers.held(), 0);
    }

    #[test]
    fn a_batch_that_is_larger_than_its_room_counts_whole() {
        let answers = Answers::new(MIB as u64, Metrics::new(BrokerId(1)));
        let mut room = answers.room(MIB);
        room.is(3 * MIB);
        assert_eq!(answers.held(), 3 * MIB as u64);
    }
}
