//! Produce: one batch for each partition, checked in the connection's own task and appended by
//! the shards. What a request waits for is waited for beside the connection's next requests;
//! handing over keeps their order.

use std::collections::BTreeMap;

use baton_core::batch::{BatchError, BatchHeader, ProduceLimits, validate_produce};
use baton_core::replica::Acks;
use baton_core::topic::TopicName as CheckedName;
use baton_core::transaction::Protocol;
use baton_core::transaction::message::KnownCodes;
use baton_core::{Error, ErrorCode, Offset};
use bytes::Bytes;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::address::wire_id;
use super::errors;
use super::list_offsets::{leader_of, partition_number};
use super::service::{Answer, Call, Hangup, decode};
use crate::authorizer::{Resource, Verb};
use crate::serving::PARTITIONS_MAX;
use crate::shard::{InTransaction, ProduceCall, Produced, ShardInput};

/// The first version that tells which records a batch was refused for (KIP-467).
const TELLS_RECORDS: i16 = 8;

/// The first version that tells the leader with an error (KIP-951).
const TELLS_LEADER: i16 = 10;

/// The first version that knows TRANSACTION_ABORTABLE (KIP-890).
const KNOWS_ABORTABLE: i16 = 11;

/// Why a batch was refused: the code, and the words for people.
struct Refusal {
    code: i16,
    error: Error,
    /// The records that are the cause, where it is not the batch as a whole.
    records: Vec<u32>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: error.code.kafka(), error, records: Vec::new() }
    }
}

/// The answer of a shard to the batch with this number in the request.
type Acknowledged = (usize, Result<Produced, Error>);

/// One batch of a request, and what became of it.
struct Slot {
    topic: usize,
    response: PartitionProduceResponse,
    waits: bool,
}

/// A request whose batches are on their way.
struct Pending {
    topics: Vec<TopicName>,
    slots: Vec<Slot>,
    answered: mpsc::UnboundedReceiver<Acknowledged>,
    deadline: Instant,
}

pub(super) async fn begin(call: Call, body: Bytes) -> Result<Answer, Hangup> {
    let request: ProduceRequest = decode(call.api, call.version, body)?;
    call.parts().metrics.produce_received();
    let acks = match request.acks {
        0 | 1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        other => {
            let error = Error::new(ErrorCode::InvalidRequest, format!("acks is −1, 0 or 1, not {other}"));
            Err(Refusal { code: errors::INVALID_REQUIRED_ACKS, ..error.into() })
        }
    };
    let unacknowledged = request.acks == 0;
    let transaction = request.transactional_id.map(|id| in_transaction(&call, &id));
    let (answers, answered) = mpsc::unbounded_channel();
    let deadline = Instant::now() + call.granted(request.timeout_ms);
    let mut pending = Pending { topics: Vec::new(), slots: Vec::new(), answered, deadline };
    let mut first_error = None;
    for topic in request.topic_data {
        pending.topics.push(topic.name.clone());
        for data in topic.partition_data {
            let index = pending.slots.len();
            let mut response = PartitionProduceResponse::default()
                .with_index(data.index)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1);
            let handed = match &acks {
                Ok(Acks::Leader) if transaction.is_some() => Err(acknowledged_by_all()),
                Ok(_) if index >= PARTITIONS_MAX => Err(too_many().into()),
                Ok(acks) => hand_over(&call, &topic.name, data, *acks, &transaction, (index, &answers)).await,
                Err(refusal) => Err(Refusal { code: refusal.code, ..refusal.error.clone().into() }),
            };
            let waits = handed.is_ok();
            if let Err(refusal) = handed {
                response = refused(&call, response, &refusal);
                first_error.get_or_insert(refusal.error);
            }
            pending.slots.push(Slot { topic: pending.topics.len() - 1, response, waits });
        }
    }
    drop(answers);
    match (unacknowledged, first_error) {
        (true, Some(error)) => Err(Hangup::Unacknowledged(error)),
        (true, None) => Ok(Answer::Never),
        (false, _) => Ok(Answer::Later(Box::pin(finish(call, pending)))),
    }
}

/// The first version whose batches make their partition part of the transaction by themselves
/// (KIP-890).
const SECOND_PROTOCOL: i16 = 12;

fn in_transaction(call: &Call, id: &str) -> InTransaction {
    let protocol = if call.version >= SECOND_PROTOCOL { Protocol::Second } else { Protocol::First };
    InTransaction { id: id.into(), protocol }
}

fn acknowledged_by_all() -> Refusal {
    let error = Error::new(ErrorCode::InvalidRequest, "a transaction is acknowledged by all in-sync replicas");
    Refusal { code: errors::INVALID_REQUIRED_ACKS, ..error.into() }
}

fn too_many() -> Error {
    Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions")
}

