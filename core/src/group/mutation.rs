//! Rules of a group coordinator that can be switched off, to prove that the simulation notices
//! their absence. Without the feature `mutations` every rule holds: the question whether one is
//! off is a constant.

/// One rule less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A member commits in whatever generation it believes to be.
    CommitOfAnyGeneration,
    /// A coordinator that takes over reads the members, and not what they committed.
    ForgetOffsets,
}

impl super::GroupSettings {
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
