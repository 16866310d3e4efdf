//! Idempotent producers that fell silent are forgotten, a few partitions with every tick.

use std::time::Duration;

use baton_core::TopicPartition;

use crate::shard::run::Shard;

/// A producer that wrote nothing for so long is forgotten (KIP-854's default). Whether a copy
/// still knows it never decides what is in the log: of an unknown producer any sequence is
/// taken, and every copy takes over what its leader appended.
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Every partition is visited about once in this time.
const ROUND: Duration = Duration::from_secs(10 * 60);

/// Where the round is.
#[derive(Debug)]
pub(super) struct Expiry {
    ticks_per_round: u64,
    /// Grows by the number of partitions with every tick; a visit takes `ticks_per_round`.
    due: u64,
    visited: Option<TopicPartition>,
}

impl Expiry {
    pub(super) fn new(tick: Duration) -> Self {
        let ticks = ROUND.as_millis() / tick.as_millis().max(1);
        Self { ticks_per_round: u64::try_from(ticks).unwrap_or(u64::MAX).max(1), due: 0, visited: None }
    }
}

impl Shard {
    pub(super) fn expire_producers(&mut self) {
        self.expiry.due += self.partitions.len() as u64;
        while self.expiry.due >= self.expiry.ticks_per_round {
            self.expiry.due -= self.expiry.ticks_per_round;
            let after = self.expiry.visited.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let next = self.partitions.range_mut((after, std::ops::Bound::Unbounded)).next();
            self.expiry.visited = next.map(|(id, partition)| {
                let age_ms = u64::try_from(IDLE_MAX.as_millis()).unwrap_or(u64::MAX);
                // The clock that never jumps: its zero is the start of the process.
                partition.replica.expire_producers(self.env.now_ms, age_ms);
                *id
            });
        }
    }
}
