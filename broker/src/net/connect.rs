//! Why a connection failed, and the connector that tonic's endpoints take.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;

use super::{Connection, Network};

/// Why no connection was made. The failure detector treats a refusal as proof that the
/// process is gone, and everything else as silence.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{address} refused the connection: nothing listens there")]
    Refused { address: String },
    #[error("{address} did not answer within {timeout:?}")]
    TimedOut { address: String, timeout: Duration },
    #[error("{address} cannot be reached: {source}")]
    Failed { address: String, source: io::Error },
    #[error("{0:?} is no host:port")]
    BadAddress(String),
}

impl ConnectError {
    /// Sorts an error of the operating system.
    #[must_use]
    pub fn from_io(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            _ => Self::Failed { address, source },
        }
    }
}

/// Whether a refused connection is the cause of `error`, however deep: tonic wraps what the
/// connector returned.
#[must_use]
pub fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = match error.downcast_ref::<ConnectError>() {
            Some(connect) => matches!(connect, ConnectError::Refused { .. }),
            None => error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused),
        };
        if refused {
            return true;
        }
        next = error.source();
    }
    false
}

/// A [`Network`] in the shape of `Endpoint::connect_with_connector`. The host and port are
/// those of the endpoint's URI.
#[derive(Clone)]
pub struct NetConnector {
    network: Arc<dyn Network>,
    timeout: Duration,
}

impl NetConnector {
    #[must_use]
    pub fn new(network: Arc<dyn Network>, timeout: Duration) -> Self {
        Self { network, timeout }
    }
}

impl tower::Service<Uri> for NetConnector {
    type Response = TokioIo<Connection>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (network, timeout) = (Arc::clone(&self.network), self.timeout);
        Box::pin(async move {
            let authority = uri.authority().map(http::uri::Authority::as_str);
            let Some(host_port) = authority.filter(|_| uri.port_u16().is_some()) else {
                return Err(ConnectError::BadAddress(uri.to_string()));
            };
            network.connect(host_port, timeout).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::TcpNetwork;
    use super::*;
    use tonic::transport::Endpoint;

    fn connector() -> NetConnector {
        NetConnector::new(Arc::new(TcpNetwork), Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_refusal_is_found_through_tonics_errors() {
        let incoming = TcpNetwork.bind("127.0.0.1:0").await.unwrap();
        let address = incoming.local_addr().unwrap();
        drop(incoming);
        let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
        let error = endpoint.connect_with_connector(connector()).await.unwrap_err();
        assert!(is_refused(&error), "{error:?}");
    }

    #[test]
    fn only_a_refusal_is_a_refusal() {
        for kind in [
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
            io::ErrorKind::NotFound,
        ] {
            let error = ConnectError::from_io("b1:7410", kind.into());
            assert!(matches!(error, ConnectError::Failed { .. }), "{error:?}");
            assert!(!is_refused(&error), "{error:?}");
        }
        let error = ConnectError::from_io("b1:7410", io::ErrorKind::ConnectionRefused.into());
        assert!(is_refused(&error));
        assert!(error.to_string().contains("b1:7410"), "{error}");
    }

    #[tokio::test]
    async fn an_address_without_a_port_is_no_refusal() {
        let endpoint = Endpoint::new("http://127.0.0.1").unwrap();
        let error = endpoint.connect_with_connector(connector()).await.unwrap_err();
        assert!(!is_refused(&error), "{error:?}");
    }
}
