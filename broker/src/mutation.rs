//! Rules of a broker that can be switched off, to prove that the simulation notices their
//! absence. Without the feature `mutations` every rule holds: the question whether one is off
//! is a constant, and what is configured takes no room.

/// One rule less. Each is a mistake that some real broker, or a draft of this one, has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// Records count as durable when they were handed to the log.
    AcknowledgeBeforeFsync,
    /// A failed fsync is taken for a done one (the fsync errors of PostgreSQL, 2018).
    IgnoreFsyncError,
    /// A write that a full disk refused is taken for a done one.
    IgnoreFullDisk,
    /// The highest epoch counts as saved when it was handed to the log.
    EpochSavedEarly,
    /// Readers see what is not committed yet.
    ReadAboveHighWatermark,
    /// Readers see one batch beyond the high watermark.
    FetchOffByOne,
    /// A restarted broker does not rebuild the state of idempotent producers.
    ProducersLostAtRestart,
    /// The state of idempotent producers is empty after a truncation.
    ProducersLostAtTruncation,
    /// A copy that was found damaged is opened as if it were whole: the witness is not checked.
    BelieveDamage,
    /// The data of a deleted topic is kept for ever.
    IgnoreTombstone,
    /// Events that may have been missed while the registry was away are not made up for.
    LoseWatch,
    /// An election of unknown outcome is taken for a won one.
    BelieveUnknownElection,
    /// A change of the in-sync replicas of unknown outcome is taken for one that did not happen.
    ForgetUnknownWrite,
    /// A replica that may not lead leaves its candidate in the queue.
    KeepCandidate,
    /// The copy of a broker that left the assignment goes before it left the in-sync replicas.
    CloseWhileInSync,
    /// The copy of a topic that the registry does not list is deleted: no tombstone is asked for.
    DeleteUnlisted,
}

/// Which rules are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    #[cfg(feature = "mutations")]
    own: Option<Mutation>,
    /// Those of replication and election.
    #[cfg(feature = "mutations")]
    pub core: baton_core::replica::Mutations,
    /// That of the coordinators of groups.
    #[cfg(feature = "mutations")]
    pub(crate) group: Option<baton_core::group::Mutation>,
    /// That of the coordinators of transactions.
    #[cfg(feature = "mutations")]
    pub(crate) transaction: Option<baton_core::transaction::Mutation>,
}

#[cfg(feature = "mutations")]
impl Mutations {
    #[must_use]
    pub fn only(mutation: Mutation) -> Self {
        Self { own: Some(mutation), ..Self::default() }
    }

    #[must_use]
    pub fn of_group(mutation: baton_core::group::Mutation) -> Self {
        Self { group: Some(mutation), ..Self::default() }
    }

    #[must_use]
    pub fn of_transaction(mutation: baton_core::transaction::Mutation) -> Self {
        Self { transaction: Some(mutation), ..Self::default() }
    }

    #[must_use]
    pub fn of_core(mutation: baton_core::replica::Mutation) -> Self {
        Self { core: baton_core::replica::Mutations::only(mutation), ..Self::default() }
    }

    pub(crate) fn lacks(self, rule: Mutation) -> bool {
        self.own == Some(rule)
    }
}

#[cfg(not(feature = "mutations"))]
impl Mutations {
    #[inline(always)]
    pub(crate) fn lacks(self, _: Mutation) -> bool {
        false
    }
}
