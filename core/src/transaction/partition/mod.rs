//! What one partition knows of transactions: which are open, up to where everything is
//! decided, and which were aborted.
//!
//! [`TransactionTable`] is a pure function of the partition's batches in log order, on top of a
//! [snapshot](TransactionTable::encode), like [`crate::producer::ProducerTable`], which judges
//! sequence numbers: leader, follower and recovery call [`TransactionTable::applied`] for each
//! batch, and a truncation rebuilds it from a snapshot that is not beyond it.
//! [`Verification`] belongs to the leader, and is gone when it leads no more.
//!
//! What whom calls when:
//!
//! | when | calls |
//! |---|---|
//! | a leader begins | [`Verification::new`] with its epoch |
//! | a client's batch | `ProducerTable::check`; if it says Append: [`Verification::admit`]; if that says Verify: ask the coordinator, and admit again with the guard; after the append: `applied` of both tables, [`Verification::began`] |
//! | a marker | [`TransactionTable::check_marker`]; if it says Append: stamp and append [`EndMarker::batch`], `applied` of both tables, [`Verification::ended`]; confirm when the high watermark has passed it |
//! | a batch of the leader, or in recovery | [`EndMarker::read`], `applied` |
//! | the high watermark rises | [`TransactionTable::committed`] |
//! | a truncation | [`TransactionTable::decode`] of a snapshot at or below it, and `applied` from there |
//! | the log start rises | [`TransactionTable::log_starts_at`] |
//! | a read of what is committed | up to [`TransactionTable::last_stable`], with [`AbortedIndex::within`] |

mod aborted;
mod marker;
mod snapshot;
mod verification;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::aborted::{AbortedIndex, AbortedTransaction};
pub use self::marker::{EndMarker, MarkerError};
pub use self::snapshot::SnapshotError;
pub use self::verification::{Admission, Guard, Verification};
use super::message::Producer;
use crate::batch::BatchHeader;
use crate::error::ErrorCode;
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};

/// What one partition remembers. Replicas have to agree in it, for they have to forget alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableLimits {
    /// Producers without an open transaction; those that wrote longest ago are forgotten first.
    pub idle_max: usize,
    /// Open transactions. No batch opens one more.
    pub open_max: usize,
    /// Aborted transactions in the log. No batch begins another one before retention has
    /// removed some.
    pub aborted_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { idle_max: 4_096, open_max: 4_096, aborted_max: 100_000 }
    }
}

/// One producer of transactions in this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    epoch: ProducerEpoch,
    /// The last offset that it wrote, or that a marker has for it.
    last: Offset,
    /// The first offset of its open transaction.
    open_since: Option<Offset>,
    /// Of the coordinator that wrote its last marker.
    coordinator_epoch: Option<Epoch>,
}

/// A transaction that a marker has ended. While the marker is not committed it may be cut off
/// again, and readers must not go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ended {
    producer: ProducerId,
    first: Offset,
    marker: Offset,
    /// Of the records, and of the marker before this one: what the producer was until then.
    epoch: ProducerEpoch,
    coordinator_epoch: Option<Epoch>,
}

/// How a client's batch stands to the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It belongs to none.
    Plain,
    /// Its producer has an open transaction here.
    Joins,
    /// It would open one here.
    Begins,
    Refused(ErrorCode),
}

/// What the leader does with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum MarkerVerdict {
    Append,
    /// It was appended before: confirm it when everything below this offset is committed.
    Over {
        below: Offset,
    },
    /// The producer has a later epoch here, so that the transaction has ended long ago. A
    /// coordinator may take that for a confirmation; a tool is told `INVALID_PRODUCER_EPOCH`.
    Stale,
    /// A later coordinator has written here.
    Fenced,
}

