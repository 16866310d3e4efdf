//! Rules of the client that can be switched off, to prove that the simulation notices their
//! absence. Without the feature `mutations` every rule holds: the question whether one is off
//! is a constant.

/// One rule less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A batch of unknown outcome is sent again under another producer id, so that nobody knows
    /// it again.
    NumberRetriesAnew,
    /// What was learned first about who leads is believed for ever.
    KeepMetadata,
    /// What was fetched from a leader that was followed by another is dropped, and not asked
    /// for again.
    SkipAtFailover,
}

impl crate::ClientConfig {
    #[cfg(feature = "mutations")]
    pub(crate) fn lacks(&self, rule: Mutation) -> bool {
        self.mutation == Some(rule)
    }

    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    pub(crate) fn lacks(&self, _: Mutation) -> bool {
        false
    }
}
