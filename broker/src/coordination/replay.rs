//! A new coordinator reads what earlier ones left: everything that may be committed in its
//! leader epoch, from the start of the partition.

use std::time::Duration;

use baton_core::batch::{Record, decode_records};
use baton_core::{Epoch, Error, ErrorCode, Offset};
use tokio::sync::oneshot;

use super::serves;
use crate::log::StoredBatch;
use crate::shard::{Copies, FetchCall, FetchFailure, Fetched, Isolation, PartitionHandle, ShardInput, Shards};

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// A batch of the partition never inflates beyond this.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// After a read that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The partition that is read, in one leader epoch.
pub(crate) struct Source<'a> {
    pub(crate) shards: &'a Shards,
    pub(crate) handle: PartitionHandle,
    pub(crate) epoch: Epoch,
}

impl Source<'_> {
    /// The machine as the log has it; none once this broker does not lead in this epoch. A
    /// batch may begin below the offset with which it is given: only what lies at or above is
    /// new.
    pub(crate) async fn replayed<M>(
        mut self,
        new: impl Fn() -> M,
        replay: impl Fn(&mut M, &StoredBatch, Offset),
    ) -> Option<M> {
        // Above the high watermark there may be what earlier leaders wrote, or what the
        // coordinator before this one wrote in the same epoch: it is committed sooner or later,
        // and belongs to the state. In this epoch nobody else writes.
        let end = self.handle.status.now().log_end;
        loop {
            let status = self.handle.status.take();
            if !serves(&status, self.epoch) {
                return None;
            }
            if status.latest.is_some_and(|latest| latest >= end) {
                let mut machine = new();
                if self.read_to(end, |batch, from| replay(&mut machine, batch, from)).await {
                    return Some(machine);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            } else if self.handle.status.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Whether all was read: after a read that failed something may be missing.
    async fn read_to(&self, end: Offset, mut replay: impl FnMut(&StoredBatch, Offset)) -> bool {
        let mut from = self.handle.status.now().log_start;
        while from < end {
            let fetched = match self.read(from).await {
                Ok(fetched) => fetched,
                Err(FetchFailure { error, .. }) => {
                    if error.code != ErrorCode::OffsetOutOfRange {
                        tracing::debug!(partition = %self.handle.id, %error, "a coordinator's state is read again");
                    }
                    return false;
                }
            };
            let next = fetched.batches.last().map_or(from, StoredBatch::end);
            fetched.batches.iter().for_each(|batch| replay(batch, from));
            if next <= from {
                return false;
            }
            from = next;
        }
        true
    }

    async fn read(&self, from: Offset) -> Result<Fetched, FetchFailure> {
        let (reply, answer) = oneshot::channel();
        let call = FetchCall {
            id: self.handle.id,
            from,
            max_bytes: READ_BYTES,
            epoch: Some(self.epoch),
            isolation: Isolation::Uncommitted,
            copies: Copies::Leader,
            reply,
        };
        self.shards.tell(self.handle.id, ShardInput::Fetch(call)).await;
        answer.await.unwrap_or_else(|_| {
            let error = Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
            Err(FetchFailure { error, latest: None, log_start: from })
        })
    }
}

/// The records of a batch from an offset on. What is not understood is told in the log by
/// whoever reads it, and the others are kept: a record that a newer version wrote is not there
/// before the whole cluster knows it.
pub(crate) fn records_from(batch: &StoredBatch, from: Offset) -> Vec<Record> {
    match decode_records(&batch.bytes, DECOMPRESSED_MAX) {
        Ok(mut records) => {
            records.retain(|record| record.offset >= from);
            records
        }
        Err(error) => {
            tracing::error!(at = %batch.base, %error, "a batch of a coordinator's partition is unreadable");
            Vec::new()
        }
    }
}
