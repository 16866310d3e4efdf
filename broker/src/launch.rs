//! From a configuration to a running broker: the data directory, the registry, the log.

use std::sync::Arc;
use std::time::Duration;

use baton_core::BrokerId;
use baton_registry::memory::MemoryEnsemble;
use baton_registry::pool::SessionPool;
use baton_registry::recipes::cluster::{self, ClusterError};
use baton_registry::recipes::{RecipeError, layout};
use baton_registry::znode::ClusterIdentity;
use baton_registry::zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};
use baton_registry::{Registry, RegistryError, SessionId};
use uuid::Uuid;

use crate::clock::{Seed, SystemClock};
use crate::config::{BrokerConfig, RegistryConfig};
use crate::log::Log;
use crate::log::fjall::{DataDirectory, FjallLog, FjallOptions, OpenError};
use crate::mutation::Mutations;
use crate::net::TcpNetwork;
use crate::server::{Broker, BrokerError, BrokerParts, SessionMemory};

/// Sessions of one broker at most: at 400 KiB of candidates each, far more partitions than one
/// broker may hold.
const SESSIONS_MAX: usize = 64;

/// How often a person is told that the registry is still awaited.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a full disk is looked at, while the broker cannot start on it.
const ROOM_EVERY: Duration = Duration::from_secs(2);

/// What a new cluster may write; it rises when all brokers understand more.
const FEATURE_LEVEL: u16 = 1;

/// The name under which session ids are kept in the data directory.
const SESSIONS_NOTE: &str = "sessions";

/// Where the registry is.
#[derive(Clone)]
pub enum RegistrySource {
    /// The ensemble that the configuration names.
    ZooKeeper,
    /// One in this process (`baton dev`).
    Embedded(MemoryEnsemble),
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("{0}; point the broker at its own cluster, or give it an empty data directory")]
    Cluster(ClusterError),
    #[error("the registry: {0}; correct `registry.connect` or what it points at")]
    Registry(RecipeError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the start was interrupted: {0}")]
    Interrupted(String),
}

/// Opens everything and starts the broker. Waits for the registry for as long as it takes.
///
/// # Errors
/// [`LaunchError`]; nothing was changed in the registry but the layout of an empty one.
pub async fn launch(config: BrokerConfig, source: RegistrySource) -> Result<Broker, LaunchError> {
    let directory = Arc::new(DataDirectory::lock(&config.log.dir)?);
    let registry = connect(&config, &source)?;
    let uuid = join_cluster(&registry, &directory, &config).await?;
    let log = open_log(Arc::clone(&directory), uuid, &config).await?;
    let parts = BrokerParts {
        network: Arc::new(TcpNetwork),
        log: Arc::new(log) as Arc<dyn Log>,
        sessions: sessions(&config, &source, &registry)?,
        registry,
        memory: Arc::new(Notes(directory)),
        clock: Arc::new(SystemClock),
        seed: Seed::random(),
        cluster: uuid,
        mutations: Mutations::default(),
        config,
    };
    Ok(Broker::start(parts).await?)
}

fn registry_failed(error: RegistryError) -> LaunchError {
    LaunchError::Registry(RecipeError::Registry(error))
}

/// A configuration of the client as the file says.
///
/// # Errors
/// The credentials are not `scheme:secret`.
pub fn zookeeper_config(config: &RegistryConfig) -> Result<ZooKeeperConfig, RegistryError> {
    let mut zookeeper = ZooKeeperConfig::new(config.connect.clone());
    zookeeper.session_timeout = Duration::from_millis(config.session_timeout_ms);
    if !config.auth.is_empty() {
        let (scheme, secret) = config
            .auth
            .split_once(':')
            .ok_or_else(|| RegistryError::BadArgument("registry.auth has to be `scheme:credentials`".to_owned()))?;
        zookeeper.auth = Some((scheme.to_owned(), secret.to_owned()));
    }
    Ok(zookeeper)
}

fn connect(config: &BrokerConfig, source: &RegistrySource) -> Result<Arc<dyn Registry>, LaunchError> {
    match source {
        RegistrySource::ZooKeeper => {
            let zookeeper = zookeeper_config(&config.registry).map_err(registry_failed)?;
            Ok(Arc::new(ZooKeeperRegistry::start(zookeeper).map_err(registry_failed)?))
        }
        RegistrySource::Embedded(ensemble) => Ok(embedded(ensemble, config)),
    }
}

fn embedded(ensemble: &MemoryEnsemble, config: &BrokerConfig) -> Arc<dyn Registry> {
    let timeout = Duration::from_millis(config.registry.session_timeout_ms);
    Arc::new(ensemble.connect_with(&format!("broker-{}", config.broker_id), timeout))
}

