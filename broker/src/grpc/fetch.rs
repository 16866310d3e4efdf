//! Long polls: answered when there is enough to read, or something to say, or the time is up.

use std::time::Duration;

use baton_core::{Epoch, Error, ErrorCode, Offset, TopicPartition};
use baton_proto::v1;
use futures::future::select_all;
use tokio::sync::oneshot;

use crate::admission::Demand;
use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::shard::{FetchCall, FetchFailure, Fetched, PartitionHandle, ShardInput};

/// Partitions of one request.
const PARTITIONS_MAX: usize = 10_000;

/// One partition of a request, found.
struct Wanted {
    index: usize,
    handle: PartitionHandle,
    from: Offset,
    max_bytes: usize,
    epoch: Option<Epoch>,
    /// What the last reading could see: below it there is nothing new.
    seen: Offset,
}

impl GrpcService {
    pub(super) async fn fetch_partitions(
        &self,
        context: RequestContext,
        request: v1::FetchRequest,
    ) -> v1::FetchResponse {
        self.parts.metrics.fetch_received();
        let context = context.client_id(&request.client_id);
        let limit = u64::from(request.max_bytes.max(1)).min(self.parts.limits.fetch_bytes_max);
        let max_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
        let demand = Demand { verb: Verb::Fetch, topic: None, key_hash: None, bytes: 0 };
        let throttle = match self.parts.admission.admit(&context, demand) {
            Ok(admitted) => admitted.throttle,
            Err(refused) => return refuse_all(&request, &refused.error, refused.throttle),
        };
        if request.partitions.len() > PARTITIONS_MAX {
            let error = Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions");
            return refuse_all(&request, &error, Duration::ZERO);
        }
        let mut results: Vec<v1::FetchResult> = request.partitions.iter().map(empty_result).collect();
        let mut wanted = Vec::new();
        for (index, partition) in request.partitions.iter().enumerate() {
            match self.find(&context, index, partition) {
                Ok(found) => wanted.push(found),
                Err((error, id)) => self.fail(&mut results[index], &error, id),
            }
        }
        let failed = wanted.len() < results.len();
        self.poll(&context, &request, max_bytes, wanted, &mut results, failed).await;
        let read = results.iter().flat_map(|r| &r.batches);
        let (batches, bytes) = read.fold((0, 0), |(n, bytes), batch| (n + 1, bytes + batch.len() as u64));
        self.parts.metrics.fetch_answered(batches, bytes);
        v1::FetchResponse { results, throttle_ms: u32::try_from(throttle.as_millis()).unwrap_or(u32::MAX) }
    }

    fn find(
        &self,
        context: &RequestContext,
        index: usize,
        partition: &v1::FetchPartition,
    ) -> Result<Wanted, (Error, Option<TopicPartition>)> {
        let topic = &partition.topic;
        self.authorize(context, Verb::Fetch, topic).map_err(|e| (e, None))?;
        let (_, id) = self.locate(topic, partition.partition).map_err(|e| (e, None))?;
        let Some(from) = Offset::from_wire(partition.offset) else {
            let cause = format!("offset {} is negative", partition.offset);
            let error = Error::new(ErrorCode::OffsetOutOfRange, cause).topic(topic).partition(partition.partition);
            return Err((error, Some(id)));
        };
        let handle = self.led(topic, id).map_err(|e| (e, Some(id)))?;
        let max_bytes = usize::try_from(partition.max_bytes.max(1)).unwrap_or(usize::MAX);
        Ok(Wanted { index, handle, from, max_bytes, epoch: partition.epoch.map(Epoch), seen: from })
    }

