//! The machine's own TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};

use super::{ConnectError, Connection, Incoming, Network};

/// Sockets of the operating system. Frames are whole messages, so Nagle's algorithm would
/// only delay them: every connection sets `TCP_NODELAY`. (Listeners get `SO_REUSEADDR` from
/// tokio: a restarted broker binds its port at once.)
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

#[async_trait]
impl Network for TcpNetwork {
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Incoming>> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        Ok(Box::new(TcpIncoming(listener)))
    }

    async fn connect(&self, host_port: &str, timeout: Duration) -> Result<Connection, ConnectError> {
        let connecting = TcpStream::connect(host_port);
        let stream = match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| ConnectError::from_io(host_port, error))?,
            Err(_) => return Err(ConnectError::TimedOut { address: host_port.to_owned(), timeout }),
        };
        Ok(connection(stream))
    }
}

struct TcpIncoming(TcpListener);

#[async_trait]
impl Incoming for TcpIncoming {
    async fn accept(&mut self) -> io::Result<Connection> {
        let (stream, _) = self.0.accept().await?;
        Ok(connection(stream))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn connection(stream: TcpStream) -> Connection {
    if let Err(error) = stream.set_nodelay(true) {
        // The peer has gone already; the first read will say so.
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let (local, remote) = (stream.local_addr().ok(), stream.peer_addr().ok());
    Connection::new(stream, local, remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let mut incoming = TcpNetwork.bind("127.0.0.1:0").await.unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let mut accepted = incoming.accept().await.unwrap();
            let mut got = [0; 4];
            accepted.read_exact(&mut got).await.unwrap();
            accepted.write_all(b"pong").await.unwrap();
            (got, accepted.remote_addr())
        });
        let mut made = TcpNetwork.connect(&address, SOON).await.unwrap();
        made.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        made.read_exact(&mut got).await.unwrap();
        let (asked, remote) = server.await.unwrap();
        assert_eq!((&got, &asked), (b"pong", b"ping"));
        assert_eq!(remote, made.local_addr());
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let closed = {
            let incoming = TcpNetwork.bind("127.0.0.1:0").await.unwrap();
            incoming.local_addr().unwrap().to_string()
        };
        let error = TcpNetwork.connect(&closed, SOON).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let incoming = TcpNetwork.bind("127.0.0.1:0").await.unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let error = TcpNetwork.bind(&address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address), "{error}");
    }
}
