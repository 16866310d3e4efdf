//! A cluster in this process on free ports, and the ledger of what it acknowledged.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use baton_broker::Broker;
use baton_broker::clock::{Seed, SystemClock};
use baton_broker::config::{BrokerConfig, Problems};
use baton_broker::launch::{LaunchError, RegistrySource, launch};
use baton_broker::net::TcpNetwork;
use baton_client::admin::{At, TopicSpec};
use baton_client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, Record, Start};
use baton_coordinator::daemon::Mutations;
use baton_coordinator::daemon::config::CoordinatorConfig;
use baton_coordinator::daemon::start::{Coordinator, CoordinatorHandle, CoordinatorParts};
use baton_core::TopicId;
use baton_proto::v1;
use baton_registry::Registry;
use baton_registry::memory::MemoryEnsemble;
use baton_registry::recipes::layout;
use baton_registry::znode::{TopicIds, Znode, topic};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::watch;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A broker that was killed lets go of its directory within this time.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Topic ids begin at another number in each cluster, so that lines of the log are told apart.
static TOPICS: AtomicU32 = AtomicU32::new(0x1000);

struct Running {
    runtime: Runtime,
    broker: Broker,
}

/// How a cluster differs from the usual one.
#[derive(Clone, Copy)]
pub struct Options {
    pub brokers: u32,
    pub tune: fn(&mut BrokerConfig),
}

impl Default for Options {
    fn default() -> Self {
        Self { brokers: 3, tune: |_| {} }
    }
}

/// Brokers and a coordinator. Its functions block; asynchronous work goes through [`Self::run`].
pub struct Cluster {
    pub ensemble: MemoryEnsemble,
    home: PathBuf,
    /// Removed with the cluster; none if the directory is somebody else's.
    _temporary: Option<TempDir>,
    options: Options,
    runtime: Runtime,
    brokers: std::sync::Mutex<BTreeMap<u32, Running>>,
    pub coordinator: Option<CoordinatorHandle>,
}

/// One cluster for all tests that only send bad requests.
pub fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(Options::default()));
    &SHARED
}

