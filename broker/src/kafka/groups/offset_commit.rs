//! OffsetCommit: offsets to remember, by a member or by somebody from outside.

use std::sync::Arc;

use baton_core::{ErrorCode, Offset};
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{ByPlace, allowed, bounded, code_of, identity, shared, whole_in_time};
use crate::authorizer::{Resource, Verb};
use crate::group::{CommittedAt, NewOffset, Place};
use crate::kafka::service::{Call, Hangup};

/// The first version whose clients are told that the group is not there (KIP-848); to those of
/// before it is a generation that is over.
const TELLS_OF_NO_GROUP: i16 = 9;

pub(in crate::kafka) async fn serve(call: &Call, request: OffsetCommitRequest) -> Result<OffsetCommitResponse, Hangup> {
    let mut offsets = Vec::new();
    for topic in &request.topics {
        if call.authorize(Verb::Fetch, Resource::Topic(&topic.name)).is_ok() {
            let name = shared(&topic.name);
            offsets.extend(topic.partitions.iter().filter_map(|partition| new_offset(&name, partition)));
        }
    }
    let refused = allowed(call, Verb::Fetch, &request.group_id).and_then(|()| bounded(&offsets)).err();
    let commit = CommittedAt {
        identity: identity(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        offsets,
        connection: call.context.connection_id,
    };
    let committed = match refused {
        Some(error) => Err(error),
        None => call.parts().groups.commit(&request.group_id, commit, call.context.deadline).await,
    };
    let committed = whole_in_time(committed)?;
    let (results, whole) = match committed {
        Ok(results) => (ByPlace::new(results), None),
        Err(error) => (ByPlace::new(Vec::new()), Some(code_of(&error))),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let denied = call.authorize(Verb::Fetch, Resource::Topic(&topic.name)).err().map(|error| error.code.kafka());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let name = shared(&topic.name);
        for partition in topic.partitions {
            let code = match (whole.or(denied), results.get(&name, partition.partition_index)) {
                (Some(code), _) => code,
                (None, Some(Ok(()))) => 0,
                (None, Some(Err(error))) if error.code == ErrorCode::GroupNotFound => no_group(call.version),
                (None, Some(Err(error))) => code_of(&error),
                // It was no offset, or no partition.
                (None, None) if partition.committed_offset < 0 => ErrorCode::InvalidRequest.kafka(),
                (None, None) => ErrorCode::UnknownPartition.kafka(),
            };
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code),
            );
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    Ok(OffsetCommitResponse::default().with_topics(topics))
}

/// The code for a generation of a group that is not there.
fn no_group(version: i16) -> i16 {
    match version >= TELLS_OF_NO_GROUP {
        true => ErrorCode::GroupNotFound.kafka(),
        false => ErrorCode::IllegalGeneration.kafka(),
    }
}

fn new_offset(topic: &Arc<str>, partition: &OffsetCommitRequestPartition) -> Option<(Place, NewOffset)> {
    let place = Place::new(Arc::clone(topic), u32::try_from(partition.partition_index).ok()?);
    let new = NewOffset {
        offset: Offset::from_wire(partition.committed_offset)?,
        leader_epoch: Some(partition.committed_leader_epoch).filter(|epoch| *epoch >= 0),
        metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()).unwrap_or_default(),
    };
    Some((place, new))
}
