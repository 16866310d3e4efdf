//! Hands out the ids of idempotent producers: from blocks of the registry, so that no two
//! producers of the cluster ever have the same.

use std::ops::Range;
use std::sync::Arc;

use baton_core::{Error, ErrorCode};
use baton_registry::Registry;
use baton_registry::recipes::producer_ids;
use tokio::sync::Mutex;

/// Producer ids taken from the registry at once.
const BLOCK: u32 = 1_000;

/// The block that is being handed out.
pub struct ProducerIds {
    registry: Arc<dyn Registry>,
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, block: Mutex::new(0..0) }
    }

    /// An id that no producer had before.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`: the block is used up, and ZooKeeper gives no other.
    pub async fn next(&self) -> Result<i64, Error> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let allocated = producer_ids::allocate(&*self.registry, BLOCK).await;
        *block = allocated.map_err(|error| Error::new(ErrorCode::RegistryUnavailable, error.to_string()))?;
        block.next().ok_or_else(|| Error::new(ErrorCode::Internal, "the block of producer ids is empty"))
    }
}
