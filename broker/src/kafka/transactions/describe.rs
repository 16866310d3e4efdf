//! DescribeTransactions: all that coordinators know of transactional ids.

use std::collections::BTreeMap;

use baton_core::transaction::TransactionDescription;
use baton_core::transaction::message::KnownCodes;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TransactionalId,
};

use super::{NAMES_MAX, allowed, code_of};
use crate::kafka::errors;
use crate::kafka::names::{text, topic_name};
use crate::kafka::service::Call;

/// The version of the API is newer than all codes.
const ALL_CODES: KnownCodes = KnownCodes { producer_fenced: true, abortable: true };

pub(in crate::kafka) async fn serve(call: &Call, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut states = Vec::new();
    for id in request.transactional_ids.into_iter().take(NAMES_MAX) {
        let described = match allowed(call, &id) {
            Err(_) => Err(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
            Ok(()) => {
                let described = call.parts().transactions.describe(&id, call.context.deadline).await;
                described.map_err(|error| code_of(&error, ALL_CODES))
            }
        };
        states.push(match described {
            Ok(description) => state(call, id, description),
            Err(code) => TransactionState::default().with_transactional_id(id).with_error_code(code),
        });
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn state(call: &Call, id: TransactionalId, description: TransactionDescription) -> TransactionState {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for at in &description.partitions {
        // What is gone has no name any more.
        if let Some(topic) = call.parts().view.topic_by_id(at.topic) {
            topics.entry(topic.name.to_string()).or_default().push(i32::try_from(at.partition).unwrap_or(-1));
        }
    }
    let topic = |(name, partitions): (String, Vec<i32>)| {
        TopicData::default().with_topic(topic_name(&name)).with_partitions(partitions)
    };
    TransactionState::default()
        .with_transactional_id(id)
        .with_transaction_state(text(description.state.name()))
        .with_transaction_timeout_ms(i32::try_from(description.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(description.started_ms.unwrap_or(-1))
        .with_producer_id(ProducerId(description.producer.id.0))
        .with_producer_epoch(description.producer.epoch.0)
        .with_topics(topics.into_iter().map(topic).collect())
}
