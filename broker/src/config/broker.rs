//! The broker's keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use baton_core::BrokerId;

use super::check::{self, HostPort, Problems, quoted};
use super::load::Settings;
use crate::{named, settings};

const MIB: u64 = 1 << 20;

settings! {
    /// The configuration of a broker.
    pub struct BrokerConfig {
        /// The broker's number, 1 to 2147483647, unique in the cluster and never changed.
        broker_id: u32 = 0, required;
        /// Where the broker stands (a rack, a zone); replicas of a partition are spread over racks. Empty means that it has no rack of its own.
        rack: String = String::new();
        /// Shard tasks, each owning a part of the partitions; 0 means one per core.
        shards: u32 = 0;
        /// The ZooKeeper ensemble.
        registry: RegistryConfig = RegistryConfig::default();
        /// The listeners of clients, each with a name of its own. As a variable: the whole list as TOML on one line, or single values of the elements counted from 0.
        listeners: Vec<ListenerConfig> = vec![ListenerConfig::default()];
        /// The listener of the other brokers.
        peer: PeerConfig = PeerConfig::default();
        /// The listener of `/metrics`, `/livez` and `/readyz`.
        http: HttpConfig = HttpConfig::default();
        /// The data directory.
        log: LogConfig = LogConfig::default();
        /// What bounds memory, connections and work.
        limits: LimitsConfig = LimitsConfig::default();
        /// How long things take before something is done about them.
        timing: TimingConfig = TimingConfig::default();
        /// What the listeners of Kafka's protocol do.
        kafka: KafkaConfig = KafkaConfig::default();
        /// Consumer groups.
        groups: GroupsConfig = GroupsConfig::default();
        /// What coordinators of transactions allow and remember.
        transactions: TransactionsConfig = TransactionsConfig::default();
    }
}

settings! {
    /// The ZooKeeper ensemble.
    pub struct RegistryConfig {
        /// The ZooKeeper servers and the path of the cluster: `host:port,host:port/path`.
        connect: String = String::new(), required;
        /// How long ZooKeeper keeps the ephemeral nodes of a broker that it no longer hears, in ms.
        session_timeout_ms: u64 = 4_000;
        /// Credentials for ZooKeeper as `scheme:credentials`, such as `digest:user:password`; empty means none.
        auth: String = String::new(), secret;
    }
}

named! {
    /// What a listener of clients speaks.
    pub enum Protocol {
        Grpc = "grpc",
        Kafka = "kafka",
    }
}

settings! {
    /// One listener of clients.
    pub struct ListenerConfig {
        /// The listener's name, as clients' requests and metrics show it: `[a-z0-9-]`, 1 to 32 characters.
        name: String = "grpc".to_owned();
        /// The protocol that the listener speaks.
        protocol: Protocol = Protocol::Grpc;
        /// The host:port to listen on; port 0 takes a free one.
        bind: String = "127.0.0.1:7400".to_owned();
        /// The host:port that clients are told. Empty means the same as `bind`, which then has to name one address.
        advertised: String = String::new();
    }
}

settings! {
    /// What the listeners of Kafka's protocol do.
    pub struct KafkaConfig {
        /// Whether a topic that a client asks for and that is not there is created, as with Kafka.
        auto_create_topics: bool = true;
        /// The partitions of a topic that a Kafka client creates without naming a number (`num.partitions`).
        default_partitions: u32 = 1;
        /// Requests of one connection that are begun and not answered yet; beyond it the connection is not read.
        requests_in_flight: u32 = 64;
        /// A connection that asks nothing for so long is closed, in ms.
        idle_ms: u64 = 600_000;
    }
}

settings! {
    /// The listener of the other brokers.
    pub struct PeerConfig {
        /// The host:port to listen on for the other brokers; port 0 takes a free one.
        bind: String = "127.0.0.1:7410".to_owned();
        /// The host:port that the other brokers are told. Empty means the same as `bind`, which then has to name one address.
        advertised: String = String::new();
    }
}

settings! {
    /// The listener of `/metrics`, `/livez` and `/readyz`.
    pub struct HttpConfig {
        /// The host:port to listen on for monitoring; port 0 takes a free one.
        bind: String = "127.0.0.1:7480".to_owned();
    }
}

