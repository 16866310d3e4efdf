//! Puts the pieces of a broker together and starts their tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::detector::{DetectorConfig, Observation};
use baton_core::election::ElectionConfig;
use baton_core::replica::{Env, ReplicaConfig};
use baton_core::{BrokerId, Incarnation};
use baton_registry::SessionState;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::membership::{self, Identity, LiveBrokers};
use baton_registry::znode::{BrokerRegistration, Endpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Monotonic;
use crate::cluster::{ClusterParts, ClusterTask, ClusterView};
use crate::config::BrokerConfig;
use crate::coordinator::CoordinatorLink;
use crate::group::{GroupParts, Groups, HostParts};
use crate::internal::events::Events;
use crate::internal::{EVENTS_TOPIC, InternalHost, host};
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::peers::detection::World;
use crate::peers::pace::Pace;
use crate::peers::{Detection, DetectionHandle, LinkParts, Links, PeerSender};
use crate::server::listeners::Bound;
use crate::server::readiness::measure;
use crate::server::{BrokerError, BrokerParts, FEATURES, SessionMemory, Shared};
use crate::shard::{
    self, CompactionConfig, Partitions, RetentionConfig, ScrubConfig, ShardInput, ShardParts, Shards, VerifyCall,
};
use crate::transaction::{self, Marking, PeerCalls, TransactionParts, Transactions, Verifier};

/// The pieces on their way to becoming a broker.
pub(super) struct Assembly {
    pub(super) parts: BrokerParts,
    pub(super) shared: Shared,
    pub(super) incarnation: Incarnation,
    monotonic: Monotonic,
    shard_inputs: Vec<mpsc::Receiver<ShardInput>>,
    brokers: watch::Sender<Arc<LiveBrokers>>,
    brokers_shown: watch::Receiver<Arc<LiveBrokers>>,
    env: watch::Sender<Arc<Env>>,
    loaded: watch::Sender<bool>,
    sender: PeerSender,
}

impl Assembly {
    pub(super) fn new(parts: BrokerParts, endpoints: &[Endpoint]) -> Self {
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
        let view = ClusterView::new(brokers_shown.clone());
        let groups = GroupParts { me: config.id(), view: view.clone(), seed: parts.seed.split("members") };
        let groups = Groups::new(groups);
        let shards = Shards::new(senders);
        let shared = Shared {
            me: config.id(),
            transactions: Transactions::new(TransactionParts { me: config.id(), view: view.clone() }),
            marking: Marking::new(shards.clone(), groups.clone()),
            view,
            groups,
            partitions: Partitions::default(),
            shards,
            registry: Arc::clone(&parts.registry),
            coordinator: Arc::new(CoordinatorLink::new(
                Arc::clone(&parts.registry),
                Arc::clone(&parts.network),
                Duration::from_millis(config.timing.connect_ms),
            )),
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

    pub(super) fn run(
        self,
        bound: Bound,
    ) -> (Shared, JoinSet<Result<(), BrokerError>>, mpsc::UnboundedReceiver<String>) {
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
        self.run_groups(&mut tasks);
        let verifier = self.run_transactions(&mut tasks);
        tasks.spawn(measure(shared.clone()));
        self.run_shards_and_cluster(calls, called, fatal, verifier, &mut tasks);
        (shared, tasks, failed)
    }

    fn run_shards_and_cluster(
        mut self,
        calls: mpsc::UnboundedSender<crate::shard::input::RegistryCall>,
        called: mpsc::UnboundedReceiver<crate::shard::input::RegistryCall>,
        fatal: mpsc::UnboundedSender<String>,
        verifier: mpsc::UnboundedSender<VerifyCall>,
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
                verifier: verifier.clone(),
                env: shared.env.clone(),
                clock: Arc::clone(&self.parts.clock),
                monotonic: self.monotonic,
                incarnation: self.incarnation,
                config: replica_config(config, self.parts.mutations),
                scrub: scrub_config(config, shard_count),
                retention: RetentionConfig { interval: Duration::from_millis(config.log.retention_check_ms) },
                compaction: compaction_config(config, shard_count, self.parts.seed.split("compaction").0),
                tail_cache_bytes: config.limits.tail_cache_bytes / shard_count,
                tick: Duration::from_millis(100),
                metrics: shared.metrics.clone(),
                fatal: fatal.clone(),
                mutations: self.parts.mutations,
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
            election: election_config(config, self.parts.mutations),
            reread: Duration::from_millis(config.timing.reread_ms),
            partitions_max: usize::try_from(config.limits.partitions).unwrap_or(usize::MAX),
            monotonic: self.monotonic,
            metrics: shared.metrics.clone(),
            loaded: self.loaded,
            stop: shared.stop.clone(),
            mutations: self.parts.mutations,
        });
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            task.run().await;
            // Its end before the stop is the registry's.
            stop.cancelled().await;
            Ok(())
        });
    }

    fn run_groups(&self, tasks: &mut JoinSet<Result<(), BrokerError>>) {
        let shared = &self.shared;
        let host = HostParts {
            groups: shared.groups.clone(),
            config: shared.config.groups.clone(),
            shards: shared.shards.clone(),
            partitions: shared.partitions.clone(),
            registry: Arc::clone(&shared.registry),
            coordinator: Arc::clone(&shared.coordinator),
            clock: Arc::clone(&self.parts.clock),
            metrics: shared.metrics.clone(),
            mutations: self.parts.mutations,
        };
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            host.run(stop).await;
            Ok(())
        });
    }

    /// Coordinates transactions; returns where shards ask about them.
    fn run_transactions(&self, tasks: &mut JoinSet<Result<(), BrokerError>>) -> mpsc::UnboundedSender<VerifyCall> {
        let shared = &self.shared;
        let connect = Duration::from_millis(shared.config.timing.connect_ms);
        let peers = Arc::new(PeerCalls::new(shared.view.clone(), Arc::clone(&self.parts.network), connect));
        let host = transaction::HostParts {
            transactions: shared.transactions.clone(),
            settings: transaction::settings(&shared.config.transactions, self.parts.mutations),
            partition_count: shared.config.transactions.partitions,
            shards: shared.shards.clone(),
            partitions: shared.partitions.clone(),
            registry: Arc::clone(&shared.registry),
            coordinator: Arc::clone(&shared.coordinator),
            clock: Arc::clone(&self.parts.clock),
            marking: shared.marking.clone(),
            metrics: shared.metrics.clone(),
            peers: Arc::clone(&peers),
        };
        let (calls, asked) = mpsc::unbounded_channel();
        let (transactions, shards) = (shared.transactions.clone(), shared.shards.clone());
        let verifier = Verifier { transactions, peers, shards, asked };
        let stop = shared.stop.clone();
        tasks.spawn(async move {
            tokio::join!(host.run(stop.clone()), verifier.run(stop));
            Ok(())
        });
        calls
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
}

