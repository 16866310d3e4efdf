//! The rules of the protocol that can be switched off, to prove that tests and the model would
//! notice their absence. Without the feature `mutations` every rule holds: the question
//! whether one is off is a constant.

/// One rule less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mutation {
    /// A follower cuts its log at its own high watermark (KIP-101).
    TruncateToHighWatermark,
    /// The search for the common prefix goes back one epoch only (KIP-279).
    SingleStepSearch,
    /// An acknowledgement counts whatever its epoch.
    AckWithoutEpoch,
    /// An acknowledgement counts whatever its flow.
    AckWithoutFlow,
    /// An acknowledgement counts though its flow was closed.
    AckWhileClosed,
    /// An acknowledgement counts though it covers what was never sent.
    AckBeyondSent,
    /// An acknowledgement counts whatever the disk or generation it comes from.
    AckFromAnotherDisk,
    /// An acknowledgement counts whatever the process it comes from.
    AckFromAnotherIncarnation,
    /// What a follower acknowledged before its last Hello goes on counting.
    AckOutlivesHello,
    /// What a copy acknowledged counts for the one that the same broker gets later.
    AckOutlivesRemoval,
    /// A leader lets followers of other epochs in.
    HelloWithoutEpoch,
    /// A Hello that comes late closes the flow of a later one.
    HelloOvertaken,
    /// A member that lacks what it had acknowledged is let in as what it was.
    HelloOfDamagedMember,
    /// A follower takes the answer of a leader of another epoch.
    ReplyWithoutEpoch,
    /// A follower takes the answer to an earlier Hello.
    ReplyWithoutFlow,
    /// A follower appends whatever it gets from its leader, wherever it belongs.
    AppendAnywhere,
    /// A follower appends what was sent in another epoch.
    AppendWithoutEpoch,
    /// A follower appends what was sent in an earlier flow.
    AppendWithoutFlow,
    /// A follower appends after a record of another epoch than its leader has there.
    AppendWithoutPreviousEpoch,
    /// A follower joins though another process than the one that greeted is alive.
    JoinOfAnotherProcess,
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
    /// A leader counts what its own disk does not have yet.
    CommitBeforeFsync,
    /// A follower does not wait for the highest epoch to be durable.
    ForgetHighestEpoch,
    /// A leader does not wait for its own epoch to be durable.
    CommitBeforeEpochSaved,
    /// A leader answers followers and changes the in-sync replicas before its own epoch is durable.
    ServeBeforeEpochSaved,
    /// A state that was read earlier replaces a later one.
    StateGoesBack,
    /// A restarted process goes on leading.
    ResumeLeadership,
    /// A leader that gave up an epoch leads in it again.
    ResumeEpoch,
    /// A follower joins though its log begins below what clients were told.
    JoinBelowLogStart,
    /// Clients are told of a log start that only the leader has.
    PromiseLogStartEarly,
    /// A copy that is filled anew forgets the producers whose batches are gone.
    ForgetProducersBelowStart,
}

/// Which rules are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg(any(test, feature = "mutations"))]
pub struct Mutations(u64);

#[cfg(any(test, feature = "mutations"))]
impl Mutations {
    #[must_use]
    pub fn only(mutation: Mutation) -> Self {
        Self::default().and(mutation)
    }

    /// One more: a rule that others back up is missed only when they are gone, too.
    #[must_use]
    pub fn and(self, mutation: Mutation) -> Self {
        Self(self.0 | 1 << mutation as u8)
    }

    #[must_use]
    pub fn has(self, mutation: Mutation) -> bool {
        self.0 & 1 << mutation as u8 != 0
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
