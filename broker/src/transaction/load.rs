//! A new coordinator reads what earlier ones left: everything that may be committed in its
//! leader epoch, from the start of the partition.

use std::time::Duration;

use baton_core::batch::decode_records;
use baton_core::transaction::TransactionCoordinator;
use baton_core::transaction::record::TransactionRecord;
use baton_core::{Epoch, Error, ErrorCode, Offset};
use tokio::sync::oneshot;

use crate::log::StoredBatch;
use crate::shard::{FetchCall, FetchFailure, Fetched, Isolation, PartitionHandle, ShardInput};
use crate::transaction::host::{Parts, serves};

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// A batch of the partition never inflates beyond this.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// After a read that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The coordinator as the log has it; none once this broker does not lead in this epoch.
pub(super) async fn load(parts: &Parts, mut handle: PartitionHandle, epoch: Epoch) -> Option<TransactionCoordinator> {
    // Above the high watermark there may be what earlier leaders wrote: it is committed sooner
    // or later, and belongs to the state. In this epoch nobody else writes.
    let end = handle.status.borrow().log_end;
    loop {
        let status = *handle.status.borrow_and_update();
        if !serves(&status, epoch) {
            return None;
        }
        if status.latest.is_some_and(|latest| latest >= end) {
            match read_all(parts, &handle, epoch, end).await {
                Some(coordinator) => return Some(coordinator),
                None => tokio::time::sleep(AGAIN_AFTER).await,
            }
        } else if handle.status.changed().await.is_err() {
            return None;
        }
    }
}

/// None if a read failed: what was read before it may be incomplete.
async fn read_all(
    parts: &Parts,
    handle: &PartitionHandle,
    epoch: Epoch,
    end: Offset,
) -> Option<TransactionCoordinator> {
    let mut coordinator = TransactionCoordinator::new(parts.settings.clone(), epoch);
    let mut from = handle.status.borrow().log_start;
    while from < end {
        let fetched = match read(parts, handle, epoch, from).await {
            Ok(fetched) => fetched,
            Err(failure) => {
                if failure.error.code != ErrorCode::OffsetOutOfRange {
                    tracing::debug!(partition = %handle.id, error = %failure.error, "the transactions are read again");
                }
                return None;
            }
        };
        let next = fetched.batches.last().map_or(from, StoredBatch::end);
        for batch in &fetched.batches {
            replay(&mut coordinator, batch, from);
        }
        if next <= from {
            return None;
        }
        from = next;
    }
    Some(coordinator)
}

async fn read(parts: &Parts, handle: &PartitionHandle, epoch: Epoch, from: Offset) -> Result<Fetched, FetchFailure> {
    let (reply, answer) = oneshot::channel();
    let isolation = Isolation::Uncommitted;
    let call = FetchCall { id: handle.id, from, max_bytes: READ_BYTES, epoch: Some(epoch), isolation, reply };
    parts.shards.tell(handle.id, ShardInput::Fetch(call)).await;
    answer.await.unwrap_or_else(|_| {
        let error = Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
        Err(FetchFailure { error, latest: None, log_start: from })
    })
}

/// A record that is not understood is told in the log, and the others are kept: one that a
/// newer version wrote is not there before the whole cluster knows it.
fn replay(coordinator: &mut TransactionCoordinator, batch: &StoredBatch, from: Offset) {
    let records = match decode_records(&batch.bytes, DECOMPRESSED_MAX) {
        Ok(records) => records,
        Err(error) => {
            tracing::error!(at = %batch.base, %error, "a batch of the transactions' partition is unreadable");
            return;
        }
    };
    for record in records.iter().filter(|record| record.offset >= from) {
        match TransactionRecord::decode(record.key.as_deref().unwrap_or_default(), record.value.as_deref()) {
            Ok(record) => coordinator.replay(record),
            Err(error) => {
                tracing::error!(at = %record.offset, %error, "a record of the transactions' partition is skipped");
            }
        }
    }
}
