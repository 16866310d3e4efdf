//! What a simulation may do to a request on its way.

use std::time::Duration;

use bytes::Bytes;

use crate::api::{EventKind, Stat};

/// One request, as the network sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The name that the handle was connected under.
    pub client: &'a str,
    /// Counts the handle's requests from 0.
    pub number: u64,
    pub path: &'a str,
    pub is_write: bool,
}

/// What is lost with the connection, if it breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    #[default]
    None,
    /// The server never sees the request; the client cannot know.
    Request,
    /// The server does it, but its answer is lost; the client cannot know.
    Answer,
}

/// How one request fares. A loss breaks the connection: every later request in flight is lost
/// with it, and the handle reconnects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Until the server has it.
    pub request_latency: Duration,
    /// Until the client has the answer.
    pub answer_latency: Duration,
    pub loss: Loss,
}

/// Decides the fate of every request. Deterministic if it draws from a seeded generator:
/// requests come in the order of the calls. It is asked while the server is locked, so it must
/// not call the ensemble.
pub trait Network: Send + Sync + 'static {
    fn fate(&self, request: Request<'_>) -> Fate;

    /// How long a watch's event is under way.
    fn event_latency(&self, client: &str) -> Duration {
        let _ = client;
        Duration::ZERO
    }
}

/// Everything arrives at once: the embedded default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perfect;

impl Network for Perfect {
    fn fate(&self, _: Request<'_>) -> Fate {
        Fate::default()
    }
}

/// One change of a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub kind: EventKind,
    /// The node as the transaction left it; empty if it is gone.
    pub data: Bytes,
    pub stat: Stat,
}

/// Sees every transaction that changes something, in the order in which they take effect. It
/// is called while the server is locked, so it must not call the ensemble.
pub trait Auditor: Send + Sync + 'static {
    /// `by` is the name of the handle, or none when a session ended.
    fn committed(&self, by: Option<&str>, changes: &[Change]);
}
