//! AlterPartitionReassignments and ListPartitionReassignments: replicas move to other brokers
//! (KIP-455).

use std::time::Duration;

use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use baton_proto::v1;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId as WireBroker,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};

use super::{MANY_MAX, Refusal, is_moving, told};
use crate::authorizer::{Resource, Verb};
use crate::kafka::address::wire_id;
use crate::kafka::list_offsets::partition_number;
use crate::kafka::names::topic_name;
use crate::kafka::service::Call;
use crate::kafka::{admin, errors};

/// `NO_REASSIGNMENT_IN_PROGRESS`
const NOT_MOVING: i16 = 85;

pub(in crate::kafka) async fn alter(
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let within = call.granted(request.timeout_ms);
    let (mut responses, mut asked) = (Vec::new(), 0);
    for topic in request.topics {
        let mut partitions = Vec::new();
        for partition in topic.partitions {
            asked += 1;
            let result = match asked > MANY_MAX {
                true => Err(Refusal::invalid("a request has at most 10,000 partitions")),
                false => reassign(call, (&topic.name, partition.partition_index), partition.replicas, within).await,
            };
            let (code, message) = told(&result);
            partitions.push(
                ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code)
                    .with_error_message(message),
            );
        }
        responses.push(ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(responses)
}

/// None cancels what is under way.
async fn reassign(
    call: &Call,
    (topic, partition): (&str, i32),
    replicas: Option<Vec<WireBroker>>,
    within: Duration,
) -> Result<(), Refusal> {
    call.authorize(Verb::Operate, Resource::Topic(topic))?;
    let (_, id) = call.parts().locate(topic, partition_number(partition)?)?;
    let replicas = match replicas {
        None => {
            if call.parts().view.state(id).is_none_or(|known| !is_moving(&known.state)) {
                let error = Error::new(ErrorCode::InvalidRequest, "nothing is under way for this partition");
                return Err(Refusal { code: NOT_MOVING, error });
            }
            Vec::new()
        }
        Some(replicas) => brokers(&replicas)?,
    };
    let request =
        v1::ReassignRequest { topic: topic.to_owned(), partition: id.partition, replicas, who: admin::who(call) };
    admin::reassign(call, request, within).await.map_err(|error| match error.code {
        // Of a request that is well-formed otherwise only the brokers can be wrong.
        ErrorCode::InvalidRequest => bad(error.cause),
        _ => error.into(),
    })
}

pub(super) fn brokers(replicas: &[WireBroker]) -> Result<Vec<u32>, Refusal> {
    if replicas.is_empty() {
        return Err(bad("the list of brokers is empty".to_owned()));
    }
    let mut brokers = Vec::with_capacity(replicas.len());
    for replica in replicas {
        brokers.push(u32::try_from(replica.0).map_err(|_| bad(format!("{} is no broker", replica.0)))?);
    }
    Ok(brokers)
}

pub(super) fn bad(cause: String) -> Refusal {
    Refusal { code: errors::INVALID_REPLICA_ASSIGNMENT, error: Error::new(ErrorCode::InvalidRequest, cause) }
}

pub(in crate::kafka) async fn list(
    call: &Call,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let mut topics: Vec<OngoingTopicReassignment> = Vec::new();
    match request.topics {
        None => {
            for topic in call.parts().view.topics() {
                let all: Vec<u32> = (0..topic.partitions).collect();
                topics.extend(ongoing(call, &topic_name(&topic.name), &all));
            }
        }
        Some(asked) => {
            for topic in asked.into_iter().take(MANY_MAX) {
                let numbers = topic.partition_indexes.iter().filter_map(|number| u32::try_from(*number).ok());
                topics.extend(ongoing(call, &topic.name, &numbers.collect::<Vec<_>>()));
            }
        }
    }
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

fn ongoing(call: &Call, name: &TopicName, numbers: &[u32]) -> Option<OngoingTopicReassignment> {
    call.authorize(Verb::Describe, Resource::Topic(name)).ok()?;
    let topic = call.parts().view.topic(name)?;
    let mut partitions = Vec::new();
    for number in numbers {
        let id = TopicPartition { topic: topic.id, partition: *number };
        let Some(known) = call.parts().view.state(id).filter(|known| is_moving(&known.state)) else { continue };
        let list = |brokers: &[BrokerId]| brokers.iter().copied().map(wire_id).collect::<Vec<_>>();
        let assignment = &known.state.assignment;
        partitions.push(
            OngoingPartitionReassignment::default()
                .with_partition_index(i32::try_from(*number).unwrap_or(i32::MAX))
                .with_replicas(list(&assignment.replicas))
                .with_adding_replicas(list(&assignment.adding))
                .with_removing_replicas(list(&assignment.removing)),
        );
    }
    let some = !partitions.is_empty();
    some.then(|| OngoingTopicReassignment::default().with_name(name.clone()).with_partitions(partitions))
}
