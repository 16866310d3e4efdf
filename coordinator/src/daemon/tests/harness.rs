//! A small cluster to test with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_broker::clock::{Seed, SimulatedClock};
use baton_broker::config::Problems;
use baton_core::event::{Event, EventKind};
use baton_core::partition::PartitionState;
use baton_core::{BrokerId, ErrorCode, TopicPartition};
use baton_proto::v1;
use baton_proto::v1::admin_server::Admin as _;
use baton_registry::Registry;
use baton_registry::memory::{CLOCK_PERIOD, MemoryEnsemble, MemoryRegistry};
use baton_registry::recipes::{layout, partition_state, topics};
use baton_registry::znode::{Intent, partition, topic};
use tokio::time::{Instant, sleep};
use tonic::Request;

use super::fakes::{FakeBroker, FakeCalls, Faults, NoNetwork};
use crate::daemon::{Coordinator, CoordinatorConfig, CoordinatorHandle, CoordinatorParts, Mutations};

pub struct Cluster {
    pub ensemble: MemoryEnsemble,
    pub faults: Faults,
    pub brokers: BTreeMap<u32, FakeBroker>,
    pub calls: Arc<FakeCalls>,
    pub clock: Arc<SimulatedClock>,
    /// Sees everything and is never cut off.
    pub observer: MemoryRegistry,
}

impl Cluster {
    pub async fn start(brokers: u32) -> Self {
        let faults = Faults::default();
        let ensemble = MemoryEnsemble::with_network(faults.clone());
        tokio::spawn(ensemble.clone().run_clock(CLOCK_PERIOD));
        let observer = ensemble.connect("observer");
        layout::prepare(&observer).await.unwrap();
        let calls = FakeCalls::new(&ensemble);
        let clock = Arc::new(SimulatedClock::starting_at(1_700_000_000_000));
        let mut cluster = Self { ensemble, faults, brokers: BTreeMap::new(), calls, clock, observer };
        for id in 1..=brokers {
            cluster.start_broker(id).await;
        }
        cluster
    }

    pub async fn start_broker(&mut self, id: u32) {
        let broker = FakeBroker::start(&self.ensemble, id).await;
        self.brokers.insert(id, broker);
    }

    pub fn kill_broker(&mut self, id: u32) {
        self.brokers.remove(&id).unwrap().kill();
    }

    pub async fn coordinator(&self, name: &str) -> CoordinatorHandle {
        self.coordinator_with(name, |_| {}).await
    }

    pub async fn coordinator_with(&self, name: &str, set: impl FnOnce(&mut CoordinatorConfig)) -> CoordinatorHandle {
        let mut config = CoordinatorConfig { name: name.to_owned(), ..CoordinatorConfig::default() };
        set(&mut config);
        let mut problems = Problems::default();
        config.complete_local(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let parts = CoordinatorParts {
            config,
            network: Arc::new(NoNetwork),
            registry: Arc::new(self.ensemble.connect(name)),
            clock: self.clock.clone(),
            seed: Seed(name.bytes().map(u64::from).sum()),
            mutations: Mutations::default(),
        };
        Coordinator::start_with(parts, self.calls.clone()).await.unwrap()
    }

    /// An elected coordinator that has read everything.
    pub async fn active(&self, name: &str) -> CoordinatorHandle {
        let coordinator = self.coordinator(name).await;
        settled(&coordinator).await;
        coordinator
    }

    pub fn history(&self) -> Vec<Event> {
        self.calls.history.lock().unwrap().clone()
    }

    pub fn recorded(&self, kind: EventKind) -> Vec<Event> {
        self.history().into_iter().filter(|event| event.kind == kind).collect()
    }

    /// The states of a topic; empty if there is none of this name.
    pub async fn states(&self, name: &str) -> Vec<PartitionState> {
        let all = topics::list(&self.observer).await.unwrap();
        let Some(topic) = all.into_iter().find(|topic| topic.node.name == name) else { return Vec::new() };
        let ids: Vec<_> =
            (0..topic.node.partitions).map(|partition| TopicPartition { topic: topic.id, partition }).collect();
        let states = partition_state::read_many(&self.observer, &ids).await;
        states.into_iter().filter_map(|state| state.unwrap()).map(|known| known.state).collect()
    }

    /// Nothing is half made: no intents, and as many partitions as the topics say.
    pub async fn assert_whole(&self) {
        let all = topics::list(&self.observer).await.unwrap();
        let mut expected = BTreeMap::new();
        for found in &all {
            assert_eq!(found.node.intent, Intent::None, "{}", found.node.name);
            let linked = topics::find(&self.observer, "default", &found.node.name).await.unwrap();
            assert_eq!(linked, Some(found.id), "{}", found.node.name);
            expected.insert(found.id.to_string(), found.node.partitions as usize);
        }
        let links = self.observer.children(topic::LINKS).await.unwrap();
        assert_eq!(links.len(), all.len(), "{links:?}");
        let mut there = BTreeMap::new();
        for id in self.observer.children(partition::ROOT).await.unwrap() {
            let partitions = self.observer.children(&format!("{}/{id}", partition::ROOT)).await.unwrap();
            there.insert(id, partitions.len());
        }
        assert_eq!(there, expected);
    }
}

pub async fn settled(coordinator: &CoordinatorHandle) {
    coordinator.active().await.unwrap();
    let view = coordinator.shared().view.clone();
    eventually("the view is complete", || view.read(crate::daemon::plan::Snapshot::is_complete)).await;
}

/// Waits until it is so, for ten minutes of simulated time.
pub async fn eventually(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !is() {
        assert!(Instant::now() < deadline, "not within ten minutes: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// As [`eventually`], for what has to be asked.
pub async fn eventually_so<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !is().await {
        assert!(Instant::now() < deadline, "not within ten minutes: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub fn creation(name: &str, partitions: u32) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest {
        name: name.to_owned(),
        partitions: Some(partitions),
        who: "tester".to_owned(),
        ..Default::default()
    }
}

/// The code of an answer; none if it went well.
pub fn code(error: Option<&v1::Error>) -> Option<ErrorCode> {
    error.map(|error| ErrorCode::from_number(error.code).unwrap())
}

pub async fn create(coordinator: &CoordinatorHandle, request: v1::CreateTopicRequest) -> v1::TopicReply {
    coordinator.admin().create_topic(Request::new(request)).await.unwrap().into_inner()
}

/// Creates a topic, which has to work.
pub async fn created(coordinator: &CoordinatorHandle, name: &str, partitions: u32) {
    let reply = create(coordinator, creation(name, partitions)).await;
    assert_eq!(reply.error, None);
}

pub async fn delete(coordinator: &CoordinatorHandle, name: &str) -> v1::TopicReply {
    let request = v1::DeleteTopicRequest { name: name.to_owned(), ..Default::default() };
    coordinator.admin().delete_topic(Request::new(request)).await.unwrap().into_inner()
}

pub async fn reassign(
    coordinator: &CoordinatorHandle,
    topic: &str,
    partition: u32,
    replicas: &[u32],
) -> Option<v1::Error> {
    let request = v1::ReassignRequest {
        topic: topic.to_owned(),
        partition,
        replicas: replicas.to_vec(),
        who: "tester".to_owned(),
    };
    coordinator.admin().reassign(Request::new(request)).await.unwrap().into_inner().error
}

pub fn brokers_of(state: &PartitionState) -> Vec<u32> {
    state.assignment.replicas.iter().map(|BrokerId(id)| *id).collect()
}
