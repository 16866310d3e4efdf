//! The time index: where to begin looking for a timestamp.
//!
//! Every mebibyte or so an entry says: all batches below this offset have a max timestamp of
//! at most this. The times of a partition's entries rise with their offsets, whatever producers
//! stamp, so the last entry before a time is found by one lookup, and the batch that first
//! reaches that time lies between it and the next entry.

use std::collections::HashMap;

use baton_core::Offset;

use super::keys::{self, Prefix};
use super::store::{Reading, StoreError, Writes};
use crate::log::{LocalPartition, StoredBatch, frame};

/// Bounds the lookup among small batches, which are read one by one.
const BATCHES_MAX: u32 = 4096;

/// What was appended to each partition since its last entry.
pub(super) struct TimeIndex {
    interval_bytes: u64,
    running: HashMap<LocalPartition, Running>,
}

#[derive(Default)]
struct Running {
    max: Option<i64>,
    bytes: u64,
    batches: u32,
    /// `max` covers everything since the last entry. Not so after opening: then the log is
    /// read once, when the next entry is due.
    complete: bool,
}

impl TimeIndex {
    pub(super) fn new(interval_bytes: u64) -> Self {
        Self { interval_bytes, running: HashMap::new() }
    }

    /// Takes note of a batch, and adds an entry when one is due.
    pub(super) fn append(
        &mut self,
        partition: LocalPartition,
        prefix: Prefix,
        batch: &StoredBatch,
        reading: &Reading,
        writes: &mut Writes,
    ) -> Result<(), StoreError> {
        let running = self.running.entry(partition).or_default();
        running.max = running.max.max(Some(batch.max_timestamp_ms));
        running.bytes += batch.bytes.len() as u64;
        running.batches += 1;
        if running.bytes < self.interval_bytes && running.batches < BATCHES_MAX {
            return Ok(());
        }
        let mut max = running.max;
        if !running.complete {
            max = max.max(max_since_last_entry(reading, prefix)?);
        }
        if let Some(max) = max {
            writes.put(&keys::time(prefix, max, batch.last.plus(1)), Vec::new());
        }
        // The maximum goes on: entries speak of everything below their offset.
        *running = Running { max, complete: true, ..Running::default() };
        Ok(())
    }

    /// The log was cut or emptied: what is known of its tail no longer holds.
    pub(super) fn forget(&mut self, partition: LocalPartition) {
        self.running.remove(&partition);
    }
}

/// The maximum of everything in the store, by the last entry and the batches behind it.
fn max_since_last_entry(reading: &Reading, prefix: Prefix) -> Result<Option<i64>, StoreError> {
    let mut max = None;
    let mut from = Offset::ZERO;
    if let Some(entry) = reading.metadata.range(keys::times(prefix)).next_back()
        && let Some((_, time, offset)) = keys::parse_time(&entry.key()?)
    {
        (max, from) = (Some(time), offset);
    }
    for item in reading.log.range(keys::batches_from(prefix, from)) {
        // A damaged batch is reported when it is read; here it has no time.
        let Ok(value) = item.value() else { continue };
        if let Ok(batch) = frame::parse(super::readers::bytes(value)) {
            max = max.max(Some(batch.max_timestamp_ms));
        }
    }
    Ok(max)
}

/// Entries that speak of offsets above `end`: a truncation takes them along.
pub(super) fn entries_above(reading: &Reading, prefix: Prefix, end: Offset) -> Result<Vec<keys::TimeKey>, StoreError> {
    let mut above = Vec::new();
    for entry in reading.metadata.range(keys::times(prefix)).rev() {
        let Some((_, time, offset)) = keys::parse_time(&entry.key()?) else { break };
        if offset <= end {
            break;
        }
        above.push(keys::time(prefix, time, offset));
    }
    Ok(above)
}

/// Where to begin looking for the first batch whose max timestamp is at or above
/// `timestamp_ms`.
pub(super) fn begin_at(reading: &Reading, prefix: Prefix, timestamp_ms: i64) -> Result<Offset, StoreError> {
    let before = reading.metadata.range(keys::times_before(prefix, timestamp_ms)).next_back();
    let Some(entry) = before else { return Ok(Offset::ZERO) };
    let found = keys::parse_time(&entry.key()?);
    Ok(found.map_or(Offset::ZERO, |(_, _, offset)| offset))
}
