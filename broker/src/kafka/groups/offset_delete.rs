//! OffsetDelete: offsets are forgotten of topics that nobody in the group subscribes to.

use std::sync::Arc;

use baton_core::ErrorCode;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{ByPlace, allowed, bounded, code_of, shared};
use crate::authorizer::Verb;
use crate::group::Place;
use crate::kafka::service::Call;

pub(in crate::kafka) async fn serve(call: &Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut places = Vec::new();
    for topic in &request.topics {
        let numbers = topic.partitions.iter().filter_map(|partition| u32::try_from(partition.partition_index).ok());
        let name = shared(&topic.name);
        places.extend(numbers.map(|number| Place::new(Arc::clone(&name), number)));
    }
    let deleted = match allowed(call, Verb::Delete, &request.group_id).and_then(|()| bounded(&places)) {
        Ok(()) => call.parts().groups.delete_offsets(&request.group_id, places, call.context.deadline).await,
        Err(error) => Err(error),
    };
    let results = match deleted {
        Ok(results) => ByPlace::new(results),
        Err(error) => return OffsetDeleteResponse::default().with_error_code(code_of(&error)),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let name = shared(&topic.name);
        for partition in topic.partitions {
            let code = match results.get(&name, partition.partition_index) {
                Some(Ok(())) => 0,
                Some(Err(error)) => code_of(&error),
                None => ErrorCode::UnknownPartition.kafka(),
            };
            partitions.push(
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code),
            );
        }
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
