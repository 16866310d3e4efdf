//! What earlier coordinators of transactions left.

use baton_core::transaction::TransactionCoordinator;
use baton_core::transaction::record::TransactionRecord;
use baton_core::{Epoch, Offset};

use crate::coordination::replay::{Source, records_from};
use crate::log::StoredBatch;
use crate::shard::PartitionHandle;
use crate::transaction::host::Parts;

/// The coordinator as the log has it; none once this broker does not lead in this epoch.
pub(super) async fn load(parts: &Parts, handle: PartitionHandle, epoch: Epoch) -> Option<TransactionCoordinator> {
    let source = Source { shards: &parts.shards, handle, epoch };
    source.replayed(|| TransactionCoordinator::new(parts.settings.clone(), epoch), replay).await
}

fn replay(coordinator: &mut TransactionCoordinator, batch: &StoredBatch, from: Offset) {
    for record in records_from(batch, from) {
        match TransactionRecord::decode(record.key.as_deref().unwrap_or_default(), record.value.as_deref()) {
            Ok(record) => coordinator.replay(record),
            Err(error) => {
                tracing::error!(at = %record.offset, %error, "a record of the transactions' partition is skipped");
            }
        }
    }
}
