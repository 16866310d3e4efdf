//! Where a partition starts and ends, and which record came at a time.

use baton_core::batch::records;
use baton_core::replica::StoredBatch;
use baton_core::{Epoch, Error, ErrorCode, Offset};
use tokio::sync::oneshot;

use crate::shard::{Copies, FetchCall, Isolation, PartitionHandle, ShardInput, Shards};

/// What one batch may inflate to while its records are looked at.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// The place that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Start,
    End,
    /// The end of what is decided for good.
    StableEnd,
    /// The first record that is as late or later, in ms since 1970.
    Time(i64),
    /// The record with the greatest timestamp (KIP-734).
    Newest,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// None: there is no such record.
    pub offset: Option<Offset>,
    /// Of the record; −1 when a place was asked for that has none.
    pub timestamp_ms: i64,
    /// That wrote the record, or of the leader.
    pub epoch: Epoch,
}

/// Looks for a place in a partition that this broker leads.
///
/// # Errors
/// The end is not known yet (`OFFSET_NOT_AVAILABLE`), this broker does not lead any more, or
/// the log cannot be read.
pub async fn look_up(shards: &Shards, handle: &PartitionHandle, place: Place) -> Result<Found, Error> {
    let status = handle.status.now();
    let at = |offset| Found { offset: Some(offset), timestamp_ms: -1, epoch: status.epoch };
    match place {
        Place::Start => Ok(at(status.log_start)),
        Place::End => Ok(at(end(status.latest)?)),
        Place::StableEnd => Ok(at(end(status.latest)?.min(status.last_stable))),
        Place::Time(time) => Search { shards, handle }.first_since(time).await,
        Place::Newest => Search { shards, handle }.newest().await,
    }
}

struct Search<'a> {
    shards: &'a Shards,
    handle: &'a PartitionHandle,
}

impl Search<'_> {
    fn nothing(&self) -> Found {
        Found { offset: None, timestamp_ms: -1, epoch: self.handle.status.now().epoch }
    }

    /// The first record at or after a time: the log knows the batch, and the record is found
    /// by looking into it.
    async fn first_since(&self, time_ms: i64) -> Result<Found, Error> {
        let high_watermark = end(self.handle.status.now().latest)?;
        let (reply, answer) = oneshot::channel();
        let id = self.handle.id;
        self.shards.tell(id, ShardInput::FindTime { id, timestamp_ms: time_ms, reply }).await;
        let Some(mut from) = answer.await.map_err(stopping)?? else { return Ok(self.nothing()) };
        while from < high_watermark {
            let Some(batch) = self.read_batch(from).await? else { break };
            for record in records(&batch.bytes, DECOMPRESSED_MAX).map_err(Error::from)? {
                let record = record.map_err(Error::from)?;
                if record.timestamp_ms >= time_ms && record.offset >= from {
                    let (offset, timestamp_ms) = (Some(record.offset), record.timestamp_ms);
                    return Ok(Found { offset, timestamp_ms, epoch: batch.epoch });
                }
            }
            from = batch.end();
        }
        Ok(self.nothing())
    }

    /// By halving the range of times.
    async fn newest(&self) -> Result<Found, Error> {
        let (mut low, mut high) = (0_i64, i64::MAX);
        let mut best = self.first_since(low).await?;
        while best.offset.is_some() && low < high {
            let middle = low + (high - low) / 2 + 1;
            let found = self.first_since(middle).await?;
            if found.offset.is_some() {
                low = found.timestamp_ms.max(middle);
                best = found;
            } else {
                high = middle - 1;
            }
        }
        Ok(best)
    }

    async fn read_batch(&self, from: Offset) -> Result<Option<StoredBatch>, Error> {
        let (reply, answer) = oneshot::channel();
        let (id, isolation, copies) = (self.handle.id, Isolation::Uncommitted, Copies::Leader);
        let call = FetchCall { id, from, max_bytes: 1, epoch: None, isolation, copies, reply };
        self.shards.tell(self.handle.id, ShardInput::Fetch(call)).await;
        match answer.await {
            Ok(Ok(fetched)) => Ok(fetched.batches.into_iter().next()),
            Ok(Err(failure)) => Err(failure.error),
            Err(gone) => Err(stopping(gone)),
        }
    }
}

fn stopping(_: oneshot::error::RecvError) -> Error {
    Error::new(ErrorCode::ShuttingDown, "this broker is stopping")
}

/// A client must never see the end go back: a new leader does not know it at once.
fn end(latest: Option<Offset>) -> Result<Offset, Error> {
    latest
        .ok_or_else(|| Error::new(ErrorCode::OffsetNotAvailable, "the new leader does not know its high watermark yet"))
}
