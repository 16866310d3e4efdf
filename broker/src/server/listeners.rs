//! The sockets of a broker, and what is served on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_proto::v1::admin_server::AdminServer;
use baton_proto::v1::broker_server::BrokerServer;
use baton_proto::v1::groups_server::GroupsServer;
use baton_proto::v1::peer_server::PeerServer;
use baton_registry::znode::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::admission::{ByteBudget, ByteLimits};
use crate::authorizer::AllowAll;
use crate::config::Protocol;
use crate::config::broker::advertised_address;
use crate::config::check::HostPort;
use crate::grpc::{GrpcService, ListenerParts};
use crate::http::{About, Monitoring};
use crate::internal::InternalHost;
use crate::internal::events::Events;
use crate::kafka::{self, KafkaService};
use crate::net::accept::HTTP2_PREFACE_BYTES;
use crate::net::{AcceptLimits, Acceptor, Incoming};
use crate::peers::{DetectionHandle, PeerService};
use crate::server::assembly::Assembly;
use crate::server::readiness::Probe;
use crate::server::{BrokerError, BrokerParts};
use crate::serving::answers::Answers;

/// The listening sockets, bound before anything else is started.
pub(super) struct Bound {
    pub(super) clients: Vec<BoundListener>,
    pub(super) peer: Box<dyn Incoming>,
    pub(super) http: Box<dyn Incoming>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) addresses: BTreeMap<String, String>,
}

/// A listener of clients.
pub(super) struct BoundListener {
    name: String,
    protocol: Protocol,
    /// What clients are told.
    advertised: String,
    incoming: Box<dyn Incoming>,
}

pub(super) async fn bind(parts: &BrokerParts) -> std::io::Result<Bound> {
    let config = &parts.config;
    let mut endpoints = Vec::new();
    let mut addresses = BTreeMap::new();
    let mut note = |name: &str, protocol: &str, advertised: &str, incoming: &dyn Incoming| {
        let bound = incoming.local_addr()?;
        let address = advertised_address(advertised, bound);
        let HostPort { host, port } =
            HostPort::parse(&address).ok_or_else(|| std::io::Error::other(format!("{address} is not host:port")))?;
        addresses.insert(name.to_owned(), address.clone());
        endpoints.push(Endpoint { name: name.to_owned(), protocol: protocol.to_owned(), host, port });
        Ok::<_, std::io::Error>(address)
    };
    let mut clients = Vec::new();
    for listener in &config.listeners {
        let incoming = parts.network.bind(&listener.bind).await?;
        let (name, protocol) = (listener.name.clone(), listener.protocol);
        let advertised = note(&name, protocol.name(), &listener.advertised, &*incoming)?;
        clients.push(BoundListener { name, protocol, advertised, incoming });
    }
    let peer = parts.network.bind(&config.peer.bind).await?;
    note("peer", "peer", &config.peer.advertised, &*peer)?;
    let http = parts.network.bind(&config.http.bind).await?;
    note("http", "http", &config.http.bind, &*http)?;
    Ok(Bound { clients, peer, http, endpoints, addresses })
}

