//! Putting a coordinator together, and taking it apart.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use baton_broker::clock::{Clock, Seed};
use baton_broker::config::broker::advertised_address;
use baton_broker::config::check::HostPort;
use baton_broker::http::serve_router;
use baton_broker::metrics::ListenerMetrics;
use baton_broker::net::accept::HTTP2_PREFACE_BYTES;
use baton_broker::net::{AcceptLimits, Acceptor, Network};
use baton_proto::v1::admin_server::AdminServer;
use baton_registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::admin::AdminService;
use super::brokers::{BrokerCalls, GrpcBrokers};
use super::config::CoordinatorConfig;
use super::history::History;
use super::monitoring::{self, CoordinatorMetrics};
use super::mutation::Mutations;
use super::term::{Shared, Term};
use super::view::View;
use super::{follow, lead};

/// What outlives the session of a coordinator that died: the watches of the others, and the
/// election. So long what it may not have recorded is kept.
const KEEP_BEYOND_SESSION: Duration = Duration::from_secs(3);
/// A connection that is silent for so long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Everything from outside: on a machine, in a simulation, or within `baton dev`.
pub struct CoordinatorParts {
    /// Completed: see [`CoordinatorConfig::complete_local`].
    pub config: CoordinatorConfig,
    pub network: Arc<dyn Network>,
    /// A session of this coordinator's own: [`CoordinatorHandle::stop`] closes it.
    pub registry: Arc<dyn Registry>,
    pub clock: Arc<dyn Clock>,
    pub seed: Seed,
    /// All rules hold by default.
    pub mutations: Mutations,
}

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key}: {source}")]
    Bind { key: &'static str, source: io::Error },
    #[error("grpc.advertised = {0:?} is no host:port")]
    Advertised(String),
}

/// Starts coordinators.
pub struct Coordinator;

impl Coordinator {
    /// Binds the listeners, follows the registry, and stands for election. It returns at once
    /// when the listeners are bound: a registry that cannot be reached yet is waited for.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start(parts: CoordinatorParts) -> Result<CoordinatorHandle, StartError> {
        let timing = &parts.config.timing;
        let connect_within = Duration::from_millis(timing.connect_ms);
        let brokers = GrpcBrokers::new(Arc::clone(&parts.network), connect_within, timing.broker());
        Self::start_with(parts, Arc::new(brokers)).await
    }

    /// As [`Self::start`], with other means to reach the brokers.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        parts: CoordinatorParts,
        brokers: Arc<dyn BrokerCalls>,
    ) -> Result<CoordinatorHandle, StartError> {
        let CoordinatorParts { config, network, registry, clock, seed, mutations } = parts;
        let limits = &config.limits;
        let grpc = listen(&*network, "grpc.bind", &config.grpc.bind, limits.connections, HTTP2_PREFACE_BYTES, &config);
        let grpc = grpc.await?;
        let http = listen(&*network, "http.bind", &config.http.bind, limits.http_connections, 1, &config).await?;
        let bound = |key| move |source| StartError::Bind { key, source };
        let grpc_address = grpc.local_addr().map_err(bound("grpc.bind"))?;
        let http_address = http.local_addr().map_err(bound("http.bind"))?;
        let advertised = advertised_address(&config.grpc.advertised, grpc_address);
        let HostPort { host, port } =
            HostPort::parse(&advertised).ok_or_else(|| StartError::Advertised(advertised.clone()))?;
        let keep = config.registry.session_timeout() + KEEP_BEYOND_SESSION;
        let history = Arc::new(History::new(Arc::clone(&clock), limits.events_waiting as usize, keep));
        let shared = Arc::new(Shared {
            config,
            registry,
            clock,
            view: Arc::new(View::default()),
            history,
            brokers,
            metrics: Arc::new(CoordinatorMetrics::default()),
            seed,
            draws: AtomicU64::new(0),
            mutations,
            dead: CancellationToken::new(),
        });
        let mut starting = Starting { shared, tasks: JoinSet::new(), stop: CancellationToken::new() };
        starting.follow();
        let active = starting.stand(host, port);
        let admin = AdminService::new(Arc::clone(&starting.shared), active.clone());
        starting.serve(grpc, http, admin.clone());
        let Starting { shared, tasks, stop } = starting;
        let crash = Crash(shared.dead.clone());
        Ok(CoordinatorHandle {
            shared,
            active,
            admin,
            tasks,
            stop,
            advertised,
            grpc_address,
            http_address,
            _crash: crash,
        })
    }
}

