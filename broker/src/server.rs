//! One broker, put together: everything that it touches comes from outside, so that whole
//! brokers run in a simulation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::detector::{DetectorConfig, Observation};
use baton_core::election::ElectionConfig;
use baton_core::replica::{Env, Input, ReplicaConfig, RoleView};
use baton_core::{BrokerId, Incarnation, TopicPartition};
use baton_proto::v1::admin_server::AdminServer;
use baton_proto::v1::broker_server::BrokerServer;
use baton_proto::v1::peer_server::PeerServer;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::membership::{self, ClaimError, Identity, LiveBrokers};
use baton_registry::znode::{BrokerRegistration, Endpoint, FeatureRange};
use baton_registry::{Registry, SessionId, SessionState};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use uuid::Uuid;

use crate::admission::{ByteBudget, ByteLimits};
use crate::authorizer::AllowAll;
use crate::clock::{Clock, Monotonic, Seed};
use crate::cluster::{ClusterParts, ClusterTask, ClusterView};
use crate::config::BrokerConfig;
use crate::config::broker::advertised_address;
use crate::config::check::HostPort;
use crate::grpc::{GrpcService, ListenerParts};
use crate::http::{About, Missing, Monitoring, ReadinessProbe};
use crate::internal::events::Events;
use crate::internal::{EVENTS_TOPIC, InternalHost, host};
use crate::log::Log;
use crate::metrics::{Metrics, PartitionCounts};
use crate::net::accept::HTTP2_PREFACE_BYTES;
use crate::net::{AcceptLimits, Acceptor, Incoming, Network};
use crate::peers::detection::World;
use crate::peers::pace::Pace;
use crate::peers::{Detection, DetectionHandle, LinkParts, Links, PeerSender, PeerService};
use crate::shard::{self, Partitions, ShardInput, ShardParts, Shards};

/// The feature level that this version writes and the newest that it reads.
const FEATURES: FeatureRange = FeatureRange { min: 1, max: 1 };

/// Where the ids of registry sessions are kept, so that a restarted broker may delete its own
/// ghosts.
pub trait SessionMemory: Send + Sync + 'static {
    fn recall(&self) -> Vec<SessionId>;
    fn remember(&self, sessions: &[SessionId]);
}

/// Remembers nothing: for simulations and throw-away brokers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl SessionMemory for Forgetful {
    fn recall(&self) -> Vec<SessionId> {
        Vec::new()
    }

    fn remember(&self, _sessions: &[SessionId]) {}
}

/// Everything that a broker is given.
pub struct BrokerParts {
    pub config: BrokerConfig,
    pub network: Arc<dyn Network>,
    pub log: Arc<dyn Log>,
    pub registry: Arc<dyn Registry>,
    pub sessions: Arc<SessionPool>,
    pub memory: Arc<dyn SessionMemory>,
    pub clock: Arc<dyn Clock>,
    pub seed: Seed,
    pub cluster: Uuid,
}

/// Why a broker did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("{0}; choose another address in the configuration, or stop what listens there")]
    Bind(std::io::Error),
    #[error("{0}; give each broker an id of its own, or stop the other process")]
    Claim(#[from] ClaimError),
    #[error("the storage failed: {0}; look at the disk, then start the broker again")]
    Storage(String),
    #[error("a task of the broker ended unexpectedly: {0}")]
    Task(String),
}

/// A running broker.
pub struct Broker {
    shared: Shared,
    tasks: JoinSet<Result<(), BrokerError>>,
    fatal: mpsc::UnboundedReceiver<String>,
    /// Where each listener is bound, by its name; `peer` and `http` are among them.
    addresses: BTreeMap<String, String>,
}

/// What the pieces share.
#[derive(Clone)]
struct Shared {
    config: Arc<BrokerConfig>,
    me: BrokerId,
    view: ClusterView,
    partitions: Partitions,
    shards: Shards,
    registry: Arc<dyn Registry>,
    sessions: Arc<SessionPool>,
    log: Arc<dyn Log>,
    env: watch::Receiver<Arc<Env>>,
    registration: watch::Sender<BrokerRegistration>,
    draining: watch::Sender<bool>,
    loaded: watch::Receiver<bool>,
    metrics: Metrics,
    stop: CancellationToken,
}

