//! The nodes that must exist before anything else.

use bytes::Bytes;
use futures::future::join_all;

use super::RecipeError;
use crate::api::{CreateMode, Registry, RegistryError};
use crate::znode::coordinator::{CoordinatorTerm, EPOCH_PATH};
use crate::znode::{
    ProducerIdBlocks, TopicIds, Znode, absent, broker, broker_id, coordinator, partition, producer_ids, tombstone,
    topic,
};
use baton_core::ids::TopicId;

/// Creates what is missing and changes nothing else. Whoever starts first does it.
///
/// # Errors
/// The registry's. Doing it again is harmless.
pub async fn prepare(registry: &dyn Registry) -> Result<(), RecipeError> {
    let empty = [
        broker_id::ROOT,
        broker::ROOT,
        absent::ROOT,
        coordinator::ROOT,
        topic::LINKS,
        tombstone::ROOT,
        partition::ROOT,
    ]
    .map(|path| (path, Bytes::new()));
    let filled = [
        (EPOCH_PATH, CoordinatorTerm::default().encode()),
        (topic::ROOT, TopicIds { next: TopicId(1) }.encode()),
        (producer_ids::PATH, ProducerIdBlocks::default().encode()),
    ];
    let creates: Vec<_> = empty
        .into_iter()
        .chain(filled)
        .map(|(path, data)| registry.create(path, data, CreateMode::Persistent))
        .collect();
    for result in join_all(creates).await {
        match result {
            Ok(_) | Err(RegistryError::NodeExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
