//! The network as the broker sees it: bind, accept, connect.
//!
//! A broker is given its [`Network`], so that the same broker runs on the machine's TCP
//! ([`TcpNetwork`]) and on a simulated one.
//!
//! | module | what it does |
//! |---|---|
//! | [`tcp`] | the machine's own TCP |
//! | [`accept`] | accepting for ever: back-off, connection limit, deadline of the first bytes |
//! | [`connect`] | why a connection failed; the connector that tonic's endpoints take |

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use baton_core::connection::ConnectionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

pub mod accept;
pub mod connect;
pub mod tcp;

pub use accept::{AcceptLimits, Acceptor};
pub use connect::{ConnectError, NetConnector, is_refused};
pub use tcp::TcpNetwork;

use accept::Admitted;

/// Where a broker's sockets come from.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Listens on `address` (`host:port`; port 0 takes a free one).
    ///
    /// # Errors
    /// Those of the operating system; the address is part of the message.
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Incoming>>;

    /// Connects to `host_port` within `timeout`, name lookup included.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] only if the host answered that nothing listens there.
    async fn connect(&self, host_port: &str, timeout: Duration) -> Result<Connection, ConnectError>;
}

/// A listening socket.
#[async_trait]
pub trait Incoming: Send + 'static {
    /// The next connection. An error concerns one attempt only: call it again.
    async fn accept(&mut self) -> io::Result<Connection>;

    /// The bound address, with the real port.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// What a byte stream has to be able to do to become a [`Connection`].
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Who is at the other end of a connection that was accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// None for a request that came by no connection.
    pub connection: Option<ConnectionId>,
}

impl Peer {
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }
}

/// One connection, accepted or made. Dropping it closes it and gives its slot back.
pub struct Connection {
    io: Box<dyn Io>,
    id: ConnectionId,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    admitted: Option<Admitted>,
}

impl Connection {
    #[must_use]
    pub fn new(io: impl Io, local: Option<SocketAddr>, remote: Option<SocketAddr>) -> Self {
        /// One order for all listeners of a process: a client may come by any of them.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { io: Box::new(io), id, local, remote, admitted: None }
    }

    /// Its place in the order of all connections of this process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    fn admit(mut self, admitted: Admitted) -> Self {
        self.admitted = Some(admitted);
        self
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("local", &self.local).field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { address: self.remote, connection: Some(self.id) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        match &mut this.admitted {
            None => polled,
            Some(admitted) => admitted.watch_first_bytes(cx, polled, buf.filled().len() - before),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