    /// Reads until there is enough, something went wrong, or the time is up.
    async fn poll(
        &self,
        context: &RequestContext,
        request: &v1::FetchRequest,
        max_bytes: usize,
        mut wanted: Vec<Wanted>,
        results: &mut [v1::FetchResult],
        failed: bool,
    ) {
        let enough = usize::try_from(request.min_bytes).unwrap_or(usize::MAX).min(max_bytes);
        let wait = Duration::from_millis(u64::from(request.max_wait_ms)).min(context.remaining());
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            for one in &mut wanted {
                // What comes after this reading is news.
                one.handle.status.mark_unchanged();
            }
            let (bytes, wrong) = self.read_once(&mut wanted, max_bytes, results).await;
            if failed || wrong || bytes >= enough || wanted.is_empty() || request.max_wait_ms == 0 {
                return;
            }
            if tokio::time::timeout_at(deadline, news(&mut wanted)).await.is_err() {
                return;
            }
        }
    }

    /// Returns the bytes found, and whether a partition failed.
    async fn read_once(
        &self,
        wanted: &mut [Wanted],
        max_bytes: usize,
        results: &mut [v1::FetchResult],
    ) -> (usize, bool) {
        let (mut total, mut wrong) = (0, false);
        for one in wanted {
            let left = max_bytes.saturating_sub(total);
            let Some(result) = results.get_mut(one.index) else { continue };
            if left == 0 && total > 0 {
                break;
            }
            let (reply, answer) = oneshot::channel();
            let id = one.handle.id;
            let call =
                FetchCall { id, from: one.from, max_bytes: one.max_bytes.min(left.max(1)), epoch: one.epoch, reply };
            self.parts.shards.tell(id, ShardInput::Fetch(call)).await;
            match answer.await {
                Ok(Ok(fetched)) => {
                    one.seen = one.seen.max(fetched.high_watermark);
                    total += fill(result, fetched);
                }
                Ok(Err(FetchFailure { error, latest, log_start })) => {
                    wrong = true;
                    result.high_watermark = latest.map_or(-1, Offset::to_wire);
                    result.log_start = log_start.to_wire();
                    self.fail(result, &error, Some(id));
                }
                Err(_) => {
                    wrong = true;
                    self.fail(result, &Error::new(ErrorCode::ShuttingDown, "this broker is stopping"), Some(id));
                }
            }
        }
        (total, wrong)
    }

    fn fail(&self, result: &mut v1::FetchResult, error: &Error, id: Option<TopicPartition>) {
        self.parts.metrics.fetch_failed(error.code);
        let error = error.clone().topic(&result.topic).partition(result.partition);
        result.error = Some(self.wire_error(&error, id));
    }
}

/// Until more can be read than the last reading saw, or a partition changed hands or closed.
async fn news(wanted: &mut [Wanted]) {
    let waits = wanted.iter_mut().map(|one| {
        let (seen, epoch) = (one.seen, one.handle.status.borrow().epoch);
        Box::pin(async move {
            // A partition that closes is news, too.
            let _ = one.handle.status.wait_for(|s| s.high_watermark > seen || !s.leads() || s.epoch != epoch).await;
        })
    });
    select_all(waits).await;
}

fn fill(result: &mut v1::FetchResult, fetched: Fetched) -> usize {
    result.high_watermark = fetched.latest.map_or(-1, Offset::to_wire);
    result.log_start = fetched.log_start.to_wire();
    result.epoch = fetched.epoch.0;
    result.batches = fetched.batches.into_iter().map(|batch| batch.bytes).collect();
    result.batches.iter().map(bytes::Bytes::len).sum()
}

fn empty_result(partition: &v1::FetchPartition) -> v1::FetchResult {
    v1::FetchResult {
        topic: partition.topic.clone(),
        partition: partition.partition,
        high_watermark: -1,
        log_start: -1,
        ..v1::FetchResult::default()
    }
}

fn refuse_all(request: &v1::FetchRequest, error: &Error, throttle: Duration) -> v1::FetchResponse {
    let results = request
        .partitions
        .iter()
        .take(PARTITIONS_MAX)
        .map(|partition| v1::FetchResult { error: Some(error.into()), ..empty_result(partition) });
    v1::FetchResponse {
        results: results.collect(),
        throttle_ms: u32::try_from(throttle.as_millis()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use baton_core::replica::RoleView;
    use baton_core::{BrokerId, DiskId, Generation, Member};
    use tokio::sync::watch;

    use super::*;
    use crate::shard::PartitionStatus;

    fn status(high_watermark: u64) -> PartitionStatus {
        PartitionStatus {
            role: RoleView::Leader { resigning: false },
            member: Member { broker: BrokerId(1), disk: DiskId(1), generation: Generation(0) },
            epoch: Epoch(1),
            version: 1,
            log_start: Offset(0),
            log_end: Offset(9),
            high_watermark: Offset(high_watermark),
            latest: Some(Offset(high_watermark)),
            in_sync: 1,
            assigned: 1,
            damaged: false,
            yields: false,
        }
    }

    /// One record is there and the reader wants more: it waits for the next one, instead of
    /// reading the same one until the time is up.
    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_no_news() {
        let (shown, watched) = watch::channel(status(1));
        let handle = PartitionHandle {
            id: TopicPartition::default(),
            topic: "t".into(),
            settings: baton_core::topic::TopicConfig::default(),
            status: watched,
        };
        let mut wanted =
            [Wanted { index: 0, handle, from: Offset(0), max_bytes: 1 << 20, epoch: None, seen: Offset(1) }];
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_err());
        shown.send_replace(status(2));
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_ok());
        wanted[0].seen = Offset(2);
        shown.send_replace(PartitionStatus { role: RoleView::Idle, ..status(2) });
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_ok());
    }
}
