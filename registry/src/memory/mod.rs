//! The registry in memory: the embedded default, and ZooKeeper's stand-in for simulation.
//!
//! A [`MemoryEnsemble`] is the server, a [`MemoryRegistry`] one client's handle. With a
//! directory, persistent nodes, their versions and the counters are durable before an answer;
//! ephemeral nodes end with the process. Nothing here owns a thread or a task: requests run in
//! the caller, fsync included, and time passes only by [`MemoryEnsemble::run_clock`].
//!
//! A handle that is dropped without [`Registry::close`](crate::Registry::close) looks like a crash: its session ends
//! when its time is over, provided that a clock runs.

mod fault;
mod handle;
mod journal;
mod lag;
mod server;
mod tree;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use fault::{Auditor, Change, Fate, Loss, Network, Perfect, Request};
pub use handle::MemoryRegistry;
pub use journal::JournalError;

use self::journal::Journal;
use self::server::Server;
use self::tree::Tree;
use crate::api::SessionId;

/// How often [`MemoryEnsemble::run_clock`] looks, if the caller has no better idea.
pub const CLOCK_PERIOD: Duration = Duration::from_millis(100);

/// The session time-out of a handle, unless told otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// The server. Clones share it.
#[derive(Clone)]
pub struct MemoryEnsemble {
    server: Arc<Mutex<Server>>,
    network: Arc<dyn Network>,
}

impl Default for MemoryEnsemble {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryEnsemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryEnsemble").finish_non_exhaustive()
    }
}

impl MemoryEnsemble {
    /// Nothing outlives it.
    #[must_use]
    pub fn new() -> Self {
        Self::with_network(Perfect)
    }

    /// Nothing outlives it, and every request passes through `network`.
    #[must_use]
    pub fn with_network(network: impl Network) -> Self {
        Self { server: Arc::default(), network: Arc::new(network) }
    }

    /// Persistent nodes live in `dir`, which one process at a time may use.
    ///
    /// # Errors
    /// The directory cannot be used: in use, unreadable, damaged, or written by a newer version.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let (journal, restored) = Journal::open(dir)?;
        let tree = Tree::restored(restored.nodes, restored.bounds.zxid, restored.bounds.sequence);
        let server = Server::restored(tree, journal);
        Ok(Self { server: Arc::new(Mutex::new(server)), network: Arc::new(Perfect) })
    }

    /// A handle with a session of its own. The name is for [`Network`] and the functions below.
    #[must_use]
    pub fn connect(&self, name: &str) -> MemoryRegistry {
        self.connect_with(name, SESSION_TIMEOUT)
    }

    /// As [`Self::connect`], with a session time-out.
    #[must_use]
    pub fn connect_with(&self, name: &str, session_timeout: Duration) -> MemoryRegistry {
        let (client, states) = self.lock().connect(name, session_timeout);
        MemoryRegistry::new(self.clone(), client, name, session_timeout, states)
    }

    /// Lets time pass for ever: sessions of clients that crashed or are cut off end when their
    /// time is over. Run it once, on whichever runtime stands for the server.
    pub async fn run_clock(self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            self.tick(period);
        }
    }

    /// Lets time pass by hand.
    pub fn tick(&self, elapsed: Duration) {
        self.lock().tick(elapsed);
    }

    /// Cuts the network between the server and the clients of this name, or mends it.
    pub fn set_linked(&self, name: &str, linked: bool) {
        let mut server = self.lock();
        for client in server.clients_named(name) {
            server.set_linked(client, linked);
        }
    }

    /// Lets nothing pass between the server and the clients of this name, or mends it. Unlike
    /// [`Self::set_linked`] nobody is told: requests wait, and the session runs out.
    pub fn set_silent(&self, name: &str, silent: bool) {
        let mut server = self.lock();
        for client in server.clients_named(name) {
            server.set_silent(client, silent);
        }
    }

    /// The server of the clients of this name falls behind: they read what was true at this
    /// moment, and hear of nothing newer, until they write or sync, or until it is mended.
    pub fn set_lagging(&self, name: &str, lagging: bool) {
        let mut server = self.lock();
        for client in server.clients_named(name) {
            server.set_lagging(client, lagging);
        }
    }

    /// Has every transaction shown to `auditor` from now on.
    pub fn audit(&self, auditor: impl Auditor) {
        self.lock().set_auditor(Arc::new(auditor));
    }

    /// Breaks the connections of this name; they come back at once, with the same sessions.
    pub fn blip(&self, name: &str) {
        let mut server = self.lock();
        for client in server.clients_named(name) {
            server.blip(client);
        }
    }

    /// Ends a session, whether its client is reachable or not.
    pub fn expire(&self, session: SessionId) {
        self.lock().expire(session);
    }

    /// Ends the sessions of the clients of this name.
    pub fn expire_client(&self, name: &str) {
        let mut server = self.lock();
        for client in server.clients_named(name) {
            if let Some(session) = server.session_of(client) {
                server.expire(session);
            }
        }
    }

    /// The service goes away; nodes and sessions stay as they are.
    pub fn stop(&self) {
        self.lock().set_stopped(true);
    }

    /// The service is back; every session has its whole time again.
    pub fn start(&self) {
        self.lock().set_stopped(false);
    }

    /// Every node as text, for comparing two runs of a simulation.
    #[must_use]
    pub fn dump(&self) -> String {
        self.lock().tree().dump()
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        // No code panics halfway through a change; if it did, the tree would still be whole.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
