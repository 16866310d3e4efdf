//! The simulated network: brokers and clients of a turmoil simulation use it instead of TCP.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use baton_broker::net::{ConnectError, Connection, Incoming, Network};
use baton_client::net::{Connecting, Connector, Io};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

/// The network of the simulated host on which it is used. Brokers listen on `0.0.0.0`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedNetwork;

#[async_trait]
impl Network for SimulatedNetwork {
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(SimulatedIncoming(TcpListener::bind(address).await?)))
    }

    async fn connect(&self, host_port: &str, timeout: Duration) -> Result<Connection, ConnectError> {
        match tokio::time::timeout(timeout, connect(host_port)).await {
            Ok(Ok(stream)) => Ok(connection(stream)),
            Ok(Err(error)) => Err(ConnectError::from_io(host_port, error)),
            Err(_) => Err(ConnectError::TimedOut { address: host_port.to_owned(), timeout }),
        }
    }
}

impl Connector for SimulatedNetwork {
    fn connect(&self, address: String) -> Connecting {
        Box::pin(async move { Ok(Box::new(connect(&address).await?) as Box<dyn Io>) })
    }
}

/// turmoil reports a handshake that a partition swallowed as refused, at the instant at which
/// it was sent. Real networks are silent then, and the failure detector treats a refusal as
/// proof of death: only one that took its way there and back is passed on.
async fn connect(host_port: &str) -> io::Result<TcpStream> {
    let sent = Instant::now();
    match TcpStream::connect(host_port).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && sent == Instant::now() => pending().await,
        connected => connected,
    }
}

struct SimulatedIncoming(TcpListener);

#[async_trait]
impl Incoming for SimulatedIncoming {
    async fn accept(&mut self) -> io::Result<Connection> {
        let (stream, _) = self.0.accept().await?;
        Ok(connection(stream))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn connection(stream: TcpStream) -> Connection {
    let (local, remote) = (stream.local_addr().ok(), stream.peer_addr().ok());
    Connection::new(stream, local, remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PORT: &str = "0.0.0.0:7410";
    const WITHIN: Duration = Duration::from_millis(500);

    fn simulation() -> turmoil::Sim<'static> {
        turmoil::Builder::new()
            .rng_seed(7)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(5))
            .simulation_duration(Duration::from_secs(30))
            .build()
    }

    async fn echo() -> turmoil::Result {
        let network: Arc<dyn Network> = Arc::new(SimulatedNetwork);
        let mut incoming = network.bind(PORT).await?;
        loop {
            let mut connection = incoming.accept().await?;
            tokio::spawn(async move {
                let mut byte = [0; 1];
                while connection.read_exact(&mut byte).await.is_ok() {
                    if connection.write_all(&byte).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    #[test]
    fn bytes_pass_between_hosts() {
        let mut sim = simulation();
        sim.host("b1", echo);
        sim.client("c", async {
            let mut connection = Network::connect(&SimulatedNetwork, "b1:7410", WITHIN).await?;
            connection.write_all(b"x").await?;
            let mut byte = [0; 1];
            connection.read_exact(&mut byte).await?;
            assert_eq!(&byte, b"x");
            Ok(())
        });
        sim.run().unwrap();
    }

    #[test]
    fn a_dead_process_refuses_and_a_partition_is_silent() {
        let mut sim = simulation();
        sim.host("b1", echo);
        sim.client("c", async {
            turmoil::partition("c", "b1");
            let silent = Network::connect(&SimulatedNetwork, "b1:7410", WITHIN).await;
            assert!(matches!(silent, Err(ConnectError::TimedOut { .. })), "{silent:?}");
            turmoil::repair("c", "b1");
            let refused = Network::connect(&SimulatedNetwork, "b1:7411", WITHIN).await;
            assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
            Network::connect(&SimulatedNetwork, "b1:7410", WITHIN).await?;
            Ok(())
        });
        sim.run().unwrap();
    }
}
