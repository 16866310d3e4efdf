//! Brokers without logs, a network without wires, and a registry that loses requests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use baton_broker::net::{ConnectError, Connection, Incoming, Network};
use baton_core::event::Event as HistoryEvent;
use baton_core::partition::{Assignment, LeaderId, PartitionState};
use baton_core::{BrokerId, Epoch, Error, ErrorCode, Generation, Incarnation, TopicPartition};
use baton_registry::memory::{Fate, Loss, MemoryEnsemble, MemoryRegistry, Network as RegistryNetwork, Request};
use baton_registry::recipes::partition_state::{self, StateWrite};
use baton_registry::recipes::{candidates, topics};
use baton_registry::znode::{
    BrokerRegistration, Candidate, Endpoint, FeatureRange, Znode, broker, candidate, partition,
};
use baton_registry::{CreateMode, Event, Registry, SessionId};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use crate::daemon::brokers::{BrokerCalls, Fenced};
use crate::daemon::plan::fixtures::{disk, member};
use crate::daemon::plan::reassign::{target_of, under_way};

/// Loses every request of a client after so many of its writes, or one in so many of them.
#[derive(Clone, Default)]
pub struct Faults {
    cut: Arc<Mutex<BTreeMap<String, usize>>>,
    lossy: Arc<Mutex<BTreeMap<String, (StdRng, f64)>>>,
}

impl Faults {
    /// The client's next `writes` writes arrive, and nothing after them.
    pub fn cut_after(&self, client: &str, writes: usize) {
        self.cut.lock().unwrap().insert(client.to_owned(), writes);
    }

    /// From now on this part of the client's requests is lost, on its way or on its way back.
    pub fn lose(&self, client: &str, part: f64, seed: u64) {
        let rng = StdRng::seed_from_u64(seed);
        self.lossy.lock().unwrap().insert(client.to_owned(), (rng, part));
    }
}

impl RegistryNetwork for Faults {
    fn fate(&self, request: Request<'_>) -> Fate {
        let mut left = self.cut.lock().unwrap();
        let loss = match left.get_mut(request.client) {
            None => self.random_loss(request.client),
            Some(0) => Loss::Request,
            Some(writes) => {
                *writes -= usize::from(request.is_write);
                Loss::None
            }
        };
        Fate { loss, ..Fate::default() }
    }
}

impl Faults {
    fn random_loss(&self, client: &str) -> Loss {
        let mut lossy = self.lossy.lock().unwrap();
        let Some((rng, part)) = lossy.get_mut(client) else { return Loss::None };
        if !rng.random_bool(*part) {
            return Loss::None;
        }
        if rng.random_bool(0.5) { Loss::Request } else { Loss::Answer }
    }
}

/// Listens without ever being connected to.
pub struct NoNetwork;

struct Silence;

#[async_trait]
impl Network for NoNetwork {
    async fn bind(&self, _: &str) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(Silence))
    }

    async fn connect(&self, host_port: &str, _: Duration) -> Result<Connection, ConnectError> {
        Err(ConnectError::Refused { address: host_port.to_owned() })
    }
}

#[async_trait]
impl Incoming for Silence {
    async fn accept(&mut self) -> io::Result<Connection> {
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 7450)))
    }
}

/// What all fake brokers share: their registry, and what was asked of them.
pub struct FakeCalls {
    registry: MemoryRegistry,
    pub history: Mutex<Vec<HistoryEvent>>,
    pub fenced: Mutex<Vec<(String, Epoch)>>,
    pub with_records: Mutex<BTreeSet<String>>,
    pub resignations: Mutex<Vec<TopicPartition>>,
    /// So many resignations are passed over by the leader.
    pub passed_over: AtomicUsize,
    /// Another epoch begins while this partition is being fenced.
    pub elected_meanwhile: Mutex<Option<TopicPartition>>,
}

impl FakeCalls {
    pub fn new(ensemble: &MemoryEnsemble) -> Arc<Self> {
        Arc::new(Self {
            registry: ensemble.connect("calls"),
            history: Mutex::default(),
            fenced: Mutex::default(),
            with_records: Mutex::default(),
            resignations: Mutex::default(),
            passed_over: AtomicUsize::default(),
            elected_meanwhile: Mutex::default(),
        })
    }
}

#[async_trait]
impl BrokerCalls for FakeCalls {
    async fn append_internal(&self, _: &str, topic: &str, _: u32, command: Bytes) -> Result<i64, Error> {
        assert_eq!(topic, "__events");
        let mut history = self.history.lock().unwrap();
        history.push(HistoryEvent::decode(&command).unwrap());
        Ok(history.len() as i64)
    }

    async fn fence(&self, peer: &str, _: TopicPartition, epoch: Epoch) -> Result<Fenced, Error> {
        self.fenced.lock().unwrap().push((peer.to_owned(), epoch));
        let elected = self.elected_meanwhile.lock().unwrap().take();
        if let Some(id) = elected {
            let known = partition_state::read(&self.registry, id).await.unwrap().unwrap();
            let state = PartitionState { epoch: known.state.epoch.next(), ..known.state };
            let write = StateWrite { partition: id, version: known.version, state, guards: Vec::new() };
            partition_state::write(&self.registry, &write).await;
        }
        Ok(Fenced { generation: Some(Generation(4)), end_offset: Some(7) })
    }

