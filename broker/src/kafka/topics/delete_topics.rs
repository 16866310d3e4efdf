//! DeleteTopics: by name, or by id.

use std::time::Duration;

use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use futures::future::join_all;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::turns::Turns;
use super::{MANY_MAX, Refusal, told};
use crate::authorizer::{Resource, Verb};
use crate::kafka::service::Call;
use crate::kafka::{admin, errors, names};

/// The first version that names topics by id as well.
const BY_ID: i16 = 6;

pub(in crate::kafka) async fn serve(call: &Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let turns = Turns::new(call.granted(request.timeout_ms));
    let asked: Vec<(Option<TopicName>, Uuid)> = match call.version < BY_ID {
        true => request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect(),
        false => request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect(),
    };
    let turns = &turns;
    let deleting = asked.into_iter().take(MANY_MAX).map(|(name, id)| async move {
        let named = match (name, call.service.topic_by_uuid(id)) {
            (Some(name), _) => Ok(name),
            (None, Some(named)) => Ok(names::topic_name(&named.name)),
            (None, None) => Err(Error::new(ErrorCode::UnknownTopic, "no topic has this id")),
        };
        let (name, result) = match named {
            Ok(name) => {
                let result = turns.run(|within| delete(call, &name, within)).await;
                (Some(name), result)
            }
            Err(error) => (None, Err(Refusal { code: errors::UNKNOWN_TOPIC_ID, error })),
        };
        let (code, message) = told(&result);
        let response = DeletableTopicResult::default().with_name(name).with_topic_id(id).with_error_code(code);
        response.with_error_message(message)
    });
    DeleteTopicsResponse::default().with_responses(join_all(deleting).await)
}

async fn delete(call: &Call, name: &str, within: Duration) -> Result<(), Refusal> {
    call.authorize(Verb::Delete, Resource::Topic(name))?;
    let request = v1::DeleteTopicRequest {
        name: name.to_owned(),
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        who: admin::who(call),
    };
    admin::delete(call, request, within).await?;
    admin::until_seen(call, || call.parts().view.topic(name).is_none()).await;
    Ok(())
}
