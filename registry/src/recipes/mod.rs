//! What Baton does with a registry. Everything here works on `dyn Registry`.
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | the nodes that must exist before anything else |
//! | [`cluster`] | who this cluster is |
//! | [`membership`] | a broker's id, its registration, and who else is alive |
//! | [`candidates`] | the queue of replicas that could lead a partition |
//! | [`partition_state`] | Elect, Change the ISR, Resign, Reassign: guarded versioned writes |
//! | [`topics`] | topics with intents that the next coordinator finishes |
//! | [`tombstones`] | which deleted topics' data may be removed |
//! | [`coordinator_election`] | who coordinates, and the fence of its writes |
//! | [`absences`] | since when brokers are away |
//! | [`producer_ids`] | blocks of producer ids |

pub mod absences;
pub mod candidates;
pub mod cluster;
pub mod coordinator_election;
pub mod layout;
pub mod membership;
pub mod partition_state;
pub mod producer_ids;
pub mod tombstones;
pub mod topics;

use crate::api::{MultiError, Op, RegistryError};
use crate::znode::ZnodeError;
use crate::znode::coordinator::EPOCH_PATH;

/// Reading or writing failed; what was meant is in the recipe's own documentation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    /// Another coordinator was elected meanwhile.
    #[error("no longer the elected coordinator")]
    Fenced,
    /// Somebody else wrote first, again and again.
    #[error("too many concurrent changes of {0}")]
    Contended(String),
}

impl From<MultiError> for RecipeError {
    fn from(error: MultiError) -> Self {
        Self::Registry(error.error)
    }
}

impl RecipeError {
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Registry(error) if error.outcome_unknown())
    }
}

/// The version of `/coordinator/epoch` with which a coordinator was elected. It is the first
/// operation of every write of a coordinator (KAFKA-6082).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub version: i32,
    #[cfg(feature = "mutations")]
    pub mutation: Option<FenceMutation>,
}

/// A rule of the fence that is switched off, to prove that the simulation notices its absence.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceMutation {
    /// It only asks that there was ever a coordinator.
    Open,
    /// States are written whatever their version is.
    UnversionedStates,
}

impl Fence {
    #[must_use]
    pub fn new(version: i32) -> Self {
        Self {
            version,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }

    #[must_use]
    pub fn op(self) -> Op {
        let version = Some(self.version);
        #[cfg(feature = "mutations")]
        let version = version.filter(|_| self.mutation != Some(FenceMutation::Open));
        Op::Check { path: EPOCH_PATH.to_owned(), version }
    }

    /// The version that a state has to have when it is written under this fence.
    pub(crate) fn state_version(self, known: i32) -> i32 {
        #[cfg(feature = "mutations")]
        if self.mutation == Some(FenceMutation::UnversionedStates) {
            // ZooKeeper's word for a write that checks no version.
            return -1;
        }
        known
    }
}

/// Tells a fenced write from others that failed. The fence is the first operation.
fn fenced(error: MultiError) -> RecipeError {
    match error {
        MultiError { index: Some(0), .. } => RecipeError::Fenced,
        other => other.into(),
    }
}

/// One fenced write that must not change anything else than planned.
async fn write_fenced(registry: &dyn crate::Registry, fence: Fence, op: Op) -> Result<(), RecipeError> {
    registry.multi(vec![fence.op(), op]).await.map(|_| ()).map_err(fenced)
}
