//! The coordinator's keys.

use std::time::Duration;

use baton_broker::config::check::{check_addresses, check_bind, quoted};
use baton_broker::config::{Problems, RegistryConfig, Settings};
use baton_broker::settings;
use baton_core::placement::PlacementLimits;

use super::plan::create::TopicLimits;
use super::plan::preferred::BalanceLimits;

settings! {
    /// The configuration of a coordinator.
    pub struct CoordinatorConfig {
        /// What people call this coordinator, in logs and in the history: at most 64 bytes.
        name: String = "coordinator".to_owned();
        /// The ZooKeeper ensemble.
        registry: RegistryConfig = RegistryConfig::default();
        /// The listener of the brokers, which forward what administrators ask for.
        grpc: GrpcConfig = GrpcConfig::default();
        /// The listener of `/metrics`, `/livez` and `/readyz`.
        http: CoordinatorHttpConfig = CoordinatorHttpConfig::default();
        /// What happens when brokers stay away or come back.
        healing: HealingConfig = HealingConfig::default();
        /// What bounds the cluster, memory and connections.
        limits: CoordinatorLimits = CoordinatorLimits::default();
        /// How long things take before something is done about them.
        timing: CoordinatorTiming = CoordinatorTiming::default();
    }
}

settings! {
    /// The listener of the brokers.
    pub struct GrpcConfig {
        /// The host:port to listen on; port 0 takes a free one.
        bind: String = "127.0.0.1:7450".to_owned();
        /// The host:port that brokers are told. Empty means the same as `bind`, which then has to name one address.
        advertised: String = String::new();
    }
}

settings! {
    /// The listener of `/metrics`, `/livez` and `/readyz`.
    pub struct CoordinatorHttpConfig {
        /// The host:port to listen on for monitoring; port 0 takes a free one.
        bind: String = "127.0.0.1:7451".to_owned();
    }
}

settings! {
    /// What happens when brokers stay away or come back.
    pub struct HealingConfig {
        /// After so long an absence, the copies of a broker get new homes on live ones, in ms.
        reassign_after_ms: u64 = 600_000;
        /// Partitions that get new homes at the same time; the others wait for their turn.
        reassign_at_once: u32 = 50;
        /// Whether leaders hand over to the preferred ones when these are back.
        balance_leaders: bool = true;
        /// So long a preferred leader has to be in sync before it takes over, in ms.
        preferred_in_sync_ms: u64 = 60_000;
        /// So long a partition's leader stays after it was handed over, in ms.
        preferred_every_ms: u64 = 300_000;
        /// Partitions handed over to preferred leaders in one pass.
        preferred_at_once: u32 = 20;
    }
}

settings! {
    /// What bounds the cluster, memory and connections.
    pub struct CoordinatorLimits {
        /// Partitions of one topic.
        topic_partitions: u32 = 2_000;
        /// Copies that one broker holds. Each is an ephemeral node, and too many in one session would take ZooKeeper down.
        broker_copies: u32 = 10_000;
        /// Events that wait to be recorded; the oldest are dropped, and that is recorded.
        events_waiting: u32 = 10_000;
        /// The largest request of an administrator.
        frame_bytes_max: u64 = 4_194_304;
        /// Open connections of brokers.
        connections: u32 = 1_024;
        /// Open connections for monitoring.
        http_connections: u32 = 64;
    }
}

settings! {
    /// How long things take before something is done about them.
    pub struct CoordinatorTiming {
        /// How often everything is read again from ZooKeeper, whatever the watches said, in ms.
        reread_ms: u64 = 30_000;
        /// How often it is looked whether something is to be healed, in ms.
        healing_ms: u64 = 1_000;
        /// With fewer than three brokers, the topic of the history is made so long after the first one, in ms.
        events_topic_wait_ms: u64 = 5_000;
        /// How long a connection to a broker may take, in ms.
        connect_ms: u64 = 1_000;
        /// How long a broker may take to answer, in ms.
        broker_ms: u64 = 5_000;
        /// The deadline of a request that names none, in ms.
        request_ms: u64 = 30_000;
        /// The longest deadline that a request may ask for, in ms.
        request_ms_max: u64 = 120_000;
        /// A new connection that has not begun to speak after so long is closed, in ms.
        first_bytes_ms: u64 = 5_000;
        /// How long open answers may take when the coordinator stops, in ms.
        stop_ms: u64 = 5_000;
    }
}

