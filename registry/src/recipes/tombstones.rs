//! Which deleted topics' data may be removed.
//!
//! A broker that finds a tombstone with its own id removes its data of that topic and then
//! acknowledges; the last one to do so deletes the tombstone. A broker that never comes back
//! would keep it for ever, so the coordinator keeps only the newest ones. Who comes back after
//! its tombstone was pruned keeps data that nobody serves (a topic id is never reused), which an
//! operator may remove; it is never removed by guesswork.

use baton_core::ids::{BrokerId, TopicId};
use futures::future::join_all;

use super::{Fence, RecipeError, fenced};
use crate::api::{Op, Registry, RegistryError};
use crate::znode::{Tombstone, Znode, tombstone};

/// Tombstones that are kept, unless told otherwise.
pub const TOMBSTONES_MAX: usize = 10_000;
/// Brokers that acknowledge at the same moment: each round, one of them succeeds.
const ROUNDS_MAX: usize = 100;

/// One tombstone, with the version of its node.
///
/// # Errors
/// The registry's, or data that is not ours or newer.
pub async fn read(registry: &dyn Registry, topic: TopicId) -> Result<Option<(Tombstone, i32)>, RecipeError> {
    match registry.get(&tombstone::path(topic)).await {
        Ok((data, stat)) => Ok(Some((Tombstone::decode(&data)?, stat.version))),
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All tombstones, by topic id. One that cannot be understood is told in the log and left out:
/// nothing is deleted because of it.
///
/// # Errors
/// The registry's.
pub async fn list(registry: &dyn Registry) -> Result<Vec<(TopicId, Tombstone)>, RecipeError> {
    let names = registry.children(tombstone::ROOT).await?;
    let topics: Vec<TopicId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let found = join_all(topics.iter().map(|topic| read(registry, *topic))).await;
    let mut tombstones = Vec::with_capacity(topics.len());
    for (topic, found) in topics.into_iter().zip(found) {
        match found {
            Ok(found) => tombstones.extend(found.map(|(found, _)| (topic, found))),
            Err(RecipeError::Znode(error)) => tracing::warn!(%topic, %error, "cannot read a tombstone"),
            Err(error) => return Err(error),
        }
    }
    Ok(tombstones)
}

/// This broker holds nothing of the topic any more. Doing it again is harmless.
///
/// # Errors
/// The registry's, data that is not ours or newer, or too much contention.
pub async fn acknowledge(registry: &dyn Registry, topic: TopicId, broker: BrokerId) -> Result<(), RecipeError> {
    let path = tombstone::path(topic);
    for _ in 0..ROUNDS_MAX {
        let Some((mut found, version)) = read(registry, topic).await? else {
            return Ok(());
        };
        found.brokers.retain(|other| *other != broker);
        let written = if found.brokers.is_empty() {
            registry.delete(&path, Some(version)).await
        } else {
            registry.set(&path, found.encode(), Some(version)).await.map(|_| ())
        };
        match written {
            Ok(()) | Err(RegistryError::NoNode(_)) => return Ok(()),
            Err(RegistryError::BadVersion(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RecipeError::Contended(path))
}

/// Deletes the oldest tombstones beyond `keep`. Returns how many.
///
/// # Errors
/// Fenced, or the registry's.
pub async fn prune(registry: &dyn Registry, fence: Fence, keep: usize) -> Result<usize, RecipeError> {
    // Names sort as ids do, and ids rise.
    let names = registry.children(tombstone::ROOT).await?;
    let surplus = names.len().saturating_sub(keep);
    for name in &names[..surplus] {
        let path = format!("{}/{name}", tombstone::ROOT);
        match registry.multi(vec![fence.op(), Op::Delete { path, version: None }]).await {
            Ok(_) => {}
            Err(error) if error.index == Some(1) => {}
            Err(error) => return Err(fenced(error)),
        }
    }
    Ok(surplus)
}
