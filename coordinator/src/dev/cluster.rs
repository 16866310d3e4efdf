//! The brokers, the coordinator and the registry of `baton dev`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baton_broker::Broker;
use baton_broker::clock::{Seed, SystemClock};
use baton_broker::config::{BrokerConfig, ListenerConfig, Problems, Protocol};
use baton_broker::launch::{LaunchError, RegistrySource, launch};
use baton_broker::net::TcpNetwork;
use baton_registry::memory::{JournalError, MemoryEnsemble};
use tokio::runtime::Runtime;

use crate::daemon::Mutations;
use crate::daemon::config::CoordinatorConfig;
use crate::daemon::start::{Coordinator, CoordinatorHandle, CoordinatorParts, StartError};

/// Brokers of the cluster.
pub const BROKERS: u32 = 3;

/// How often sessions of killed brokers are looked at.
const REGISTRY_CLOCK: Duration = Duration::from_millis(100);

/// A broker that was killed lets go of its directory and ports within this time.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Where the cluster keeps its data and listens.
#[derive(Clone, Debug)]
pub struct DevOptions {
    pub dir: PathBuf,
    /// Broker i listens for clients on this + i − 1; peers ten above, monitoring eighty above.
    pub first_port: u16,
    /// Broker i listens for Kafka's clients on this + i − 1; none: for nobody.
    pub kafka_port: Option<u16>,
}

