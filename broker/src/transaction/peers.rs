//! Calls to other brokers: to coordinators for leaders, and to leaders for coordinators.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_core::transaction::Producer;
use baton_core::transaction::partition::EndMarker;
use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use baton_proto::peer::key_to_wire;
use baton_proto::v1;
use baton_proto::v1::peer_client::PeerClient;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::ClusterView;
use crate::net::{NetConnector, Network};

/// The connections, by broker and with the address that they were made to.
pub struct PeerCalls {
    view: ClusterView,
    network: Arc<dyn Network>,
    connect_timeout: Duration,
    channels: Mutex<BTreeMap<BrokerId, (String, Channel)>>,
}

impl PeerCalls {
    #[must_use]
    pub fn new(view: ClusterView, network: Arc<dyn Network>, connect_timeout: Duration) -> Self {
        Self { view, network, connect_timeout, channels: Mutex::default() }
    }

    /// Asks the coordinator of a transaction whether a partition is part of it, or has it made
    /// part of it.
    ///
    /// # Errors
    /// The coordinator's; `COORDINATOR_NOT_AVAILABLE` if it does not answer.
    pub(super) async fn join_transaction(
        &self,
        to: BrokerId,
        id: &str,
        producer: Producer,
        at: TopicPartition,
        add: bool,
        deadline: Instant,
    ) -> Result<(), Error> {
        let request = v1::JoinTransactionRequest {
            transactional_id: id.to_owned(),
            producer_id: producer.id.0,
            producer_epoch: i32::from(producer.epoch.0),
            key: Some(key_to_wire(at)),
            add,
            timeout_ms: left_ms(deadline),
        };
        let mut client = self.client(to)?;
        match timeout_at(deadline, client.join_transaction(request)).await {
            Ok(Ok(reply)) => reply.into_inner().error.map_or(Ok(()), |error| Err((&error).into())),
            Ok(Err(status)) => Err(self.broken(to, status.message())),
            Err(_) => Err(self.broken(to, "it does not answer")),
        }
    }

    /// Has a leader write markers; the results stand in the order of the partitions.
    pub(super) async fn write_markers(
        &self,
        to: BrokerId,
        marker: EndMarker,
        raised: bool,
        partitions: &[TopicPartition],
        deadline: Instant,
    ) -> Vec<Result<(), Error>> {
        let request = v1::WriteMarkersRequest {
            producer_id: marker.producer.id.0,
            producer_epoch: i32::from(marker.producer.epoch.0),
            commit: marker.commit,
            coordinator_epoch: marker.coordinator_epoch.0,
            raised,
            keys: partitions.iter().copied().map(key_to_wire).collect(),
            timeout_ms: left_ms(deadline),
        };
        let asked = async { Ok(timeout_at(deadline, self.client(to)?.write_markers(request)).await) };
        let error = match asked.await {
            Ok(Ok(Ok(reply))) => {
                let results = reply.into_inner().results;
                if results.len() == partitions.len() {
                    let result = |result: v1::MarkerResult| result.error.map_or(Ok(()), |error| Err((&error).into()));
                    return results.into_iter().map(result).collect();
                }
                Error::new(ErrorCode::Internal, format!("broker {to} answered something else"))
            }
            Ok(Ok(Err(status))) => self.broken(to, status.message()),
            Ok(Err(_)) => self.broken(to, "it does not answer"),
            Err(error) => error,
        };
        partitions.iter().map(|_| Err(error.clone())).collect()
    }

    /// The next call makes another connection.
    fn broken(&self, to: BrokerId, why: &str) -> Error {
        self.lock().remove(&to);
        Error::new(ErrorCode::CoordinatorUnavailable, format!("broker {to}: {why}"))
    }

    fn client(&self, to: BrokerId) -> Result<PeerClient<Channel>, Error> {
        let unknown = |why: String| Error::new(ErrorCode::CoordinatorUnavailable, format!("broker {to}: {why}"));
        let brokers = self.view.brokers();
        let endpoint = brokers.brokers.get(&to).and_then(|live| live.registration.endpoint("peer"));
        let endpoint = endpoint.ok_or_else(|| unknown("it is not registered".to_owned()))?;
        let address = format!("{}:{}", endpoint.host, endpoint.port);
        let mut channels = self.lock();
        if let Some((known, channel)) = channels.get(&to)
            && *known == address
        {
            return Ok(PeerClient::new(channel.clone()));
        }
        let connector = NetConnector::new(Arc::clone(&self.network), self.connect_timeout);
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(|error| unknown(error.to_string()))?;
        let channel = endpoint.connect_timeout(self.connect_timeout).connect_with_connector_lazy(connector);
        channels.insert(to, (address, channel.clone()));
        Ok(PeerClient::new(channel))
    }

    /// The lock guards a map that no panic can leave half-written.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<BrokerId, (String, Channel)>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left_ms(deadline: Instant) -> u32 {
    u32::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u32::MAX)
}
