//! Reads every copy from end to end, now and then: what has rotted on the disk is found while
//! the other replicas still have it, and not when it is asked for.
//!
//! One read at a time, and at a bounded rate. [`crate::log::Log::read`] checks what it reads,
//! so damage shows as its error and is handled as when any other reader meets it.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::replica::{RoleView, StoredBatch};
use baton_core::{Offset, TopicPartition};
use tokio::time::Instant;

use crate::log::LogError;
use crate::shard::completion::{Completion, CopyId};
use crate::shard::run::Shard;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// How much is read at once after a pause, in time at the full rate.
const BURST: Duration = Duration::from_millis(200);

/// How often, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// From the end of one reading of a copy to the next one; zero: never.
    pub interval: Duration,
    /// Bytes per second of one shard.
    pub bytes_per_s: u64,
}

/// Where one shard is with its copies.
pub(super) struct Scrub {
    config: ScrubConfig,
    /// When each copy is read next.
    due: BTreeSet<(Instant, TopicPartition)>,
    current: Option<(TopicPartition, Offset)>,
    reading: bool,
    /// Bytes that may be read now; below zero after a large batch.
    allowance: i64,
    counted: Instant,
}

impl Scrub {
    pub(super) fn new(config: ScrubConfig) -> Self {
        let counted = Instant::now();
        Self { config, due: BTreeSet::new(), current: None, reading: false, allowance: 0, counted }
    }

    /// A copy was opened: it is read soon.
    pub(super) fn opened(&mut self, id: TopicPartition) {
        if !self.config.interval.is_zero() {
            self.due.insert((Instant::now(), id));
        }
    }

    /// The copy and the offset to read next, if it is time.
    fn next(&mut self) -> Option<(TopicPartition, Option<Offset>)> {
        if self.reading {
            return None;
        }
        let now = Instant::now();
        let rate = i64::try_from(self.config.bytes_per_s).unwrap_or(i64::MAX);
        let share =
            |time: Duration| rate.saturating_mul(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)) / 1_000_000;
        let elapsed = now.duration_since(self.counted).min(BURST * 5);
        self.allowance = self.allowance.saturating_add(share(elapsed)).min(share(BURST));
        self.counted = now;
        if self.allowance <= 0 {
            return None;
        }
        if let Some((id, at)) = self.current {
            return Some((id, Some(at)));
        }
        let (at, id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some((id, None))
    }

    /// This copy is done with, whatever was found.
    fn finished(&mut self, id: TopicPartition) {
        self.current = None;
        self.due.insert((Instant::now() + self.config.interval, id));
    }
}

impl Shard {
    /// Starts the next read, if it is time.
    pub(super) fn scrub(&mut self) {
        while let Some((id, at)) = self.scrub.next() {
            // One that was closed is forgotten.
            let Some(partition) = self.partitions.get(&id) else {
                self.scrub.current = None;
                continue;
            };
            let replica = &partition.replica;
            let from = at.unwrap_or_default().max(replica.log_start());
            if replica.role() == RoleView::Halted || replica.is_damaged() {
                self.scrub.finished(id);
                continue;
            }
            if from >= replica.durable_end() {
                self.parts.metrics.scrubbed_copy();
                self.scrub.finished(id);
                continue;
            }
            self.scrub.current = Some((id, from));
            self.scrub.reading = true;
            let copy = CopyId { id, local: partition.local };
            let read = self.parts.log.read(copy.local, from, READ_BYTES);
            self.running.push(Box::pin(async move {
                Completion::Scrubbed { copy, result: read.await.map(|found| found.batches) }
            }));
            return;
        }
    }

    pub(super) fn scrubbed(&mut self, id: TopicPartition, result: Result<Vec<StoredBatch>, LogError>) {
        self.scrub.reading = false;
        match result {
            Ok(batches) => {
                let bytes: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
                self.parts.metrics.scrubbed(bytes);
                self.scrub.allowance -= i64::try_from(bytes).unwrap_or(i64::MAX);
                match batches.last() {
                    Some(last) => self.scrub.current = Some((id, last.end())),
                    // It was cut meanwhile.
                    None => self.scrub.finished(id),
                }
            }
            // Retention or a truncation went by, or the log is busy: from the start of what is left.
            Err(LogError::BelowStart { start, .. }) => self.scrub.current = Some((id, start)),
            Err(LogError::Overloaded { .. }) => self.scrub.allowance = 0,
            Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) => {
                self.scrub.finished(id);
                self.log_failed(id, &error);
            }
            Err(_) => self.scrub.current = None,
        }
        self.scrub();
    }
}

#[cfg(test)]
mod tests {
    use baton_core::TopicId;

    use super::*;

    fn id(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(1), partition }
    }

    fn scrub(interval_s: u64) -> Scrub {
        Scrub::new(ScrubConfig { interval: Duration::from_secs(interval_s), bytes_per_s: 1_000 })
    }

    /// What a read of so many bytes does.
    fn read(scrub: &mut Scrub, at: TopicPartition, bytes: i64) {
        scrub.current = Some((at, Offset(7)));
        scrub.allowance -= bytes;
    }

    #[tokio::test(start_paused = true)]
    async fn every_copy_is_read_once_in_an_interval() {
        let mut scrub = scrub(10);
        assert_eq!(scrub.next(), None, "there is none");
        (0..3).for_each(|n| scrub.opened(id(n)));
        tokio::time::advance(Duration::from_millis(100)).await;
        for n in 0..3 {
            assert_eq!(scrub.next(), Some((id(n), None)));
            read(&mut scrub, id(n), 0);
            assert_eq!(scrub.next(), Some((id(n), Some(Offset(7)))), "it goes on where it was");
            scrub.finished(id(n));
        }
        assert_eq!(scrub.next(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(scrub.next(), Some((id(0), None)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_bounded() {
        let mut scrub = scrub(10);
        scrub.opened(id(0));
        assert_eq!(scrub.next(), None, "nothing may be read yet");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(scrub.next(), Some((id(0), None)), "however long it waited");
        read(&mut scrub, id(0), 2_100);
        tokio::time::advance(Duration::from_millis(1_000)).await;
        assert_eq!(scrub.next(), None, "2 s are used up");
        tokio::time::advance(Duration::from_millis(1_100)).await;
        assert!(scrub.next().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_switched_off() {
        let mut scrub = scrub(0);
        scrub.opened(id(0));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(scrub.next(), None);
    }
}
