//! WriteTxnMarkers: transactions are ended in partitions that this broker leads, without asking
//! their coordinator. Kafka's coordinators tell leaders so; here only administrators do, to end a
//! transaction that hangs (KIP-664).

use baton_core::transaction::partition::EndMarker;
use baton_core::{Epoch, Error, ErrorCode, TopicPartition};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{NAMES_MAX, producer};
use crate::authorizer::{Resource, Verb};
use crate::group::GROUPS_TOPIC;
use crate::kafka::errors;
use crate::kafka::list_offsets::partition_number;
use crate::kafka::service::Call;
use crate::transaction::TRANSACTIONS_TOPIC;

/// The epoch in the request is the one that the transaction has, not one above it.
const RAISED: bool = false;

pub(in crate::kafka) async fn serve(call: &Call, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let allowed = call.authorize(Verb::Operate, Resource::Cluster);
    let (mut results, mut left) = (Vec::with_capacity(request.markers.len()), NAMES_MAX);
    for marker in request.markers {
        // One after another: two of the same producer count in their order.
        let codes = match &allowed {
            Ok(()) => write(call, &marker, &mut left).await,
            Err(_) => Err(errors::CLUSTER_AUTHORIZATION_FAILED),
        };
        results.push(result(marker, codes));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

/// The codes of a marker's partitions in the order of the request, or that of all.
type Codes = Result<Vec<i16>, i16>;

fn result(marker: WritableTxnMarker, codes: Codes) -> WritableTxnMarkerResult {
    let (codes, of_all) = match codes {
        Ok(codes) => (codes, errors::NONE),
        Err(code) => (Vec::new(), code),
    };
    let mut codes = codes.into_iter();
    let mut topics = Vec::with_capacity(marker.topics.len());
    for WritableTxnMarkerTopic { name, partition_indexes, .. } in marker.topics {
        let mut partitions = Vec::with_capacity(partition_indexes.len());
        for index in partition_indexes {
            let code = codes.next().unwrap_or(of_all);
            partitions
                .push(WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code));
        }
        topics.push(WritableTxnMarkerTopicResult::default().with_name(name).with_partitions(partitions));
    }
    WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics)
}

async fn write(call: &Call, marker: &WritableTxnMarker, left: &mut usize) -> Codes {
    let producer = producer(marker.producer_id, marker.producer_epoch).map_err(|error| error.code.kafka())?;
    // Tools say −1, or 0, if no coordinator has ended anything of the producer there.
    let coordinator_epoch = Epoch(u32::try_from(marker.coordinator_epoch).unwrap_or_default());
    if coordinator_epoch.0 > newest_coordinator(call) {
        // It would fence every coordinator that there is.
        return Err(ErrorCode::InvalidRequest.kafka());
    }
    let end = EndMarker { producer, commit: marker.transaction_result, coordinator_epoch };
    let mut found = Vec::new();
    for topic in &marker.topics {
        for number in &topic.partition_indexes {
            *left = left.checked_sub(1).ok_or(ErrorCode::InvalidRequest.kafka())?;
            found.push(locate(call, &topic.name, *number));
        }
    }
    let places: Vec<TopicPartition> = found.iter().filter_map(|place| place.as_ref().ok()).copied().collect();
    let mut written = call.parts().marking.write(end, RAISED, &places, call.context.deadline).await.into_iter();
    let stopping = || Error::new(ErrorCode::ShuttingDown, "nothing was said of the partition");
    let outcome = |place: Result<_, Error>| place.and_then(|_| written.next().unwrap_or_else(|| Err(stopping())));
    Ok(found
        .into_iter()
        .map(outcome)
        .map(|outcome| outcome.map_or_else(|error| code(&error), |()| errors::NONE))
        .collect())
}

/// The highest epoch that a coordinator of transactions has by now.
fn newest_coordinator(call: &Call) -> u32 {
    let view = &call.parts().view;
    let topic = view.topic(TRANSACTIONS_TOPIC);
    let epochs = topic.iter().flat_map(|topic| {
        (0..topic.partitions).map(|partition| view.leader(TopicPartition { topic: topic.id, partition }).1)
    });
    epochs.max().unwrap_or_default()
}

fn locate(call: &Call, topic: &str, number: i32) -> Result<TopicPartition, Error> {
    let (found, id) = call.parts().locate(topic, partition_number(number)?)?;
    // Of the internal topics only this one takes part in transactions.
    if found.name.starts_with("__") && &*found.name != GROUPS_TOPIC {
        return Err(Error::new(ErrorCode::InvalidTopicName, "the topic is the cluster's own").topic(topic));
    }
    call.parts().led(topic, id)?;
    Ok(id)
}

/// Whoever asks knows of leaders only: what a group's coordinator says makes it ask again.
fn code(error: &Error) -> i16 {
    use ErrorCode as E;
    match error.code {
        E::CoordinatorLoading | E::CoordinatorUnavailable | E::NotCoordinator | E::NoLeader | E::ShuttingDown => {
            E::NotLeader.kafka()
        }
        code => code.kafka(),
    }
}