settings! {
    /// The data directory.
    pub struct LogConfig {
        /// The data directory: one broker's, on a local disk.
        dir: PathBuf = PathBuf::from("/var/lib/baton");
        /// Below so many free bytes on the disk, produce is refused; reads and deletes go on.
        reserve_bytes: u64 = 1024 * MIB;
        /// Memory for blocks read from disk.
        cache_bytes: u64 = 64 * MIB;
        /// The most that one group commit takes together.
        commit_bytes_max: u64 = 16 * MIB;
        /// Memory for what is in the journal only; when it is full it is written to tables.
        memtable_bytes: u64 = 64 * MIB;
        /// How often every copy is read from end to end, to find what has rotted on the disk, in ms; 0 means never. The first time is when the broker starts.
        scrub_interval_ms: u64 = 86_400_000;
        /// What is read for that at most, per second.
        scrub_bytes_per_s: u64 = 16 * MIB;
        /// How often a leader looks whether records are beyond `retention.ms` or `retention.bytes`, in ms; 0 means never.
        retention_check_ms: u64 = 300_000;
        /// How often a copy of a compacted topic is looked at, in ms; 0 means never.
        compaction_check_ms: u64 = 15_000;
        /// What compaction reads at most, per second.
        compaction_bytes_per_s: u64 = 16 * MIB;
        /// Memory for the keys of what is compacted; a log with more of them takes several rounds.
        compaction_memory_bytes: u64 = 32 * MIB;
        /// How soon after records went the space is asked back from the store, in ms.
        reclaim_interval_ms: u64 = 300_000;
    }
}

settings! {
    /// What bounds memory, connections and work.
    pub struct LimitsConfig {
        /// The largest request of a client.
        frame_bytes_max: u64 = 16 * MIB;
        /// The largest batch, whatever a topic's `max.message.bytes` says.
        batch_bytes_max: u64 = 8 * MIB;
        /// What a fetch returns at most (one batch is returned even above it).
        fetch_bytes_max: u64 = 16 * MIB;
        /// Bytes that all answers to readers may hold which are on their way. Beyond it answers become small.
        fetch_answers_bytes_max: u64 = 256 * MIB;
        /// Bytes of requests in the broker above which clients are told to slow down.
        in_flight_bytes_soft: u64 = 64 * MIB;
        /// Bytes of requests in the broker above which requests are refused.
        in_flight_bytes_max: u64 = 128 * MIB;
        /// Bytes of requests of one connection above which its requests are refused.
        connection_bytes_max: u64 = 64 * MIB;
        /// The longest time that a client is told to wait before its next request, in ms.
        throttle_ms_max: u64 = 1_000;
        /// Open connections of clients, over all listeners.
        connections: u32 = 4_000;
        /// Open connections of other brokers.
        peer_connections: u32 = 512;
        /// Open connections for monitoring.
        http_connections: u32 = 64;
        /// Memory for the newest batches of all partitions: followers and consumers that keep up read from there.
        tail_cache_bytes: u64 = 128 * MIB;
        /// What one frame to a follower carries at most (one batch is sent even above it).
        peer_frame_bytes: u64 = MIB;
        /// Bytes sent to one follower that it has not acknowledged yet.
        peer_in_flight_bytes: u64 = 16 * MIB;
        /// What all lagging replicas together are sent per second, so that they never delay live appends.
        catch_up_bytes_per_s: u64 = 64 * MIB;
        /// Partitions that this broker holds a replica of.
        partitions: u32 = 10_000;
        /// Requests that wait for one shard.
        shard_queue: u32 = 4_096;
    }
}

settings! {
    /// How long things take before something is done about them.
    pub struct TimingConfig {
        /// How often brokers show each other that they are alive, in ms.
        heartbeat_ms: u64 = 250;
        /// Heartbeats missed in a row before a broker counts as silent.
        heartbeats_missed: u32 = 3;
        /// How long a connection that broke is retried before the peer counts as silent while its port is open, in ms.
        reconnect_grace_ms: u64 = 100;
        /// A follower that is alive but so far behind leaves the in-sync replicas, in ms.
        lag_max_ms: u64 = 5_000;
        /// How much later each further candidate of the queue elects itself, in ms.
        election_step_ms: u64 = 100;
        /// The shortest time between two elections of a partition that the failure detector asks for, in ms.
        election_interval_ms: u64 = 2_000;
        /// How long a follower that hears its leader waits before it elects itself merely because the leader's candidate vanished, in ms.
        healthy_leader_wait_ms: u64 = 2_000;
        /// A leader that reaches neither ZooKeeper nor any in-sync replica steps down after so long, in ms.
        isolated_ms: u64 = 3_000;
        /// How often everything is read again from ZooKeeper, whatever the watches said, in ms.
        reread_ms: u64 = 30_000;
        /// How long a connection to a peer may take, in ms.
        connect_ms: u64 = 1_000;
        /// The deadline of a request that names none, in ms.
        request_ms: u64 = 30_000;
        /// The longest deadline or wait that a request may ask for, in ms.
        request_ms_max: u64 = 120_000;
        /// A new connection that has not begun to speak after so long is closed, in ms.
        first_bytes_ms: u64 = 5_000;
        /// How often an idle connection is asked whether it is alive; an answer that takes as long closes it, in ms.
        keep_alive_ms: u64 = 10_000;
        /// How long a stopping broker hands over what it leads before it stops anyway, in ms.
        drain_ms: u64 = 30_000;
    }
}