fn peer_addresses(live: &LiveBrokers) -> BTreeMap<BrokerId, String> {
    let address = |(id, live): (&BrokerId, &membership::LiveBroker)| {
        let endpoint = live.registration.endpoint("peer")?;
        Some((*id, format!("{}:{}", endpoint.host, endpoint.port)))
    };
    live.brokers.iter().filter_map(address).collect()
}

/// Every shard has its share of the rate.
fn scrub_config(config: &BrokerConfig, shards: u64) -> ScrubConfig {
    ScrubConfig {
        interval: Duration::from_millis(config.log.scrub_interval_ms),
        bytes_per_s: (config.log.scrub_bytes_per_s / shards).max(1),
    }
}

/// The same for compaction, and for its memory.
fn compaction_config(config: &BrokerConfig, shards: u64, seed: u64) -> CompactionConfig {
    CompactionConfig {
        interval: Duration::from_millis(config.log.compaction_check_ms),
        bytes_per_s: (config.log.compaction_bytes_per_s / shards).max(1),
        map_bytes: usize::try_from(config.log.compaction_memory_bytes / shards).unwrap_or(usize::MAX),
        seed,
    }
}

#[cfg_attr(not(feature = "mutations"), expect(unused_variables, reason = "all rules hold"))]
fn replica_config(config: &BrokerConfig, mutations: Mutations) -> ReplicaConfig {
    ReplicaConfig {
        #[cfg(feature = "mutations")]
        mutations: mutations.core,
        lag_max_ms: config.timing.lag_max_ms,
        isolation_max_ms: config.timing.isolated_ms,
        window_bytes: config.limits.peer_in_flight_bytes,
        catch_up_bytes: usize::try_from(config.limits.peer_frame_bytes).unwrap_or(1 << 20),
        ..ReplicaConfig::default()
    }
}

#[cfg_attr(not(feature = "mutations"), expect(unused_variables, reason = "all rules hold"))]
fn election_config(config: &BrokerConfig, mutations: Mutations) -> ElectionConfig {
    ElectionConfig {
        #[cfg(feature = "mutations")]
        mutations: mutations.core,
        step_ms: config.timing.election_step_ms,
        healthy_leader_ms: config.timing.healthy_leader_wait_ms,
        detector_pause_ms: config.timing.election_interval_ms,
        ..ElectionConfig::default()
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
            biased;
            changed = session.changed() => if changed.is_err() { return Ok(()) },
            // Further sessions of the pool open without a word.
            _ = every.tick() => {}
        }
    }
}
