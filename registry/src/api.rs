//! The trait: ZooKeeper's semantics, nothing else.
//!
//! A [`Registry`] is a long-lived handle on a succession of sessions. When a session expires,
//! the implementation opens a new one by itself, with jittered back-off; its ephemeral nodes
//! are gone then, and whoever needs them registers again on [`SessionState::Connected`] with
//! another [`SessionId`].

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A session's number; equals the `ephemeral_owner` of the nodes that it created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

/// What is known of the connection. Neither `Expired` nor its absence says anything about
/// leading a partition: epochs and versions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No server answers; the session may or may not be alive.
    Disconnected,
    /// Connected under this session.
    Connected(SessionId),
    /// The handle was closed and does not come back.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    Ephemeral,
    /// The path is a prefix; the server appends ten digits.
    EphemeralSequential,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Rises by one with every change of the data.
    pub version: i32,
    /// The transaction that created the node: never repeats.
    pub czxid: i64,
    /// The transaction that last changed the data.
    pub mzxid: i64,
    /// The session that owns an ephemeral node; 0 for a persistent one.
    pub ephemeral_owner: SessionId,
    pub num_children: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The full path, with the sequence number for a sequential node.
    pub path: String,
    pub stat: Stat,
}

/// One operation of a [`Registry::multi`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fails with `BadVersion` or `NoNode`; `None` only asks that the node exists.
    Check {
        path: String,
        version: Option<i32>,
    },
    Create {
        path: String,
        data: Bytes,
        mode: CreateMode,
    },
    Set {
        path: String,
        data: Bytes,
        version: Option<i32>,
    },
    Delete {
        path: String,
        version: Option<i32>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    Checked,
    /// The path, with its sequence number. (No stat: ZooKeeper 3.8.0 returns a wrong one inside
    /// a multi, ZOOKEEPER-4026.)
    Created {
        path: String,
    },
    Set {
        version: i32,
    },
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("no such node: {0}")]
    NoNode(String),
    #[error("the node exists: {0}")]
    NodeExists(String),
    #[error("the node has another version: {0}")]
    BadVersion(String),
    #[error("the node has children: {0}")]
    NotEmpty(String),
    /// An ephemeral node cannot have children.
    #[error("the parent is ephemeral: {0}")]
    NoChildrenForEphemerals(String),
    /// It is unknown whether the write happened: `sync`, read again, decide from what is there.
    #[error("the connection was lost; whether it happened is unknown: {0}")]
    Unknown(String),
    /// It certainly did not happen: the session that it needed is gone.
    #[error("the session expired")]
    SessionExpired,
    #[error("not allowed: {0}")]
    Denied(String),
    #[error("the registry is closed")]
    Closed,
    /// A path or an argument that no server would take.
    #[error("bad argument: {0}")]
    BadArgument(String),
}

impl RegistryError {
    /// Whether the write may have happened.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// A multi did nothing at all, unless `error` says that the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {index:?} of the transaction: {error}")]
pub struct MultiError {
    /// Which operation was refused; none if the whole was lost.
    pub index: Option<usize>,
    pub error: RegistryError,
}

impl From<RegistryError> for MultiError {
    /// The transaction as a whole failed.
    fn from(error: RegistryError) -> Self {
        Self { index: None, error }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Changed,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hint: read the node again.
    Node { path: String, kind: EventKind },
    /// Events may have been lost (a reconnection, a new session, a slow reader): read again
    /// everything that the watch covers. Always the first event of a watch.
    Reset,
}

/// The events of one persistent watch. Bounded: a reader that falls behind gets
/// [`Event::Reset`] instead of the ones that it missed. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    /// How long an event is under way: simulated networks only.
    delay: Duration,
    under_way: VecDeque<(Instant, Event)>,
}

impl Watch {
    #[must_use]
    pub fn new(events: mpsc::Receiver<Event>) -> Self {
        Self::with_delay(events, Duration::ZERO)
    }

    /// A watch whose events arrive `delay` after they happened. The delay counts on the
    /// reader's clock, because simulated machines do not share one.
    #[must_use]
    pub fn with_delay(events: mpsc::Receiver<Event>, delay: Duration) -> Self {
        Self { events, delay, under_way: VecDeque::new() }
    }

    /// The next event; `None` when the registry is closed. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        if self.delay.is_zero() {
            return self.events.recv().await;
        }
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.under_way.push_back((Instant::now() + self.delay, event));
            }
            let Some((due, _)) = self.under_way.front() else {
                let event = self.events.recv().await?;
                self.under_way.push_back((Instant::now() + self.delay, event));
                continue;
            };
            tokio::time::sleep_until(*due).await;
            if let Some((_, event)) = self.under_way.pop_front() {
                return Some(event);
            }
        }
    }
}

/// One ZooKeeper connection. Paths are absolute, below the chroot of the connection string.
///
/// Requests are sent in the order in which these functions are *called* and answered in that
/// order (ZooKeeper's FIFO per session); a caller may pipeline by not awaiting in between.
/// A dropped future may still execute. Every call ends by a deadline of its own (at most the
/// session time-out) with [`RegistryError::Unknown`] for a write.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    async fn create(&self, path: &str, data: Bytes, mode: CreateMode) -> Result<Created, RegistryError>;
    async fn get(&self, path: &str) -> Result<(Bytes, Stat), RegistryError>;
    async fn exists(&self, path: &str) -> Result<Option<Stat>, RegistryError>;
    async fn set(&self, path: &str, data: Bytes, version: Option<i32>) -> Result<Stat, RegistryError>;
    async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), RegistryError>;
    /// The names (not paths) of the children, sorted.
    async fn children(&self, path: &str) -> Result<Vec<String>, RegistryError>;
    /// All or nothing. At most 200 operations and 512 KiB of data (a larger one is refused
    /// here: beyond 1 MB ZooKeeper drops the connection).
    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, MultiError>;
    /// Waits until this connection's server has caught up with its leader.
    async fn sync(&self, path: &str) -> Result<(), RegistryError>;
    /// Watches a node, and with `recursive` everything below it. Survives reconnections and
    /// new sessions (announced by [`Event::Reset`]).
    async fn watch(&self, path: &str, recursive: bool) -> Result<Watch, RegistryError>;
    /// The state of the connection, now and from now on.
    fn session(&self) -> watch::Receiver<SessionState>;
    /// What to keep so that a restarted process may delete its own ghosts: ids of the current session.
    fn session_id(&self) -> Option<SessionId>;
    /// Closes the session, so that its ephemeral nodes vanish at once.
    async fn close(&self);
}
