//! Which coordinators sit on this broker, and how they are reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::group::GroupCoordinator;
use baton_core::group::message::{Answer, Input, RequestId};
use baton_core::transaction::Producer;
use baton_core::{Error, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::shard::InTransaction;

/// Questions that wait for one coordinator; beyond it clients are told to ask again.
const QUEUE: usize = 4_096;

/// Makes the input out of the request's number and the coordinator's time.
pub(super) type MakeInput = Box<dyn FnOnce(RequestId, i64) -> Input + Send>;

/// What a coordinator is asked.
pub(super) enum Ask {
    Change {
        make: MakeInput,
        /// Offsets come as part of this transaction.
        transaction: Option<(Producer, InTransaction)>,
        reply: oneshot::Sender<Answer>,
    },
    /// Look at it; the closure answers by itself.
    Look(Box<dyn FnOnce(&GroupCoordinator) + Send>),
    /// Something that nobody waits for.
    Do(Input),
}

/// How much a coordinator has.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) groups: AtomicU64,
    pub(super) members: AtomicU64,
}

struct Seat {
    /// None while it reads its state.
    inbox: Option<mpsc::Sender<Ask>>,
    counts: Arc<Counts>,
}

/// By the number of the partition. Cloning it is cheap.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<u32, Seat>>>);

impl Seats {
    /// A coordinator reads its state. It leaves when what is returned is dropped.
    pub(super) fn take(&self, partition: u32) -> SeatGuard {
        self.lock().insert(partition, Seat { inbox: None, counts: Arc::default() });
        SeatGuard { seats: self.clone(), partition }
    }

    /// The way to a coordinator.
    pub(super) fn find(&self, partition: u32) -> Result<mpsc::Sender<Ask>, Error> {
        match self.lock().get(&partition) {
            None => Err(not_coordinator()),
            Some(Seat { inbox: Some(inbox), .. }) => Ok(inbox.clone()),
            Some(Seat { inbox: None, .. }) => {
                Err(Error::new(ErrorCode::CoordinatorLoading, "the coordinator of the group reads its state"))
            }
        }
    }

    /// Those that are here, also while they read.
    pub(super) fn partitions(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    /// Groups and members of all of them.
    pub(super) fn totals(&self) -> (u64, u64) {
        let seats = self.lock();
        let sum = |of: fn(&Counts) -> &AtomicU64| seats.values().map(|s| of(&s.counts).load(Ordering::Relaxed)).sum();
        (sum(|counts| &counts.groups), sum(|counts| &counts.members))
    }

    /// The lock guards a map that no panic can leave half-written.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Seat>> {
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
    pub(super) fn open(&self) -> (mpsc::Receiver<Ask>, Arc<Counts>) {
        let (inbox, asked) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let seat = Seat { inbox: Some(inbox), counts: Arc::clone(&counts) };
        self.seats.lock().insert(self.partition, seat);
        (asked, counts)
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.partition);
    }
}

/// What whoever asks the wrong broker hears.
pub(super) fn not_coordinator() -> Error {
    Error::new(ErrorCode::NotCoordinator, "this broker does not coordinate the group")
}
