//! Several sessions, so that none owns too many ephemeral nodes.
//!
//! ZooKeeper deletes all ephemeral nodes of a session in one transaction; when their paths
//! exceed about 1 MB the whole ensemble fails to restart (ZOOKEEPER-4306; 26,000 nodes of 88
//! bytes killed two of three servers). So a session holds at most 400 KiB of paths.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::{Registry, RegistryError, SessionId};

/// Path bytes of ephemeral nodes that one session may own.
pub const EPHEMERAL_BYTES_MAX: usize = 400 * 1024;

/// Opens the session with this number (from 0).
pub type OpenSession = dyn Fn(usize) -> Result<Arc<dyn Registry>, RegistryError> + Send + Sync;

#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("all {sessions} sessions hold as many ephemeral nodes as ZooKeeper bears")]
    Full { sessions: usize },
    #[error(transparent)]
    Open(#[from] RegistryError),
}

struct Slot {
    registry: Arc<dyn Registry>,
    bytes: usize,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    /// Key → (slot, bytes).
    keys: BTreeMap<String, (usize, usize)>,
}

/// Hands out sessions by key. The first session also serves everything without ephemerals.
pub struct SessionPool {
    open: Box<OpenSession>,
    sessions_max: usize,
    bytes_max: usize,
    first: Arc<dyn Registry>,
    slots: Mutex<Slots>,
}

impl SessionPool {
    /// A pool that opens further sessions when it needs them, `sessions_max` in all.
    ///
    /// # Errors
    /// The first session cannot be opened.
    pub fn new(sessions_max: usize, open: Box<OpenSession>) -> Result<Self, RegistryError> {
        Self::with_bytes_max(sessions_max, EPHEMERAL_BYTES_MAX, open)
    }

    /// As [`Self::new`] with another limit per session.
    ///
    /// # Errors
    /// The first session cannot be opened.
    pub fn with_bytes_max(
        sessions_max: usize,
        bytes_max: usize,
        open: Box<OpenSession>,
    ) -> Result<Self, RegistryError> {
        let first = open(0)?;
        let slots = Slots { slots: vec![Slot { registry: first.clone(), bytes: 0 }], keys: BTreeMap::new() };
        Ok(Self { open, sessions_max, bytes_max, first, slots: Mutex::new(slots) })
    }

    #[must_use]
    pub fn first(&self) -> Arc<dyn Registry> {
        self.first.clone()
    }

    /// The session for the ephemeral nodes of `key`, whose paths take `bytes`. The same key
    /// gets the same session until it is released.
    ///
    /// # Errors
    /// No session has room and no further one may be opened.
    pub fn reserve(&self, key: &str, bytes: usize) -> Result<Arc<dyn Registry>, PoolError> {
        let mut slots = self.lock();
        if let Some((slot, _)) = slots.keys.get(key) {
            return Ok(slots.slots[*slot].registry.clone());
        }
        let room = |slot: &Slot| slot.bytes + bytes <= self.bytes_max;
        let chosen = match slots.slots.iter().position(room) {
            Some(slot) => slot,
            None if slots.slots.len() >= self.sessions_max || bytes > self.bytes_max => {
                return Err(PoolError::Full { sessions: slots.slots.len() });
            }
            None => {
                let registry = (self.open)(slots.slots.len())?;
                slots.slots.push(Slot { registry, bytes: 0 });
                slots.slots.len() - 1
            }
        };
        slots.keys.insert(key.to_owned(), (chosen, bytes));
        slots.slots[chosen].bytes += bytes;
        Ok(slots.slots[chosen].registry.clone())
    }

    /// The nodes of `key` are gone.
    pub fn release(&self, key: &str) {
        let mut slots = self.lock();
        if let Some((slot, bytes)) = slots.keys.remove(key) {
            slots.slots[slot].bytes -= bytes;
        }
    }

    /// Every open session, the first one first.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<dyn Registry>> {
        self.lock().slots.iter().map(|slot| slot.registry.clone()).collect()
    }

    /// What to remember, so that a restarted process may delete its ghosts.
    #[must_use]
    pub fn session_ids(&self) -> Vec<SessionId> {
        self.sessions().iter().filter_map(|registry| registry.session_id()).collect()
    }

    pub async fn close(&self) {
        futures::future::join_all(self.sessions().iter().map(|registry| registry.close())).await;
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SessionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionPool").field("sessions", &self.session_ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryEnsemble;

    #[tokio::test]
    async fn sessions_fill_up_one_after_another_and_then_it_says_so() {
        let ensemble = MemoryEnsemble::new();
        let open = move |n: usize| Ok(Arc::new(ensemble.connect(&n.to_string())) as Arc<dyn Registry>);
        let pool = SessionPool::with_bytes_max(2, 100, Box::new(open)).unwrap();
        let session = |key: &str| pool.reserve(key, 60).map(|r| r.session_id().unwrap());
        let (a, b) = (session("a").unwrap(), session("b").unwrap());
        assert_ne!(a, b);
        assert_eq!(session("a").unwrap(), a, "the same key keeps its session");
        assert!(matches!(session("c"), Err(PoolError::Full { sessions: 2 })));
        pool.release("a");
        assert_eq!(session("c").unwrap(), a);
        assert!(matches!(pool.reserve("huge", 101), Err(PoolError::Full { .. })));
        pool.close().await;
        assert_eq!(pool.session_ids(), []);
    }
}
