//! OffsetForLeaderEpoch: where a leader epoch ended, so that a client sees whether what it read
//! last was cut off (KIP-320).

use baton_core::{Error, ErrorCode, Offset};
use kafka_protocol::messages::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use tokio::sync::oneshot;

use super::list_offsets::{check_epoch, partition_number, wire_epoch};
use super::service::Call;
use crate::authorizer::{Resource, Verb};
use crate::serving::PARTITIONS_MAX;
use crate::shard::{EpochEnd, ShardInput};

pub(super) async fn serve(call: &Call, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut asked = 0;
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            asked += 1;
            let found = if asked > PARTITIONS_MAX {
                Err(Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions"))
            } else {
                find(call, &topic.topic, &partition).await
            };
            partitions.push(result(&partition, found));
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn result(asked: &OffsetForLeaderPartition, found: Result<Option<EpochEnd>, Error>) -> EpochEndOffset {
    let result = EpochEndOffset::default().with_partition(asked.partition).with_leader_epoch(-1).with_end_offset(-1);
    match found {
        Ok(None) => result,
        Ok(Some(end)) => result.with_leader_epoch(wire_epoch(end.epoch.0)).with_end_offset(Offset::to_wire(end.end)),
        Err(error) => result.with_error_code(error.code.kafka()),
    }
}

async fn find(call: &Call, topic: &str, asked: &OffsetForLeaderPartition) -> Result<Option<EpochEnd>, Error> {
    call.authorize(Verb::Describe, Resource::Topic(topic))?;
    let (_, id) = call.parts().locate(topic, partition_number(asked.partition)?)?;
    let handle = call.parts().led(topic, id)?;
    check_epoch(&handle, asked.current_leader_epoch)?;
    let Ok(epoch) = u32::try_from(asked.leader_epoch) else { return Ok(None) };
    let (reply, answer) = oneshot::channel();
    let input = ShardInput::EpochEnd { id, epoch: baton_core::Epoch(epoch), reply };
    call.parts().shards.tell(id, input).await;
    answer.await.map_err(|_| Error::new(ErrorCode::ShuttingDown, "this broker is stopping"))?
}
