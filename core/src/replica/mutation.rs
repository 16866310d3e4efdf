//! The rules of the protocol that can be switched off, to prove that tests and the model would
//! notice their absence. Without the feature `mutations` every rule holds: the question
//! whether one is off is a constant.

/// One rule less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A follower cuts its log at its own high watermark (KIP-101).
    TruncateToHighWatermark,
    /// The search for the common prefix goes back one epoch only (KIP-279).
    SingleStepSearch,
    /// An acknowledgement counts whatever its epoch and flow.
    AckWithoutEpoch,
    /// An acknowledgement counts whatever the disk or generation it comes from.
    AckFromAnotherDisk,
    /// An acknowledgement counts whatever the process it comes from.
    AckFromAnotherIncarnation,
    /// A leader lets followers of other epochs in, and they take its answer.
    HelloWithoutEpoch,
    /// A follower appends whatever it gets from its leader, wherever it belongs.
    AppendAnywhere,
    /// A follower joins at the high watermark, though the epoch began above it.
    ExpandBeforeEpochStart,
    /// A follower joins only after the high watermark reached the epoch's start.
    ExpandAfterEpochStart,
    /// A removed member stops counting before the registry confirms it.
    ShrinkBeforeConfirmation,
    /// A member counts only after the registry confirmed it.
    IgnorePendingExpansion,
    /// A write refused after one of unknown outcome is taken as the last word on both.
    ForgetUnknownWrite,
    /// The state is written whatever its version.
    UnversionedWrite,
    /// The in-sync replicas shrink below `min.insync.replicas`.
    ShrinkBelowMin,
    /// Records commit with fewer in-sync replicas than `min.insync.replicas`.
    CommitBelowMin,
    /// A candidate outside the in-sync replicas elects itself.
    WinnerOutsideIsr,
    /// A candidate that may not lead stays in the queue.
    IneligibleStays,
    /// A follower acknowledges what is not durable.
    AckBeforeFsync,
    /// Nobody waits for the highest epoch to be durable.
    ForgetHighestEpoch,
    /// A restarted process goes on leading.
    ResumeLeadership,
    /// A leader that gave up an epoch leads in it again.
    ResumeEpoch,
}

/// Which rules are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg(any(test, feature = "mutations"))]
pub struct Mutations(Option<Mutation>);

#[cfg(any(test, feature = "mutations"))]
impl Mutations {
    #[must_use]
    pub fn only(mutation: Mutation) -> Self {
        Self(Some(mutation))
    }

    #[must_use]
    pub fn has(self, mutation: Mutation) -> bool {
        self.0 == Some(mutation)
    }
}

impl super::ReplicaConfig {
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn lacks(&self, rule: Mutation) -> bool {
        self.mutations.has(rule)
    }

    #[cfg(not(any(test, feature = "mutations")))]
    #[inline(always)]
    pub(super) fn lacks(&self, _: Mutation) -> bool {
        false
    }
}
