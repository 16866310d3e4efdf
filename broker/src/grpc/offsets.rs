//! Where a partition starts and ends, and which record came at a time.

use baton_core::{Error, ErrorCode, Offset};
use baton_proto::v1::{self, list_offsets_partition::At};

use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::serving::PARTITIONS_MAX;
use crate::serving::offsets::{Place, look_up};

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
            let epoch = handle.status.now().epoch;
            let here = |e: Error| (e.topic(&topic).partition(partition), Some(id));
            let place = place_of(at).map_err(here)?;
            let found = look_up(&self.parts.shards, &handle, place).await.map_err(here)?;
            Ok::<_, (Error, _)>((found, epoch))
        };
        match found.await {
            Ok((found, epoch)) => {
                result.offset = found.offset.map_or(-1, Offset::to_wire);
                result.timestamp_ms = found.timestamp_ms;
                result.epoch = epoch.0;
            }
            Err((error, id)) => result.error = Some(self.wire_error(&error, id)),
        }
        result
    }
}

fn place_of(at: Option<At>) -> Result<Place, Error> {
    match at {
        Some(At::Start(_)) => Ok(Place::Start),
        Some(At::End(_)) => Ok(Place::End),
        Some(At::TimestampMs(time)) => Ok(Place::Time(time)),
        Some(At::MaxTimestamp(_)) => Ok(Place::Newest),
        None => Err(Error::new(ErrorCode::InvalidRequest, "the request does not say which offset it asks for")),
    }
}