settings! {
    /// Consumer groups.
    pub struct GroupsConfig {
        /// Partitions of the topic that holds the groups, when it is made; changed later, it has no effect. Each can be led by another broker, and costs what a partition costs.
        partitions: u32 = 12;
        /// The shortest session that a member may ask for, in ms (Kafka's `group.min.session.timeout.ms`).
        session_ms_min: u32 = 6_000;
        /// The longest session that a member may ask for, in ms (Kafka's `group.max.session.timeout.ms`).
        session_ms_max: u32 = 1_800_000;
        /// How long the first rebalance of an empty group waits for more members, in ms (Kafka's `group.initial.rebalance.delay.ms`).
        initial_delay_ms: u32 = 3_000;
        /// How long the offsets of a group without members are kept, in ms (Kafka's `offsets.retention.minutes`).
        offsets_retention_ms: u64 = 604_800_000;
        /// How often offsets that nobody will ask for are looked for, in ms (Kafka's `offsets.retention.check.interval.ms`).
        sweep_interval_ms: u64 = 600_000;
        /// The longest text that a client may keep beside an offset, in bytes (Kafka's `offset.metadata.max.bytes`).
        offset_metadata_bytes_max: u32 = 4_096;
        /// Members of one group (Kafka's `group.max.size`).
        members_max: u32 = 1_000;
        /// Groups of one partition of that topic.
        groups_max: u32 = 10_000;
    }
}

settings! {
    /// What coordinators of transactions allow and remember. All brokers should have the same.
    pub struct TransactionsConfig {
        /// Partitions of the topic that holds the transactional ids, when it is made; changed later, it has no effect. Each can be led by another broker, and costs what a partition costs.
        partitions: u32 = 12;
        /// The longest time-out that a producer may ask for its transactions, in ms (Kafka's `transaction.max.timeout.ms`).
        timeout_ms_max: u32 = 900_000;
        /// A transactional id that nobody used for so long is forgotten, in ms (Kafka's `transactional.id.expiration.ms`).
        id_expiration_ms: u64 = 604_800_000;
        /// Transactional ids of one partition of that topic.
        ids_max: u32 = 10_000;
        /// Partitions of one transaction.
        partitions_max: u32 = 10_000;
    }
}

impl BrokerConfig {
    #[must_use]
    pub fn id(&self) -> BrokerId {
        BrokerId(self.broker_id)
    }

    /// How many shards to run: as configured, or one per core.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            shards => usize::try_from(shards).unwrap_or(1),
        }
    }

    /// Everything but the registry: what an embedded broker, which has no ensemble, needs.
    pub fn complete_local(&mut self, problems: &mut Problems) {
        let id = self.broker_id;
        match id {
            0 => problems.missing("broker_id", "it has to be 1 to 2147483647, and another one for each broker"),
            1..=0x7fff_ffff => {}
            _ => problems.add("broker_id", id, "it has to be 1 to 2147483647"),
        }
        problems.range("shards", self.shards, 0..=1_024);
        if self.rack.len() > 128 || self.rack.contains(char::is_control) {
            problems.add("rack", quoted(&self.rack), "it has to be at most 128 bytes without control characters");
        }
        self.complete_listeners(problems);
        let PeerConfig { bind, advertised } = &mut self.peer;
        check::check_addresses(problems, "peer", bind, advertised);
        check::check_bind(problems, "http.bind", &self.http.bind);
        self.check_ports(problems);
        self.log.check(problems);
        self.limits.check(problems);
        self.timing.check(problems);
        self.kafka.check(problems);
        self.groups.check(problems);
        self.transactions.check(problems);
    }

    fn complete_listeners(&mut self, problems: &mut Problems) {
        problems.range("the number of listeners", self.listeners.len(), 1..=16);
        let mut names = std::collections::BTreeSet::new();
        for (i, listener) in self.listeners.iter_mut().enumerate() {
            let key = format!("listeners[{i}]");
            let ListenerConfig { name, bind, advertised, .. } = listener;
            let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || name.len() > 32 || !name.bytes().all(is_name) {
                problems.add(&format!("{key}.name"), quoted(name), "it has to be 1 to 32 characters out of [a-z0-9-]");
            }
            if !names.insert(name.clone()) {
                problems.add(&format!("{key}.name"), quoted(name), "another listener has this name");
            }
            check::check_addresses(problems, &key, bind, advertised);
        }
    }

    /// Two listeners on one address would fail later, and say less.
    fn check_ports(&self, problems: &mut Problems) {
        let listeners = self.listeners.iter().enumerate();
        let mut binds: Vec<(String, &str)> =
            listeners.map(|(i, l)| (format!("listeners[{i}].bind"), l.bind.as_str())).collect();
        binds.push(("peer.bind".to_owned(), &self.peer.bind));
        binds.push(("http.bind".to_owned(), &self.http.bind));
        for (i, (key, bind)) in binds.iter().enumerate() {
            let free_port = HostPort::parse(bind).is_none_or(|address| address.port == 0);
            let taken = binds.iter().take(i).find(|(_, other)| other == bind && !free_port);
            if let Some((other, _)) = taken {
                problems.add(key, quoted(bind), format_args!("{other} is the same address"));
            }
        }
    }
}

