//! The hosts of a simulated cluster: real gRPC and HTTP/2, simulated time, disks in memory that
//! survive a crash as far as they were synced.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::{Duration, UNIX_EPOCH};

use baton_broker::clock::{Clock, Seed, SimulatedClock};
use baton_broker::config::{BrokerConfig, ListenerConfig, Protocol};
use baton_broker::log::Identity;
use baton_broker::log::memory::{MemoryDisk, MemoryLog, MemoryOptions};
use baton_broker::server::{BrokerError, SessionMemory};
use baton_broker::shard::Partitions;
use baton_broker::{Broker, BrokerParts};
use baton_client::{Client, ClientConfig};
use baton_coordinator::daemon::config::CoordinatorConfig;
use baton_coordinator::daemon::start::{Coordinator, CoordinatorParts};
use baton_core::{BrokerId, DiskId, Incarnation};
use baton_registry::memory::MemoryEnsemble;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::{cluster, layout};
use baton_registry::znode::ClusterIdentity;
use baton_registry::{Registry, RegistryError, SessionId};
use tokio::sync::Notify;
use uuid::Uuid;

use super::mutation::Planted;
use super::registry::RegistryNetwork;
use super::{broker_name, coordinator_name, kafka};
use crate::net::SimulatedNetwork;

/// The clock of every simulation starts at 2024-01-01.
const START_MS: i64 = 1_704_067_200_000;

/// Sessions end after so long a silence.
const SESSION: Duration = Duration::from_secs(4);

/// What happened, in order: two runs of one seed must be equal, byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn note(&self, what: impl Into<String>) {
        let line = format!("{:>9.3} {}", turmoil::elapsed().as_secs_f64(), what.into());
        self.0.lock().expect("no test panics while it notes").push(line);
    }

    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no test panics while it notes").clone()
    }
}

/// What must not have happened; the first one counts most.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    pub fn add(&self, what: impl Into<String>) {
        self.lock().push(what.into());
    }

    #[must_use]
    pub fn found(&self) -> Vec<String> {
        self.lock().clone()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("nobody panics while noting")
    }
}

/// A running broker, as the watch sees it.
#[derive(Clone, Debug)]
pub struct Live {
    pub incarnation: Incarnation,
    pub partitions: Partitions,
}

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Settings {
    pub brokers: u32,
    pub coordinators: u32,
    pub seed: u64,
    pub rehome_after: Duration,
    pub planted: Option<Planted>,
    /// Brokers have little room and little patience, see [`super::Plan::tight`].
    pub tight: bool,
    /// Brokers listen to clients of Kafka's protocol, too.
    pub kafka: bool,
}

/// What a simulated cluster is made of. Clones share it.
#[derive(Clone)]
pub struct SimCluster {
    pub ensemble: MemoryEnsemble,
    pub network: RegistryNetwork,
    pub violations: Violations,
    pub settings: Settings,
    cluster: Uuid,
    disks: Arc<Mutex<Vec<MemoryDisk>>>,
    sessions: Vec<Arc<Sessions>>,
    live: Arc<Mutex<BTreeMap<u32, Live>>>,
    stops: Vec<Arc<Notify>>,
    skews: BTreeMap<String, Arc<AtomicI64>>,
}

/// The notes of a broker's sessions, which outlive its process.
#[derive(Default)]
struct Sessions(Mutex<Vec<SessionId>>);

impl SessionMemory for Sessions {
    fn recall(&self) -> Vec<SessionId> {
        self.0.lock().expect("nobody panics").clone()
    }

    fn remember(&self, sessions: &[SessionId]) {
        *self.0.lock().expect("nobody panics") = sessions.to_vec();
    }
}

/// A process that ends is no longer looked at.
struct Gone(SimCluster, u32);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.live.lock().expect("nobody panics").remove(&self.1);
    }
}

/// The wall clock of one host: it may jump.
struct Skewed(SimulatedClock, Arc<AtomicI64>);

impl Clock for Skewed {
    fn now_ms(&self) -> i64 {
        self.0.now_ms() + self.1.load(Ordering::Relaxed)
    }
}

impl SimCluster {
    /// A cluster of so many brokers and two coordinators.
    #[must_use]
    pub fn new(brokers: u32, seed: u64) -> Self {
        let rehome_after = Duration::from_secs(600);
        Self::with(Settings { brokers, coordinators: 2, seed, rehome_after, planted: None, tight: false, kafka: false })
    }

