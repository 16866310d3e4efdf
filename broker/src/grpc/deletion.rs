//! Deleting the oldest records of a partition.

use baton_core::Offset;
use baton_proto::v1;
use futures::future::join_all;

use crate::authorizer::Verb;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::serving::{PARTITIONS_MAX, delete_records};

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
            delete_records(&self.parts.shards, id, before.map(Offset), context.remaining()).await
        };
        let deleted = deleted.await;
        match deleted {
            Ok(start) => result.log_start = start.to_wire(),
            Err(error) => result.error = Some(self.wire_error(&error.topic(&topic).partition(partition), place)),
        }
        result
    }
}
