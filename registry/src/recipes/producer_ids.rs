//! Blocks of producer ids: nobody is ever given an id twice.

use std::ops::Range;

use baton_core::ids::ProducerId;

use super::RecipeError;
use crate::api::{Registry, RegistryError};
use crate::znode::{ProducerIdBlocks, Znode, producer_ids};

/// Brokers that ask at the same moment: each round, one of them succeeds.
const ROUNDS_MAX: usize = 100;

/// Takes the next `count` ids. After a lost answer a further block is taken; the ids of the
/// first, if it was taken, belong to nobody.
///
/// # Errors
/// The registry's, data that is not ours or newer, or too much contention.
pub async fn allocate(registry: &dyn Registry, count: u32) -> Result<Range<i64>, RecipeError> {
    for _ in 0..ROUNDS_MAX {
        let (data, stat) = registry.get(producer_ids::PATH).await?;
        let first = ProducerIdBlocks::decode(&data)?.next.0;
        let Some(end) = first.checked_add(i64::from(count)) else {
            break; // 2⁶³ ids were given out.
        };
        let next = ProducerIdBlocks { next: ProducerId(end) }.encode();
        match registry.set(producer_ids::PATH, next, Some(stat.version)).await {
            Ok(_) => return Ok(first..end),
            Err(RegistryError::BadVersion(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RecipeError::Contended(producer_ids::PATH.to_owned()))
}
