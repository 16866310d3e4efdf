//! Accepting for ever: errors are survived with a back-off, connections are counted and
//! limited, and one that says nothing is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::{Connection, Incoming};
use crate::metrics::ListenerMetrics;

/// The client's preface of HTTP/2 (RFC 9113, 3.4): its length.
pub const HTTP2_PREFACE_BYTES: usize = 24;

const BACK_OFF_MIN: Duration = Duration::from_millis(5);
/// How often it is said that clients are turned away.
const SAY_EVERY: Duration = Duration::from_secs(10);

const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What one listener lets in.
#[derive(Clone)]
pub struct AcceptLimits {
    /// Open connections; share it to bound several listeners together.
    pub connections: Arc<Semaphore>,
    /// A connection that has not sent so many bytes within `first_bytes_within` fails: a
    /// half-open one must not hold a slot. What comes later is the protocol's business
    /// (keep-alive pings, header timeouts).
    pub first_bytes: usize,
    pub first_bytes_within: Duration,
    pub metrics: ListenerMetrics,
}

/// Hands out the connections of one listener.
pub struct Acceptor {
    incoming: Box<dyn Incoming>,
    limits: AcceptLimits,
    back_off: Duration,
    /// When it was last said that there are too many.
    said: Option<Instant>,
}

impl Acceptor {
    #[must_use]
    pub fn new(incoming: Box<dyn Incoming>, limits: AcceptLimits) -> Self {
        Self { incoming, limits, back_off: BACK_OFF_MIN, said: None }
    }

    /// The bound address, with the real port.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.incoming.local_addr()
    }

    /// The next connection. Above the limit a connection is accepted and closed at once, so
    /// that its client sees an end instead of a hang; failed accepts (out of descriptors, the
    /// peer gone) are tried again after 5 ms to 1 s.
    pub async fn accept(&mut self) -> Connection {
        loop {
            match self.incoming.accept().await {
                Ok(connection) => {
                    self.back_off = BACK_OFF_MIN;
                    if let Some(connection) = self.admit(connection) {
                        return connection;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?self.back_off, "a connection could not be accepted");
                    tokio::time::sleep(self.back_off).await;
                    self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// The same as a stream that never ends, as tonic's server takes it.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        stream::unfold(self, |mut acceptor| async move {
            let connection = acceptor.accept().await;
            Some((Ok(connection), acceptor))
        })
    }

    fn admit(&mut self, connection: Connection) -> Option<Connection> {
        let Ok(slot) = Arc::clone(&self.limits.connections).try_acquire_owned() else {
            self.limits.metrics.refused();
            let now = Instant::now();
            if self.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
                self.said = Some(now);
                tracing::warn!(
                    peer = ?connection.remote_addr(),
                    "connections are turned away: so many are open as `limits.connections` (`peer_connections`, `http_connections`) allows"
                );
            }
            return None;
        };
        self.limits.metrics.opened();
        Some(connection.admit(Admitted {
            missing: self.limits.first_bytes,
            deadline: Some(Box::pin(tokio::time::sleep(self.limits.first_bytes_within))),
            metrics: self.limits.metrics.clone(),
            _slot: slot,
        }))
    }
}

/// What an accepted connection carries: its slot, and the deadline of its first bytes.
pub(super) struct Admitted {
    missing: usize,
    /// None once the first bytes are there.
    deadline: Option<Pin<Box<Sleep>>>,
    metrics: ListenerMetrics,
    _slot: OwnedSemaphorePermit,
}

impl Admitted {
    /// Turns a read into an error when the first bytes are late.
    pub(super) fn watch_first_bytes(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<()>>,
        read: usize,
    ) -> Poll<io::Result<()>> {
        let Some(deadline) = &mut self.deadline else {
            return polled;
        };
        self.missing = self.missing.saturating_sub(read);
        if self.missing == 0 {
            self.deadline = None;
            return polled;
        }
        // A client that sends one byte a second is as late as one that sends nothing.
        match deadline.as_mut().poll(cx) {
            Poll::Pending => polled,
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection said nothing for too long")))
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.metrics.closed();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Network, TcpNetwork};
    use super::*;
    use async_trait::async_trait;
    use std::collections::VecDeque;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const SOON: Duration = Duration::from_secs(10);

    fn limits(connections: usize, first_bytes: usize) -> AcceptLimits {
        AcceptLimits {
            connections: Arc::new(Semaphore::new(connections)),
            first_bytes,
            first_bytes_within: Duration::from_millis(500),
            metrics: ListenerMetrics::default(),
        }
    }

    /// Fails as often as told, then accepts what it was given.
    struct Scripted(VecDeque<io::Result<DuplexStream>>);

    #[async_trait]
    impl Incoming for Scripted {
        async fn accept(&mut self) -> io::Result<Connection> {
            match self.0.pop_front() {
                Some(next) => next.map(|io| Connection::new(io, None, None)),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accept_survives_running_out_of_descriptors() {
        let (near, _far) = tokio::io::duplex(64);
        let mut script: VecDeque<io::Result<DuplexStream>> = VecDeque::new();
        for _ in 0..20 {
            script.push_back(Err(io::Error::from_raw_os_error(24))); // EMFILE
        }
        script.push_back(Ok(near));
        let mut acceptor = Acceptor::new(Box::new(Scripted(script)), limits(1, 1));
        let started = tokio::time::Instant::now();
        acceptor.accept().await;
        let waited = started.elapsed();
        // Doubling from 5 ms reaches 1 s after eight errors; the other twelve wait 1 s each.
        assert!(waited > Duration::from_secs(12) && waited < Duration::from_secs(15), "{waited:?}");
    }

    #[tokio::test]
    async fn above_the_limit_connections_are_closed_until_one_ends() {
        let incoming = TcpNetwork.bind("127.0.0.1:0").await.unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let mut acceptor = Acceptor::new(incoming, limits(1, 1));
        let _first_client = TcpNetwork.connect(&address, SOON).await.unwrap();
        let first = acceptor.accept().await;
        let accepting = tokio::spawn(async move { acceptor.accept().await });
        let mut second = TcpNetwork.connect(&address, SOON).await.unwrap();
        let mut byte = [0; 1];
        let read = tokio::time::timeout(SOON, second.read(&mut byte)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "the second connection was served: {read:?}");
        drop(first);
        let _third = TcpNetwork.connect(&address, SOON).await.unwrap();
        tokio::time::timeout(SOON, accepting).await.unwrap().unwrap();
    }

    async fn accepted(first_bytes: usize) -> (Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let script = VecDeque::from([Ok(near)]);
        let mut acceptor = Acceptor::new(Box::new(Scripted(script)), limits(1, first_bytes));
        (acceptor.accept().await, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_fails_in_bounded_time() {
        let (mut connection, _far) = accepted(HTTP2_PREFACE_BYTES).await;
        let mut buffer = [0; 64];
        let error = connection.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_connection_fails_too() {
        let (mut connection, mut far) = accepted(HTTP2_PREFACE_BYTES).await;
        let dripping = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut buffer = [0; 64];
        let error = loop {
            if let Err(error) = connection.read(&mut buffer).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_bytes_silence_is_the_protocols_business() {
        let (mut connection, mut far) = accepted(4).await;
        far.write_all(b"PRI ").await.unwrap();
        let mut buffer = [0; 4];
        connection.read_exact(&mut buffer).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        far.write_all(b"more").await.unwrap();
        connection.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"more");
    }
}