impl Cluster {
    pub fn start(options: Options) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let home = temporary.path().to_owned();
        let ensemble = MemoryEnsemble::new();
        runtime("setup").block_on(number_topics(&ensemble));
        Self::assemble(options, ensemble, home, Some(temporary))
    }

    /// On what an earlier process left in `home`, the registry included.
    pub fn start_in(options: Options, home: &Path) -> Self {
        let registry = home.join("registry");
        std::fs::create_dir_all(&registry).unwrap();
        Self::assemble(options, MemoryEnsemble::open(&registry).unwrap(), home.to_owned(), None)
    }

    fn assemble(options: Options, ensemble: MemoryEnsemble, home: PathBuf, temporary: Option<TempDir>) -> Self {
        watch::begin();
        let runtime = runtime("cluster");
        runtime.spawn(ensemble.clone().run_clock(Duration::from_millis(50)));
        let coordinator = runtime.block_on(start_coordinator(&ensemble));
        let cluster = Self {
            ensemble,
            home,
            _temporary: temporary,
            options,
            runtime,
            brokers: std::sync::Mutex::default(),
            coordinator: Some(coordinator),
        };
        for id in 1..=options.brokers {
            cluster.start_broker(id);
        }
        cluster.wait_ready();
        cluster
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn config(&self, id: u32) -> BrokerConfig {
        let mut config = config(id, self.broker_dir(id));
        (self.options.tune)(&mut config);
        complete(config)
    }

    pub fn broker_dir(&self, id: u32) -> PathBuf {
        self.home.join(format!("broker-{id}"))
    }

    /// Tries to start a broker beside the others, and says why it did not start.
    pub fn try_launch(&self, config: BrokerConfig) -> Result<Stray, LaunchError> {
        let runtime = runtime("stray");
        let launched = runtime.block_on(launch(config, RegistrySource::Embedded(self.ensemble.clone())));
        match launched {
            Ok(broker) => Ok(Stray { runtime: Some(runtime), broker: Some(broker) }),
            Err(error) => {
                runtime.shutdown_timeout(KILL_WITHIN);
                Err(error)
            }
        }
    }

    pub fn start_broker(&self, id: u32) {
        let runtime = runtime(&format!("broker-{id}"));
        let source = RegistrySource::Embedded(self.ensemble.clone());
        let broker = runtime.block_on(launch(self.config(id), source)).expect("the broker starts");
        self.brokers.lock().unwrap().insert(id, Running { runtime, broker });
    }

    /// As `kill -9`: nothing is handed over or flushed.
    pub fn kill(&self, id: u32) {
        let Running { runtime, broker } = self.brokers.lock().unwrap().remove(&id).expect("it runs");
        broker.kill();
        runtime.shutdown_timeout(KILL_WITHIN);
    }

    /// As SIGTERM.
    pub fn stop(&self, id: u32) {
        let Running { runtime, broker } = self.brokers.lock().unwrap().remove(&id).expect("it runs");
        runtime.block_on(broker.stop());
        runtime.shutdown_timeout(KILL_WITHIN);
    }

    /// `grpc`, `peer` or `http` of a broker.
    pub fn address(&self, id: u32, listener: &str) -> String {
        self.brokers.lock().unwrap()[&id].broker.addresses()[listener].clone()
    }

    pub fn bootstrap(&self) -> Vec<String> {
        self.brokers.lock().unwrap().values().map(|running| running.broker.addresses()["grpc"].clone()).collect()
    }

    pub fn wait_ready(&self) {
        wait(|| {
            let brokers = self.brokers.lock().unwrap();
            brokers.values().all(|r| r.runtime.block_on(r.broker.missing()).is_empty())
        });
        if let Some(coordinator) = &self.coordinator {
            self.run(async { tokio::time::timeout(PATIENCE, coordinator.active()).await }).expect("a coordinator");
        }
    }

    pub fn client(&self) -> Client {
        let config = ClientConfig { bootstrap: self.bootstrap(), ..ClientConfig::default() };
        self.run(Client::connect(config)).expect("the cluster answers")
    }

    /// A handle of somebody who writes into the registry by hand.
    pub fn operator(&self) -> impl Registry + use<> {
        self.ensemble.connect("operator")
    }

    /// Where a topic's first partition is led, and what is known of it.
    pub fn leader(&self, topic: &str) -> (u32, v1::PartitionInfo, TopicId) {
        let address = self.bootstrap()[0].clone();
        let mut found = None;
        wait(|| {
            let info = self.run(crate::raw::metadata(&address, topic));
            let partition = info.partitions.first().filter(|p| p.leader.is_some()).cloned();
            found = partition.map(|p| (p.leader.unwrap(), p, info.id.parse().unwrap()));
            found.is_some()
        });
        found.unwrap()
    }

    pub fn leader_address(&self, topic: &str) -> String {
        self.address(self.leader(topic).0, "grpc")
    }

    /// Waits until so many replicas of the topic's first partition are in sync.
    pub fn wait_in_sync(&self, topic: &str, count: usize) {
        wait(|| self.leader(topic).1.isr.len() == count);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let brokers = std::mem::take(&mut *self.brokers.lock().unwrap());
        for Running { runtime, broker } in brokers.into_values() {
            broker.kill();
            runtime.shutdown_background();
        }
    }
}

/// A broker that is none of the cluster's own.
pub struct Stray {
    runtime: Option<Runtime>,
    broker: Option<Broker>,
}

impl Stray {
    /// Why the broker gave up, if it does.
    pub fn failed(&mut self) -> baton_broker::server::BrokerError {
        let (runtime, broker) = (self.runtime.as_ref().unwrap(), self.broker.as_mut().unwrap());
        runtime.block_on(async { tokio::time::timeout(PATIENCE, broker.failed()).await }).expect("it gives up")
    }

    pub fn ready(&self) {
        let (runtime, broker) = (self.runtime.as_ref().unwrap(), self.broker.as_ref().unwrap());
        wait(|| runtime.block_on(broker.missing()).is_empty());
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.kill();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(KILL_WITHIN);
        }
    }
}

/// A broker's configuration on free ports.
pub fn config(id: u32, dir: PathBuf) -> BrokerConfig {
    let mut config = BrokerConfig { broker_id: id, shards: 1, ..BrokerConfig::default() };
    for listener in &mut config.listeners {
        listener.bind = "127.0.0.1:0".to_owned();
    }
    config.peer.bind = "127.0.0.1:0".to_owned();
    config.http.bind = "127.0.0.1:0".to_owned();
    config.log.dir = dir;
    config.log.reserve_bytes = 16 << 20;
    config
}

pub fn complete(mut config: BrokerConfig) -> BrokerConfig {
    let mut problems = Problems::default();
    config.complete_local(&mut problems);
    assert_eq!(problems.text(), "");
    config
}

pub fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

async fn number_topics(ensemble: &MemoryEnsemble) {
    let registry = ensemble.connect("setup");
    layout::prepare(&registry).await.unwrap();
    let next = TopicId(TOPICS.fetch_add(0x1000, Ordering::Relaxed));
    registry.set(topic::ROOT, TopicIds { next }.encode(), None).await.unwrap();
    registry.close().await;
}

