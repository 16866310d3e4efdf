//! Where a partition starts and ends, and which record came at a time.

use baton_core::batch::records;
use baton_core::{Error, ErrorCode, Offset};
use baton_proto::v1::{self, list_offsets_partition::At};
use tokio::sync::oneshot;

use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::shard::{FetchCall, PartitionHandle, ShardInput};

/// Partitions of one request.
const PARTITIONS_MAX: usize = 10_000;

/// What one batch may inflate to while its records are looked at.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// An offset with the time of its record.
type Found = (Option<Offset>, i64);

impl GrpcService {
    pub(super) async fn offsets(
        &self,
        context: &RequestContext,
        request: v1::ListOffsetsRequest,
    ) -> v1::ListOffsetsResponse {
        let mut results = Vec::with_capacity(request.partitions.len().min(PARTITIONS_MAX));
        for wanted in request.partitions.into_iter().take(PARTITIONS_MAX) {
            results.push(self.offset(context, wanted).await);
        }
        v1::ListOffsetsResponse { results }
    }

    async fn offset(&self, context: &RequestContext, wanted: v1::ListOffsetsPartition) -> v1::ListOffsetsResult {
        let v1::ListOffsetsPartition { topic, partition, at } = wanted;
        let mut result = v1::ListOffsetsResult {
            topic: topic.clone(),
            partition,
            offset: -1,
            timestamp_ms: -1,
            ..v1::ListOffsetsResult::default()
        };
        let found = async {
            self.authorize(context, Verb::Describe, &topic).map_err(|e| (e, None))?;
            let (_, id) = self.locate(&topic, partition).map_err(|e| (e, None))?;
            let handle = self.led(&topic, id).map_err(|e| (e, Some(id)))?;
            let epoch = handle.status.borrow().epoch;
            let found =
                self.look_up(&handle, at).await.map_err(|e| (e.topic(&topic).partition(partition), Some(id)))?;
            Ok::<_, (Error, _)>((found, epoch))
        };
        match found.await {
            Ok(((offset, timestamp_ms), epoch)) => {
                result.offset = offset.map_or(-1, Offset::to_wire);
                result.timestamp_ms = timestamp_ms;
                result.epoch = epoch.0;
            }
            Err((error, id)) => result.error = Some(self.wire_error(&error, id)),
        }
        result
    }

    async fn look_up(&self, handle: &PartitionHandle, at: Option<At>) -> Result<Found, Error> {
        let status = *handle.status.borrow();
        match at {
            Some(At::Start(_)) => Ok((Some(status.log_start), -1)),
            Some(At::End(_)) => Ok((Some(end(status.latest)?), -1)),
            Some(At::TimestampMs(time)) => self.first_since(handle, time).await,
            Some(At::MaxTimestamp(_)) => self.newest(handle).await,
            None => Err(Error::new(ErrorCode::InvalidRequest, "the request does not say which offset it asks for")),
        }
    }

    /// The first record at or after a time: the log knows the batch, and the record is found
    /// by looking into it.
    async fn first_since(&self, handle: &PartitionHandle, time_ms: i64) -> Result<Found, Error> {
        let high_watermark = end(handle.status.borrow().latest)?;
        let (reply, answer) = oneshot::channel();
        let input = ShardInput::FindTime { id: handle.id, timestamp_ms: time_ms, reply };
        self.parts.shards.tell(handle.id, input).await;
        let stopping = |_| Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
        let Some(mut from) = answer.await.map_err(stopping)?? else { return Ok((None, -1)) };
        while from < high_watermark {
            let Some(batch) = self.read_batch(handle, from).await? else { break };
            for record in records(&batch.bytes, DECOMPRESSED_MAX).map_err(Error::from)? {
                let record = record.map_err(Error::from)?;
                if record.timestamp_ms >= time_ms && record.offset >= from {
                    return Ok((Some(record.offset), record.timestamp_ms));
                }
            }
            from = batch.end();
        }
        Ok((None, -1))
    }

    /// The record with the greatest timestamp (KIP-734), by halving the range of times.
    async fn newest(&self, handle: &PartitionHandle) -> Result<Found, Error> {
        let (mut low, mut high) = (0_i64, i64::MAX);
        let mut best = self.first_since(handle, low).await?;
        while best.0.is_some() && low < high {
            let middle = low + (high - low) / 2 + 1;
            let found = self.first_since(handle, middle).await?;
            if found.0.is_some() {
                low = found.1.max(middle);
                best = found;
            } else {
                high = middle - 1;
            }
        }
        Ok(best)
    }

    async fn read_batch(
        &self,
        handle: &PartitionHandle,
        from: Offset,
    ) -> Result<Option<baton_core::replica::StoredBatch>, Error> {
        let (reply, answer) = oneshot::channel();
        let call = FetchCall { id: handle.id, from, max_bytes: 1, epoch: None, reply };
        self.parts.shards.tell(handle.id, ShardInput::Fetch(call)).await;
        match answer.await {
            Ok(Ok(fetched)) => Ok(fetched.batches.into_iter().next()),
            Ok(Err(failure)) => Err(failure.error),
            Err(_) => Err(Error::new(ErrorCode::ShuttingDown, "this broker is stopping")),
        }
    }
}

/// A client must never see the end go back: a new leader does not know it at once.
fn end(latest: Option<Offset>) -> Result<Offset, Error> {
    latest
        .ok_or_else(|| Error::new(ErrorCode::OffsetNotAvailable, "the new leader does not know its high watermark yet"))
}