fn sessions(
    config: &BrokerConfig,
    source: &RegistrySource,
    first: &Arc<dyn Registry>,
) -> Result<Arc<SessionPool>, LaunchError> {
    let (config, source, first) = (config.clone(), source.clone(), Arc::clone(first));
    let open = move |number: usize| match &source {
        _ if number == 0 => Ok(Arc::clone(&first)),
        RegistrySource::ZooKeeper => {
            let zookeeper = zookeeper_config(&config.registry)?;
            Ok(Arc::new(ZooKeeperRegistry::start(zookeeper)?) as Arc<dyn Registry>)
        }
        RegistrySource::Embedded(ensemble) => Ok(embedded(ensemble, &config)),
    };
    Ok(Arc::new(SessionPool::new(SESSIONS_MAX, Box::new(open)).map_err(registry_failed)?))
}

/// Waits for the registry, prepares an empty one, and checks that it is this broker's cluster.
async fn join_cluster(
    registry: &Arc<dyn Registry>,
    directory: &DataDirectory,
    config: &BrokerConfig,
) -> Result<Uuid, LaunchError> {
    let expected = directory.identity().map(|identity| identity.cluster);
    let mut told = tokio::time::Instant::now();
    loop {
        let joined = join_once(&**registry, expected).await;
        let error = match joined {
            Ok(uuid) => return Ok(uuid),
            Err(error @ (ClusterError::Other { .. } | ClusterError::Missing { .. })) => {
                return Err(LaunchError::Cluster(error));
            }
            Err(ClusterError::Recipe(error @ (RecipeError::Znode(_) | RecipeError::Fenced))) => {
                return Err(LaunchError::Registry(error));
            }
            Err(ClusterError::Recipe(RecipeError::Registry(
                error @ (RegistryError::Denied(_) | RegistryError::BadArgument(_) | RegistryError::Closed),
            ))) => return Err(registry_failed(error)),
            Err(error) => error,
        };
        if told.elapsed() >= PATIENCE {
            told = tokio::time::Instant::now();
            tracing::warn!(registry = config.registry.connect, %error, "waiting for ZooKeeper");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn join_once(registry: &dyn Registry, expected: Option<Uuid>) -> Result<Uuid, ClusterError> {
    layout::prepare(registry).await?;
    let fresh = ClusterIdentity { uuid: Uuid::new_v4(), feature_level: FEATURE_LEVEL };
    Ok(cluster::open(registry, fresh, expected).await?.uuid)
}

/// Opening reads the disk and checks it: on a thread of its own.
async fn open_log(
    directory: Arc<DataDirectory>,
    cluster: Uuid,
    config: &BrokerConfig,
) -> Result<FjallLog, LaunchError> {
    let broker = BrokerId(config.broker_id);
    let log = loop {
        let (directory, options) = (Arc::clone(&directory), log_options(config));
        let opening = tokio::task::spawn_blocking(move || FjallLog::open(directory, cluster, broker, options));
        match opening.await.map_err(|error| LaunchError::Interrupted(error.to_string()))? {
            // A broker that runs lives through a full disk, and so does one that starts.
            Err(error @ OpenError::NoRoom { .. }) => {
                tracing::error!(%error, "waiting for room on the disk");
                tokio::time::sleep(ROOM_EVERY).await;
            }
            opened => break opened?,
        }
    };
    let opening = log.opening();
    tracing::info!(?opening, "the log is open");
    Ok(log)
}

fn log_options(config: &BrokerConfig) -> FjallOptions {
    FjallOptions {
        cache_bytes: config.log.cache_bytes,
        group_bytes_max: config.log.commit_bytes_max,
        rotate_bytes: config.log.memtable_bytes,
        reclaim_interval: Duration::from_millis(config.log.reclaim_interval_ms),
        write_buffer_bytes_max: 6 * config.log.memtable_bytes,
        reserve_bytes: config.log.reserve_bytes,
        ..FjallOptions::default()
    }
}

/// Session ids, kept under the lock of the data directory.
struct Notes(Arc<DataDirectory>);

impl SessionMemory for Notes {
    fn recall(&self) -> Vec<SessionId> {
        let found = self.0.recall(SESSIONS_NOTE).ok().flatten().unwrap_or_default();
        let id = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes).map(SessionId);
        found.chunks(8).filter_map(id).collect()
    }

    fn remember(&self, sessions: &[SessionId]) {
        let bytes: Vec<u8> = sessions.iter().flat_map(|session| session.0.to_be_bytes()).collect();
        if let Err(error) = self.0.remember(SESSIONS_NOTE, &bytes) {
            tracing::warn!(%error, "the session ids were not kept: after a restart old nodes stay until they expire");
        }
    }
}
