//! DeleteRecords: the oldest records of partitions are given up (KIP-107).

use std::time::Duration;

use baton_core::topic::TopicName as CheckedName;
use baton_core::{Error, ErrorCode, Offset};
use futures::future::join_all;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::list_offsets::partition_number;
use super::service::Call;
use crate::authorizer::{Resource, Verb};
use crate::serving::{PARTITIONS_MAX, delete_records};

/// Up to the high watermark.
const ALL: i64 = -1;

pub(super) async fn serve(call: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let within = call.granted(request.timeout_ms);
    let mut allowed = PARTITIONS_MAX;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let served = topic.partitions.len().min(allowed);
        allowed -= served;
        topics.push(of_topic(call, topic, served, within));
    }
    DeleteRecordsResponse::default().with_topics(join_all(topics).await)
}

/// Deletes in the first `served` partitions of a topic, all at once: each waits for its
/// followers.
async fn of_topic(call: &Call, topic: DeleteRecordsTopic, served: usize, within: Duration) -> DeleteRecordsTopicResult {
    let name = topic.name.as_str();
    let deleting = topic.partitions.iter().enumerate().map(|(index, partition)| async move {
        let deleted = match index < served {
            true => delete(call, name, partition, within).await,
            false => Err(Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions")),
        };
        let result = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
        match deleted {
            Ok(start) => result.with_low_watermark(start.to_wire()),
            Err(error) => result.with_low_watermark(-1).with_error_code(error.code.kafka()),
        }
    });
    let partitions = join_all(deleting).await;
    DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
}

async fn delete(call: &Call, topic: &str, asked: &DeleteRecordsPartition, within: Duration) -> Result<Offset, Error> {
    let parts = call.parts();
    call.authorize(Verb::Delete, Resource::Topic(topic))?;
    let (_, id) = parts.locate(topic, partition_number(asked.partition_index)?)?;
    topic.parse::<CheckedName>()?;
    parts.led(topic, id)?;
    let before = match asked.offset {
        ALL => None,
        offset => {
            let offset = u64::try_from(offset);
            Some(Offset(offset.map_err(|_| Error::new(ErrorCode::OffsetOutOfRange, "an offset is not negative"))?))
        }
    };
    delete_records(&parts.shards, id, before, within).await
}
