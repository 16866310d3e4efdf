//! What survives of one transactional id, and how it changes.
//!
//! ```text
//!            first partition            the client ends it
//!  Empty ───────────────────▶ Ongoing ───────────────────────▶ PrepareCommit ──▶ CompleteCommit
//!    ▲                        ▲  │                                    every partition │
//!    │ a producer comes       │  │ or aborts it, is fenced or too slow    has its     │
//!    │                        │  └───────────────────────────▶ PrepareAbort ──▶ CompleteAbort
//!    └────────────────────────┴───────────────────────────────────────────────────────┘
//! ```
//! Kafka has one state more, PrepareEpochFence, between the decision to fence a producer and
//! its record. Here the raised epoch and PrepareAbort are one record, so that nothing is between.

use std::collections::BTreeSet;

use super::message::Producer;
use crate::ids::{ProducerEpoch, ProducerId, TopicPartition};

/// The last epoch that a client gets: the one above it is left for fencing it.
pub const CLIENT_EPOCH_MAX: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// Where a transactional id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionState {
    /// A producer has it, and began nothing since.
    Empty,
    Ongoing,
    /// It is decided; not every partition knows yet.
    PrepareCommit,
    PrepareAbort,
    /// Every partition knows.
    CompleteCommit,
    CompleteAbort,
}

impl TransactionState {
    /// As Kafka's tools show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// What was decided, while markers are written.
    #[must_use]
    pub fn deciding(self) -> Option<bool> {
        match self {
            Self::PrepareCommit => Some(true),
            Self::PrepareAbort => Some(false),
            _ => None,
        }
    }

    /// What became of the last transaction, once it is decided.
    #[must_use]
    pub fn decided(self) -> Option<bool> {
        match self {
            Self::PrepareCommit | Self::CompleteCommit => Some(true),
            Self::PrepareAbort | Self::CompleteAbort => Some(false),
            Self::Empty | Self::Ongoing => None,
        }
    }

    /// Nothing is open: the next transaction may begin.
    #[must_use]
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// A transactional id, as its last record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMetadata {
    /// In the states Prepare…: whose epoch the markers carry.
    pub producer: Producer,
    /// Who the same producer was before. It did not hear of the change if it still says so;
    /// none if another one has taken the id, or the change was used.
    pub previous: Option<Producer>,
    /// Takes the place of the producer's id when the transaction is complete, with epoch 0: its
    /// epochs are used up.
    pub next_id: Option<ProducerId>,
    /// Markers carry an epoch above that of the transaction's records, so that neither these
    /// nor the markers can be taken for those of another transaction.
    pub raised: bool,
    pub timeout_ms: u32,
    pub state: TransactionState,
    /// Those of the transaction that is ongoing or being ended.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the transaction began, in ms since 1970 by the coordinator's clock.
    pub started_ms: Option<i64>,
    pub updated_ms: i64,
}

impl TransactionMetadata {
    /// A transactional id that was never used.
    #[must_use]
    pub fn new(id: ProducerId, timeout_ms: u32, now_ms: i64) -> Self {
        Self {
            producer: Producer { id, epoch: ProducerEpoch(0) },
            previous: None,
            next_id: None,
            raised: false,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            started_ms: None,
            updated_ms: now_ms,
        }
    }

    /// Who may write next, and may know that already.
    #[must_use]
    pub fn holder(&self) -> Producer {
        self.next_id.map_or(self.producer, |id| Producer { id, epoch: ProducerEpoch(0) })
    }

    /// Whether a client could not be given a higher epoch.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.producer.epoch >= CLIENT_EPOCH_MAX
    }

    /// A producer has the id under this name, and begins anew.
    #[must_use]
    pub fn taken(&self, producer: Producer, previous: Option<Producer>, timeout_ms: u32, now_ms: i64) -> Self {
        Self { producer, previous, ..Self::new(producer.id, timeout_ms, now_ms) }
    }

    /// With more partitions. That the producer writes shows that it knows who it is.
    #[must_use]
    pub fn with(&self, partitions: &BTreeSet<TopicPartition>, now_ms: i64) -> Self {
        let started_ms = self.started_ms.filter(|_| self.state == TransactionState::Ongoing);
        Self {
            state: TransactionState::Ongoing,
            previous: None,
            partitions: self.partitions.union(partitions).copied().collect(),
            started_ms: started_ms.or(Some(now_ms)),
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    /// Decided, and the epoch stays as it is.
    #[must_use]
    pub fn decided(&self, commit: bool, now_ms: i64) -> Self {
        let state = if commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        Self { state, raised: false, updated_ms: now_ms, ..self.clone() }
    }

    /// Decided, and the epoch rises: whatever still comes with the old one is too late.
    /// `next_id` is for the case that the epochs are used up.
    #[must_use]
    pub fn decided_and_raised(
        &self,
        commit: bool,
        previous: Option<Producer>,
        next_id: Option<ProducerId>,
        now_ms: i64,
    ) -> Self {
        let epoch = ProducerEpoch(self.producer.epoch.0.saturating_add(1));
        let producer = Producer { epoch, ..self.producer };
        Self { producer, previous, next_id, raised: true, ..self.decided(commit, now_ms) }
    }

    /// Every partition has its marker.
    #[must_use]
    pub fn completed(&self, now_ms: i64) -> Self {
        let commit = self.state.decided() == Some(true);
        Self {
            producer: self.holder(),
            next_id: None,
            raised: false,
            state: if commit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort },
            partitions: BTreeSet::new(),
            started_ms: None,
            updated_ms: now_ms,
            ..self.clone()
        }
    }
}
