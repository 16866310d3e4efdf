//! A cluster whose brokers die and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_coordinator::dev::{DevCluster, DevOptions};
use baton_tests::ports::free_block;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use tempfile::TempDir;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Three brokers and a coordinator.
pub struct Stage {
    dev: Arc<DevCluster>,
    _dir: TempDir,
}

impl Stage {
    /// A cluster of its own, with a topic.
    pub fn start(topic: &str, partitions: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first_port = free_block();
        let options = DevOptions { dir: dir.path().to_owned(), first_port, kafka_port: Some(first_port + 20) };
        let dev = DevCluster::start(options).unwrap();
        assert!(dev.wait_ready(PATIENCE), "the cluster is not ready");
        let stage = Self { dev, _dir: dir };
        stage.create(topic, partitions);
        stage
    }

    /// What every client is configured with.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.dev.kafka_bootstrap().unwrap());
        config
    }

    fn create(&self, name: &str, partitions: i32) {
        let admin: AdminClient<_> = self.config().create().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let created = runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// As `kill -9` does.
    pub fn kill(&self, broker: u32) {
        self.dev.kill(broker).unwrap();
    }

    /// Starts a broker again, and waits until everybody has what belongs to it.
    pub fn restart(&self, broker: u32) {
        self.dev.start_broker(broker).unwrap();
        assert!(self.dev.wait_ready(PATIENCE), "broker {broker} is not ready");
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