impl Assembly {
    pub(super) fn serve(
        &self,
        bound: Bound,
        detection: &DetectionHandle,
        internal: &Arc<InternalHost>,
        events: &Events,
        tasks: &mut JoinSet<Result<(), BrokerError>>,
    ) {
        let shared = &self.shared;
        let limits = &shared.config.limits;
        let parts = Arc::new(self.listener_parts(events));
        let clients = connections(limits.connections);
        for listener in bound.clients {
            self.serve_listener(listener, &parts, &clients, tasks);
        }
        let peer = PeerService {
            cluster: self.parts.cluster.to_string(),
            me: shared.me,
            disk: shared.log.identity().disk,
            incarnation: self.incarnation,
            shards: shared.shards.clone(),
            detection: detection.clone(),
            internal: Arc::clone(internal),
            transactions: shared.transactions.clone(),
            marking: shared.marking.clone(),
        };
        let acceptor = self.acceptor(bound.peer, "peer", connections(limits.peer_connections), HTTP2_PREFACE_BYTES);
        tasks.spawn(serve_peers(acceptor, peer, self.server(), shared.stop.clone()));
        let acceptor = self.acceptor(bound.http, "http", connections(limits.http_connections), 1);
        let monitoring = Monitoring {
            metrics: shared.metrics.clone(),
            probe: Arc::new(Probe(shared.clone())),
            about: About {
                broker: shared.me.0,
                version: env!("CARGO_PKG_VERSION"),
                incarnation: self.incarnation.to_string(),
                cluster: self.parts.cluster.to_string(),
            },
        };
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            crate::http::serve(acceptor, monitoring, stop).await;
            Ok(())
        });
    }

    fn serve_listener(
        &self,
        listener: BoundListener,
        parts: &Arc<ListenerParts>,
        clients: &Arc<Semaphore>,
        tasks: &mut JoinSet<Result<(), BrokerError>>,
    ) {
        let shared = &self.shared;
        let BoundListener { name, protocol, advertised, incoming } = listener;
        let stop = shared.stop.clone();
        match protocol {
            Protocol::Grpc => {
                let acceptor = self.acceptor(incoming, &name, Arc::clone(clients), HTTP2_PREFACE_BYTES);
                let service = GrpcService::new(Arc::clone(parts), &name);
                let frame = usize::try_from(shared.config.limits.frame_bytes_max).unwrap_or(usize::MAX);
                tasks.spawn(serve_clients(acceptor, service, frame, self.server(), stop));
            }
            Protocol::Kafka => {
                let acceptor = self.acceptor(incoming, &name, Arc::clone(clients), kafka::server::FIRST_BYTES);
                let service = KafkaService::new(Arc::clone(parts), shared.config.kafka.clone(), &name);
                let network = Arc::clone(&self.parts.network);
                tasks.spawn(async move {
                    let checked = kafka::server::check_advertised(network, name.into(), advertised);
                    tokio::join!(kafka::server::serve(acceptor, service, stop), checked);
                    Ok(())
                });
            }
        }
    }

    fn listener_parts(&self, events: &Events) -> ListenerParts {
        let shared = &self.shared;
        let limits = &shared.config.limits;
        ListenerParts {
            me: shared.me,
            cluster: self.parts.cluster.to_string(),
            view: shared.view.clone(),
            partitions: shared.partitions.clone(),
            shards: shared.shards.clone(),
            log: Arc::clone(&shared.log),
            dir: shared.config.log.dir.clone(),
            registry: Arc::clone(&shared.registry),
            session: shared.registry.session(),
            network: Arc::clone(&self.parts.network),
            authorizer: Arc::new(AllowAll),
            answers: Answers::new(limits.fetch_answers_bytes_max, shared.metrics.clone()),
            admission: Arc::new(ByteBudget::new(ByteLimits {
                soft: limits.in_flight_bytes_soft,
                max: limits.in_flight_bytes_max,
                connection_max: limits.connection_bytes_max,
                throttle_max: Duration::from_millis(limits.throttle_ms_max),
            })),
            clock: Arc::clone(&self.parts.clock),
            events: events.clone(),
            coordinator: Arc::clone(&shared.coordinator),
            groups: shared.groups.clone(),
            transactions: shared.transactions.clone(),
            marking: shared.marking.clone(),
            env: shared.env.clone(),
            metrics: shared.metrics.clone(),
            limits: limits.clone(),
            timing: shared.config.timing.clone(),
            draining: shared.draining.subscribe(),
        }
    }

    fn acceptor(
        &self,
        incoming: Box<dyn Incoming>,
        name: &str,
        connections: Arc<Semaphore>,
        first_bytes: usize,
    ) -> Acceptor {
        let limits = AcceptLimits {
            connections,
            first_bytes,
            first_bytes_within: Duration::from_millis(self.shared.config.timing.first_bytes_ms),
            metrics: self.shared.metrics.listener(name),
        };
        Acceptor::new(incoming, limits)
    }

    /// Half-open connections end by keep-alive; large windows keep big batches flowing.
    fn server(&self) -> Server {
        let keep_alive = Duration::from_millis(self.shared.config.timing.keep_alive_ms);
        Server::builder()
            .http2_keepalive_interval(Some(keep_alive))
            .http2_keepalive_timeout(Some(keep_alive))
            .initial_stream_window_size(Some(8 << 20))
            .initial_connection_window_size(Some(16 << 20))
            .max_concurrent_streams(Some(1_024))
    }
}

fn connections(max: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(1)))
}

async fn serve_clients(
    acceptor: Acceptor,
    service: GrpcService,
    frame: usize,
    mut server: Server,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    let broker =
        BrokerServer::new(service.clone()).max_decoding_message_size(frame).max_encoding_message_size(64 << 20);
    let groups =
        GroupsServer::new(service.clone()).max_decoding_message_size(frame).max_encoding_message_size(64 << 20);
    let admin = AdminServer::new(service).max_decoding_message_size(frame);
    let serving =
        server.add_service(broker).add_service(groups).add_service(admin).serve_with_incoming(acceptor.into_stream());
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = serving => ended.map_err(|error| BrokerError::Task(format!("the gRPC listener: {error}"))),
    }
}

async fn serve_peers(
    acceptor: Acceptor,
    service: PeerService,
    mut server: Server,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    let peer = PeerServer::new(service).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20);
    let serving = server.add_service(peer).serve_with_incoming(acceptor.into_stream());
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = serving => ended.map_err(|error| BrokerError::Task(format!("the peer listener: {error}"))),
    }
}
