//! The coordinator from its configuration, on this machine's network and a real ensemble.

use std::sync::Arc;

use baton_broker::clock::{Seed, SystemClock};
use baton_broker::launch::zookeeper_config;
use baton_broker::net::TcpNetwork;
use baton_registry::zookeeper::ZooKeeperRegistry;
use baton_registry::{Registry, RegistryError};

use crate::daemon::Mutations;
use crate::daemon::config::CoordinatorConfig;
use crate::daemon::start::{Coordinator, CoordinatorHandle, CoordinatorParts, StartError};

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the registry: {0}; correct `registry.connect`")]
    Registry(#[from] RegistryError),
    #[error("{0}; choose another address in the configuration, or stop what listens there")]
    Start(#[from] StartError),
}

/// Starts a coordinator. Returns when its listeners are bound; ZooKeeper is waited for.
///
/// # Errors
/// [`LaunchError`].
pub async fn launch(config: CoordinatorConfig) -> Result<CoordinatorHandle, LaunchError> {
    let registry: Arc<dyn Registry> = Arc::new(ZooKeeperRegistry::start(zookeeper_config(&config.registry)?)?);
    let parts = CoordinatorParts {
        config,
        network: Arc::new(TcpNetwork),
        registry,
        clock: Arc::new(SystemClock),
        seed: Seed::random(),
        mutations: Mutations::default(),
    };
    Ok(Coordinator::start(parts).await?)
}
