//! One machine: tails its partition while this broker leads it.

use std::sync::Arc;
use std::time::Duration;

use baton_core::batch::decode_records;
use baton_core::{Offset, TopicPartition};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::internal::InternalHost;
use crate::log::StoredBatch;
use crate::shard::{Copies, FetchCall, Isolation, PartitionHandle, Partitions, ShardInput, Shards};

/// Bytes of one read of the partition.
const READ_BYTES: usize = 1 << 20;

/// A batch of an internal partition never inflates beyond this.
const DECOMPRESSED_MAX: usize = 16 << 20;

/// How often a partition that is not led here is looked at.
const IDLE: Duration = Duration::from_millis(200);

/// A state machine on one internal partition. It is owned by one task; what it shows to others
/// it shares by itself.
pub trait Machine: Send + 'static {
    /// This broker began to lead: forget everything. Returns where to read from.
    fn begin(&mut self, log_start: Offset, end: Offset) -> Offset;
    /// One committed record. One that it does not understand is its own to judge: a newer
    /// version may have written it.
    fn apply(&mut self, offset: Offset, command: &Bytes);
    /// Everything that was committed when this broker began to lead has been applied.
    fn caught_up(&mut self);
    /// This broker does not lead any more: answer nothing.
    fn end(&mut self);
}

/// Runs one machine until the broker stops.
pub async fn run<M: Machine>(
    mut machine: M,
    topic: &'static str,
    partition: u32,
    host: Arc<InternalHost>,
    partitions: Partitions,
    shards: Shards,
    stop: CancellationToken,
) {
    loop {
        let led = host.find(topic, partition).and_then(|id| partitions.get(id)).filter(|h| h.status.now().leads());
        let lead = async {
            match led {
                Some(handle) => lead(&mut machine, handle, &shards).await,
                None => tokio::time::sleep(IDLE).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return machine.end(),
            () = lead => {}
        }
    }
}

/// Applies what is committed until this broker leads no more, or in a later epoch.
async fn lead<M: Machine>(machine: &mut M, mut handle: PartitionHandle, shards: &Shards) {
    let first = handle.status.take();
    let mut at: Option<Offset> = None;
    let mut caught_up = false;
    loop {
        let status = handle.status.take();
        if !status.leads() || status.epoch != first.epoch {
            break;
        }
        // Until the high watermark of this epoch is known, there may be more to apply.
        let Some(end) = status.latest else {
            if handle.status.changed().await.is_err() {
                break;
            }
            continue;
        };
        let from = *at.get_or_insert_with(|| machine.begin(status.log_start, end));
        if from >= end {
            if !std::mem::replace(&mut caught_up, true) {
                machine.caught_up();
            }
            if handle.status.changed().await.is_err() {
                break;
            }
            continue;
        }
        let Some(batches) = read(shards, handle.id, from).await else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        at = Some(apply(machine, from, &batches));
    }
    machine.end();
}

async fn read(shards: &Shards, id: TopicPartition, from: Offset) -> Option<Vec<StoredBatch>> {
    let (reply, answer) = oneshot::channel();
    let (isolation, copies) = (Isolation::Uncommitted, Copies::Leader);
    let call = FetchCall { id, from, max_bytes: READ_BYTES, epoch: None, isolation, copies, reply };
    shards.tell(id, ShardInput::Fetch(call)).await;
    answer.await.ok()?.ok().map(|fetched| fetched.batches)
}

/// Returns the next offset.
fn apply<M: Machine>(machine: &mut M, from: Offset, batches: &[StoredBatch]) -> Offset {
    let mut next = from;
    for batch in batches {
        match decode_records(&batch.bytes, DECOMPRESSED_MAX) {
            Ok(records) => {
                for record in records.iter().filter(|record| record.offset >= from) {
                    if let Some(command) = &record.value {
                        machine.apply(record.offset, command);
                    }
                }
            }
            Err(error) => tracing::error!(at = %batch.base, %error, "a record of an internal partition is unreadable"),
        }
        next = next.max(batch.end());
    }
    next
}
