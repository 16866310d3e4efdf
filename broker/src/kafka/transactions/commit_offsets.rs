//! TxnOffsetCommit: offsets that count when their transaction commits.

use std::sync::Arc;

use baton_core::transaction::message::KnownCodes;
use baton_core::transaction::{Producer, Protocol};
use baton_core::{Error, ErrorCode, Offset};
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{allowed, code_of, producer};
use crate::authorizer::{Resource, Verb};
use crate::group::{CommittedAt, NewOffset, Place, PlaceResult};
use crate::kafka::errors;
use crate::kafka::groups::{self, ByPlace, bounded, identity, shared, whole_in_time};
use crate::kafka::service::{Call, Hangup};
use crate::shard::InTransaction;

/// The first version that makes the group's partition part of the transaction (KIP-890).
const SECOND_PROTOCOL: i16 = 5;

pub(in crate::kafka) async fn serve(
    call: &Call,
    request: TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, Hangup> {
    // The codes of the group's members are older than that of a fenced producer.
    let known = KnownCodes { producer_fenced: false, abortable: call.version >= SECOND_PROTOCOL };
    let committed = match allowed(call, &request.transactional_id) {
        Err(_) => Err(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        Ok(()) => whole_in_time(commit(call, &request).await)?.map_err(|error| code_of(&error, known)),
    };
    let (results, whole) = match committed {
        Ok(results) => (ByPlace::new(results), None),
        Err(code) => (ByPlace::new(Vec::new()), Some(code)),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let name = shared(&topic.name);
        for partition in topic.partitions {
            let code = match (whole, results.get(&name, partition.partition_index)) {
                (Some(code), _) => code,
                (None, Some(Ok(()))) => errors::NONE,
                (None, Some(Err(error))) => code_of(&error, known),
                // It was no offset, or no partition.
                (None, None) if partition.committed_offset < 0 => ErrorCode::InvalidRequest.kafka(),
                (None, None) => ErrorCode::UnknownPartition.kafka(),
            };
            let partition = TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code);
            partitions.push(partition);
        }
        topics.push(TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    Ok(TxnOffsetCommitResponse::default().with_topics(topics))
}

async fn commit(call: &Call, request: &TxnOffsetCommitRequest) -> Result<Vec<PlaceResult>, Error> {
    groups::allowed(call, Verb::Fetch, &request.group_id)?;
    let producer: Producer = producer(request.producer_id, request.producer_epoch)?;
    let protocol = if call.version >= SECOND_PROTOCOL { Protocol::Second } else { Protocol::First };
    let transaction = InTransaction { id: request.transactional_id.as_str().into(), protocol };
    let mut offsets = Vec::new();
    for topic in &request.topics {
        call.authorize(Verb::Fetch, Resource::Topic(&topic.name))?;
        let name = shared(&topic.name);
        offsets.extend(topic.partitions.iter().filter_map(|partition| new_offset(&name, partition)));
    }
    bounded(&offsets)?;
    let commit = CommittedAt {
        identity: identity(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        offsets,
        connection: call.context.connection_id,
    };
    let deadline = call.context.deadline;
    call.parts().groups.commit_in(&request.group_id, commit, Some((producer, transaction)), deadline).await
}

fn new_offset(topic: &Arc<str>, partition: &TxnOffsetCommitRequestPartition) -> Option<(Place, NewOffset)> {
    let place = Place::new(Arc::clone(topic), u32::try_from(partition.partition_index).ok()?);
    let new = NewOffset {
        offset: Offset::from_wire(partition.committed_offset)?,
        leader_epoch: Some(partition.committed_leader_epoch).filter(|epoch| *epoch >= 0),
        metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()).unwrap_or_default(),
    };
    Some((place, new))
}
