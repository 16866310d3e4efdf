//! A cluster of processes whose brokers die and come back.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use baton_faults::cluster::{Cluster, Shape};
use baton_faults::series::built_program;
use baton_registry::testing::server::Version;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use tokio::runtime::Runtime;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Three brokers, a coordinator and a ZooKeeper server, each a process of its own. Processes end
/// with the thread that started them: the test's.
pub struct Stage {
    cluster: RefCell<Cluster>,
    runtime: Runtime,
}

impl Stage {
    /// A cluster of its own; none where there is no ZooKeeper and need not be.
    pub fn start() -> Option<Self> {
        let shape = Shape {
            program: built_program().unwrap(),
            class_path: Version::V3_8.class_path_or_skip()?,
            zookeepers: 1,
            brokers: 3,
            coordinators: 1,
            parent: std::env::temp_dir(),
            log_filter: "info".to_owned(),
            sandbox: None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let cluster = runtime.block_on(Cluster::start(&shape)).unwrap();
        Some(Self { cluster: RefCell::new(cluster), runtime })
    }

    pub fn bootstrap(&self) -> String {
        self.cluster.borrow().kafka_bootstrap()
    }

    /// What every client is configured with.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    /// Makes a topic of three replicas.
    pub fn create(&self, name: &str, partitions: i32) {
        let admin: AdminClient<_> = self.config().create().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let created = self.runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// `kill -9`.
    pub fn kill(&self, broker: u32) {
        self.cluster.borrow_mut().broker(broker).kill();
    }

    /// Starts a broker again, and waits until everybody has what belongs to it.
    pub fn restart(&self, broker: u32) {
        let mut cluster = self.cluster.borrow_mut();
        cluster.broker(broker).start().unwrap();
        self.runtime.block_on(cluster.ready()).unwrap();
    }

    /// Makes the preferred replicas leaders again, which coordinators do by themselves some
    /// minutes after a broker came back. Without it one broker would lead everything after a few
    /// deaths, and a client that speaks with that one only has to find the others first. To be
    /// called when clients have found the broker again: librdkafka waits up to ten seconds before
    /// it looks (`reconnect.backoff.max.ms`).
    pub fn spread_leaders(&self, topic: &str, partitions: u32) {
        let client = self.runtime.block_on(self.cluster.borrow().client("operator")).unwrap();
        for partition in 0..partitions {
            let elect = || self.runtime.block_on(client.admin().elect_preferred(topic, partition)).is_ok();
            eventually("the preferred replica leads", elect);
        }
    }

    /// Kills and starts each broker once.
    pub fn kill_each(&self, pause: Duration) {
        for broker in 1..=3 {
            self.kill(broker);
            std::thread::sleep(pause);
            self.restart(broker);
            std::thread::sleep(pause);
        }
    }
}

/// Whether something comes true in time.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
