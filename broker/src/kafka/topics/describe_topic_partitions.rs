//! DescribeTopicPartitions: topics page by page (KIP-966).

use std::collections::BTreeSet;
use std::sync::Arc;

use baton_core::ErrorCode;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};

use crate::authorizer::{Resource, Verb};
use crate::cluster::TopicView;
use crate::kafka::metadata::partitions_of;
use crate::kafka::names::topic_name;
use crate::kafka::service::Call;

/// Partitions of one page.
const PAGE_MAX: usize = 2_000;

pub(in crate::kafka) async fn serve(
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let live = call.service.live_ids();
    let page = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_MAX);
    let (start, mut first) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => (String::new(), 0),
    };
    let mut topics = Vec::new();
    let mut left = page;
    for name in names(call, &request).into_iter().filter(|name| *name >= start) {
        let skipped = if name == start { std::mem::take(&mut first) } else { 0 };
        if left == 0 {
            return answer(topics, Some((name, skipped)));
        }
        let Some(topic) = find(call, &name) else {
            topics.push(unknown(call, &name));
            continue;
        };
        let all = partitions_of(call, &topic, &live);
        let total = all.len();
        let shown: Vec<_> = all.into_iter().skip(skipped).take(left).map(partition).collect();
        left -= shown.len();
        let end = skipped + shown.len();
        topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic_name(&name)))
                .with_topic_id(call.service.topic_uuid(topic.id))
                .with_is_internal(name.starts_with("__"))
                .with_partitions(shown),
        );
        if end < total {
            return answer(topics, Some((name, end)));
        }
    }
    answer(topics, None)
}

/// In their order; all of them if none is named.
fn names(call: &Call, request: &DescribeTopicPartitionsRequest) -> BTreeSet<String> {
    if !request.topics.is_empty() {
        return request.topics.iter().map(|topic| topic.name.to_string()).collect();
    }
    let topics = call.parts().view.topics();
    let seen = topics.iter().filter(|topic| call.authorize(Verb::Describe, Resource::Topic(&topic.name)).is_ok());
    seen.map(|topic| topic.name.to_string()).collect()
}

fn find(call: &Call, name: &str) -> Option<Arc<TopicView>> {
    call.authorize(Verb::Describe, Resource::Topic(name)).ok()?;
    call.parts().view.topic(name)
}

fn unknown(call: &Call, name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match call.authorize(Verb::Describe, Resource::Topic(name)) {
        Err(error) => error.code.kafka(),
        Ok(()) => ErrorCode::UnknownTopic.kafka(),
    };
    DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(name))).with_error_code(code)
}

fn partition(known: MetadataResponsePartition) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(known.error_code)
        .with_partition_index(known.partition_index)
        .with_leader_id(known.leader_id)
        .with_leader_epoch(known.leader_epoch)
        .with_replica_nodes(known.replica_nodes)
        .with_isr_nodes(known.isr_nodes)
        .with_offline_replicas(known.offline_replicas)
        // The in-sync replicas never fall below the minimum: there are no others that may lead.
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}

fn answer(
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<(String, usize)>,
) -> DescribeTopicPartitionsResponse {
    let cursor = next.map(|(name, partition)| {
        Cursor::default()
            .with_topic_name(TopicName(crate::kafka::names::text(&name)))
            .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(cursor)
}
