//! AddPartitionsToTxn: partitions become part of transactions, or are looked for in them. Clients
//! ask for one transaction, up to version 3; brokers for several, from version 4 on.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::transaction::message::KnownCodes;
use baton_core::{Error, ErrorCode, TopicPartition};
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::{NAMES_MAX, allowed, code_of, producer};
use crate::authorizer::{Resource, Verb};
use crate::kafka::errors;
use crate::kafka::list_offsets::partition_number;
use crate::kafka::service::{Call, Hangup, in_time};
use crate::transaction::Asked;

/// The first version that asks for several.
const SEVERAL: i16 = 4;

/// `OPERATION_NOT_ATTEMPTED`: something else in the request was refused.
const NOT_ATTEMPTED: i16 = 55;

pub(in crate::kafka) async fn serve(
    call: &Call,
    request: AddPartitionsToTxnRequest,
) -> Result<AddPartitionsToTxnResponse, Hangup> {
    if call.version < SEVERAL {
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = one_transaction(call, &one).await?;
        return Ok(AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results));
    }
    let mut results = Vec::new();
    for transaction in request.transactions.into_iter().take(NAMES_MAX) {
        let topics = one_transaction(call, &transaction).await?;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id)
                .with_topic_results(topics),
        );
    }
    Ok(AddPartitionsToTxnResponse::default().with_results_by_transaction(results))
}

/// What became of each partition, by topic and number.
type Codes = BTreeMap<(usize, i32), i16>;

async fn one_transaction(
    call: &Call,
    transaction: &AddPartitionsToTxnTransaction,
) -> Result<Vec<AddPartitionsToTxnTopicResult>, Hangup> {
    let known = KnownCodes { producer_fenced: call.version >= 2, abortable: call.version >= 5 };
    let codes = match allowed(call, &transaction.transactional_id) {
        Err(_) => Err(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        Ok(()) => codes(call, transaction, known).await?,
    };
    let of = |place: (usize, i32)| match &codes {
        Ok(codes) => codes.get(&place).copied().unwrap_or(NOT_ATTEMPTED),
        Err(code) => *code,
    };
    let topic = |(index, topic): (usize, &AddPartitionsToTxnTopic)| {
        let partition = |number: &i32| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*number)
                .with_partition_error_code(of((index, *number)))
        };
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(topic.partitions.iter().map(partition).collect())
    };
    Ok(transaction.topics.iter().enumerate().map(topic).collect())
}

/// Either all of the partitions are added, or none.
async fn codes(
    call: &Call,
    transaction: &AddPartitionsToTxnTransaction,
    known: KnownCodes,
) -> Result<Result<Codes, i16>, Hangup> {
    let (mut found, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for (index, topic) in transaction.topics.iter().enumerate() {
        for number in &topic.partitions {
            if found.len() + refused.len() >= NAMES_MAX {
                return Ok(Err(ErrorCode::InvalidRequest.kafka()));
            }
            match locate(call, &topic.name, *number) {
                Ok(at) => drop(found.insert((index, *number), at)),
                Err(error) => drop(refused.insert((index, *number), error.code.kafka())),
            }
        }
    }
    if !refused.is_empty() {
        return Ok(Ok(refused));
    }
    let joined = in_time(join(call, transaction, found.values().copied().collect()).await)?;
    let code = |joined: &BTreeMap<_, _>, at: &TopicPartition| match joined.get(at) {
        Some(Ok(())) => errors::NONE,
        Some(Err(error)) => code_of(error, known),
        None => NOT_ATTEMPTED,
    };
    Ok(match joined {
        Ok(joined) => Ok(found.into_iter().map(|(place, at)| (place, code(&joined, &at))).collect()),
        Err(error) => Err(code_of(&error, known)),
    })
}

/// Adds partitions, or looks for them.
async fn join(
    call: &Call,
    transaction: &AddPartitionsToTxnTransaction,
    partitions: BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Result<(), Error>>, Error> {
    let producer = producer(transaction.producer_id, transaction.producer_epoch)?;
    let (id, transactions) = (&transaction.transactional_id, &call.parts().transactions);
    if transaction.verify_only {
        return Ok(transactions.verify(id, producer, partitions, call.context.deadline).await?.into_iter().collect());
    }
    let asked = match call.version < SEVERAL {
        true => call.asked(),
        // A broker asks, on connections that many producers share.
        false => Asked { connection: None, ..call.asked() },
    };
    transactions.add(id, producer, partitions.clone(), asked).await?;
    Ok(partitions.into_iter().map(|at| (at, Ok(()))).collect())
}

fn locate(call: &Call, topic: &str, number: i32) -> Result<TopicPartition, Error> {
    call.authorize(Verb::Produce, Resource::Topic(topic))?;
    call.parts().locate(topic, partition_number(number)?).map(|(_, at)| at)
}
