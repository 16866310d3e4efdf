//! Rules of a transaction coordinator that can be switched off, to prove that the simulation
//! notices their absence. Without the feature `mutations` every rule holds: the question whether
//! one is off is a constant.

/// One rule less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A producer is told that its transaction ended before that is stored.
    AnswerBeforeDecided,
    /// A coordinator that takes over aborts what was decided to be committed.
    TurnDecisions,
    /// A coordinator that takes over does not carry through what was decided.
    DropDecisions,
}

impl super::TransactionSettings {
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn lacks(&self, rule: Mutation) -> bool {
        self.mutation == Some(rule)
    }

    #[cfg(not(any(test, feature = "mutations")))]
    #[inline(always)]
    pub(super) fn lacks(&self, _: Mutation) -> bool {
        false
    }
}