/// The transactions of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransactionTable {
    limits: TableLimits,
    /// The offset after the last batch that counted.
    end: Offset,
    producers: BTreeMap<ProducerId, Known>,
    /// Open transactions by their first offset.
    open: BTreeSet<(Offset, ProducerId)>,
    /// The others by their last offset: by place in the log and not by time, so that every
    /// replica forgets alike.
    idle: BTreeSet<(Offset, ProducerId)>,
    ended: VecDeque<Ended>,
    aborted: AbortedIndex,
}

impl TransactionTable {
    #[must_use]
    pub fn new(limits: TableLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    #[must_use]
    pub fn aborted(&self) -> &AbortedIndex {
        &self.aborted
    }

    /// Whether nothing is known that would have to be saved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.ended.is_empty() && self.aborted.is_empty()
    }

    /// What the batches below `start` say, as far as it is still known: the table that makes
    /// this one when the batches from `start` on are applied to it. A transaction that was open
    /// there and ended since is known while its marker is not known to be committed; so `start`
    /// must not be below what [`TransactionTable::committed`] was last told, unless the log
    /// begins there.
    #[must_use]
    pub fn before(&self, start: Offset) -> Self {
        let mut before = Self::new(self.limits);
        let below = |last: Offset| last.min(Offset(start.0.saturating_sub(1)));
        for (id, known) in &self.producers {
            let open = known.open_since.is_some_and(|first| first < start);
            if open || known.last < start {
                before.put_in(*id, Known { last: below(known.last), ..*known });
            }
        }
        for ended in &self.ended {
            if ended.marker < start {
                before.ended.push_back(*ended);
            } else if ended.first < start {
                before.take_out(ended.producer);
                let (epoch, coordinator_epoch) = (ended.epoch, ended.coordinator_epoch);
                let last = below(ended.marker);
                let known = Known { epoch, last, open_since: Some(ended.first), coordinator_epoch };
                before.put_in(ended.producer, known);
            }
        }
        before.aborted = self.aborted.up_to(start);
        before.end = self.end.min(start);
        before
    }

    /// The producers that are known: id, epoch, last offset, first offset of an open
    /// transaction, and the epoch of the coordinator that wrote the last marker.
    pub fn known(&self) -> impl Iterator<Item = (Producer, Offset, Option<Offset>, Option<Epoch>)> {
        self.producers.iter().map(|(id, known)| {
            (Producer { id: *id, epoch: known.epoch }, known.last, known.open_since, known.coordinator_epoch)
        })
    }

    /// The producers with open transactions, and where these begin, the oldest first.
    pub fn open(&self) -> impl Iterator<Item = (Offset, ProducerId)> {
        self.open.iter().copied()
    }

