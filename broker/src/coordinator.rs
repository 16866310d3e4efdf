//! How a broker reaches the elected coordinator, which does all admin work.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use baton_proto::v1::admin_client::AdminClient;
use baton_registry::Registry;
use baton_registry::recipes::coordinator_election;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint};

use crate::net::{NetConnector, Network};

/// The connection to the elected coordinator.
pub struct CoordinatorLink {
    registry: Arc<dyn Registry>,
    network: Arc<dyn Network>,
    connect_timeout: Duration,
    channel: Mutex<Option<(String, Channel)>>,
}

impl CoordinatorLink {
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, network: Arc<dyn Network>, connect_timeout: Duration) -> Self {
        Self { registry, network, connect_timeout, channel: Mutex::new(None) }
    }

    /// Who coordinates, as the registry says.
    pub async fn current(&self) -> Option<v1::CoordinatorStatus> {
        let (term, candidate) = coordinator_election::current(&*self.registry).await.ok().flatten()?;
        Some(v1::CoordinatorStatus { endpoint: format!("{}:{}", candidate.host, candidate.port), epoch: term.epoch.0 })
    }

    /// A client of who coordinates now.
    ///
    /// # Errors
    /// `NO_COORDINATOR`: none is elected, or it does not answer.
    pub async fn client(&self) -> Result<AdminClient<Channel>, Error> {
        let none = "no coordinator is elected: start one with `baton coordinator`, or wait for the election";
        let current = self.current().await.ok_or_else(|| Error::new(ErrorCode::NoCoordinator, none))?;
        let mut known = self.channel.lock().await;
        if let Some((endpoint, channel)) = &*known
            && *endpoint == current.endpoint
        {
            return Ok(AdminClient::new(channel.clone()));
        }
        let channel = self.connect(&current.endpoint).await?;
        *known = Some((current.endpoint, channel.clone()));
        Ok(AdminClient::new(channel))
    }

    async fn connect(&self, address: &str) -> Result<Channel, Error> {
        let gone = |why: String| Error::new(ErrorCode::NoCoordinator, format!("the coordinator at {address}: {why}"));
        let timeout = self.connect_timeout;
        let connector = NetConnector::new(Arc::clone(&self.network), timeout);
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(|e| gone(e.to_string()))?;
        let endpoint = endpoint
            .connect_timeout(timeout)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        match tokio::time::timeout(timeout, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(gone(error.to_string())),
            Err(_) => Err(gone("it does not answer".to_owned())),
        }
    }

    /// The connection is broken: the next call makes another one.
    pub async fn forget(&self) {
        *self.channel.lock().await = None;
    }
}