    #[must_use]
    pub fn with(settings: Settings) -> Self {
        let Settings { brokers, coordinators, seed, .. } = settings;
        let cluster = Uuid::from_u128(u128::from(seed) << 64 | 0xba70);
        let network = RegistryNetwork::new(seed);
        let hosts = (1..=brokers).map(broker_name).chain((1..=coordinators).map(coordinator_name));
        let this = Self {
            ensemble: MemoryEnsemble::with_network(network.clone()),
            network,
            violations: Violations::default(),
            settings,
            cluster,
            disks: Arc::default(),
            sessions: (0..brokers).map(|_| Arc::default()).collect(),
            live: Arc::default(),
            stops: (0..brokers).map(|_| Arc::default()).collect(),
            skews: hosts.map(|host| (host, Arc::default())).collect(),
        };
        *this.lock_disks() = (1..=brokers).map(|id| this.format(id, 0)).collect();
        this
    }

    fn format(&self, id: u32, number: u32) -> MemoryDisk {
        let disk = u128::from(self.settings.seed) << 64 | u128::from(number) << 32 | u128::from(id);
        MemoryDisk::new(Identity { cluster: self.cluster, broker: BrokerId(id), disk: DiskId(disk) })
    }

    fn lock_disks(&self) -> MutexGuard<'_, Vec<MemoryDisk>> {
        self.disks.lock().expect("nobody panics while it holds the disks")
    }

    /// The disk of a broker.
    #[must_use]
    pub fn disk(&self, broker: u32) -> MemoryDisk {
        self.lock_disks()[broker as usize - 1].clone()
    }

    /// Puts an empty disk in the place of a broker's.
    pub fn replace_disk(&self, broker: u32, number: u32) {
        self.lock_disks()[broker as usize - 1] = self.format(broker, number);
    }

    /// The brokers that are running.
    #[must_use]
    pub fn live(&self) -> BTreeMap<u32, Live> {
        self.live.lock().expect("nobody panics").clone()
    }

    /// Has a broker hand over what it leads, and stop.
    pub fn drain(&self, broker: u32) {
        self.stops[broker as usize - 1].notify_one();
    }

    /// Moves the clock of a host.
    pub fn jump(&self, host: &str, ms: i64) {
        if let Some(skew) = self.skews.get(host) {
            skew.fetch_add(ms, Ordering::Relaxed);
        }
    }

    /// A simulation with all hosts. `RUST_LOG` shows what happens inside.
    #[must_use]
    pub fn start(&self) -> turmoil::Sim<'static> {
        show_log();
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.settings.seed)
            .epoch(UNIX_EPOCH + Duration::from_millis(START_MS.unsigned_abs()))
            .simulation_duration(Duration::from_secs(100_000))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(3))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        for id in 1..=self.settings.brokers {
            let (this, starts) = (self.clone(), Counter::default());
            sim.host(broker_name(id), move || this.clone().run_broker(id, starts.next()));
        }
        for id in 1..=self.settings.coordinators {
            let (this, starts) = (self.clone(), Counter::default());
            sim.host(coordinator_name(id), move || this.clone().run_coordinator(id, starts.next()));
        }
        sim
    }

    /// Lets the time of the registry pass: to be called after every step.
    pub fn after_step(&self, sim: &turmoil::Sim<'_>) {
        let (now, every) = (sim.elapsed().as_millis(), REGISTRY_CLOCK.as_millis());
        if now % every < TICK.as_millis() {
            self.ensemble.tick(REGISTRY_CLOCK);
        }
    }

    fn clock(&self, host: &str) -> Arc<dyn Clock> {
        let skew = self.skews.get(host).cloned().unwrap_or_default();
        Arc::new(Skewed(SimulatedClock::starting_at(START_MS + elapsed_ms()), skew))
    }

    async fn run_coordinator(self, id: u32, start: u64) -> turmoil::Result {
        let name = coordinator_name(id);
        let mut config = CoordinatorConfig { name: name.clone(), ..CoordinatorConfig::default() };
        config.grpc.bind = "0.0.0.0:7450".to_owned();
        config.grpc.advertised = format!("{name}:7450");
        config.http.bind = "0.0.0.0:7451".to_owned();
        config.healing.reassign_after_ms = u64::try_from(self.settings.rehome_after.as_millis()).unwrap_or(u64::MAX);
        config.healing.preferred_in_sync_ms = 5_000;
        config.healing.preferred_every_ms = 10_000;
        let parts = CoordinatorParts {
            config,
            network: Arc::new(SimulatedNetwork),
            registry: Arc::new(self.ensemble.connect_with(&name, SESSION)),
            clock: self.clock(&name),
            seed: Seed(self.settings.seed).split(&name).split_number(start),
            mutations: Planted::of_coordinator(self.settings.planted),
        };
        let _coordinator = Coordinator::start(parts).await?;
        std::future::pending().await
    }

    /// Ends when the process would: stopped well, or after an error of the disk.
    async fn run_broker(self, id: u32, start: u64) -> turmoil::Result {
        let name = broker_name(id);
        let registry: Arc<dyn Registry> = Arc::new(self.ensemble.connect_with(&name, SESSION));
        while let Err(error) = prepare(&*registry, self.cluster).await {
            tracing::info!(%error, "the registry is not prepared yet");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let first = Arc::clone(&registry);
        let open = move |_: usize| Ok::<_, RegistryError>(Arc::clone(&first));
        let seed = Seed(self.settings.seed).split(&name).split_number(start);
        let parts = BrokerParts {
            config: broker_config(id, &self.settings),
            network: Arc::new(SimulatedNetwork),
            log: Arc::new(MemoryLog::open(&self.disk(id), MemoryOptions::default())),
            registry,
            sessions: Arc::new(SessionPool::new(1, Box::new(open))?),
            memory: Arc::clone(&self.sessions[id as usize - 1]) as Arc<dyn SessionMemory>,
            clock: self.clock(&name),
            seed,
            cluster: self.cluster,
            mutations: Planted::of_broker(self.settings.planted),
        };
        let mut broker = Broker::start(parts).await?;
        let incarnation = Incarnation(seed.split("incarnation").0);
        let live = Live { incarnation, partitions: broker.partitions().clone() };
        self.live.lock().expect("nobody panics").insert(id, live);
        let _gone = Gone(self.clone(), id);
        let stop = Arc::clone(&self.stops[id as usize - 1]);
        let ended = tokio::select! {
            biased;
            ended = broker.failed() => Some(ended),
            () = stop.notified() => None,
        };
        match ended {
            None => broker.stop().await,
            Some(BrokerError::Storage(why)) => tracing::info!(broker = id, why, "the process ends"),
            Some(other) => self.violations.add(format!("{name} ended: {other}")),
        }
        Ok(())
    }

    /// A client on the host that calls this.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn client(&self, seed: u64) -> Result<Client, baton_client::ClientError> {
        let bootstrap = (1..=self.settings.brokers).map(|id| format!("{}:7400", broker_name(id))).collect();
        let clock = SimulatedClock::starting_at(START_MS + elapsed_ms());
        let config = ClientConfig {
            bootstrap,
            connector: Arc::new(SimulatedNetwork),
            seed: Some(self.settings.seed ^ seed),
            clock: baton_client::Clock::new(move || clock.now_ms()),
            request_timeout: Duration::from_secs(10),
            mutation: Planted::of_client(self.settings.planted),
            ..ClientConfig::default()
        };
        Client::connect(config).await
    }
}

