//! What a broker knows of a request besides its content. Every listener builds the same.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use baton_core::connection::ConnectionId;
use tokio::time::Instant;

use crate::admission::ConnectionUse;

/// The longest client id that is kept; more of it is cut off.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// The listener asks for no authentication.
    #[default]
    Anonymous,
    User(Arc<str>),
    /// Another broker or a coordinator of the cluster.
    Cluster,
}

/// The origin and the deadline of one request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub principal: Principal,
    /// What the client calls itself; for logs and quotas, never for permissions.
    pub client_id: Arc<str>,
    /// The configured name of the listener.
    pub listener: Arc<str>,
    pub peer: Option<SocketAddr>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// The trace that this request belongs to.
    pub traceparent: Option<TraceParent>,
    /// What the connection has in the broker.
    pub connection: ConnectionUse,
    /// Which of the broker's connections it came in on, if it came from outside.
    pub connection_id: Option<ConnectionId>,
}

impl RequestContext {
    /// A request of `listener` that has to be answered within `timeout`.
    #[must_use]
    pub fn new(listener: Arc<str>, peer: Option<SocketAddr>, timeout: Duration) -> Self {
        Self {
            principal: Principal::Anonymous,
            client_id: Arc::from(""),
            listener,
            peer,
            deadline: Instant::now() + timeout,
            traceparent: None,
            connection: ConnectionUse::default(),
            connection_id: None,
        }
    }

    #[must_use]
    pub fn connection(mut self, connection: ConnectionUse) -> Self {
        self.connection = connection;
        self
    }

    #[must_use]
    pub fn connection_id(mut self, id: Option<ConnectionId>) -> Self {
        self.connection_id = id;
        self
    }

    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.principal = principal;
        self
    }

    #[must_use]
    pub fn client_id(mut self, client_id: &str) -> Self {
        self.client_id = Arc::from(cut(client_id, CLIENT_ID_BYTES_MAX));
        self
    }

    /// The trace, if the header is well formed; a broken one does not fail a request.
    #[must_use]
    pub fn traceparent(mut self, header: Option<&str>) -> Self {
        self.traceparent = header.and_then(|text| text.parse().ok());
        self
    }

    /// The same connection's next request, with a deadline of its own.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, ..self.clone() }
    }

    /// How long there is left; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The timeout to grant: what was asked for, the default for 0, never more than `max`.
#[must_use]
pub fn granted_timeout(asked_ms: u32, default: Duration, max: Duration) -> Duration {
    match asked_ms {
        0 => default.min(max),
        asked_ms => Duration::from_millis(u64::from(asked_ms)).min(max),
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A `traceparent` header, version 00 (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: u128,
    pub parent: u64,
    pub flags: u8,
}

/// The header does not follow W3C Trace Context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent of W3C Trace Context, version 00")]
pub struct NotATraceParent;

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if !text.bytes().all(lower_hex) {
            return Err(NotATraceParent);
        }
        let parts: Vec<&str> = text.split('-').take(5).collect();
        let &["00", trace, parent, flags] = parts.as_slice() else {
            return Err(NotATraceParent);
        };
        if (trace.len(), parent.len(), flags.len()) != (32, 16, 2) {
            return Err(NotATraceParent);
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0);
        let parent = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0);
        let flags = u8::from_str_radix(flags, 16).ok();
        match (trace, parent, flags) {
            (Some(trace), Some(parent), Some(flags)) => Ok(Self { trace, parent, flags }),
            _ => Err(NotATraceParent),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-00",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_runs_out_and_client_ids_are_cut() {
        let long = "ü".repeat(CLIENT_ID_BYTES_MAX);
        let context = RequestContext::new(Arc::from("grpc"), None, Duration::from_secs(2)).client_id(&long);
        assert_eq!(context.client_id.len(), CLIENT_ID_BYTES_MAX);
        assert_eq!(context.remaining(), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(context.remaining(), Duration::ZERO);
        assert_eq!(context.within(Duration::from_secs(1)).remaining(), Duration::from_secs(1));
    }

    #[test]
    fn timeouts_are_granted_up_to_the_limit() {
        let (default, max) = (Duration::from_secs(30), Duration::from_secs(120));
        assert_eq!(granted_timeout(0, default, max), default);
        assert_eq!(granted_timeout(5, default, max), Duration::from_millis(5));
        assert_eq!(granted_timeout(u32::MAX, default, max), max);
    }
}
