//! One broker, put together: everything that it touches comes from outside, so that whole
//! brokers run in a simulation.

mod assembly;
mod drain;
mod listeners;
mod readiness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::BrokerId;
use baton_core::replica::Env;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::membership::ClaimError;
use baton_registry::znode::{BrokerRegistration, FeatureRange};
use baton_registry::{Registry, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{Clock, Seed};
use crate::cluster::ClusterView;
use crate::config::BrokerConfig;
use crate::coordinator::CoordinatorLink;
use crate::group::Groups;
use crate::http::{Missing, ReadinessProbe};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::net::Network;
use crate::server::assembly::Assembly;
use crate::server::drain::{checkpoint, drain};
use crate::server::listeners::bind;
use crate::server::readiness::Probe;
use crate::shard::{Partitions, Shards};
use crate::transaction::{Marking, Transactions};

/// The feature level that this version writes and the newest that it reads.
const FEATURES: FeatureRange = FeatureRange { min: 1, max: 1 };

/// Where the ids of registry sessions are kept, so that a restarted broker may delete its own
/// ghosts.
pub trait SessionMemory: Send + Sync + 'static {
    fn recall(&self) -> Vec<SessionId>;
    fn remember(&self, sessions: &[SessionId]);
}

/// Remembers nothing: for simulations and throw-away brokers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl SessionMemory for Forgetful {
    fn recall(&self) -> Vec<SessionId> {
        Vec::new()
    }

    fn remember(&self, _sessions: &[SessionId]) {}
}

/// Everything that a broker is given.
pub struct BrokerParts {
    pub config: BrokerConfig,
    pub network: Arc<dyn Network>,
    pub log: Arc<dyn Log>,
    pub registry: Arc<dyn Registry>,
    pub sessions: Arc<SessionPool>,
    pub memory: Arc<dyn SessionMemory>,
    pub clock: Arc<dyn Clock>,
    pub seed: Seed,
    pub cluster: Uuid,
    /// All rules hold by default.
    pub mutations: Mutations,
}

/// Why a broker did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("{0}; choose another address in the configuration, or stop what listens there")]
    Bind(std::io::Error),
    #[error("{0}; give each broker an id of its own, or stop the other process")]
    Claim(#[from] ClaimError),
    #[error("the storage failed: {0}; look at the disk, then start the broker again")]
    Storage(String),
    #[error("a task of the broker ended unexpectedly: {0}")]
    Task(String),
}

/// A running broker.
pub struct Broker {
    shared: Shared,
    tasks: JoinSet<Result<(), BrokerError>>,
    fatal: mpsc::UnboundedReceiver<String>,
    /// Where each listener is bound, by its name; `peer` and `http` are among them.
    addresses: BTreeMap<String, String>,
}

/// What the pieces share.
#[derive(Clone)]
struct Shared {
    config: Arc<BrokerConfig>,
    me: BrokerId,
    view: ClusterView,
    partitions: Partitions,
    shards: Shards,
    registry: Arc<dyn Registry>,
    coordinator: Arc<CoordinatorLink>,
    groups: Groups,
    transactions: Transactions,
    /// The way of markers into the partitions that are led here.
    marking: Marking,
    sessions: Arc<SessionPool>,
    log: Arc<dyn Log>,
    env: watch::Receiver<Arc<Env>>,
    registration: watch::Sender<BrokerRegistration>,
    draining: watch::Sender<bool>,
    loaded: watch::Receiver<bool>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Broker {
    /// Starts a broker. It serves as soon as it has read the registry.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start(parts: BrokerParts) -> Result<Self, BrokerError> {
        let bound = bind(&parts).await.map_err(BrokerError::Bind)?;
        let addresses = bound.addresses.clone();
        let assembly = Assembly::new(parts, &bound.endpoints);
        let (shared, tasks, fatal) = assembly.run(bound);
        Ok(Self { shared, tasks, fatal, addresses })
    }

    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, String> {
        &self.addresses
    }

    #[must_use]
    pub fn view(&self) -> &ClusterView {
        &self.shared.view
    }

    #[must_use]
    pub fn partitions(&self) -> &Partitions {
        &self.shared.partitions
    }

    /// The consumer groups that it coordinates, and the way to the others.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.shared.groups
    }

    /// What is missing before the broker does everything that it should.
    pub async fn missing(&self) -> Vec<Missing> {
        Probe(self.shared.clone()).missing().await
    }

    /// Returns when the broker cannot go on.
    pub async fn failed(&mut self) -> BrokerError {
        tokio::select! {
            biased;
            why = self.fatal.recv() => BrokerError::Storage(why.unwrap_or_default()),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => error,
                Some(Ok(Ok(()))) => BrokerError::Task("it stopped".to_owned()),
                Some(Err(error)) => BrokerError::Task(error.to_string()),
                None => BrokerError::Task("there are none".to_owned()),
            },
        }
    }

    /// Hands over what it leads, leaves the in-sync replicas, makes everything durable, and
    /// stops. What cannot be handed over within `timing.drain_ms` is left to the others.
    pub async fn stop(mut self) {
        let shared = &self.shared;
        shared.draining.send_replace(true);
        shared.metrics.draining(true);
        shared.registration.send_modify(|registration| registration.draining = true);
        let within = Duration::from_millis(shared.config.timing.drain_ms);
        if tokio::time::timeout(within, drain(shared)).await.is_err() {
            tracing::warn!("not everything could be handed over in time");
        }
        checkpoint(shared).await;
        shared.stop.cancel();
        shared.sessions.close().await;
        shared.registry.close().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.shared.log.close().await {
            tracing::error!(%error, "the log was not closed cleanly; it will be checked at the next start");
        }
    }

    /// Ends at once, as if the process were killed: nothing is handed over or flushed.
    pub fn kill(mut self) {
        self.shared.stop.cancel();
        self.tasks.abort_all();
    }
}
