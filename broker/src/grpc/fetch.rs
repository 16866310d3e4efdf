//! Long polls: answered when there is enough to read, or something to say, or the time is up.

use std::time::Duration;

use baton_core::{Epoch, Error, ErrorCode, Offset, TopicPartition};
use baton_proto::v1;

use crate::admission::Demand;
use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::serving::PARTITIONS_MAX;
use crate::serving::poll::{PollLimits, Read, Wanted, poll};
use crate::shard::{FetchFailure, Fetched};

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
        let (mut wanted, mut places) = (Vec::new(), Vec::new());
        for (index, partition) in request.partitions.iter().enumerate() {
            match self.find(&context, partition) {
                Ok((found, id)) => {
                    wanted.push(found);
                    places.push((index, id));
                }
                Err((error, id)) => self.fail(&mut results[index], &error, id),
            }
        }
        let asked = Duration::from_millis(u64::from(request.max_wait_ms)).min(context.remaining());
        let limits = PollLimits {
            max_bytes,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(usize::MAX),
            // What failed is said at once.
            wait: if wanted.len() < results.len() { Duration::ZERO } else { asked },
        };
        let (reads, _room) = poll(&self.parts.shards, &self.parts.answers, wanted, limits).await;
        for ((index, id), read) in places.into_iter().zip(reads) {
            self.fill(&mut results[index], id, read);
        }
        let read = results.iter().flat_map(|r| &r.batches);
        let (batches, bytes) = read.fold((0, 0), |(n, bytes), batch| (n + 1, bytes + batch.len() as u64));
        self.parts.metrics.fetch_answered(batches, bytes);
        v1::FetchResponse { results, throttle_ms: u32::try_from(throttle.as_millis()).unwrap_or(u32::MAX) }
    }

    fn find(
        &self,
        context: &RequestContext,
        partition: &v1::FetchPartition,
    ) -> Result<(Wanted, TopicPartition), (Error, Option<TopicPartition>)> {
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
        Ok((Wanted::new(handle, from, max_bytes, partition.epoch.map(Epoch)), id))
    }

    fn fill(&self, result: &mut v1::FetchResult, id: TopicPartition, read: Read) {
        match read {
            // There was no room left for it.
            None => {}
            Some(Ok(fetched)) => fill(result, fetched),
            Some(Err(FetchFailure { error, latest, log_start })) => {
                result.high_watermark = latest.map_or(-1, Offset::to_wire);
                result.log_start = log_start.to_wire();
                self.fail(result, &error, Some(id));
            }
        }
    }

    fn fail(&self, result: &mut v1::FetchResult, error: &Error, id: Option<TopicPartition>) {
        self.parts.metrics.fetch_failed(error.code);
        let error = error.clone().topic(&result.topic).partition(result.partition);
        result.error = Some(self.wire_error(&error, id));
    }
}

fn fill(result: &mut v1::FetchResult, fetched: Fetched) {
    result.high_watermark = fetched.latest.map_or(-1, Offset::to_wire);
    result.log_start = fetched.log_start.to_wire();
    result.epoch = fetched.epoch.0;
    result.batches = fetched.batches.into_iter().map(|batch| batch.bytes).collect();
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
