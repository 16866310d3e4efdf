//! The offsets that a group has committed: for good, on their way to the log, and in open
//! transactions.

use std::collections::BTreeMap;

use crate::ids::{Offset, ProducerEpoch, ProducerId, TopicPartition};

/// A position that somebody wants to find again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if the client said it (KIP-320).
    pub leader_epoch: Option<i32>,
    /// The client's own text.
    pub metadata: String,
    /// When it was committed, in ms since 1970 by the coordinator's clock.
    pub committed_ms: i64,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    epoch: ProducerEpoch,
    offsets: BTreeMap<TopicPartition, Committed>,
}

/// All offsets of one group.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    committed: BTreeMap<TopicPartition, Committed>,
    /// Durable, but of transactions that are open.
    pending: BTreeMap<ProducerId, Pending>,
    /// How many commits of transactions are on their way to the log, by partition.
    in_flight: BTreeMap<TopicPartition, u32>,
}

impl Offsets {
    #[must_use]
    pub fn get(&self, at: TopicPartition) -> Option<&Committed> {
        self.committed.get(&at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Committed)> {
        self.committed.iter().map(|(at, committed)| (*at, committed))
    }

    /// Whether a transaction may still change this one (KIP-447).
    #[must_use]
    pub fn is_unstable(&self, at: TopicPartition) -> bool {
        self.in_flight.contains_key(&at) || self.pending.values().any(|pending| pending.offsets.contains_key(&at))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// Whether it has an offset for good, or one that may become so.
    #[must_use]
    pub fn len(&self) -> usize {
        self.committed.len() + self.pending.values().map(|pending| pending.offsets.len()).sum::<usize>()
    }

    #[must_use]
    pub fn has_transactions(&self) -> bool {
        !self.pending.is_empty() || !self.in_flight.is_empty()
    }

    /// A commit is durable. In the order of the log the last one counts.
    pub fn set(&mut self, at: TopicPartition, committed: Committed) {
        self.committed.insert(at, committed);
    }

    pub fn remove(&mut self, at: TopicPartition) {
        self.committed.remove(&at);
    }

    /// A transaction's commit is on its way to the log.
    pub fn begin_append(&mut self, at: TopicPartition) {
        *self.in_flight.entry(at).or_default() += 1;
    }

    /// It arrived there, or did not.
    pub fn end_append(&mut self, at: TopicPartition) {
        if let Some(count) = self.in_flight.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&at);
            }
        }
    }

    /// A commit in a transaction is durable. One of an older epoch of the producer is a
    /// transaction that was ended for it; the newer replaces it.
    pub fn add_pending(
        &mut self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        at: TopicPartition,
        committed: Committed,
    ) {
        let pending = self.pending.entry(producer).or_default();
        if pending.epoch < epoch {
            pending.offsets.clear();
            pending.epoch = epoch;
        }
        if pending.epoch == epoch {
            pending.offsets.insert(at, committed);
        }
    }

    /// The producer's transaction ended with a marker of this epoch.
    pub fn end_transaction(&mut self, producer: ProducerId, epoch: ProducerEpoch, committed: bool) {
        // A marker may carry a raised epoch: a fenced producer's transaction is ended by it.
        if self.pending.get(&producer).is_none_or(|pending| pending.epoch > epoch) {
            return;
        }
        if let Some(pending) = self.pending.remove(&producer)
            && committed
        {
            self.committed.extend(pending.offsets);
        }
    }
}