impl Settings for BrokerConfig {
    fn complete(&mut self, problems: &mut Problems) {
        self.complete_local(problems);
        self.registry.check(problems);
    }
}

impl RegistryConfig {
    /// Notes what is not allowed; the coordinator has the same section.
    pub fn check(&self, problems: &mut Problems) {
        check::check_connection_string(problems, "registry.connect", &self.connect);
        problems.range("registry.session_timeout_ms", self.session_timeout_ms, 1_000..=60_000);
        let named = self.auth.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        if !self.auth.is_empty() && !named {
            problems.add("registry.auth", "(not shown)", "it has to be scheme:credentials, as digest:user:password");
        }
    }

    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms)
    }

    /// The scheme and the credentials, if there are any.
    #[must_use]
    pub fn auth(&self) -> Option<(&str, &str)> {
        self.auth.split_once(':')
    }
}

impl LogConfig {
    fn check(&self, problems: &mut Problems) {
        if self.dir.as_os_str().is_empty() {
            problems.missing("log.dir", "it has to be the path of a directory");
        }
        problems.range("log.commit_bytes_max", self.commit_bytes_max, MIB..=256 * MIB);
        problems.range("log.memtable_bytes", self.memtable_bytes, 64 * 1024..=1024 * MIB);
        at_least(problems, ("log.compaction_bytes_per_s", self.compaction_bytes_per_s), ("64 KiB", 64 * 1024));
        problems.range("log.compaction_memory_bytes", self.compaction_memory_bytes, MIB..=4096 * MIB);
        at_least(problems, ("log.reclaim_interval_ms", self.reclaim_interval_ms), ("100 ms", 100));
        at_least(problems, ("log.scrub_bytes_per_s", self.scrub_bytes_per_s), ("64 KiB", 64 * 1024));
    }
}

impl LimitsConfig {
    fn check(&self, problems: &mut Problems) {
        problems.range("limits.frame_bytes_max", self.frame_bytes_max, MIB..=256 * MIB);
        problems.range("limits.batch_bytes_max", self.batch_bytes_max, 64 * 1024..=128 * MIB);
        at_least(problems, ("limits.fetch_answers_bytes_max", self.fetch_answers_bytes_max), ("1 MiB", MIB));
        problems.range("limits.fetch_bytes_max", self.fetch_bytes_max, 64 * 1024..=256 * MIB);
        problems.range("limits.peer_frame_bytes", self.peer_frame_bytes, 64 * 1024..=64 * MIB);
        problems.range("limits.connections", self.connections, 1..=1_000_000);
        problems.range("limits.peer_connections", self.peer_connections, 8..=100_000);
        problems.range("limits.http_connections", self.http_connections, 1..=10_000);
        problems.range("limits.partitions", self.partitions, 1..=100_000);
        problems.range("limits.shard_queue", self.shard_queue, 16..=1_000_000);
        problems.range("limits.throttle_ms_max", self.throttle_ms_max, 1..=60_000);
        at_least(problems, ("limits.catch_up_bytes_per_s", self.catch_up_bytes_per_s), ("1 MiB", MIB));
        let frame = ("limits.frame_bytes_max", self.frame_bytes_max);
        // The rest of a request around a batch of the largest size.
        let batch = ("limits.batch_bytes_max and 64 KiB", self.batch_bytes_max.saturating_add(64 * 1024));
        let soft = ("limits.in_flight_bytes_soft", self.in_flight_bytes_soft);
        at_least(problems, frame, batch);
        at_least(problems, soft, frame);
        at_least(problems, ("limits.in_flight_bytes_max", self.in_flight_bytes_max), soft);
        at_least(problems, ("limits.connection_bytes_max", self.connection_bytes_max), frame);
        at_least(problems, ("limits.peer_in_flight_bytes", self.peer_in_flight_bytes), batch);
    }
}

