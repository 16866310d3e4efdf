//! Rules of a coordinator that can be switched off, to prove that the simulation notices their
//! absence. Without the feature `mutations` every rule holds, and this takes no room.

use baton_registry::recipes::Fence;

/// Which rules are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    #[cfg(feature = "mutations")]
    pub fence: Option<baton_registry::recipes::FenceMutation>,
}

impl Mutations {
    #[cfg(feature = "mutations")]
    pub(super) fn weaken(self, fence: Fence) -> Fence {
        Fence { mutation: self.fence, ..fence }
    }

    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    pub(super) fn weaken(self, fence: Fence) -> Fence {
        fence
    }
}
