//! What the coordinator asks of brokers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use baton_broker::net::{NetConnector, Network};
use baton_core::{BrokerId, Epoch, Error, ErrorCode, Generation, TopicPartition};
use baton_proto::v1;
use baton_proto::v1::broker_client::BrokerClient;
use baton_proto::v1::peer_client::PeerClient;
use baton_registry::znode::BrokerRegistration;
use bytes::Bytes;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Connections that are kept: far above the number of brokers.
const CHANNELS_MAX: usize = 1_024;

/// What a fenced broker said about its copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fenced {
    /// None if it did not say.
    pub generation: Option<Generation>,
    pub end_offset: Option<u64>,
}

/// The brokers, at their addresses (`host:port`). Every call ends by a deadline of its own.
#[async_trait]
pub trait BrokerCalls: Send + Sync + 'static {
    /// Appends a command to an internal partition; returns its offset.
    async fn append_internal(&self, peer: &str, topic: &str, partition: u32, command: Bytes) -> Result<i64, Error>;

    /// From now on the broker acknowledges nothing in epochs up to this one.
    async fn fence(&self, peer: &str, id: TopicPartition, epoch: Epoch) -> Result<Fenced, Error>;

    /// Asks the leader to hand over.
    async fn resign(&self, peer: &str, id: TopicPartition, epoch: Epoch, toward: BrokerId) -> Result<(), Error>;

    /// Whether one of these partitions, which the broker leads, ever had a record.
    async fn had_records(&self, grpc: &str, topic: &str, partitions: &[u32]) -> Result<bool, Error>;
}

/// Where a broker answers other brokers.
///
/// # Errors
/// `UNREACHABLE` if it does not say.
pub fn peer_address(broker: BrokerId, registration: &BrokerRegistration) -> Result<String, Error> {
    address(broker, registration, "peer")
}

/// Where a broker answers clients.
///
/// # Errors
/// `UNREACHABLE` if it does not say.
pub fn client_address(broker: BrokerId, registration: &BrokerRegistration) -> Result<String, Error> {
    address(broker, registration, "grpc")
}

fn address(broker: BrokerId, registration: &BrokerRegistration, protocol: &str) -> Result<String, Error> {
    let missing = || {
        let cause = format!("broker {broker} registered no {protocol} endpoint");
        Error::new(ErrorCode::Unreachable, cause)
    };
    let endpoint = registration.endpoints.iter().find(|endpoint| endpoint.protocol == protocol).ok_or_else(missing)?;
    Ok(format!("{}:{}", endpoint.host, endpoint.port))
}

/// The brokers over gRPC.
pub struct GrpcBrokers {
    network: Arc<dyn Network>,
    connect_within: Duration,
    answer_within: Duration,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl GrpcBrokers {
    #[must_use]
    pub fn new(network: Arc<dyn Network>, connect_within: Duration, answer_within: Duration) -> Self {
        Self { network, connect_within, answer_within, channels: Mutex::default() }
    }

    /// A channel that connects when it is used, and again when it broke.
    fn channel(&self, address: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let bad = |error: tonic::transport::Error| Error::new(ErrorCode::Unreachable, format!("{address}: {error}"));
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(bad)?.tcp_nodelay(true);
        let connector = NetConnector::new(Arc::clone(&self.network), self.connect_within);
        let channel = endpoint.connect_with_connector_lazy(connector);
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn ask<T>(&self, address: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        let unreachable = |cause: String| Error::new(ErrorCode::Unreachable, cause);
        match timeout(self.answer_within, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(unreachable(format!("{address}: {status}"))),
            Err(_) => Err(unreachable(format!("{address} did not answer within {:?}", self.answer_within))),
        }
    }

    fn peer(&self, address: &str) -> Result<PeerClient<Channel>, Error> {
        Ok(PeerClient::new(self.channel(address)?))
    }
}

fn key(id: TopicPartition) -> Option<v1::PartitionKey> {
    Some(v1::PartitionKey { topic: id.topic.0, partition: id.partition })
}

#[async_trait]
impl BrokerCalls for GrpcBrokers {
    async fn append_internal(&self, peer: &str, topic: &str, partition: u32, command: Bytes) -> Result<i64, Error> {
        let timeout_ms = u32::try_from(self.answer_within.as_millis()).unwrap_or(u32::MAX);
        let request = v1::AppendInternalRequest { topic: topic.to_owned(), partition, command, timeout_ms };
        let mut client = self.peer(peer)?;
        let answer = self.ask(peer, client.append_internal(request)).await?;
        match answer.error {
            None => Ok(answer.offset),
            Some(error) => Err(Error::from(&error)),
        }
    }

    async fn fence(&self, peer: &str, id: TopicPartition, epoch: Epoch) -> Result<Fenced, Error> {
        let request = v1::FenceRequest { key: key(id), epoch: epoch.0 };
        let mut client = self.peer(peer)?;
        let answer = self.ask(peer, client.fence(request)).await?;
        if !answer.fenced {
            return Err(Error::new(ErrorCode::Unreachable, format!("{peer} did not take the fence")));
        }
        Ok(Fenced { generation: answer.generation.map(Generation), end_offset: answer.end_offset })
    }

    async fn resign(&self, peer: &str, id: TopicPartition, epoch: Epoch, toward: BrokerId) -> Result<(), Error> {
        let request = v1::ResignRequest { key: key(id), epoch: epoch.0, toward: toward.0 };
        let mut client = self.peer(peer)?;
        let answer = self.ask(peer, client.resign(request)).await?;
        answer.error.map_or(Ok(()), |error| Err(Error::from(&error)))
    }

    async fn had_records(&self, grpc: &str, topic: &str, partitions: &[u32]) -> Result<bool, Error> {
        let question = |partition: &u32| v1::ListOffsetsPartition {
            topic: topic.to_owned(),
            partition: *partition,
            at: Some(v1::list_offsets_partition::At::End(true)),
        };
        let request = v1::ListOffsetsRequest { partitions: partitions.iter().map(question).collect() };
        let mut client = BrokerClient::new(self.channel(grpc)?);
        let answer = self.ask(grpc, client.list_offsets(request)).await?;
        if let Some(error) = answer.results.iter().find_map(|result| result.error.as_ref()) {
            return Err(Error::from(error));
        }
        if answer.results.len() != partitions.len() {
            let cause = format!("{grpc} answered for {} of {} partitions", answer.results.len(), partitions.len());
            return Err(Error::new(ErrorCode::Unreachable, cause));
        }
        Ok(answer.results.iter().any(|result| result.offset > 0))
    }
}