/// One step of the simulation; latencies are rounded up to it.
pub const TICK: Duration = Duration::from_millis(4);

/// How often the registry looks at its sessions.
const REGISTRY_CLOCK: Duration = Duration::from_millis(50);

fn elapsed_ms() -> i64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(0))
}

/// Log lines show simulated seconds.
struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(out, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

/// Shows the log if `RUST_LOG` asks for it. To be called before a simulation, in another thread:
/// the log's filter draws from the random state of the thread that makes it, and what is drawn
/// there decides the order of waiters.
pub fn show_log() {
    static ONCE: Once = Once::new();
    if std::env::var_os("RUST_LOG").is_some() {
        ONCE.call_once(set_log);
    }
}

fn set_log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(false)
        .with_timer(SimulatedTime)
        .with_test_writer()
        .try_init();
}

/// Counts the starts of a host, so that each has a seed of its own.
#[derive(Clone, Debug, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn broker_config(id: u32, settings: &Settings) -> BrokerConfig {
    let name = broker_name(id);
    let mut config = BrokerConfig { broker_id: id, shards: 2, ..BrokerConfig::default() };
    for listener in &mut config.listeners {
        listener.bind = "0.0.0.0:7400".to_owned();
        listener.advertised = format!("{name}:7400");
    }
    config.peer.bind = "0.0.0.0:7410".to_owned();
    config.peer.advertised = format!("{name}:7410");
    config.http.bind = "0.0.0.0:7480".to_owned();
    if settings.kafka {
        let bind = format!("0.0.0.0:{}", kafka::PORT);
        let advertised = format!("{name}:{}", kafka::PORT);
        config.listeners.push(ListenerConfig { name: "kafka".to_owned(), protocol: Protocol::Kafka, bind, advertised });
        config.transactions.partitions = 3;
    }
    if settings.tight {
        config.limits.peer_in_flight_bytes = 48 << 10;
        config.limits.peer_frame_bytes = 16 << 10;
        config.limits.tail_cache_bytes = 64 << 10;
        config.log.scrub_interval_ms = 1_500;
    }
    config.log.retention_check_ms = 700;
    config.log.compaction_check_ms = 900;
    config
}

/// The nodes that have to be there first, whoever comes first.
async fn prepare(registry: &dyn Registry, uuid: Uuid) -> Result<(), Box<dyn std::error::Error>> {
    layout::prepare(registry).await?;
    cluster::open(registry, ClusterIdentity { uuid, feature_level: 1 }, None).await?;
    Ok(())
}
