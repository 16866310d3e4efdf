//! Which coordinators sit on this broker, and how they are reached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::transaction::TransactionCoordinator;
use baton_core::transaction::message::{Answer, Input, RequestId};
use baton_core::{Error, ErrorCode};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for one coordinator; beyond it clients are told to ask again.
const QUEUE: usize = 4_096;

/// Makes the input out of the request's number.
pub(super) type MakeInput = Box<dyn FnOnce(RequestId) -> Input + Send>;

/// Looks at a coordinator, at its time in ms since 1970.
pub(super) type Look = Box<dyn FnOnce(&TransactionCoordinator, i64) + Send>;

/// What a coordinator is asked.
pub(super) enum Ask {
    Change {
        make: MakeInput,
        reply: oneshot::Sender<Answer>,
    },
    /// Look at it, at its time; the closure answers by itself.
    Look(Look),
}

/// The ways to the coordinators by the number of the partition; none while one reads its state.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<u32, Option<mpsc::Sender<Ask>>>>>);

impl Seats {
    /// A coordinator reads its state. It leaves when what is returned is dropped.
    pub(super) fn take(&self, partition: u32) -> SeatGuard {
        self.lock().insert(partition, None);
        SeatGuard { seats: self.clone(), partition }
    }

    pub(super) fn find(&self, partition: u32) -> Result<mpsc::Sender<Ask>, Error> {
        match self.lock().get(&partition) {
            None => Err(not_coordinator()),
            Some(Some(inbox)) => Ok(inbox.clone()),
            Some(None) => {
                Err(Error::new(ErrorCode::CoordinatorLoading, "the coordinator of the transaction reads its state"))
            }
        }
    }

    /// Those that are here, also while they read.
    pub(super) fn partitions(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    /// The lock guards a map that no panic can leave half-written.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Option<mpsc::Sender<Ask>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A coordinator's place; nobody asks it any more once this is gone.
pub(super) struct SeatGuard {
    seats: Seats,
    partition: u32,
}

impl SeatGuard {
    /// It has read its state, and takes questions from now on.
    pub(super) fn open(&self) -> mpsc::Receiver<Ask> {
        let (inbox, asked) = mpsc::channel(QUEUE);
        self.seats.lock().insert(self.partition, Some(inbox));
        asked
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.partition);
    }
}

/// What whoever asks the wrong broker hears.
pub(super) fn not_coordinator() -> Error {
    Error::new(ErrorCode::NotCoordinator, "this broker does not coordinate the transactional id")
}