    /// Up to where everything is decided for good: below the high watermark, below every open
    /// transaction, and below those whose markers are not committed.
    #[must_use]
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        let open = self.open.first().map(|(first, _)| *first);
        let undecided = self.ended.iter().filter(|ended| ended.marker >= high_watermark).map(|ended| ended.first);
        open.into_iter().chain(undecided).fold(high_watermark, Offset::min)
    }

    /// Everything below the high watermark is committed: markers there stay. Call it often
    /// enough that few are kept.
    pub fn committed(&mut self, high_watermark: Offset) {
        while self.ended.front().is_some_and(|ended| ended.marker < high_watermark) {
            self.ended.pop_front();
        }
    }

    /// Nothing below is left of the log.
    pub fn log_starts_at(&mut self, start: Offset) {
        self.aborted.forget_below(start);
    }

    /// How a client's batch stands. Sequence numbers are not looked at.
    #[must_use]
    pub fn standing(&self, header: &BatchHeader) -> Standing {
        let known = self.producers.get(&header.producer_id).filter(|_| header.idempotent());
        let transactional = header.attributes.transactional();
        match known {
            Some(known) if header.producer_epoch < known.epoch => Standing::Refused(ErrorCode::InvalidProducerEpoch),
            Some(known) if known.open_since.is_some() => match (transactional, header.producer_epoch == known.epoch) {
                (true, true) => Standing::Joins,
                // Its marker is about to come.
                (true, false) => Standing::Refused(ErrorCode::ConcurrentTransactions),
                (false, _) => Standing::Refused(ErrorCode::InvalidTransactionState),
            },
            _ if !transactional => Standing::Plain,
            _ if self.open.len() >= self.limits.open_max || self.aborted.len() >= self.limits.aborted_max => {
                Standing::Refused(ErrorCode::Throttled)
            }
            _ => Standing::Begins,
        }
    }

    /// What to do with a marker. One with a raised epoch ends what has a lower one only: with
    /// an equal one it is late, and what is open is the next transaction.
    pub fn check_marker(&self, marker: &EndMarker, raised: bool) -> MarkerVerdict {
        let Some(known) = self.producers.get(&marker.producer.id) else {
            return MarkerVerdict::Append;
        };
        if known.coordinator_epoch.is_some_and(|epoch| epoch > marker.coordinator_epoch) {
            return MarkerVerdict::Fenced;
        }
        match (marker.producer.epoch.cmp(&known.epoch), raised, known.open_since) {
            (std::cmp::Ordering::Less, ..) | (std::cmp::Ordering::Equal, true, Some(_)) => MarkerVerdict::Stale,
            (std::cmp::Ordering::Equal, true, None) => MarkerVerdict::Over { below: known.last.plus(1) },
            (std::cmp::Ordering::Equal, false, _) | (std::cmp::Ordering::Greater, ..) => MarkerVerdict::Append,
        }
    }

    /// Takes note of a batch that is in the log at `base`, in log order, with the marker in it
    /// if there is one. What is in the log counts, whatever the checks would say about it.
    pub fn applied(&mut self, header: &BatchHeader, base: Offset, marker: Option<&EndMarker>) {
        let last = base.plus(u64::from(header.last_offset_delta));
        let id = header.producer_id;
        let opens = header.attributes.transactional() && !header.attributes.control();
        if !header.idempotent() || !(opens || marker.is_some() || self.producers.contains_key(&id)) {
            return;
        }
        self.end = last.plus(1);
        let before = self.take_out(id);
        let earlier = before;
        let epoch = header.producer_epoch;
        let mut known = before.unwrap_or(Known { epoch, last, open_since: None, coordinator_epoch: None });
        (known.epoch, known.last) = (epoch, last);
        if let Some(marker) = marker {
            known.coordinator_epoch = Some(marker.coordinator_epoch);
            if let Some(first) = known.open_since.take() {
                let (epoch, coordinator_epoch) =
                    earlier.map_or((epoch, None), |earlier| (earlier.epoch, earlier.coordinator_epoch));
                self.end_transaction(
                    Ended { producer: id, first, marker: base, epoch, coordinator_epoch },
                    marker.commit,
                );
            }
        } else if opens {
            known.open_since = known.open_since.or(Some(base));
        }
        self.put_in(id, known);
        while self.idle.len() > self.limits.idle_max {
            let Some((_, oldest)) = self.idle.pop_first() else {
                break;
            };
            self.producers.remove(&oldest);
        }
    }

    fn end_transaction(&mut self, ended: Ended, commit: bool) {
        let Ended { producer, first, marker, .. } = ended;
        self.ended.push_back(ended);
        if !commit {
            let last_stable = self.open.first().map_or(marker.plus(1), |(first, _)| *first);
            self.aborted.push(AbortedTransaction { producer, first, last: marker, last_stable });
        }
    }

    fn take_out(&mut self, id: ProducerId) -> Option<Known> {
        let known = self.producers.remove(&id)?;
        match known.open_since {
            Some(first) => self.open.remove(&(first, id)),
            None => self.idle.remove(&(known.last, id)),
        };
        Some(known)
    }

    fn put_in(&mut self, id: ProducerId, known: Known) {
        match known.open_since {
            Some(first) => self.open.insert((first, id)),
            None => self.idle.insert((known.last, id)),
        };
        self.producers.insert(id, known);
        debug_assert_eq!(self.producers.len(), self.open.len() + self.idle.len());
    }
}
