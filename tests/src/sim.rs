//! Whole brokers in one simulated network: real gRPC and HTTP/2, simulated time, disks in
//! memory that survive a crash as far as they were synced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use baton_broker::clock::{Seed, SimulatedClock};
use baton_broker::config::BrokerConfig;
use baton_broker::log::Identity;
use baton_broker::log::memory::{MemoryDisk, MemoryLog, MemoryOptions};
use baton_broker::server::Forgetful;
use baton_broker::{Broker, BrokerParts};
use baton_client::{Client, ClientConfig};
use baton_coordinator::daemon::config::CoordinatorConfig;
use baton_coordinator::daemon::start::{Coordinator, CoordinatorParts};
use baton_core::{BrokerId, DiskId};
use baton_registry::memory::MemoryEnsemble;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::{cluster, layout};
use baton_registry::znode::ClusterIdentity;
use baton_registry::{Registry, RegistryError};
use uuid::Uuid;

use crate::net::SimulatedNetwork;

/// The clock of every simulation starts at 2024-01-01.
const START_MS: i64 = 1_704_067_200_000;

/// One works, the other stands by.
pub const COORDINATORS: u32 = 2;

/// The name of the host that stands for ZooKeeper.
pub const REGISTRY: &str = "registry";

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

/// Log lines show simulated seconds.
struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(out, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

/// What a simulated cluster is made of.
#[derive(Clone)]
pub struct SimCluster {
    pub ensemble: MemoryEnsemble,
    pub disks: Vec<MemoryDisk>,
    pub cluster: Uuid,
    pub seed: u64,
}

impl SimCluster {
    #[must_use]
    pub fn new(brokers: u32, seed: u64) -> Self {
        let cluster = Uuid::from_u128(u128::from(seed) << 64 | 0xba70);
        let disk = |id: u32| {
            MemoryDisk::new(Identity {
                cluster,
                broker: BrokerId(id),
                disk: DiskId(u128::from(seed) << 32 | u128::from(id)),
            })
        };
        Self { ensemble: MemoryEnsemble::new(), disks: (1..=brokers).map(disk).collect(), cluster, seed }
    }

    /// A simulation with the registry and all brokers as hosts `broker-1`, `broker-2`, …
    /// `RUST_LOG` shows what happens inside.
    #[must_use]
    pub fn start(&self) -> turmoil::Sim<'static> {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // A second simulation of the same process finds it set.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_timer(SimulatedTime)
            .with_test_writer()
            .try_init();
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .epoch(UNIX_EPOCH + Duration::from_millis(START_MS.unsigned_abs()))
            .simulation_duration(Duration::from_secs(600))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(2))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let ensemble = self.ensemble.clone();
        sim.host(REGISTRY, move || {
            let ensemble = ensemble.clone();
            async move {
                ensemble.run_clock(Duration::from_millis(50)).await;
                Ok(())
            }
        });
        for id in 1..=self.disks.len() {
            self.add_broker(&mut sim, u32::try_from(id).unwrap_or(1));
        }
        for id in 1..=COORDINATORS {
            self.add_coordinator(&mut sim, id);
        }
        sim
    }

    fn add_coordinator(&self, sim: &mut turmoil::Sim<'static>, id: u32) {
        let (this, starts) = (self.clone(), Counter::default());
        sim.host(coordinator_name(id), move || this.clone().run_coordinator(id, starts.next()));
    }

    async fn run_coordinator(self, id: u32, start: u64) -> turmoil::Result {
        let name = coordinator_name(id);
        let mut config = CoordinatorConfig { name: name.clone(), ..CoordinatorConfig::default() };
        config.grpc.bind = "0.0.0.0:7450".to_owned();
        config.grpc.advertised = format!("{name}:7450");
        config.http.bind = "0.0.0.0:7451".to_owned();
        let parts = CoordinatorParts {
            config,
            network: Arc::new(SimulatedNetwork),
            registry: Arc::new(self.ensemble.connect_with(&name, Duration::from_secs(4))),
            clock: Arc::new(SimulatedClock::starting_at(START_MS)),
            seed: Seed(self.seed).split(&name).split_number(start),
            mutations: baton_coordinator::daemon::Mutations::default(),
        };
        let _coordinator = Coordinator::start(parts).await?;
        std::future::pending().await
    }

    fn add_broker(&self, sim: &mut turmoil::Sim<'static>, id: u32) {
        let (this, starts) = (self.clone(), Counter::default());
        sim.host(broker_name(id), move || this.clone().run_broker(id, starts.next()));
    }

    async fn run_broker(self, id: u32, start: u64) -> turmoil::Result {
        let name = broker_name(id);
        let registry: Arc<dyn Registry> = Arc::new(self.ensemble.connect_with(&name, Duration::from_secs(4)));
        prepare(&*registry, self.cluster).await?;
        let first = Arc::clone(&registry);
        let open = move |_: usize| Ok::<_, RegistryError>(Arc::clone(&first));
        let disk = self.disks.get(id as usize - 1).ok_or("no such disk")?;
        let parts = BrokerParts {
            config: broker_config(id),
            network: Arc::new(SimulatedNetwork),
            log: Arc::new(MemoryLog::open(disk, MemoryOptions::default())),
            registry,
            sessions: Arc::new(SessionPool::new(1, Box::new(open))?),
            memory: Arc::new(Forgetful),
            clock: Arc::new(SimulatedClock::starting_at(START_MS)),
            seed: Seed(self.seed).split(&name).split_number(start),
            cluster: self.cluster,
            mutations: baton_broker::mutation::Mutations::default(),
        };
        let mut broker = Broker::start(parts).await?;
        Err(broker.failed().await.into())
    }

    /// A client on the host that calls this.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn client(&self, seed: u64) -> Result<Client, baton_client::ClientError> {
        let bootstrap = (1..=self.disks.len()).map(|id| format!("broker-{id}:7400")).collect();
        let clock = SimulatedClock::starting_at(START_MS);
        let config = ClientConfig {
            bootstrap,
            connector: Arc::new(SimulatedNetwork),
            seed: Some(self.seed ^ seed),
            clock: baton_client::Clock::new(move || baton_broker::clock::Clock::now_ms(&clock)),
            ..ClientConfig::default()
        };
        Client::connect(config).await
    }
}

/// Counts the starts of a host, so that each has a seed of its own.
#[derive(Clone, Debug, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[must_use]
pub fn coordinator_name(id: u32) -> String {
    format!("coordinator-{id}")
}

#[must_use]
pub fn broker_name(id: u32) -> String {
    format!("broker-{id}")
}

fn broker_config(id: u32) -> BrokerConfig {
    let name = broker_name(id);
    let mut config = BrokerConfig { broker_id: id, shards: 2, ..BrokerConfig::default() };
    for listener in &mut config.listeners {
        listener.bind = "0.0.0.0:7400".to_owned();
        listener.advertised = format!("{name}:7400");
    }
    config.peer.bind = "0.0.0.0:7410".to_owned();
    config.peer.advertised = format!("{name}:7410");
    config.http.bind = "0.0.0.0:7480".to_owned();
    config
}

/// The nodes that have to be there first, whoever comes first.
async fn prepare(registry: &dyn Registry, uuid: Uuid) -> Result<(), Box<dyn std::error::Error>> {
    layout::prepare(registry).await?;
    cluster::open(registry, ClusterIdentity { uuid, feature_level: 1 }, None).await?;
    Ok(())
}