async fn hand_over(
    call: &Call,
    topic: &str,
    data: PartitionProduceData,
    acks: Acks,
    transaction: &Option<InTransaction>,
    (index, answers): (usize, &mpsc::UnboundedSender<Acknowledged>),
) -> Result<(), Refusal> {
    let parts = call.parts();
    call.authorize(Verb::Produce, Resource::Topic(topic))?;
    // Kafka's clients look the topic up before they look at its name.
    let (_, id) = parts.locate(topic, partition_number(data.index)?)?;
    topic.parse::<CheckedName>().map_err(Error::from)?;
    let handle = parts.led(topic, id)?;
    let (header, bytes) = batch(call, data.records, handle.settings.produce_limits())?;
    let transaction = transaction.clone().filter(|_| header.attributes.transactional());
    if header.attributes.transactional() && transaction.is_none() {
        let cause = "a batch of a transaction has to come with a transactional id";
        return Err(Error::new(ErrorCode::InvalidTransactionState, cause).into());
    }
    let answers = answers.clone();
    // Nobody waits for the answer when the connection is gone, or when none was asked for.
    let reply = Box::new(move |result| drop(answers.send((index, result))));
    if acks == Acks::Leader {
        parts.metrics.produce_leader_only();
    }
    let produce = ProduceCall { id, acks, epoch: None, transaction, header, bytes, reply };
    parts.shards.tell(id, ShardInput::Produce(produce)).await;
    Ok(())
}

/// The one batch of a partition, checked.
fn batch(call: &Call, records: Option<Bytes>, limits: ProduceLimits) -> Result<(BatchHeader, Bytes), Refusal> {
    let cap = usize::try_from(call.parts().limits.batch_bytes_max).unwrap_or(usize::MAX);
    let limits = ProduceLimits { max_message_bytes: limits.max_message_bytes.min(cap), ..limits };
    let bytes = records.unwrap_or_default();
    let header = validate_produce(&bytes, limits).map_err(|error| {
        let records = match &error {
            BatchError::NoKey { indexes } => indexes.clone(),
            _ => Vec::new(),
        };
        let error = Error::from(error);
        Refusal { code: errors::of_batch(&error), error, records }
    })?;
    Ok((header, bytes))
}

/// Waits for the acknowledgements, and answers.
async fn finish(call: Call, mut pending: Pending) -> Result<Bytes, Hangup> {
    let mut left = pending.slots.iter().filter(|slot| slot.waits).count();
    while left > 0 {
        let Ok(Some((index, result))) = timeout_at(pending.deadline, pending.answered.recv()).await else { break };
        let Some(slot) = pending.slots.get_mut(index).filter(|slot| slot.waits) else { continue };
        slot.waits = false;
        left -= 1;
        let response = std::mem::take(&mut slot.response);
        slot.response = match result {
            Ok(produced) => acknowledged(&call, response, &pending.topics[slot.topic], produced),
            Err(error) => {
                // Produce never had the code of fencing.
                let known = KnownCodes { producer_fenced: false, abortable: call.version >= KNOWS_ABORTABLE };
                refused(&call, response, &Error { code: known.nearest(error.code), ..error }.into())
            }
        };
    }
    for slot in pending.slots.iter_mut().filter(|slot| slot.waits) {
        let late = Error::new(
            ErrorCode::RequestTimedOut,
            "not acknowledged by enough replicas in time; whether it is stored is unknown",
        );
        slot.response = refused(&call, std::mem::take(&mut slot.response), &late.into());
    }
    call.encode(&response(&call, pending))
}

fn acknowledged(
    call: &Call,
    response: PartitionProduceResponse,
    topic: &str,
    produced: Produced,
) -> PartitionProduceResponse {
    let log_start = u32::try_from(response.index)
        .ok()
        .and_then(|number| call.parts().locate(topic, number).ok())
        .and_then(|(_, id)| call.parts().partitions.get(id))
        .map_or(-1, |handle| handle.status.now().log_start.to_wire());
    response
        .with_base_offset(Offset::to_wire(produced.base))
        .with_log_append_time_ms(produced.append_time_ms.unwrap_or(-1))
        .with_log_start_offset(log_start)
}

fn refused(call: &Call, response: PartitionProduceResponse, refusal: &Refusal) -> PartitionProduceResponse {
    call.parts().metrics.produce_failed(refusal.error.code);
    let response = response.with_error_code(refusal.code).with_error_message(errors::message(&refusal.error));
    if refusal.records.is_empty() || call.version < TELLS_RECORDS {
        return response;
    }
    let of_record = |index: &u32| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(i32::try_from(*index).unwrap_or(i32::MAX))
            .with_batch_index_error_message(None)
    };
    response.with_record_errors(refusal.records.iter().map(of_record).collect())
}

fn response(call: &Call, pending: Pending) -> ProduceResponse {
    let mut endpoints = BTreeMap::new();
    let mut topics: Vec<TopicProduceResponse> =
        pending.topics.into_iter().map(|name| TopicProduceResponse::default().with_name(name)).collect();
    for Slot { topic, mut response, .. } in pending.slots {
        let Some(topic) = topics.get_mut(topic) else { continue };
        let moved = response.error_code == ErrorCode::NotLeader.kafka();
        if moved
            && call.version >= TELLS_LEADER
            && let Some((leader, epoch)) = leader_of(call, &topic.name, response.index)
        {
            response.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(wire_id(leader)).with_leader_epoch(epoch);
            endpoints.insert(leader, call.service.node(leader));
        }
        topic.partition_responses.push(response);
    }
    let endpoint = |node: super::address::Node| {
        NodeEndpoint::default().with_node_id(node.id).with_host(node.host).with_port(node.port).with_rack(node.rack)
    };
    ProduceResponse::default()
        .with_responses(topics)
        .with_node_endpoints(endpoints.into_values().flatten().map(endpoint).collect())
}
