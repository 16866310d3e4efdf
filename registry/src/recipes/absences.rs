//! Since when brokers are away, so that a new coordinator goes on counting.

use std::collections::BTreeMap;

use baton_core::ids::BrokerId;
use futures::future::join_all;

use super::{Fence, RecipeError, fenced};
use crate::api::{CreateMode, Op, Registry, RegistryError};
use crate::znode::{Absence, Znode, absent, broker};

/// Everybody who is away. A note that cannot be understood is told in the log and left out: the
/// count of that absence begins anew.
///
/// # Errors
/// The registry's.
pub async fn read_all(registry: &dyn Registry) -> Result<BTreeMap<BrokerId, Absence>, RecipeError> {
    let names = registry.children(absent::ROOT).await?;
    let ids: Vec<BrokerId> = names.iter().filter_map(|name| broker::broker_of(name)).collect();
    let paths: Vec<String> = ids.iter().map(|id| absent::path(*id)).collect();
    let found = join_all(paths.iter().map(|path| registry.get(path))).await;
    let mut absences = BTreeMap::new();
    for (id, found) in ids.into_iter().zip(found) {
        match found {
            Ok((data, _)) => match Absence::decode(&data) {
                Ok(absence) => {
                    absences.insert(id, absence);
                }
                Err(error) => tracing::warn!(broker = %id, %error, "cannot read since when a broker is away"),
            },
            Err(RegistryError::NoNode(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(absences)
}

/// Notes that a broker is away. An earlier note stays: the count began then.
///
/// # Errors
/// Fenced, or the registry's.
pub async fn note(
    registry: &dyn Registry,
    fence: Fence,
    broker: BrokerId,
    absence: Absence,
) -> Result<(), RecipeError> {
    let create = Op::Create { path: absent::path(broker), data: absence.encode(), mode: CreateMode::Persistent };
    match registry.multi(vec![fence.op(), create]).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.error, RegistryError::NodeExists(_)) => Ok(()),
        Err(error) => Err(fenced(error)),
    }
}

/// The broker is back.
///
/// # Errors
/// Fenced, or the registry's.
pub async fn clear(registry: &dyn Registry, fence: Fence, broker: BrokerId) -> Result<(), RecipeError> {
    let delete = Op::Delete { path: absent::path(broker), version: None };
    match registry.multi(vec![fence.op(), delete]).await {
        Ok(_) => Ok(()),
        Err(error) if error.index == Some(1) && matches!(error.error, RegistryError::NoNode(_)) => Ok(()),
        Err(error) => Err(fenced(error)),
    }
}
