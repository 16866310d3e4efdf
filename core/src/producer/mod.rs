//! Idempotent producers: which batch is new, which was stored before, and which leaves a gap
//! (KIP-98).
//!
//! The state of a partition is a pure function of the headers of its batches in log order, on
//! top of a [snapshot](ProducerTable::encode): leader, follower and recovery call
//! [`ProducerTable::applied`] for each batch, and only the leader asks
//! [`ProducerTable::check`] first. A truncation rebuilds the table from a snapshot that is
//! not beyond it.

mod snapshot;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub use snapshot::SnapshotError;
pub use window::SequencedBatch;
use window::Window;

use crate::batch::BatchHeader;
use crate::branches::reached;
use crate::error::ErrorCode;
use crate::ids::{Offset, ProducerEpoch, ProducerId};
use crate::transaction::partition::{EndMarker, TransactionTable};

/// Batches remembered per producer. Clients keep at most five requests in flight, so that a
/// repeated batch is among them.
pub const BATCHES_REMEMBERED: usize = 5;

/// Producers remembered per partition unless the caller says otherwise: about 1 MiB.
pub const PRODUCERS_MAX: usize = 4096;

/// What the leader does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    Append,
    /// It was appended before, at these offsets: answer with them once they are committed.
    Duplicate {
        base: Offset,
        last: Offset,
    },
    /// It was appended before, somewhere below this offset: too long ago to know where.
    /// Certain, so that a client may take it for success once `below` is committed.
    Forgotten {
        below: Offset,
    },
    /// A batch is missing before it, or it overlaps others.
    OutOfOrder {
        expected: i32,
    },
    /// A newer producer with the same id has written.
    Fenced {
        current: ProducerEpoch,
    },
}

impl Verdict {
    /// What the client is told, unless the batch is or was appended with known offsets.
    #[must_use]
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Append | Self::Duplicate { .. } => None,
            Self::Forgotten { .. } => Some(ErrorCode::DuplicateSequence),
            Self::OutOfOrder { .. } => Some(ErrorCode::OutOfOrderSequence),
            Self::Fenced { .. } => Some(ErrorCode::InvalidProducerEpoch),
        }
    }
}

/// One producer, as seen from its batches in this partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerState {
    pub epoch: ProducerEpoch,
    /// The last offset that it wrote.
    pub last_offset: Offset,
    /// The max timestamp of its last batch, in milliseconds since 1970. The producer chose
    /// it, so that nothing is decided by it.
    pub last_timestamp_ms: i64,
    window: Window,
    /// When [`ProducerTable::expire`] first found it idle; not part of the log's function.
    idle_since_ms: Option<i64>,
}

impl ProducerState {
    /// Its latest batches, the oldest first; none after a control batch opened its epoch.
    #[must_use]
    pub fn batches(&self) -> &[SequencedBatch] {
        self.window.batches()
    }
}

/// The producers of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, ProducerState>,
    /// The same producers in the order of their last batch: the first is evicted first. By
    /// place in the log and not by time, so that every replica evicts alike.
    by_last_offset: BTreeSet<(Offset, ProducerId)>,
    producers_max: usize,
    /// Their transactions in the partition: another function of the same batches, saved and
    /// rebuilt together with the sequence numbers. Boxed, for a table travels in messages.
    transactions: Box<TransactionTable>,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::new(PRODUCERS_MAX)
    }
}

impl ProducerTable {
    /// An empty table that remembers at most `producers_max` producers, and at least one.
    #[must_use]
    pub fn new(producers_max: usize) -> Self {
        Self {
            producers: BTreeMap::new(),
            by_last_offset: BTreeSet::new(),
            producers_max: producers_max.max(1),
            transactions: Box::default(),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.transactions.is_empty()
    }

    /// What the partition knows of transactions.
    #[must_use]
    pub fn transactions(&self) -> &TransactionTable {
        &self.transactions
    }

    pub(crate) fn transactions_mut(&mut self) -> &mut TransactionTable {
        &mut self.transactions
    }

    /// The producers in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.producers.iter().map(|(id, state)| (*id, state))
    }

    #[must_use]
    pub fn get(&self, id: ProducerId) -> Option<&ProducerState> {
        self.producers.get(&id)
    }

