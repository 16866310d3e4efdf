//! What callers hand to the threads of the log: bounded, and never blocking the caller.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue whose items have a weight: bytes, or one for each.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

struct State<T> {
    items: VecDeque<(T, u64)>,
    weight: u64,
    closed: bool,
}

/// What [`Queue::take`] found.
pub(super) enum Taken<T> {
    Items(Vec<T>),
    /// Nothing came in time.
    Idle,
    Closed,
}

/// Why an item was not taken in.
pub(super) enum Rejected<T> {
    Full(T, u64),
    Closed(T),
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), weight: 0, closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when `limit` or more is waiting already: one item may be larger than the limit.
    pub(super) fn push(&self, item: T, weight: u64, limit: u64) -> Result<(), Rejected<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed(item));
        }
        if state.weight >= limit {
            return Err(Rejected::Full(item, state.weight));
        }
        state.weight += weight;
        state.items.push_back((item, weight));
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The oldest items up to `weight_max`, but at least one; waits at most `patience`.
    pub(super) fn take(&self, weight_max: u64, patience: Duration) -> Taken<T> {
        let state = self.lock();
        let empty = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let waited = self.wake.wait_timeout_while(state, patience, empty);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some((_, weight)) = state.items.front() {
            if !taken.is_empty() && sum + weight > weight_max {
                break;
            }
            let Some((item, weight)) = state.items.pop_front() else { break };
            sum += weight;
            taken.push(item);
        }
        state.weight -= sum;
        match taken.is_empty() {
            false => Taken::Items(taken),
            true if state.closed => Taken::Closed,
            true => Taken::Idle,
        }
    }

    /// Nothing more gets in; what is there can still be taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    pub(super) fn drain(&self) -> Vec<T> {
        let mut state = self.lock();
        state.weight = 0;
        state.items.drain(..).map(|(item, _)| item).collect()
    }
}