async fn start_coordinator(ensemble: &MemoryEnsemble) -> CoordinatorHandle {
    let mut config = CoordinatorConfig { name: "tested".to_owned(), ..CoordinatorConfig::default() };
    config.grpc.bind = "127.0.0.1:0".to_owned();
    config.http.bind = "127.0.0.1:0".to_owned();
    config.timing.first_bytes_ms = 500;
    let mut problems = Problems::default();
    config.complete_local(&mut problems);
    assert_eq!(problems.text(), "");
    let parts = CoordinatorParts {
        config,
        network: Arc::new(TcpNetwork),
        registry: Arc::new(ensemble.connect("coordinator")),
        clock: Arc::new(SystemClock),
        seed: Seed::random(),
        mutations: Mutations::default(),
    };
    Coordinator::start(parts).await.expect("the coordinator starts")
}

/// Polls until `met` or the patience ends.
#[track_caller]
pub fn wait(mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "it did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What one topic acknowledged, in order.
pub struct Ledger {
    pub topic: String,
    client: Client,
    acknowledged: Vec<String>,
}

impl Ledger {
    /// Makes the topic, with as many replicas as there are brokers, and a first few records.
    pub fn open(cluster: &Cluster, topic: &str) -> Self {
        Self::open_with(cluster, TopicSpec::new(topic).partitions(1))
    }

    pub fn open_with(cluster: &Cluster, spec: TopicSpec) -> Self {
        let client = cluster.client();
        let topic = spec.name.clone();
        let created = cluster.run(client.admin().create_topic(spec)).expect("the topic is made");
        cluster.wait_in_sync(&topic, created.replication as usize);
        let mut ledger = Self { topic, client, acknowledged: Vec::new() };
        for _ in 0..5 {
            ledger.produce(cluster);
        }
        ledger
    }

    /// The same records, in a cluster whose brokers have moved to other ports.
    pub fn resume(self, cluster: &Cluster) -> Self {
        Self { client: cluster.client(), ..self }
    }

    /// A topic that an earlier process made, and what it acknowledged.
    pub fn take_over(cluster: &Cluster, topic: &str, acknowledged: Vec<String>) -> Self {
        Self { topic: topic.to_owned(), client: cluster.client(), acknowledged }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One record more is acknowledged, whatever is wrong elsewhere.
    #[track_caller]
    pub fn produce(&mut self, cluster: &Cluster) {
        let value = format!("record {}", self.acknowledged.len());
        let record = Record::new(value.clone()).partition(0);
        let acknowledged = cluster.run(async {
            let producer =
                self.client.producer(ProducerConfig { delivery_timeout: PATIENCE, ..ProducerConfig::default() });
            let delivery = producer.send(&self.topic, record).await?;
            delivery.wait().await
        });
        acknowledged.expect("the cluster takes records");
        self.acknowledged.push(value);
    }

    pub fn last(&self) -> &str {
        self.acknowledged.last().map_or("", String::as_str)
    }

    /// All that was acknowledged is there, in order, and nothing else.
    #[track_caller]
    pub fn read(&self, cluster: &Cluster) {
        let wanted = self.acknowledged.len();
        let read = cluster.run(async {
            let mut consumer = self.client.consumer(ConsumerConfig::default());
            consumer.assign(&self.topic, &[(0, Start::First)]).await.expect("the topic is known");
            let deadline = Instant::now() + PATIENCE;
            let mut read = Vec::new();
            while read.len() < wanted && Instant::now() < deadline {
                for record in consumer.poll(Duration::from_millis(100)).await.expect("the records can be read") {
                    read.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
            read
        });
        assert_eq!(read, self.acknowledged);
    }

    /// As [`Self::read`], where records of unknown outcome may follow; they count from then on.
    #[track_caller]
    pub fn read_at_least(mut self, cluster: &Cluster) -> Self {
        let end = cluster.run(self.client.admin().offsets(&self.topic, &[0], At::End)).expect("the end is known");
        let end = end.values().next().copied().flatten().expect("there are records");
        let noted = std::mem::take(&mut self.acknowledged);
        self.acknowledged = (0..end.0).map(|n| format!("record {n}")).collect();
        assert!(self.acknowledged.len() >= noted.len(), "{} of {} are left", self.acknowledged.len(), noted.len());
        assert_eq!(self.acknowledged[..noted.len()], noted);
        self.read(cluster);
        self
    }

    /// The end of every test: it still works, nothing is lost, nobody panicked.
    #[track_caller]
    pub fn settle(mut self, cluster: &Cluster) {
        self.produce(cluster);
        self.read(cluster);
        watch::assert_no_panics();
    }
}