async fn listen(
    network: &dyn Network,
    key: &'static str,
    bind: &str,
    connections: u32,
    first_bytes: usize,
    config: &CoordinatorConfig,
) -> Result<Acceptor, StartError> {
    let incoming = network.bind(bind).await.map_err(|source| StartError::Bind { key, source })?;
    let limits = AcceptLimits {
        connections: Arc::new(Semaphore::new(connections as usize)),
        first_bytes,
        first_bytes_within: Duration::from_millis(config.timing.first_bytes_ms),
        metrics: ListenerMetrics::default(),
    };
    Ok(Acceptor::new(incoming, limits))
}

struct Starting {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Starting {
    fn follow(&mut self) {
        let Shared { registry, view, history, brokers, config, seed, .. } = &*self.shared;
        self.tasks.spawn(follow::follow_brokers(Arc::clone(registry), Arc::clone(view)));
        let reread = config.timing.reread();
        let (registry, copy) = (Arc::clone(registry), Arc::clone(view));
        self.tasks.spawn(follow::follow_topics(registry, copy, Arc::clone(history), reread));
        let seed = seed.split("history");
        self.tasks.spawn(Arc::clone(history).run(Arc::clone(view), Arc::clone(brokers), seed));
    }

    fn stand(&mut self, host: String, port: u16) -> watch::Receiver<Option<Arc<Term>>> {
        let (publish, active) = watch::channel(None);
        self.tasks.spawn(lead::stand(Arc::clone(&self.shared), host, port, publish, self.stop.clone()));
        active
    }

    fn serve(&mut self, grpc: Acceptor, http: Acceptor, admin: AdminService) {
        let bytes = usize::try_from(self.shared.config.limits.frame_bytes_max).unwrap_or(usize::MAX);
        let service = AdminServer::new(admin).max_decoding_message_size(bytes);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let server = Server::builder()
                .http2_keepalive_interval(Some(KEEP_ALIVE))
                .http2_keepalive_timeout(Some(KEEP_ALIVE))
                .add_service(service)
                .serve_with_incoming_shutdown(grpc.into_stream(), stop.cancelled_owned());
            if let Err(error) = server.await {
                tracing::error!(%error, "the listener of brokers failed");
            }
        });
        let router = monitoring::router(Arc::clone(&self.shared));
        self.tasks.spawn(serve_router(http, router, || {}, self.stop.clone()));
    }
}

/// A running coordinator. Dropping it is a crash: its tasks end, and its candidate node stays
/// until the registry's session is over.
pub struct CoordinatorHandle {
    shared: Arc<Shared>,
    active: watch::Receiver<Option<Arc<Term>>>,
    admin: AdminService,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    advertised: String,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    _crash: Crash,
}

/// Ends what is under way when the handle is dropped.
struct Crash(CancellationToken);

impl Drop for Crash {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl CoordinatorHandle {
    /// Where brokers are told to forward admin calls to.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Whether this coordinator is the elected one.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// Waits until this coordinator is elected and has finished what was begun before it. None:
    /// it has been stopped.
    pub async fn active(&self) -> Option<Arc<Term>> {
        let mut active = self.active.clone();
        loop {
            let term = active.wait_for(Option::is_some).await.ok()?.clone()?;
            let mut ready = term.ready.subscribe();
            tokio::select! {
                biased;
                ready = ready.wait_for(|is| *is) => if ready.is_ok() { return Some(Arc::clone(&term)) },
                () = term.over.cancelled() => {}
            }
        }
    }

    /// The service that brokers reach over gRPC, without the network in between.
    #[must_use]
    pub fn admin(&self) -> AdminService {
        self.admin.clone()
    }

    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Steps down, ends open answers, and closes the registry's session, so that another
    /// coordinator takes over at once.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // Following and recording do not end by themselves.
        let within = Duration::from_millis(self.shared.config.timing.stop_ms);
        let mut active = self.active.clone();
        let stepped_down = async {
            // An error: standing for election has ended.
            while active.changed().await.is_ok() {}
        };
        if timeout(within, stepped_down).await.is_err() {
            tracing::warn!("the coordinator did not step down in time; its session's end does it");
        }
        self.shared.registry.close().await;
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(Duration::from_millis(200), ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}