/// The listening sockets, bound before anything else is started.
struct Bound {
    grpc: Vec<(String, Box<dyn Incoming>)>,
    peer: Box<dyn Incoming>,
    http: Box<dyn Incoming>,
    endpoints: Vec<Endpoint>,
    addresses: BTreeMap<String, String>,
}

impl Broker {
    /// Starts a broker. It serves as soon as it has read the registry.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start(parts: BrokerParts) -> Result<Self, BrokerError> {
        let bound = bind(&parts).await.map_err(BrokerError::Bind)?;
        let addresses = bound.addresses.clone();
        let assembly = Assembly::new(parts, &bound.endpoints);
        let (shared, tasks, fatal) = assembly.run(bound);
        Ok(Self { shared, tasks, fatal, addresses })
    }

    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, String> {
        &self.addresses
    }

    #[must_use]
    pub fn view(&self) -> &ClusterView {
        &self.shared.view
    }

    #[must_use]
    pub fn partitions(&self) -> &Partitions {
        &self.shared.partitions
    }

    /// What is missing before the broker does everything that it should.
    pub async fn missing(&self) -> Vec<Missing> {
        Probe(self.shared.clone()).missing().await
    }

    /// Returns when the broker cannot go on.
    pub async fn failed(&mut self) -> BrokerError {
        tokio::select! {
            why = self.fatal.recv() => BrokerError::Storage(why.unwrap_or_default()),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => error,
                Some(Ok(Ok(()))) => BrokerError::Task("it stopped".to_owned()),
                Some(Err(error)) => BrokerError::Task(error.to_string()),
                None => BrokerError::Task("there are none".to_owned()),
            },
        }
    }

    /// Hands over what it leads, leaves the in-sync replicas, makes everything durable, and
    /// stops. What cannot be handed over within `timing.drain_ms` is left to the others.
    pub async fn stop(mut self) {
        let shared = &self.shared;
        shared.draining.send_replace(true);
        shared.metrics.draining(true);
        shared.registration.send_modify(|registration| registration.draining = true);
        let within = Duration::from_millis(shared.config.timing.drain_ms);
        if tokio::time::timeout(within, drain(shared)).await.is_err() {
            tracing::warn!("not everything could be handed over in time");
        }
        checkpoint(shared).await;
        shared.stop.cancel();
        shared.sessions.close().await;
        shared.registry.close().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.shared.log.close().await {
            tracing::error!(%error, "the log was not closed cleanly; it will be checked at the next start");
        }
    }

    /// Ends at once, as if the process were killed: nothing is handed over or flushed.
    pub fn kill(mut self) {
        self.shared.stop.cancel();
        self.tasks.abort_all();
    }
}

/// Everything that was only in memory is saved, so that the next start has little to read.
async fn checkpoint(shared: &Shared) {
    for index in 0..shared.shards.len() {
        let (done, saved) = oneshot::channel();
        shared.shards.tell_shard(index, ShardInput::Checkpoint { done }).await;
        // A shard that is gone has nothing to save.
        let _ = tokio::time::timeout(Duration::from_secs(10), saved).await;
    }
}