    /// What to do with a batch of a client. Of an unknown producer any sequence is taken:
    /// it may have been evicted, or its batches have fallen to retention.
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        if !header.idempotent() {
            return Verdict::Append;
        }
        let Some(state) = self.producers.get(&header.producer_id) else {
            return Verdict::Append;
        };
        match header.producer_epoch.cmp(&state.epoch) {
            std::cmp::Ordering::Less => {
                reached!("producer.fenced");
                Verdict::Fenced { current: state.epoch }
            }
            _ if unsequenced(header) => Verdict::Append,
            std::cmp::Ordering::Equal => state.window.check(header),
            std::cmp::Ordering::Greater if header.base_sequence == 0 => {
                reached!("producer.new_epoch");
                Verdict::Append
            }
            std::cmp::Ordering::Greater => Verdict::OutOfOrder { expected: 0 },
        }
    }

    /// [`ProducerTable::applied`], and what the batch says of transactions. A control batch that
    /// cannot be read says nothing of them.
    pub fn applied_batch(&mut self, header: &BatchHeader, base: Offset, batch: &Bytes) {
        let marker = EndMarker::read(header, batch).ok().flatten();
        self.applied(header, base);
        self.transactions.applied(header, base, marker.as_ref());
    }

    /// Takes note of a batch that is in the log at `base`, in log order. What is in the log
    /// counts, whatever [`ProducerTable::check`] would say about it: the leader that took it
    /// may have forgotten what this replica still knows.
    pub fn applied(&mut self, header: &BatchHeader, base: Offset) {
        if !header.idempotent() {
            return;
        }
        let id = header.producer_id;
        let unsequenced = unsequenced(header);
        let old = self.producers.remove(&id);
        if let Some(old) = &old {
            self.by_last_offset.remove(&(old.last_offset, id));
        }
        let old_window = old.filter(|old| old.epoch == header.producer_epoch).map(|old| old.window);
        let window = match (unsequenced, old_window) {
            // A marker, or offsets of a transaction: it has no sequence number and leaves those of its epoch alone.
            (true, window) => window.unwrap_or_default(),
            (false, Some(window)) => window.followed_by(header, base),
            (false, None) => Window::default().followed_by(header, base),
        };
        let last_offset = base.plus(u64::from(header.last_offset_delta));
        let state = ProducerState {
            epoch: header.producer_epoch,
            last_offset,
            last_timestamp_ms: header.max_timestamp_ms,
            window,
            idle_since_ms: None,
        };
        self.insert(id, state);
    }

    /// Adds a producer that is not in the table, and evicts the one whose last batch is the
    /// oldest if there are too many.
    fn insert(&mut self, id: ProducerId, state: ProducerState) {
        self.by_last_offset.insert((state.last_offset, id));
        self.producers.insert(id, state);
        while self.producers.len() > self.producers_max {
            let Some((_, oldest)) = self.by_last_offset.pop_first() else {
                break;
            };
            reached!("producer.evicted");
            self.producers.remove(&oldest);
        }
        debug_assert_eq!(self.producers.len(), self.by_last_offset.len());
    }

    /// What the batches below `start` say, as far as it is still known: the table that makes
    /// this one when the batches from `start` on are applied to it. A producer whose last
    /// batches are all above is found again there.
    #[must_use]
    pub fn before(&self, start: Offset) -> Self {
        let mut before =
            Self { transactions: Box::new(self.transactions.before(start)), ..Self::new(self.producers_max) };
        for (id, state) in &self.producers {
            // One whose last word is a marker has no batch to go by.
            let whole = state.last_offset < start;
            let window = if whole { state.window.clone() } else { state.window.before(start) };
            let last_batch = window.batches().last().map(SequencedBatch::last_offset);
            let last_offset = if whole { Some(state.last_offset) } else { last_batch };
            let Some(last_offset) = last_offset else { continue };
            let state = ProducerState { last_offset, window, idle_since_ms: None, ..state.clone() };
            before.insert(*id, state);
        }
        before
    }

    /// Where the batches begin that the table remembers: compaction keeps what their headers
    /// say, so that the table can be built again from the log.
    pub fn remembered(&self) -> impl Iterator<Item = Offset> {
        let bases = |state: &ProducerState| state.window.batches.iter().map(|b| b.base_offset).collect::<Vec<_>>();
        self.producers.values().flat_map(bases)
    }

    /// Forgets the producers that wrote nothing for `max_age_ms`; call it now and then. The
    /// age counts from the first call that found a producer idle, not from its timestamps:
    /// one that imports records of last year would be forgotten between two batches, and its
    /// next repetition stored twice. So a producer is forgotten late, and never early.
    pub fn expire(&mut self, now_ms: i64, max_age_ms: i64) {
        let by_last_offset = &mut self.by_last_offset;
        self.producers.retain(|id, state| {
            let since = state.idle_since_ms.unwrap_or(now_ms).min(now_ms);
            state.idle_since_ms = Some(since);
            let keep = now_ms.saturating_sub(since) < max_age_ms;
            if !keep {
                reached!("producer.expired");
                by_last_offset.remove(&(state.last_offset, *id));
            }
            keep
        });
    }
}

/// Markers, and what a coordinator appends for a producer (the offsets of a transaction), have
/// no sequence number. A client's batch always has one (see [`crate::batch::validate_produce`]).
fn unsequenced(header: &BatchHeader) -> bool {
    header.attributes.control() || header.base_sequence < 0
}