    async fn resign(&self, _: &str, id: TopicPartition, epoch: Epoch, toward: BrokerId) -> Result<(), Error> {
        self.resignations.lock().unwrap().push(id);
        let one_less = |left: usize| left.checked_sub(1);
        if self.passed_over.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Ok(());
        }
        let known = partition_state::read(&self.registry, id).await.unwrap().unwrap();
        assert_eq!(known.state.epoch, epoch);
        let state = PartitionState { leader: None, hint: Some(toward), ..known.state };
        let write = StateWrite { partition: id, version: known.version, state, guards: Vec::new() };
        partition_state::write(&self.registry, &write).await;
        Ok(())
    }

    async fn had_records(&self, grpc: &str, topic: &str, _: &[u32]) -> Result<bool, Error> {
        if grpc.starts_with("unreachable") {
            return Err(Error::new(ErrorCode::Unreachable, "no way"));
        }
        Ok(self.with_records.lock().unwrap().contains(topic))
    }
}

/// A broker that registers, elects itself when it is its turn, and finishes reassignments.
pub struct FakeBroker {
    name: String,
    session: SessionId,
    ensemble: MemoryEnsemble,
    /// Whether copies arrive: reassignments are finished.
    pub copying: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl FakeBroker {
    pub async fn start(ensemble: &MemoryEnsemble, id: u32) -> Self {
        let name = format!("broker-{id}");
        let registry = Arc::new(ensemble.connect(&name));
        let endpoint = |protocol: &str| Endpoint {
            name: protocol.to_owned(),
            protocol: protocol.to_owned(),
            host: format!("b{id}"),
            port: 1,
        };
        let registration = BrokerRegistration {
            disk: disk(id),
            incarnation: Incarnation(u64::from(id)),
            features: FeatureRange { min: 1, max: 1 },
            draining: false,
            rack: None,
            endpoints: vec![endpoint("peer"), endpoint("grpc")],
        };
        let path = broker::path(BrokerId(id));
        registry.create(&path, registration.encode(), CreateMode::Ephemeral).await.unwrap();
        let copying = Arc::new(AtomicBool::new(true));
        let session = registry.session_id().unwrap();
        let life = Life { id: BrokerId(id), registry, copying: Arc::clone(&copying) };
        let task = tokio::spawn(life.run());
        Self { name, session, ensemble: ensemble.clone(), copying, task }
    }

    /// As `kill -9`, and the end of its session.
    pub fn kill(self) {
        self.task.abort();
        self.ensemble.set_linked(&self.name, false);
        self.ensemble.expire(self.session);
    }
}

struct Life {
    id: BrokerId,
    registry: Arc<MemoryRegistry>,
    copying: Arc<AtomicBool>,
}

impl Life {
    async fn run(self) {
        let mut watch = loop {
            match self.registry.watch(partition::ROOT, true).await {
                Ok(watch) => break watch,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        loop {
            // Copies that arrive later are noticed without an event.
            let event = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
            match event {
                Ok(None) => return,
                Ok(Some(Event::Node { path, .. })) => {
                    if let Some(id) = partition::partition_of(&path) {
                        self.look(id).await;
                    }
                }
                Ok(Some(Event::Reset)) | Err(_) => {
                    for topic in topics::list(&*self.registry).await.unwrap_or_default() {
                        for partition in 0..topic.node.partitions {
                            self.look(TopicPartition { topic: topic.id, partition }).await;
                        }
                    }
                }
            }
        }
    }

    async fn look(&self, id: TopicPartition) {
        let Ok(Some(known)) = partition_state::read(&*self.registry, id).await else { return };
        let state = known.state;
        let led = match state.leader {
            None => false,
            Some(leader) => {
                let path = candidate::path(id, leader.candidate);
                let Ok(found) = self.registry.exists(&path).await else { return };
                found.is_some()
            }
        };
        if !led && self.is_first(&state).await {
            self.elect(id, known.version, &state).await;
        } else if state.leader.is_some_and(|leader| leader.broker == self.id)
            && under_way(&state.assignment)
            && self.copying.load(Ordering::Relaxed)
        {
            self.settle(id, known.version, &state).await;
        }
    }

    async fn is_first(&self, state: &PartitionState) -> bool {
        let hinted = state.hint.filter(|hint| state.isr_member(*hint).is_some());
        let queue = hinted.into_iter().chain(state.isr.iter().map(|member| member.broker));
        for broker in queue {
            match self.registry.exists(&broker::path(broker)).await {
                Ok(Some(_)) => return broker == self.id,
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        false
    }

    async fn elect(&self, id: TopicPartition, version: i32, state: &PartitionState) {
        let Some(member) = state.isr_member(self.id) else { return };
        let mine = Candidate { member: *member, incarnation: Incarnation(u64::from(self.id.0)), nonce: 0 };
        let Ok(candidate) = candidates::queue(&*self.registry, id, &mine).await else { return };
        let leader = LeaderId { broker: self.id, disk: member.disk, incarnation: mine.incarnation, candidate };
        let write = StateWrite::elect(id, version, state.elected(leader, 1), candidate);
        partition_state::write(&*self.registry, &write).await;
    }

    async fn settle(&self, id: TopicPartition, version: i32, state: &PartitionState) {
        let target = target_of(&state.assignment);
        let stays = target.contains(&self.id);
        let state = PartitionState {
            isr: target.iter().map(|broker| member(broker.0)).collect(),
            leader: state.leader.filter(|_| stays),
            hint: if stays { None } else { target.first().copied() },
            assignment: Assignment { replicas: target, adding: Vec::new(), removing: Vec::new() },
            ..state.clone()
        };
        let write = StateWrite::change_isr(id, version, state, &[]);
        partition_state::write(&*self.registry, &write).await;
    }
}