impl Default for DevOptions {
    fn default() -> Self {
        Self { dir: PathBuf::from("./baton-data"), first_port: 7_400, kafka_port: Some(9_092) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("the directory {}: {source}", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error("the embedded registry: {0}")]
    Registry(#[from] JournalError),
    #[error("broker {id}: {source}")]
    Broker { id: u32, source: LaunchError },
    #[error("the coordinator: {0}")]
    Coordinator(#[from] StartError),
    #[error("there is no broker {0}; there are 1 to {BROKERS}")]
    NoSuchBroker(u32),
    #[error("broker {0} is running")]
    Running(u32),
    #[error("broker {0} is not running")]
    NotRunning(u32),
    #[error("the configuration: {0}")]
    Config(String),
}

/// One broker that runs, on a runtime of its own.
struct Running {
    runtime: Runtime,
    broker: Broker,
}

/// The cluster. All of its functions block: call them outside a runtime.
pub struct DevCluster {
    options: DevOptions,
    ensemble: MemoryEnsemble,
    brokers: Mutex<Vec<Option<Running>>>,
    /// The coordinator's and the registry's; none once everything is stopped.
    runtime: Mutex<Option<Runtime>>,
    coordinator: Mutex<Option<CoordinatorHandle>>,
}

impl DevCluster {
    /// Starts everything; returns when all brokers are ready.
    ///
    /// # Errors
    /// [`DevError`]; what was started already is stopped.
    pub fn start(options: DevOptions) -> Result<Arc<Self>, DevError> {
        let dir = |source| DevError::Directory { dir: options.dir.clone(), source };
        std::fs::create_dir_all(options.dir.join("registry")).map_err(dir)?;
        let ensemble = MemoryEnsemble::open(&options.dir.join("registry"))?;
        let runtime = new_runtime("baton-dev").map_err(dir)?;
        runtime.spawn(ensemble.clone().run_clock(REGISTRY_CLOCK));
        let coordinator = runtime.block_on(start_coordinator(&options, &ensemble))?;
        let cluster = Self {
            brokers: Mutex::new((0..BROKERS).map(|_| None).collect()),
            options,
            ensemble,
            runtime: Mutex::new(Some(runtime)),
            coordinator: Mutex::new(Some(coordinator)),
        };
        // Together: each opens its log and waits for its disk.
        std::thread::scope(|scope| {
            let cluster = &cluster;
            let starts: Vec<_> = (1..=BROKERS).map(|id| scope.spawn(move || (id, cluster.launch(id)))).collect();
            for start in starts {
                let (id, running) = start.join().map_err(|_| DevError::Config("a start panicked".to_owned()))?;
                cluster.put(id, Some(running?));
            }
            Ok::<_, DevError>(())
        })?;
        Ok(Arc::new(cluster))
    }

    /// Where clients reach the brokers.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let address = |id| format!("127.0.0.1:{}", self.options.first_port + id - 1);
        (1..=BROKERS as u16).map(address).collect::<Vec<_>>().join(",")
    }

    /// Where Kafka's clients reach the brokers, if they do.
    #[must_use]
    pub fn kafka_bootstrap(&self) -> Option<String> {
        let first = self.options.kafka_port?;
        let address = |id| format!("localhost:{}", first + id - 1);
        Some((1..=BROKERS as u16).map(address).collect::<Vec<_>>().join(","))
    }

    /// Whether each broker runs.
    #[must_use]
    pub fn running(&self) -> Vec<bool> {
        self.lock().iter().map(Option::is_some).collect()
    }

    /// Waits until every running broker does everything that it should.
    pub fn wait_ready(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let ready = self.lock().iter().flatten().all(|r| r.runtime.block_on(r.broker.missing()).is_empty());
            if ready {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Drops a broker without handing over or flushing anything, as `kill -9` would.
    ///
    /// # Errors
    /// There is no such broker, or it does not run.
    pub fn kill(&self, id: u32) -> Result<(), DevError> {
        let Running { runtime, broker } = self.take(id)?;
        broker.kill();
        runtime.shutdown_timeout(KILL_WITHIN);
        Ok(())
    }

    /// Starts a broker that was killed.
    ///
    /// # Errors
    /// There is no such broker, it runs, or it does not start.
    pub fn start_broker(&self, id: u32) -> Result<(), DevError> {
        if self.slot(id)? {
            return Err(DevError::Running(id));
        }
        let running = self.launch(id)?;
        self.put(id, Some(running));
        Ok(())
    }

    /// Stops every broker as SIGTERM would, one after another, then the coordinator.
    pub fn stop(&self) {
        let running: Vec<Running> = self.lock().iter_mut().filter_map(Option::take).collect();
        std::thread::scope(|scope| {
            for Running { runtime, broker } in running {
                scope.spawn(move || {
                    runtime.block_on(broker.stop());
                    runtime.shutdown_timeout(KILL_WITHIN);
                });
            }
        });
        let coordinator = self.coordinator.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let runtime = self.runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            if let Some(coordinator) = coordinator {
                runtime.block_on(coordinator.stop());
            }
            runtime.shutdown_timeout(KILL_WITHIN);
        }
    }

    fn launch(&self, id: u32) -> Result<Running, DevError> {
        let config = self.broker_config(id)?;
        let dir = |source| DevError::Directory { dir: config.log.dir.clone(), source };
        let runtime = new_runtime(&format!("broker-{id}")).map_err(dir)?;
        let source = RegistrySource::Embedded(self.ensemble.clone());
        match runtime.block_on(launch(config, source)) {
            Ok(broker) => Ok(Running { runtime, broker }),
            Err(source) => Err(DevError::Broker { id, source }),
        }
    }

    fn broker_config(&self, id: u32) -> Result<BrokerConfig, DevError> {
        let port = self.options.first_port + u16::try_from(id).unwrap_or(1) - 1;
        // A rack for each, so that readers who say where they stand can be tried.
        let rack = format!("rack-{id}");
        let mut config = BrokerConfig { broker_id: id, rack, shards: 1, ..BrokerConfig::default() };
        // Whoever tries it out starts one consumer and wants to see records.
        config.groups.initial_delay_ms = 100;
        for listener in &mut config.listeners {
            listener.bind = format!("127.0.0.1:{port}");
        }
        if let Some(first) = self.options.kafka_port {
            config.listeners.push(ListenerConfig {
                name: "kafka".to_owned(),
                protocol: Protocol::Kafka,
                bind: format!("127.0.0.1:{}", first + (port - self.options.first_port)),
                advertised: String::new(),
            });
        }
        config.peer.bind = format!("127.0.0.1:{}", port + 10);
        config.http.bind = format!("127.0.0.1:{}", port + 80);
        config.log.dir = broker_dir(&self.options.dir, id);
        let mut problems = Problems::default();
        config.complete_local(&mut problems);
        match problems.text() {
            text if text.is_empty() => Ok(config),
            text => Err(DevError::Config(text)),
        }
    }

    fn slot(&self, id: u32) -> Result<bool, DevError> {
        let index = (id as usize).checked_sub(1).ok_or(DevError::NoSuchBroker(id))?;
        self.lock().get(index).map(Option::is_some).ok_or(DevError::NoSuchBroker(id))
    }

    fn take(&self, id: u32) -> Result<Running, DevError> {
        self.slot(id)?;
        let mut brokers = self.lock();
        brokers.get_mut(id as usize - 1).and_then(Option::take).ok_or(DevError::NotRunning(id))
    }

    fn put(&self, id: u32, running: Option<Running>) {
        let mut brokers = self.lock();
        if let Some(slot) = (id as usize).checked_sub(1).and_then(|index| brokers.get_mut(index)) {
            *slot = running;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Running>>> {
        self.brokers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A runtime must not be dropped where others run: what is left is let go without waiting.
impl Drop for DevCluster {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let brokers = self.brokers.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let running = brokers.iter_mut().filter_map(Option::take).map(|running| running.runtime);
        for runtime in runtime.into_iter().chain(running) {
            runtime.shutdown_background();
        }
    }
}

fn broker_dir(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("broker-{id}"))
}

fn new_runtime(name: &str) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build()
}

async fn start_coordinator(options: &DevOptions, ensemble: &MemoryEnsemble) -> Result<CoordinatorHandle, DevError> {
    let mut config = CoordinatorConfig { name: "dev".to_owned(), ..CoordinatorConfig::default() };
    config.grpc.bind = format!("127.0.0.1:{}", options.first_port + 50);
    config.http.bind = format!("127.0.0.1:{}", options.first_port + 51);
    let mut problems = Problems::default();
    config.complete_local(&mut problems);
    let text = problems.text();
    if !text.is_empty() {
        return Err(DevError::Config(text));
    }
    let parts = CoordinatorParts {
        config,
        network: Arc::new(TcpNetwork),
        registry: Arc::new(ensemble.connect("coordinator")),
        clock: Arc::new(SystemClock),
        seed: Seed::random(),
        mutations: Mutations::default(),
    };
    Ok(Coordinator::start(parts).await?)
}
