//! Who this cluster is: made once, then checked by everybody.

use uuid::Uuid;

use super::{Fence, RecipeError, write_fenced};
use crate::api::{CreateMode, Op, Registry, RegistryError};
use crate::znode::{ClusterIdentity, Znode, cluster};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("this is cluster {found}, but the data directory belongs to {expected}")]
    Other { found: Uuid, expected: Uuid },
    /// An emptied ZooKeeper is not taken for a new cluster by a broker that has data.
    #[error("there is no cluster here, but the data directory belongs to {expected}")]
    Missing { expected: Uuid },
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

impl From<RegistryError> for ClusterError {
    fn from(error: RegistryError) -> Self {
        Self::Recipe(error.into())
    }
}

/// Reads `/cluster`, or makes it from `fresh` when there is none.
///
/// `expected` is the cluster that the data directory belongs to; none when it was just made.
///
/// # Errors
/// Another cluster, or none although one is expected, or data that is not ours or newer.
pub async fn open(
    registry: &dyn Registry,
    fresh: ClusterIdentity,
    expected: Option<Uuid>,
) -> Result<ClusterIdentity, ClusterError> {
    let found = match read(registry).await? {
        Some((found, _)) => found,
        None => match expected {
            Some(expected) => return Err(ClusterError::Missing { expected }),
            None => create(registry, fresh).await?,
        },
    };
    match expected {
        Some(expected) if expected != found.uuid => Err(ClusterError::Other { found: found.uuid, expected }),
        _ => Ok(found),
    }
}

/// The cluster and the version of its node.
///
/// # Errors
/// The registry's, or data that is not ours or newer.
pub async fn read(registry: &dyn Registry) -> Result<Option<(ClusterIdentity, i32)>, RecipeError> {
    match registry.get(cluster::PATH).await {
        Ok((data, stat)) => Ok(Some((ClusterIdentity::decode(&data)?, stat.version))),
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Several may try; the first one wins, and all learn which it was.
async fn create(registry: &dyn Registry, fresh: ClusterIdentity) -> Result<ClusterIdentity, RecipeError> {
    match registry.create(cluster::PATH, fresh.encode(), CreateMode::Persistent).await {
        Ok(_) => return Ok(fresh),
        Err(RegistryError::NodeExists(_)) => {}
        Err(error) if error.outcome_unknown() => registry.sync(cluster::PATH).await?,
        Err(error) => return Err(error.into()),
    }
    let missing = || RegistryError::NoNode(cluster::PATH.to_owned());
    Ok(read(registry).await?.ok_or_else(missing)?.0)
}

/// Raises the finalised feature level. It never falls.
///
/// # Errors
/// Fenced, or the registry's.
pub async fn raise_feature_level(registry: &dyn Registry, fence: Fence, level: u16) -> Result<(), RecipeError> {
    let missing = || RegistryError::NoNode(cluster::PATH.to_owned());
    let (found, version) = read(registry).await?.ok_or_else(missing)?;
    if found.feature_level >= level {
        return Ok(());
    }
    let data = ClusterIdentity { feature_level: level, ..found }.encode();
    let path = cluster::PATH.to_owned();
    write_fenced(registry, fence, Op::Set { path, data, version: Some(version) }).await
}
