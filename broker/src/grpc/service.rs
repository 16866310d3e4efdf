//! What every request needs, and the services' entry points.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::replica::Env;
use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use baton_proto::v1::broker_server::Broker;
use baton_proto::v1::{self, Leader};
use baton_registry::{Registry, SessionState};
use futures::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::Admission;
use crate::authorizer::{Authorizer, Resource, Verb};
use crate::clock::Clock;
use crate::cluster::{ClusterView, TopicView};
use crate::config::{LimitsConfig, TimingConfig};
use crate::context::{Principal, RequestContext, granted_timeout};
use crate::coordinator::CoordinatorLink;
use crate::group::Groups;
use crate::internal::events::Events;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::net::{Network, Peer};
use crate::serving::ProducerIds;
use crate::serving::answers;
use crate::shard::{PartitionHandle, Partitions, Shards};
use crate::transaction::{Marking, Transactions};

/// What all listeners share.
pub struct ListenerParts {
    pub me: BrokerId,
    pub cluster: String,
    pub view: ClusterView,
    pub partitions: Partitions,
    pub shards: Shards,
    pub log: Arc<dyn Log>,
    /// The data directory.
    pub dir: PathBuf,
    pub registry: Arc<dyn Registry>,
    pub session: watch::Receiver<SessionState>,
    pub network: Arc<dyn Network>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Arc<dyn Admission>,
    pub answers: Arc<answers::Answers>,
    pub clock: Arc<dyn Clock>,
    pub events: Events,
    /// The elected coordinator, which does what administrators ask for.
    pub coordinator: Arc<CoordinatorLink>,
    pub groups: Groups,
    pub transactions: Transactions,
    /// The way of administrators' markers into partitions that this broker leads.
    pub marking: Marking,
    /// What this broker's failure detector thinks of the others.
    pub env: watch::Receiver<Arc<Env>>,
    pub metrics: Metrics,
    pub limits: LimitsConfig,
    pub timing: TimingConfig,
    pub draining: watch::Receiver<bool>,
}

/// One listener. Cloning it is cheap.
#[derive(Clone)]
pub struct GrpcService {
    pub(super) parts: Arc<ListenerParts>,
    pub(super) coordinator: Arc<CoordinatorLink>,
    pub(super) name: Arc<str>,
    producer_ids: Arc<ProducerIds>,
}

impl GrpcService {
    #[must_use]
    pub fn new(parts: Arc<ListenerParts>, name: &str) -> Self {
        let coordinator = Arc::clone(&parts.coordinator);
        let producer_ids = ProducerIds::new(Arc::clone(&parts.registry));
        Self { parts, coordinator, name: name.into(), producer_ids: Arc::new(producer_ids) }
    }

    pub(super) fn context<T>(&self, request: &Request<T>, timeout_ms: u32) -> RequestContext {
        let timing = &self.parts.timing;
        let default = Duration::from_millis(timing.request_ms);
        let timeout = granted_timeout(timeout_ms, default, Duration::from_millis(timing.request_ms_max));
        let traceparent = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
        let Peer { address, connection } = Peer::of(request);
        RequestContext::new(Arc::clone(&self.name), address, timeout)
            .connection_id(connection)
            .principal(Principal::Anonymous)
            .traceparent(traceparent)
    }

    pub(super) fn authorize(&self, context: &RequestContext, verb: Verb, topic: &str) -> Result<(), Error> {
        self.parts.authorizer.authorize(context, verb, Resource::Topic(topic))
    }

    /// The topic and the partition's id, by name and number.
    pub(super) fn locate(&self, topic: &str, partition: u32) -> Result<(Arc<TopicView>, TopicPartition), Error> {
        self.parts.locate(topic, partition)
    }

    /// The local copy, if this broker leads it.
    pub(super) fn led(&self, topic: &str, id: TopicPartition) -> Result<PartitionHandle, Error> {
        self.parts.led(topic, id)
    }

    /// The error as clients get it: with who leads, if that is what they need to know.
    pub(super) fn wire_error(&self, error: &Error, id: Option<TopicPartition>) -> v1::Error {
        let mut wire = v1::Error::from(error);
        if matches!(error.code, ErrorCode::NotLeader | ErrorCode::FencedEpoch) {
            wire.leader = id.and_then(|id| self.leader_of(id));
        }
        wire
    }

    pub(super) fn leader_of(&self, id: TopicPartition) -> Option<Leader> {
        let (leader, epoch) = self.parts.view.leader(id);
        let broker = leader?;
        let endpoint = self.grpc_address(broker).unwrap_or_default();
        Some(Leader { broker: broker.0, endpoint, epoch })
    }

    /// Where clients reach that broker, on the listener of this one's name if it has it.
    pub(super) fn grpc_address(&self, broker: BrokerId) -> Option<String> {
        let brokers = self.parts.view.brokers();
        let registration = &brokers.brokers.get(&broker)?.registration;
        let same = registration.endpoint(&self.name);
        let endpoint = same.or_else(|| registration.endpoints.iter().find(|e| e.protocol == "grpc"))?;
        Some(format!("{}:{}", endpoint.host, endpoint.port))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Broker for GrpcService {
    type ProduceStream = Answers<v1::ProduceResponse>;
    type EventsStream = Answers<v1::EventsResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        Ok(Response::new(self.produce_stream(request)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let context = self.context(&request, request.get_ref().max_wait_ms);
        Ok(Response::new(self.fetch_partitions(context, request.into_inner()).await))
    }

    async fn metadata(&self, request: Request<v1::MetadataRequest>) -> Result<Response<v1::MetadataResponse>, Status> {
        let context = self.context(&request, request.get_ref().timeout_ms);
        Ok(Response::new(self.describe(&context, &request.into_inner()).await))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let context = self.context(&request, 0);
        Ok(Response::new(self.offsets(&context, request.into_inner()).await))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let context = self.context(&request, request.get_ref().timeout_ms);
        Ok(Response::new(self.delete_records_of(&context, request.into_inner()).await))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let answer = match self.producer_ids.next().await {
            Ok(producer_id) => v1::InitProducerResponse { producer_id, producer_epoch: 0, error: None },
            Err(error) => v1::InitProducerResponse { producer_id: -1, producer_epoch: -1, error: Some(error.into()) },
        };
        Ok(Response::new(answer))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        self.history(request).await.map(Response::new)
    }
}
