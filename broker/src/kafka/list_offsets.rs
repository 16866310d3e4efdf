//! ListOffsets: the start, the end, the newest record, or the first one since a time.

use baton_core::{Error, ErrorCode, Offset, TopicPartition};
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::errors;
use super::fetch::isolation;
use super::service::Call;
use crate::authorizer::{Resource, Verb};
use crate::serving::PARTITIONS_MAX;
use crate::serving::offsets::{Found, Place, look_up};
use crate::shard::{Isolation, PartitionHandle};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

pub(super) async fn serve(call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut asked = 0;
    let isolation = isolation(request.isolation_level);
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            asked += 1;
            partitions.push(one(call, &topic.name, &partition, isolation, asked > PARTITIONS_MAX).await);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn one(
    call: &Call,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
    beyond: bool,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_leader_epoch(-1);
    let found = if beyond {
        Err(Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions"))
    } else {
        find(call, topic, asked, isolation).await
    };
    match found {
        Ok(found) => {
            let epoch = if call.version >= 4 && found.offset.is_some() { wire_epoch(found.epoch.0) } else { -1 };
            response
                .with_offset(found.offset.map_or(-1, Offset::to_wire))
                .with_timestamp(found.timestamp_ms)
                .with_leader_epoch(epoch)
        }
        Err(error) => {
            let code = match error.code.kafka() {
                // Clients of before know only the older code for it.
                errors::OFFSET_NOT_AVAILABLE if call.version < 5 => errors::LEADER_NOT_AVAILABLE,
                code => code,
            };
            response.with_error_code(code)
        }
    }
}

async fn find(call: &Call, topic: &str, asked: &ListOffsetsPartition, isolation: Isolation) -> Result<Found, Error> {
    call.authorize(Verb::Describe, Resource::Topic(topic))?;
    let partition = partition_number(asked.partition_index)?;
    let (_, id) = call.parts().locate(topic, partition)?;
    let handle = call.parts().led(topic, id)?;
    check_epoch(&handle, asked.current_leader_epoch)?;
    let place = match asked.timestamp {
        LATEST if isolation == Isolation::Committed => Place::StableEnd,
        LATEST => Place::End,
        EARLIEST => Place::Start,
        MAX_TIMESTAMP => Place::Newest,
        time if time >= 0 => Place::Time(time),
        other => {
            let cause = format!("{other} is neither a time nor the sign of a place");
            return Err(Error::new(ErrorCode::InvalidRequest, cause));
        }
    };
    look_up(&call.parts().shards, &handle, place).await
}

/// Partition numbers are signed on the wire.
pub(super) fn partition_number(number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::new(ErrorCode::UnknownPartition, "a partition's number is not negative"))
}

/// Refuses a client that knows another leader than this one (KIP-320); −1 is one that does not
/// say.
pub(super) fn check_epoch(handle: &PartitionHandle, known: i32) -> Result<(), Error> {
    let current = handle.status.now().epoch.0;
    match u32::try_from(known) {
        Ok(known) if known < current => {
            Err(Error::new(ErrorCode::FencedEpoch, format!("the client knows epoch {known} only")))
        }
        Ok(known) if known > current => {
            Err(Error::new(ErrorCode::UnknownEpoch, format!("the client knows epoch {known}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn wire_epoch(epoch: u32) -> i32 {
    i32::try_from(epoch).unwrap_or(i32::MAX)
}

/// The leader as newer clients are told with an error, so that they need not ask (KIP-951).
pub(super) fn leader_of(call: &Call, topic: &str, partition: i32) -> Option<(baton_core::BrokerId, i32)> {
    let number = u32::try_from(partition).ok()?;
    let topic = call.parts().view.topic(topic)?;
    let (leader, epoch) = call.parts().view.leader(TopicPartition { topic: topic.id, partition: number });
    Some((leader?, wire_epoch(epoch)))
}