/// Until this broker leads nothing and is in sync nowhere where others would suffer from it.
async fn drain(shared: &Shared) {
    loop {
        let mut left = 0;
        for handle in shared.partitions.all() {
            let status = *handle.status.borrow();
            let successor = successor(shared, handle.id);
            match status.role {
                RoleView::Leader { resigning: false } => {
                    if let Some(toward) = successor {
                        left += 1;
                        let input = Input::Resign { toward };
                        shared.shards.tell(handle.id, ShardInput::Replica { id: handle.id, input }).await;
                    }
                }
                RoleView::Leader { resigning: true } => left += 1,
                _ => left += usize::from(successor.is_some() && may_leave(shared, handle.id)),
            }
        }
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Another live in-sync replica that is not stopping itself.
fn successor(shared: &Shared, id: TopicPartition) -> Option<BrokerId> {
    let state = shared.view.state(id)?.state;
    let env = shared.env.borrow();
    let others = state.assignment.replicas.iter().filter(|b| **b != shared.me && state.isr_member(**b).is_some());
    others.copied().find(|b| env.is_alive(*b) && !env.is_draining(*b))
}

/// The leader takes a stopping broker out of the in-sync replicas, unless too few would stay.
fn may_leave(shared: &Shared, id: TopicPartition) -> bool {
    let (Some(known), Some(handle)) = (shared.view.state(id), shared.partitions.get(id)) else { return false };
    let min = usize::try_from(handle.settings.min_insync_replicas).unwrap_or(1);
    known.state.leader.is_some() && known.state.isr_member(shared.me).is_some() && known.state.isr.len() > min
}

async fn bind(parts: &BrokerParts) -> std::io::Result<Bound> {
    let config = &parts.config;
    let mut endpoints = Vec::new();
    let mut addresses = BTreeMap::new();
    let mut note = |name: &str, protocol: &str, advertised: &str, incoming: &dyn Incoming| {
        let bound = incoming.local_addr()?;
        let address = advertised_address(advertised, bound);
        let HostPort { host, port } =
            HostPort::parse(&address).ok_or_else(|| std::io::Error::other(format!("{address} is not host:port")))?;
        addresses.insert(name.to_owned(), address);
        endpoints.push(Endpoint { name: name.to_owned(), protocol: protocol.to_owned(), host, port });
        Ok::<_, std::io::Error>(())
    };
    let mut grpc = Vec::new();
    for listener in &config.listeners {
        let incoming = parts.network.bind(&listener.bind).await?;
        note(&listener.name, "grpc", &listener.advertised, &*incoming)?;
        grpc.push((listener.name.clone(), incoming));
    }
    let peer = parts.network.bind(&config.peer.bind).await?;
    note("peer", "peer", &config.peer.advertised, &*peer)?;
    let http = parts.network.bind(&config.http.bind).await?;
    note("http", "http", &config.http.bind, &*http)?;
    Ok(Bound { grpc, peer, http, endpoints, addresses })
}

/// The pieces on their way to becoming a broker.
struct Assembly {
    parts: BrokerParts,
    shared: Shared,
    incarnation: Incarnation,
    monotonic: Monotonic,
    shard_inputs: Vec<mpsc::Receiver<ShardInput>>,
    brokers: watch::Sender<Arc<LiveBrokers>>,
    brokers_shown: watch::Receiver<Arc<LiveBrokers>>,
    env: watch::Sender<Arc<Env>>,
    loaded: watch::Sender<bool>,
    sender: PeerSender,
}

impl Assembly {
    fn new(parts: BrokerParts, endpoints: &[Endpoint]) -> Self {
        let config = Arc::new(parts.config.clone());
        let identity = parts.log.identity();
        let incarnation = Incarnation(parts.seed.split("incarnation").0);
        let registration = BrokerRegistration {
            disk: identity.disk,
            incarnation,
            features: FEATURES,
            draining: false,
            rack: (!config.rack.is_empty()).then(|| config.rack.clone()),
            endpoints: endpoints.to_vec(),
        };
        let queue = usize::try_from(config.limits.shard_queue).unwrap_or(1_024);
        let (senders, shard_inputs) = (0..config.shard_count()).map(|_| mpsc::channel(queue)).unzip();
        let (brokers, brokers_shown) = watch::channel(Arc::default());
        let (env, env_shown) = watch::channel(Arc::default());
        let (loaded, loaded_shown) = watch::channel(false);
        let shared = Shared {
            me: config.id(),
            view: ClusterView::new(brokers_shown.clone()),
            partitions: Partitions::default(),
            shards: Shards::new(senders),
            registry: Arc::clone(&parts.registry),
            sessions: Arc::clone(&parts.sessions),
            log: Arc::clone(&parts.log),
            env: env_shown,
            registration: watch::Sender::new(registration),
            draining: watch::Sender::new(false),
            loaded: loaded_shown,
            metrics: Metrics::new(config.id()),
            stop: CancellationToken::new(),
            config,
        };
        let sender = PeerSender::new(Pace::new(shared.config.limits.catch_up_bytes_per_s));
        let monotonic = Monotonic::start();
        Self { parts, shared, incarnation, monotonic, shard_inputs, brokers, brokers_shown, env, loaded, sender }
    }

    fn run(self, bound: Bound) -> (Shared, JoinSet<Result<(), BrokerError>>, mpsc::UnboundedReceiver<String>) {
        let shared = self.shared.clone();
        let timing = &shared.config.timing;
        let mut tasks = JoinSet::new();
        let (fatal, failed) = mpsc::unbounded_channel();
        let (calls, called) = mpsc::unbounded_channel();
        let detector =
            DetectorConfig { heartbeat_ms: timing.heartbeat_ms, missed_max: u64::from(timing.heartbeats_missed) };
        let (detection, handle) = Detection::new(detector);
        let internal = Arc::new(InternalHost::new(
            shared.shards.clone(),
            shared.partitions.clone(),
            shared.view.clone(),
            Arc::clone(&self.parts.clock),
        ));
        let events = Events::default();
        self.serve(bound, &handle, &internal, &events, &mut tasks);
        self.run_membership(&mut tasks);
        self.run_links(&handle, &mut tasks);
        let world = World {
            env: self.env.clone(),
            shards: shared.shards.clone(),
            peers: self.sender.clone(),
            session: shared.registry.session(),
            monotonic: self.monotonic,
            metrics: shared.metrics.clone(),
        };
        tasks.spawn(async move {
            detection.run(world).await;
            Ok(())
        });
        let machine = events.machine();
        let history = host::run(
            machine,
            EVENTS_TOPIC,
            0,
            internal,
            shared.partitions.clone(),
            shared.shards.clone(),
            shared.stop.clone(),
        );
        tasks.spawn(async move {
            history.await;
            Ok(())
        });
        tasks.spawn(measure(shared.clone()));
        self.run_shards_and_cluster(calls, called, fatal, &mut tasks);
        (shared, tasks, failed)
    }

    fn run_shards_and_cluster(
        mut self,
        calls: mpsc::UnboundedSender<crate::shard::input::RegistryCall>,
        called: mpsc::UnboundedReceiver<crate::shard::input::RegistryCall>,
        fatal: mpsc::UnboundedSender<String>,
        tasks: &mut JoinSet<Result<(), BrokerError>>,
    ) {
        let shared = &self.shared;
        let config = &shared.config;
        let inputs = std::mem::take(&mut self.shard_inputs);
        let shard_count = inputs.len() as u64;
        for (index, inputs) in inputs.into_iter().enumerate() {
            let parts = ShardParts {
                index,
                inputs,
                log: Arc::clone(&shared.log),
                peers: self.sender.clone(),
                registry: calls.clone(),
                env: shared.env.clone(),
                clock: Arc::clone(&self.parts.clock),
                monotonic: self.monotonic,
                incarnation: self.incarnation,
                config: replica_config(config),
                tail_cache_bytes: config.limits.tail_cache_bytes / shard_count,
                tick: Duration::from_millis(100),
                metrics: shared.metrics.clone(),
                fatal: fatal.clone(),
            };
            let shard = shard::spawn(parts);
            tasks.spawn(async move { shard.await.map_err(|error| BrokerError::Task(error.to_string())) });
        }
        let task = ClusterTask::new(ClusterParts {
            registry: Arc::clone(&shared.registry),
            sessions: Arc::clone(&shared.sessions),
            remembered: self.parts.memory.recall(),
            view: shared.view.clone(),
            brokers: self.brokers_shown.clone(),
            shards: shared.shards.clone(),
            partitions: shared.partitions.clone(),
            log: Arc::clone(&shared.log),
            env: shared.env.clone(),
            calls: called,
            draining: shared.draining.subscribe(),
            me: shared.me,
            disk: shared.log.identity().disk,
            incarnation: self.incarnation,
            seed: self.parts.seed.split("candidates").0,
            election: election_config(config),
            reread: Duration::from_millis(config.timing.reread_ms),
            partitions_max: usize::try_from(config.limits.partitions).unwrap_or(usize::MAX),
            monotonic: self.monotonic,
            metrics: shared.metrics.clone(),
            loaded: self.loaded,
            stop: shared.stop.clone(),
        });
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            task.run().await;
            // Its end before the stop is the registry's.
            stop.cancelled().await;
            Ok(())
        });
    }

    fn run_membership(&self, tasks: &mut JoinSet<Result<(), BrokerError>>) {
        let shared = &self.shared;
        let identity = Identity { broker: shared.me, disk: shared.log.identity().disk, incarnation: self.incarnation };
        let patience = Duration::from_millis(shared.config.registry.session_timeout_ms + 1_000);
        let remembered = self.parts.memory.recall();
        let maintain = membership::maintain(
            Arc::clone(&shared.registry),
            identity,
            remembered,
            patience,
            shared.registration.subscribe(),
        );
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            maintain.await?;
            stop.cancelled().await;
            Ok(())
        });
        let follow = membership::follow(Arc::clone(&shared.registry), self.brokers.clone());
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            follow.await;
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn(remember_sessions(
            Arc::clone(&self.parts.memory),
            Arc::clone(&shared.sessions),
            shared.registry.session(),
            shared.metrics.clone(),
        ));
    }

    /// Links follow the registered brokers, and the detector learns who has a session.
    fn run_links(&self, detection: &DetectionHandle, tasks: &mut JoinSet<Result<(), BrokerError>>) {
        let shared = &self.shared;
        let timing = &shared.config.timing;
        let mut links = Links::new(LinkParts {
            network: Arc::clone(&self.parts.network),
            sender: self.sender.clone(),
            shards: shared.shards.clone(),
            detection: detection.clone(),
            metrics: shared.metrics.clone(),
            cluster: self.parts.cluster.to_string(),
            me: shared.me,
            disk: shared.log.identity().disk,
            incarnation: self.incarnation,
            heartbeat: Duration::from_millis(timing.heartbeat_ms),
            connect_timeout: Duration::from_millis(timing.connect_ms),
            retry: Duration::from_millis(timing.reconnect_grace_ms),
            frame_bytes: shared.config.limits.peer_frame_bytes,
            queue_bytes: shared.config.limits.in_flight_bytes_max * 2,
            draining: shared.draining.subscribe(),
        });
        let (mut brokers, detection, me) = (self.brokers_shown.clone(), detection.clone(), shared.me);
        let incarnation = self.incarnation;
        tasks.spawn(async move {
            let mut before: BTreeMap<BrokerId, String> = BTreeMap::new();
            // Whoever has not got the id yet must not speak in its name: the others would take
            // the one that has it for dead.
            let mut registered = false;
            loop {
                let live = Arc::clone(&brokers.borrow_and_update());
                let now = peer_addresses(&live);
                registered |= live.brokers.get(&me).is_some_and(|own| own.registration.incarnation == incarnation);
                if live.known && registered {
                    for broker in now.keys().filter(|b| **b != me) {
                        detection.observe(Observation::Registered { broker: *broker });
                    }
                    for broker in before.keys().filter(|b| **b != me && !now.contains_key(b)) {
                        detection.observe(Observation::Unregistered { broker: *broker });
                    }
                    links.follow(&now);
                    before = now;
                }
                if brokers.changed().await.is_err() {
                    return Ok(());
                }
            }
        });
    }

    fn serve(
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
        for (name, incoming) in bound.grpc {
            let acceptor = self.acceptor(incoming, &name, Arc::clone(&clients), HTTP2_PREFACE_BYTES);
            let service = GrpcService::new(Arc::clone(&parts), &name);
            let frame = usize::try_from(limits.frame_bytes_max).unwrap_or(usize::MAX);
            tasks.spawn(serve_clients(acceptor, service, frame, self.server(), shared.stop.clone()));
        }
        let peer = PeerService {
            cluster: self.parts.cluster.to_string(),
            me: shared.me,
            disk: shared.log.identity().disk,
            incarnation: self.incarnation,
            shards: shared.shards.clone(),
            detection: detection.clone(),
            internal: Arc::clone(internal),
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

    fn listener_parts(&self, events: &Events) -> ListenerParts {
        let shared = &self.shared;
        let limits = &shared.config.limits;
        ListenerParts {
            me: shared.me,
            cluster: self.parts.cluster.to_string(),
            view: shared.view.clone(),
            partitions: shared.partitions.clone(),
            shards: shared.shards.clone(),
            registry: Arc::clone(&shared.registry),
            session: shared.registry.session(),
            network: Arc::clone(&self.parts.network),
            authorizer: Arc::new(AllowAll),
            admission: Arc::new(ByteBudget::new(ByteLimits {
                soft: limits.in_flight_bytes_soft,
                max: limits.in_flight_bytes_max,
                connection_max: limits.connection_bytes_max,
                throttle_max: Duration::from_millis(limits.throttle_ms_max),
            })),
            clock: Arc::clone(&self.parts.clock),
            events: events.clone(),
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

fn peer_addresses(live: &LiveBrokers) -> BTreeMap<BrokerId, String> {
    let address = |(id, live): (&BrokerId, &membership::LiveBroker)| {
        let endpoint = live.registration.endpoint("peer")?;
        Some((*id, format!("{}:{}", endpoint.host, endpoint.port)))
    };
    live.brokers.iter().filter_map(address).collect()
}

fn replica_config(config: &BrokerConfig) -> ReplicaConfig {
    ReplicaConfig {
        lag_max_ms: config.timing.lag_max_ms,
        isolation_max_ms: config.timing.isolated_ms,
        window_bytes: config.limits.peer_in_flight_bytes,
        catch_up_bytes: usize::try_from(config.limits.peer_frame_bytes).unwrap_or(1 << 20),
        ..ReplicaConfig::default()
    }
}

fn election_config(config: &BrokerConfig) -> ElectionConfig {
    ElectionConfig {
        step_ms: config.timing.election_step_ms,
        healthy_leader_ms: config.timing.healthy_leader_wait_ms,
        detector_pause_ms: config.timing.election_interval_ms,
        ..ElectionConfig::default()
    }
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
    let admin = AdminServer::new(service).max_decoding_message_size(frame);
    let serving = server.add_service(broker).add_service(admin).serve_with_incoming(acceptor.into_stream());
    tokio::select! {
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
        () = stop.cancelled() => Ok(()),
        ended = serving => ended.map_err(|error| BrokerError::Task(format!("the peer listener: {error}"))),
    }
}

async fn remember_sessions(
    memory: Arc<dyn SessionMemory>,
    sessions: Arc<SessionPool>,
    mut session: watch::Receiver<SessionState>,
    metrics: Metrics,
) -> Result<(), BrokerError> {
    let mut known = Vec::new();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        let state = *session.borrow_and_update();
        match state {
            SessionState::Connected(_) => metrics.registry_connected(),
            SessionState::Disconnected | SessionState::Closed => metrics.registry_disconnected(),
        }
        let ids = sessions.session_ids();
        if ids != known && !ids.is_empty() {
            metrics.registry_session();
            memory.remember(&ids);
            known = ids;
        }
        tokio::select! {
            changed = session.changed() => if changed.is_err() { return Ok(()) },
            // Further sessions of the pool open without a word.
            _ = every.tick() => {}
        }
    }
}

/// Shows once a second how the partitions stand.
async fn measure(shared: Shared) -> Result<(), BrokerError> {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let mut counts = PartitionCounts::default();
        for handle in shared.partitions.all() {
            let status = *handle.status.borrow();
            counts.held += 1;
            match status.role {
                RoleView::Leader { .. } => {
                    counts.led += 1;
                    counts.under_replicated += u64::from(status.in_sync < status.assigned);
                }
                RoleView::Halted => counts.halted += 1,
                RoleView::Idle => counts.offline += 1,
                RoleView::Follower { .. } => {}
            }
        }
        shared.metrics.partitions(counts);
        let usage = shared.log.usage();
        shared.metrics.log_usage(usage.bytes, usage.free_bytes);
    }
}

/// Answers `/readyz`.
struct Probe(Shared);

#[async_trait::async_trait]
impl ReadinessProbe for Probe {
    async fn missing(&self) -> Vec<Missing> {
        let shared = &self.0;
        let mut missing = Vec::new();
        let mut lacks = |what, why: String| missing.push(Missing { what, why });
        if !matches!(*shared.registry.session().borrow(), SessionState::Connected(_)) {
            lacks("registry", "ZooKeeper does not answer; producing and consuming go on".to_owned());
        }
        if !*shared.loaded.borrow() {
            lacks("registry", "the topics and partitions have not been read yet".to_owned());
        }
        if !shared.view.brokers().brokers.contains_key(&shared.me) {
            lacks("registry", "this broker is not registered yet".to_owned());
        }
        if shared.log.usage().below_reserve {
            lacks("log", "the disk is full: producing is refused".to_owned());
        }
        let behind = shared.partitions.all().iter().filter(|h| is_behind(h.status.borrow().role)).count();
        if behind > 0 {
            lacks("partitions", format!("{behind} partitions neither lead nor follow their leader yet"));
        }
        if *shared.draining.borrow() {
            lacks("draining", "this broker is stopping".to_owned());
        }
        missing
    }

    async fn alive(&self) {
        for index in 0..self.0.shards.len() {
            let (done, answered) = oneshot::channel();
            self.0.shards.tell_shard(index, ShardInput::Ping { done }).await;
            let _ = answered.await;
        }
    }
}

fn is_behind(role: RoleView) -> bool {
    !matches!(role, RoleView::Leader { .. } | RoleView::Follower { greeted: true, .. })
}
