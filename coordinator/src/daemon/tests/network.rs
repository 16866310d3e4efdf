//! A coordinator on the machine's own network: its listeners, and its calls to a broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use baton_broker::clock::{Seed, SystemClock};
use baton_broker::net::TcpNetwork;
use baton_core::event::Event;
use baton_core::{BrokerId, Epoch, ErrorCode, TopicId, TopicPartition};
use baton_proto::v1;
use baton_proto::v1::admin_client::AdminClient;
use baton_proto::v1::peer_server::{Peer, PeerServer};
use baton_registry::memory::MemoryEnsemble;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::harness::{code, settled};
use crate::daemon::brokers::{BrokerCalls, GrpcBrokers};
use crate::daemon::{Coordinator, CoordinatorConfig, CoordinatorHandle, CoordinatorParts, Mutations, StartError};

const SOON: Duration = Duration::from_secs(20);

async fn start(ensemble: &MemoryEnsemble, name: &str) -> Result<CoordinatorHandle, StartError> {
    let mut config = CoordinatorConfig { name: name.to_owned(), ..CoordinatorConfig::default() };
    config.grpc.bind = "127.0.0.1:0".to_owned();
    config.grpc.advertised = "127.0.0.1:0".to_owned();
    config.http.bind = "127.0.0.1:0".to_owned();
    start_with(ensemble, config).await
}

async fn start_with(ensemble: &MemoryEnsemble, config: CoordinatorConfig) -> Result<CoordinatorHandle, StartError> {
    let parts = CoordinatorParts {
        registry: Arc::new(ensemble.connect(&config.name)),
        config,
        network: Arc::new(TcpNetwork),
        clock: Arc::new(SystemClock),
        seed: Seed(1),
        mutations: Mutations::default(),
    };
    Coordinator::start(parts).await
}

async fn get(coordinator: &CoordinatorHandle, path: &str) -> String {
    let mut stream = TcpStream::connect(coordinator.http_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn it_answers_over_grpc_and_http() {
    let ensemble = MemoryEnsemble::new();
    let coordinator = start(&ensemble, "c1").await.unwrap();
    tokio::time::timeout(SOON, settled(&coordinator)).await.unwrap();
    let mut client = AdminClient::connect(format!("http://{}", coordinator.advertised())).await.unwrap();
    let request = v1::CreateTopicRequest { name: "t".to_owned(), ..Default::default() };
    let reply = client.create_topic(request).await.unwrap().into_inner();
    assert_eq!(code(reply.error.as_ref()), Some(ErrorCode::InvalidReplication), "no broker is alive");
    assert!(get(&coordinator, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = get(&coordinator, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"active\""), "{ready}");
    let metrics = get(&coordinator, "/metrics").await;
    for line in ["baton_coordinator_active 1", "baton_coordinator_requests_refused_total 1", "baton_cluster_brokers 0"]
    {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing in\n{metrics}");
    }
    ensemble.stop();
    let unready = get(&coordinator, "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("registry"), "{unready}");
    ensemble.start();
    tokio::time::timeout(SOON, coordinator.stop()).await.unwrap();
}

#[tokio::test]
async fn garbage_on_its_port_does_no_harm() {
    let ensemble = MemoryEnsemble::new();
    let coordinator = start(&ensemble, "c1").await.unwrap();
    for address in [coordinator.grpc_address(), coordinator.http_address()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&[0xff; 4_096]).await;
        let mut rest = Vec::new();
        // It is closed, in whichever way.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    }
    assert!(get(&coordinator, "/livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let ensemble = MemoryEnsemble::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = CoordinatorConfig::default();
    config.grpc.bind = taken.local_addr().unwrap().to_string();
    config.grpc.advertised = config.grpc.bind.clone();
    let Err(error) = start_with(&ensemble, config).await else { panic!("it started") };
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
}

/// What a broker was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Peer for Asked {
    type LinkStream = tokio_stream::Empty<Result<v1::LinkReply, Status>>;

    async fn link(&self, _: Request<Streaming<v1::PeerFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn suspect(&self, _: Request<v1::SuspectRequest>) -> Result<Response<v1::SuspectResponse>, Status> {
        Ok(Response::new(v1::SuspectResponse::default()))
    }

    async fn append_internal(
        &self,
        request: Request<v1::AppendInternalRequest>,
    ) -> Result<Response<v1::AppendInternalResponse>, Status> {
        let request = request.into_inner();
        let event = Event::decode(&request.command).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.0.lock().unwrap().push(format!("append {} to {}", event.kind, request.topic));
        Ok(Response::new(v1::AppendInternalResponse { offset: 5, ..Default::default() }))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Result<Response<v1::FenceResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().push(format!("fence {:?} below {}", request.key.unwrap(), request.epoch));
        Ok(Response::new(v1::FenceResponse { fenced: true, generation: Some(2), end_offset: Some(9) }))
    }

    async fn join_transaction(
        &self,
        _: Request<v1::JoinTransactionRequest>,
    ) -> Result<Response<v1::JoinTransactionResponse>, Status> {
        Err(Status::unimplemented("only brokers ask for it"))
    }

    async fn write_markers(
        &self,
        _: Request<v1::WriteMarkersRequest>,
    ) -> Result<Response<v1::WriteMarkersResponse>, Status> {
        Err(Status::unimplemented("only brokers ask for it"))
    }

    async fn resign(&self, _: Request<v1::ResignRequest>) -> Result<Response<v1::ResignResponse>, Status> {
        let error = baton_core::Error::new(ErrorCode::NotLeader, "not here");
        Ok(Response::new(v1::ResignResponse { error: Some(error.into()) }))
    }
}

#[tokio::test]
async fn brokers_are_asked_over_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let service = PeerServer::new(asked.clone());
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let brokers = GrpcBrokers::new(Arc::new(TcpNetwork), Duration::from_secs(1), Duration::from_secs(5));
    let id = TopicPartition { topic: TopicId(7), partition: 3 };
    let event = Event::new(1, baton_core::event::EventKind::BrokerGone);
    assert_eq!(brokers.append_internal(&address, "__events", 0, event.encode()).await, Ok(5));
    let fenced = brokers.fence(&address, id, Epoch(4)).await.unwrap();
    assert_eq!((fenced.generation.map(|g| g.0), fenced.end_offset), (Some(2), Some(9)));
    let refused = brokers.resign(&address, id, Epoch(4), BrokerId(2)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotLeader);
    assert_eq!(asked.0.lock().unwrap()[0], "append broker_gone to __events");
    let nobody = brokers.fence("127.0.0.1:1", id, Epoch(4)).await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::Unreachable);
}
