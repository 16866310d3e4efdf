//! CreatePartitions: a topic grows. Kafka's administrators know that keys move then.

use std::time::Duration;

use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use futures::future::join_all;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::reassignments::{bad as bad_assignment, brokers};
use super::turns::Turns;
use super::{MANY_MAX, Refusal, told};
use crate::authorizer::{Resource, Verb};
use crate::kafka::admin;
use crate::kafka::service::Call;

pub(in crate::kafka) async fn serve(call: &Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let turns = Turns::new(call.granted(request.timeout_ms));
    let (turns, validate_only) = (&turns, request.validate_only);
    let growing = request.topics.into_iter().take(MANY_MAX).map(|topic| async move {
        let name = topic.name.clone();
        let result = turns.run(|within| grow(call, topic, validate_only, within)).await;
        let (code, message) = told(&result);
        CreatePartitionsTopicResult::default().with_name(name).with_error_code(code).with_error_message(message)
    });
    CreatePartitionsResponse::default().with_results(join_all(growing).await)
}

async fn grow(call: &Call, topic: CreatePartitionsTopic, validate_only: bool, within: Duration) -> Result<(), Refusal> {
    call.authorize(Verb::Alter, Resource::Topic(&topic.name))?;
    let Some(known) = call.parts().view.topic(&topic.name) else {
        return Err(Error::new(ErrorCode::UnknownTopic, "there is no such topic").into());
    };
    let total = u32::try_from(topic.count).unwrap_or(0);
    if total <= known.partitions {
        let cause = format!("the topic has {} partitions; it can only get more", known.partitions);
        return Err(Error::new(ErrorCode::InvalidPartitions, cause).into());
    }
    let mut assignment = Vec::new();
    for new in topic.assignments.into_iter().flatten() {
        assignment.push(v1::ReplicaList { brokers: brokers(&new.broker_ids)? });
    }
    let is_assigned = !assignment.is_empty();
    let request = v1::AddPartitionsRequest {
        name: topic.name.to_string(),
        total,
        accept_moved_keys: true,
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        who: admin::who(call),
        assignment,
        validate_only,
    };
    admin::grow(call, request, within).await.map_err(|error| match error.code {
        // Of a request that is well-formed otherwise only the assignment can be wrong.
        ErrorCode::InvalidRequest if is_assigned => bad_assignment(error.cause),
        _ => error.into(),
    })?;
    if validate_only {
        return Ok(());
    }
    let grown = || call.parts().view.topic(&topic.name).is_some_and(|topic| topic.partitions >= total);
    admin::until_seen(call, grown).await;
    Ok(())
}
