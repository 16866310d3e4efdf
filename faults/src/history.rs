//! What was sent, what was acknowledged, what was read: everything that a verdict needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

/// Which record of which producer: unique in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    pub producer: u32,
    pub partition: u32,
    /// Rises by one per record of this producer in this partition.
    pub sequence: u64,
}

const MARK: &[u8; 8] = b"faults-1";
const VALUE_BYTES: usize = 100;

impl RecordId {
    /// A record's value: a mark, the three numbers (big-endian), padding.
    #[must_use]
    pub fn to_value(self) -> Bytes {
        let mut value = BytesMut::with_capacity(VALUE_BYTES);
        value.put_slice(MARK);
        value.put_u32(self.producer);
        value.put_u32(self.partition);
        value.put_u64(self.sequence);
        value.put_bytes(b'.', VALUE_BYTES - value.len());
        value.freeze()
    }

    /// None if it is not such a value.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let numbers = value.strip_prefix(MARK)?;
        let (producer, rest) = numbers.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (sequence, padding) = rest.split_first_chunk()?;
        if value.len() != VALUE_BYTES || padding.iter().any(|byte| *byte != b'.') {
            return None;
        }
        Some(Self {
            producer: u32::from_be_bytes(*producer),
            partition: u32::from_be_bytes(*partition),
            sequence: u64::from_be_bytes(*sequence),
        })
    }
}

/// What became of a record that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged {
        offset: u64,
        epoch: u32,
    },
    /// It failed, and the client says that no broker stored it.
    NotStored(String),
    /// It failed, and may be stored nevertheless.
    Unknown(String),
}

/// One record that was sent. Times are since the beginning of the run.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: RecordId,
    pub sent: Duration,
    pub ended: Duration,
    pub outcome: Outcome,
}

/// One record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub offset: u64,
    /// The leader epoch that wrote it.
    pub epoch: u32,
    /// None: not a record of the harness.
    pub id: Option<RecordId>,
}

/// Everything about one round.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub partitions: u32,
    /// In the order in which each partition's outcomes became known.
    pub attempts: Vec<Attempt>,
    /// What a consumer saw while it all happened, by partition, in its order.
    pub tail: BTreeMap<u32, Vec<Stored>>,
    /// When the tailing consumer got records, by partition.
    pub tail_times: BTreeMap<u32, Vec<Duration>>,
    /// Where the round began, by partition.
    pub base: BTreeMap<u32, u64>,
    /// What is there at the end, by partition, from the base on.
    pub log: BTreeMap<u32, Vec<Stored>>,
    /// Where each partition ends, once that is known.
    pub ends: BTreeMap<u32, u64>,
    /// When producing ended: it closes every gap that is still open.
    pub end: Duration,
    /// Errors that the tailing consumer was told.
    pub tail_errors: Vec<String>,
}

impl History {
    /// How many records were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let is = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::Acknowledged { .. });
        self.attempts.iter().filter(is).count()
    }

    /// How many failed for certain, and of how many nobody knows.
    #[must_use]
    pub fn failed(&self) -> (usize, usize) {
        let count = |wanted: fn(&Outcome) -> bool| self.attempts.iter().filter(|a| wanted(&a.outcome)).count();
        (count(|o| matches!(o, Outcome::NotStored(_))), count(|o| matches!(o, Outcome::Unknown(_))))
    }

    /// Takes what was stored late by producers of an earlier round for no record of this one.
    pub fn disown_strangers(&mut self) {
        let known: BTreeSet<u32> = self.attempts.iter().map(|attempt| attempt.id.producer).collect();
        let reads = self.log.values_mut().chain(self.tail.values_mut());
        for stored in reads.flatten() {
            stored.id = stored.id.filter(|id| known.contains(&id.producer));
        }
    }

    /// Adds a later round of the same topic, so that the whole can be checked against what is
    /// there after the last one. Its times go on where the earlier rounds ended.
    pub fn absorb(&mut self, later: &Self) {
        let since = self.attempts.iter().map(|attempt| attempt.ended).max().unwrap_or_default().max(self.end);
        self.partitions = later.partitions;
        self.attempts.extend(later.attempts.iter().map(|attempt| Attempt {
            sent: since + attempt.sent,
            ended: since + attempt.ended,
            ..attempt.clone()
        }));
        self.end = since + later.end;
        self.ends.clone_from(&later.ends);
        if self.base.is_empty() {
            self.base.clone_from(&later.base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_which_record_it_is() {
        let id = RecordId { producer: 7, partition: 29, sequence: u64::MAX };
        assert_eq!(RecordId::of_value(&id.to_value()), Some(id));
        assert_eq!(id.to_value().len(), VALUE_BYTES);
        assert_eq!(RecordId::of_value(&id.to_value()[1..]), None);
        let mut damaged = id.to_value().to_vec();
        damaged[99] = b'!';
        assert_eq!(RecordId::of_value(&damaged), None);
        assert_eq!(RecordId::of_value(b""), None);
    }
}