impl CoordinatorConfig {
    /// Everything but the registry: what an embedded coordinator, which has no ensemble, needs.
    pub fn complete_local(&mut self, problems: &mut Problems) {
        if self.name.is_empty() || self.name.len() > 64 || self.name.contains(char::is_control) {
            problems.add("name", quoted(&self.name), "it has to be 1 to 64 bytes without control characters");
        }
        let GrpcConfig { bind, advertised } = &mut self.grpc;
        check_addresses(problems, "grpc", bind, advertised);
        check_bind(problems, "http.bind", &self.http.bind);
        let CoordinatorLimits { topic_partitions, broker_copies, events_waiting, .. } = self.limits;
        problems.range("healing.reassign_after_ms", self.healing.reassign_after_ms, 1_000..=31_536_000_000);
        problems.range("healing.reassign_at_once", self.healing.reassign_at_once, 1..=10_000);
        problems.range("healing.preferred_at_once", self.healing.preferred_at_once, 1..=10_000);
        // A plan has to fit into one znode.
        problems.range("limits.topic_partitions", topic_partitions, 1..=10_000);
        problems.range("limits.broker_copies", broker_copies, 1..=100_000);
        problems.range("limits.events_waiting", events_waiting, 16..=1_000_000);
        problems.range("limits.frame_bytes_max", self.limits.frame_bytes_max, 65_536..=67_108_864);
        problems.range("limits.connections", self.limits.connections, 1..=100_000);
        problems.range("limits.http_connections", self.limits.http_connections, 1..=10_000);
        self.timing.check(problems);
    }

    /// What a topic may be.
    #[must_use]
    pub fn topic_limits(&self) -> TopicLimits {
        TopicLimits { partitions_max: self.limits.topic_partitions, placement: self.placement_limits() }
    }

    #[must_use]
    pub fn placement_limits(&self) -> PlacementLimits {
        PlacementLimits { copies_per_broker_max: self.limits.broker_copies }
    }

    #[must_use]
    pub fn balance_limits(&self) -> BalanceLimits {
        BalanceLimits {
            in_sync_for: Duration::from_millis(self.healing.preferred_in_sync_ms),
            every: Duration::from_millis(self.healing.preferred_every_ms),
            at_once: self.healing.preferred_at_once as usize,
        }
    }

    /// How long a request may take that asked for `timeout_ms`; 0 asks for the default.
    #[must_use]
    pub fn deadline(&self, timeout_ms: u32) -> Duration {
        let asked = if timeout_ms == 0 { self.timing.request_ms } else { u64::from(timeout_ms) };
        Duration::from_millis(asked.min(self.timing.request_ms_max))
    }
}

impl CoordinatorTiming {
    fn check(&self, problems: &mut Problems) {
        let keys = [
            ("timing.reread_ms", self.reread_ms),
            ("timing.healing_ms", self.healing_ms),
            ("timing.events_topic_wait_ms", self.events_topic_wait_ms),
            ("timing.connect_ms", self.connect_ms),
            ("timing.broker_ms", self.broker_ms),
            ("timing.request_ms", self.request_ms),
            ("timing.request_ms_max", self.request_ms_max),
            ("timing.first_bytes_ms", self.first_bytes_ms),
            ("timing.stop_ms", self.stop_ms),
        ];
        for (key, value) in keys {
            problems.range(key, value, 10..=3_600_000);
        }
    }

    #[must_use]
    pub fn reread(&self) -> Duration {
        Duration::from_millis(self.reread_ms)
    }

    #[must_use]
    pub fn broker(&self) -> Duration {
        Duration::from_millis(self.broker_ms)
    }
}

impl Settings for CoordinatorConfig {
    fn complete(&mut self, problems: &mut Problems) {
        self.complete_local(problems);
        self.registry.check(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_broker::config::{ConfigError, Section, Sources, load, to_toml};

    fn with(flags: &[(&str, &str)]) -> Result<CoordinatorConfig, ConfigError> {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load(&Sources { flags, ..Sources::default() })
    }

    #[test]
    fn an_ensemble_is_enough() {
        let config = with(&[("registry.connect", "zk:2181/baton")]).unwrap();
        assert_eq!(config.grpc.advertised, "127.0.0.1:7450");
        assert!(to_toml(&config).contains("reassign_after_ms"));
        assert!(with(&[]).is_err());
    }

    #[test]
    fn every_key_is_documented_and_bad_values_are_refused() {
        for key in CoordinatorConfig::keys() {
            assert!(key.doc.ends_with('.') && key.doc.len() > 15, "{}: {}", key.path, key.doc);
        }
        let connect = ("registry.connect", "zk:2181");
        for bad in [
            ("name", ""),
            ("grpc.bind", "7450"),
            ("grpc.bind", "0.0.0.0:7450"),
            ("limits.topic_partitions", "0"),
            ("healing.reassign_after_ms", "1"),
            ("timing.healing_ms", "0"),
        ] {
            assert!(matches!(with(&[connect, bad]), Err(ConfigError::Invalid(_))), "{bad:?}");
        }
        assert!(matches!(with(&[connect, ("nope", "1")]), Err(ConfigError::UnknownKey { .. })));
    }

    #[test]
    fn deadlines_have_a_default_and_an_end() {
        let config = CoordinatorConfig::default();
        assert_eq!(config.deadline(0), Duration::from_secs(30));
        assert_eq!(config.deadline(u32::MAX), Duration::from_secs(120));
        assert_eq!(config.deadline(5), Duration::from_millis(5));
    }
}
