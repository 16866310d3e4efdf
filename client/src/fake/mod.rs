//! A cluster inside the process, for tests of whatever uses the client: real sockets, real
//! gRPC, one shared log per partition, and faults on demand. It replicates nothing; a broker
//! that is killed loses nothing.

mod gate;
mod service;
mod state;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use baton_core::{BrokerId, Epoch, ErrorCode, Offset, batch};
use baton_proto::v1::{self, admin_server::AdminServer, broker_server::BrokerServer};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Server;

pub use self::state::ProduceFault;
use self::{
    gate::{Gate, Gated, Mode},
    service::Node,
    state::State,
};
use crate::client::AbortOnDrop;

struct Running {
    gate: Arc<Mutex<Arc<Gate>>>,
    _server: AbortOnDrop,
}

/// Brokers 1 to n.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    running: Mutex<BTreeMap<u32, Running>>,
}

impl Cluster {
    /// # Errors
    /// No port could be bound.
    pub async fn start(brokers: u32) -> io::Result<Self> {
        let cluster = Self {
            state: Arc::new(Mutex::new(State { hints: true, healthy: true, ..State::default() })),
            changed: watch::Sender::new(0),
            running: Mutex::default(),
        };
        for broker in 1..=brokers {
            cluster.run(broker, 0).await?;
        }
        Ok(cluster)
    }

    /// The addresses of all brokers, whether they run or not.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        let state = self.state();
        state.addresses.keys().map(|broker| state.endpoint(*broker)).collect()
    }

    #[must_use]
    pub fn address(&self, broker: u32) -> String {
        self.state().endpoint(broker)
    }

    /// The partitions are led by the brokers that run, in turn.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.change(|state| state.create(name, partitions));
    }

    /// Gives a partition another leader, or none, in the next epoch.
    pub fn lead(&self, topic: &str, partition: u32, leader: Option<u32>) {
        self.change(|state| {
            if let Ok(part) = state.part(topic, partition) {
                part.leader = leader;
                part.epoch += 1;
            }
        });
    }

    /// Who leads a partition, since which epoch.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: u32) -> (Option<BrokerId>, Epoch) {
        match self.state().part(topic, partition) {
            Ok(part) => (part.leader.map(BrokerId), Epoch(part.epoch)),
            Err(_) => Default::default(),
        }
    }

    /// Another broker takes over everything that this one leads.
    pub fn take_over(&self, from: u32, to: u32) {
        self.change(|state| {
            let parts = state.topics.values_mut().flat_map(|topic| &mut topic.parts);
            for part in parts.filter(|part| part.leader == Some(from)) {
                part.leader = Some(to);
                part.epoch += 1;
            }
        });
    }

    /// The broker is gone at once: its connections break and its port refuses.
    pub fn kill(&self, broker: u32) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&broker);
        if let Some(running) = running {
            running.gate.lock().unwrap_or_else(PoisonError::into_inner).set(Mode::Cut);
        }
        self.change(|state| state.live.retain(|live| *live != broker));
    }

    /// A broker that was killed is back on its port.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn restart(&self, broker: u32) -> io::Result<()> {
        let port = self.state().addresses.get(&broker).map_or(0, |(_, port)| *port);
        self.run(broker, port).await
    }

    /// The broker neither reads nor writes; its port takes connections.
    pub fn freeze(&self, broker: u32) {
        self.set_gate(broker, Mode::Frozen);
    }

    /// The broker goes on where it was.
    pub fn thaw(&self, broker: u32) {
        self.set_gate(broker, Mode::Open);
    }

    /// What is to happen to the next produce requests, at whichever broker.
    pub fn produce_faults(&self, faults: impl IntoIterator<Item = ProduceFault>) {
        self.state().produce_faults.extend(faults);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.produce_faults.clear();
        state.admin_faults.clear();
    }

    /// What the next commands are refused with.
    pub fn admin_faults(&self, faults: impl IntoIterator<Item = ErrorCode>) {
        self.state().admin_faults.extend(faults);
    }

    /// Whether a broker that does not lead names the one that does.
    pub fn set_hints(&self, hints: bool) {
        self.state().hints = hints;
    }

    /// Whether the cluster reports problems.
    pub fn set_healthy(&self, healthy: bool) {
        self.state().healthy = healthy;
    }

    /// Adds an event of this kind to the history.
    pub fn event(&self, kind: &str) {
        self.change(|state| {
            let offset = i64::try_from(state.events.len()).unwrap_or(i64::MAX);
            state.events.push(v1::Event { offset, kind: kind.to_owned(), ..Default::default() });
        });
    }

    /// Drops everything below this offset, which begins a batch.
    pub fn truncate_start(&self, topic: &str, partition: u32, start: Offset) {
        self.change(|state| {
            if let Ok(part) = state.part(topic, partition) {
                part.batches.retain(|(last, _)| *last >= start);
                part.start = start;
            }
        });
    }

    /// The values of a partition, in order.
    #[must_use]
    pub fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        let mut state = self.state();
        let Ok(part) = state.part(topic, partition) else { return Vec::new() };
        let batches = part.batches.iter().filter_map(|(_, bytes)| batch::decode_records(bytes, 1 << 28).ok());
        let text = |record: batch::Record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned();
        batches.flatten().map(text).collect()
    }

    /// The bytes of a partition's batches, in order.
    #[must_use]
    pub fn batches(&self, topic: &str, partition: u32) -> Vec<bytes::Bytes> {
        let mut state = self.state();
        state
            .part(topic, partition)
            .map_or_else(|_| Vec::new(), |part| part.batches.iter().map(|b| b.1.clone()).collect())
    }

    /// How many produce requests came, and how many partitions the largest one had.
    #[must_use]
    pub fn requests(&self) -> (u64, usize) {
        let state = self.state();
        (state.produce_requests, state.partitions_most)
    }

    fn set_gate(&self, broker: u32, mode: Mode) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get(&broker) {
            running.gate.lock().unwrap_or_else(PoisonError::into_inner).set(mode);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, broker: u32, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let gate = Arc::new(Mutex::new(Arc::new(Gate::default())));
        let (cut, enter) = (gate.clone(), gate.clone());
        let node = Node {
            id: broker,
            state: self.state.clone(),
            changed: self.changed.clone(),
            cut: Arc::new(move || {
                let mut gate = cut.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *gate).set(Mode::Cut);
            }),
        };
        let incoming = futures::stream::unfold((listener, enter), |(listener, gate)| async move {
            let stream = match listener.accept().await {
                Ok((stream, _)) => {
                    Ok(Gated { stream, gate: gate.lock().unwrap_or_else(PoisonError::into_inner).clone() })
                }
                Err(error) => Err(error),
            };
            Some((stream, (listener, gate)))
        });
        let server = Server::builder()
            .add_service(BrokerServer::new(node.clone()).max_decoding_message_size(64 << 20))
            .add_service(AdminServer::new(node));
        let task = tokio::spawn(async move {
            // It serves until it is killed.
            let _ = server.serve_with_incoming(incoming).await;
        });
        let running = Running { gate, _server: AbortOnDrop(task) };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(broker, running);
        self.change(|state| {
            state.addresses.insert(broker, ("127.0.0.1".to_owned(), port));
            state.live.push(broker);
            state.live.sort_unstable();
        });
        Ok(())
    }
}
