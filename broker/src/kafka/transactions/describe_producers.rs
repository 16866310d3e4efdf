//! DescribeProducers: who wrote to partitions, and which transactions are open in them.

use baton_core::{Error, ErrorCode};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::NAMES_MAX;
use crate::authorizer::{Resource, Verb};
use crate::kafka::errors;
use crate::kafka::list_offsets::{partition_number, wire_epoch};
use crate::kafka::service::Call;
use crate::shard::{ActiveProducer, ShardInput};

pub(in crate::kafka) async fn serve(call: &Call, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let (mut topics, mut asked) = (Vec::with_capacity(request.topics.len()), 0);
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for number in topic.partition_indexes {
            asked += 1;
            let found = match asked > NAMES_MAX {
                true => Err(Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions")),
                false => find(call, &topic.name, number).await,
            };
            let response = PartitionResponse::default().with_partition_index(number);
            partitions.push(match found {
                Ok(producers) => response.with_error_message(None).with_active_producers(producers),
                Err(error) => response.with_error_code(error.code.kafka()).with_error_message(errors::message(&error)),
            });
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn find(call: &Call, topic: &str, number: i32) -> Result<Vec<ProducerState>, Error> {
    call.authorize(Verb::Describe, Resource::Topic(topic))?;
    let (_, id) = call.parts().locate(topic, partition_number(number)?)?;
    // Whoever looks for hanging transactions asks every broker for its copies.
    if call.parts().partitions.get(id).is_none() {
        return Err(call.parts().not_leader(topic, id));
    }
    let (reply, answer) = oneshot::channel();
    call.parts().shards.tell(id, ShardInput::Producers { id, reply }).await;
    let late = |_| Error::new(ErrorCode::RequestTimedOut, "the partition's copy was not looked at in time");
    let producers = timeout_at(call.context.deadline, answer).await.map_err(late)?;
    let stopping = |_| Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
    Ok(producers.map_err(stopping)?.into_iter().map(state).collect())
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer.id.0))
        .with_producer_epoch(i32::from(producer.producer.epoch.0))
        .with_last_sequence(producer.last_sequence.unwrap_or(-1))
        .with_last_timestamp(producer.last_timestamp_ms.unwrap_or(-1))
        .with_coordinator_epoch(producer.coordinator_epoch.map_or(-1, |epoch| wire_epoch(epoch.0)))
        .with_current_txn_start_offset(producer.open_since.map_or(-1, baton_core::Offset::to_wire))
}