/// A limit below another one that it has to hold would refuse everything.
fn at_least(problems: &mut Problems, (key, value): (&str, u64), (least_key, least): (&str, u64)) {
    if value < least {
        problems.add(key, value, format_args!("it has to be at least {least} ({least_key})"));
    }
}

impl KafkaConfig {
    fn check(&self, problems: &mut Problems) {
        problems.range("kafka.default_partitions", self.default_partitions, 1..=10_000);
        problems.range("kafka.requests_in_flight", self.requests_in_flight, 1..=10_000);
        problems.range("kafka.idle_ms", self.idle_ms, 1_000..=86_400_000);
    }
}

impl TimingConfig {
    fn check(&self, problems: &mut Problems) {
        problems.range("timing.heartbeats_missed", self.heartbeats_missed, 2..=100);
        let keys = [
            ("timing.heartbeat_ms", self.heartbeat_ms),
            ("timing.reconnect_grace_ms", self.reconnect_grace_ms),
            ("timing.lag_max_ms", self.lag_max_ms),
            ("timing.election_step_ms", self.election_step_ms),
            ("timing.election_interval_ms", self.election_interval_ms),
            ("timing.healthy_leader_wait_ms", self.healthy_leader_wait_ms),
            ("timing.isolated_ms", self.isolated_ms),
            ("timing.reread_ms", self.reread_ms),
            ("timing.connect_ms", self.connect_ms),
            ("timing.request_ms", self.request_ms),
            ("timing.request_ms_max", self.request_ms_max),
            ("timing.first_bytes_ms", self.first_bytes_ms),
            ("timing.keep_alive_ms", self.keep_alive_ms),
            ("timing.drain_ms", self.drain_ms),
        ];
        for (key, value) in keys {
            problems.range(key, value, 10..=3_600_000);
        }
        at_least(problems, ("timing.request_ms_max", self.request_ms_max), ("timing.request_ms", self.request_ms));
        let silent_ms = self.heartbeat_ms.saturating_mul(u64::from(self.heartbeats_missed));
        at_least(problems, ("timing.lag_max_ms", self.lag_max_ms), ("heartbeat_ms × heartbeats_missed", silent_ms));
    }
}

impl TransactionsConfig {
    fn check(&self, problems: &mut Problems) {
        problems.range("transactions.partitions", self.partitions, 1..=1_000);
        problems.range("transactions.timeout_ms_max", self.timeout_ms_max, 1_000..=86_400_000);
        problems.range("transactions.id_expiration_ms", self.id_expiration_ms, 1_000..=3_153_600_000_000);
        problems.range("transactions.ids_max", self.ids_max, 1..=10_000_000);
        problems.range("transactions.partitions_max", self.partitions_max, 1..=100_000);
    }
}

impl GroupsConfig {
    fn check(&self, problems: &mut Problems) {
        problems.range("groups.partitions", self.partitions, 1..=1_000);
        problems.range("groups.session_ms_min", self.session_ms_min, 100..=3_600_000);
        problems.range("groups.session_ms_max", self.session_ms_max, 100..=86_400_000);
        problems.range("groups.initial_delay_ms", self.initial_delay_ms, 0..=3_600_000);
        problems.range("groups.offsets_retention_ms", self.offsets_retention_ms, 1_000..=3_153_600_000_000);
        problems.range("groups.sweep_interval_ms", self.sweep_interval_ms, 100..=86_400_000);
        problems.range("groups.offset_metadata_bytes_max", self.offset_metadata_bytes_max, 0..=1 << 20);
        problems.range("groups.members_max", self.members_max, 1..=100_000);
        problems.range("groups.groups_max", self.groups_max, 1..=10_000_000);
        let (min, max) = (u64::from(self.session_ms_min), u64::from(self.session_ms_max));
        at_least(problems, ("groups.session_ms_max", max), ("groups.session_ms_min", min));
    }
}

/// The address to tell others: `advertised`, with the real port where the port was left to
/// the operating system.
#[must_use]
pub fn advertised_address(advertised: &str, bound: SocketAddr) -> String {
    match HostPort::parse(advertised) {
        Some(HostPort { host, port: 0 }) => format!("{host}:{}", bound.port()),
        _ => advertised.to_owned(),
    }
}
