//! Deleting the oldest records of a partition.

use baton_core::{Error, ErrorCode, Offset};
use baton_proto::v1;
use futures::future::join_all;
use tokio::sync::oneshot;

use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::shard::ShardInput;

/// Partitions of one request.
const PARTITIONS_MAX: usize = 10_000;

impl GrpcService {
    /// Every partition is answered: with where it begins, or with why not.
    pub(super) async fn delete_records_of(
        &self,
        context: &RequestContext,
        request: v1::DeleteRecordsRequest,
    ) -> v1::DeleteRecordsResponse {
        let wanted = request.partitions.into_iter().take(PARTITIONS_MAX);
        v1::DeleteRecordsResponse { results: join_all(wanted.map(|part| self.delete_of(context, part))).await }
    }

    async fn delete_of(&self, context: &RequestContext, wanted: v1::DeleteRecordsPartition) -> v1::DeleteRecordsResult {
        let v1::DeleteRecordsPartition { topic, partition, before } = wanted;
        let mut result = v1::DeleteRecordsResult { topic: topic.clone(), partition, log_start: -1, error: None };
        let mut place = None;
        let deleted = async {
            self.authorize(context, Verb::Delete, &topic)?;
            let (_, id) = self.locate(&topic, partition)?;
            place = Some(id);
            self.led(&topic, id)?;
            let (reply, answer) = oneshot::channel();
            let input = ShardInput::DeleteRecords { id, before: before.map(Offset), reply };
            self.parts.shards.tell(id, input).await;
            match tokio::time::timeout(context.remaining(), answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Error::new(ErrorCode::ShuttingDown, "this broker is stopping")),
                Err(_) => {
                    let cause = "not every in-sync replica has deleted the records yet; the leader goes on";
                    Err(Error::new(ErrorCode::RequestTimedOut, cause))
                }
            }
        };
        let deleted = deleted.await;
        match deleted {
            Ok(start) => result.log_start = start.to_wire(),
            Err(error) => result.error = Some(self.wire_error(&error.topic(&topic).partition(partition), place)),
        }
        result
    }
}
