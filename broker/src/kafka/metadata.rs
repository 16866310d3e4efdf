//! Metadata: the brokers, the topics, and who leads what. A topic that is asked for and not
//! there is created, if this broker is configured so and the client agrees.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::partition::PartitionState;
use baton_core::topic::TopicName as CheckedName;
use baton_core::{BrokerId, Error, ErrorCode};
use baton_proto::v1;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId as WireBroker, MetadataRequest};
use uuid::Uuid;

use super::address::{NOBODY, Node, wire_id};
use super::list_offsets::wire_epoch;
use super::names::{text, topic_name};
use super::service::{Answer, Call, Hangup, decode};
use super::{admin, errors, leaders};
use crate::authorizer::{Resource, Verb};
use crate::cluster::TopicView;

/// Topics that one request creates.
const CREATED_MAX: usize = 100;

/// Topics that one request creates at once.
const CREATED_AT_ONCE: usize = 4;

/// How long a client waits for the topics that its question creates.
const CREATED_WITHIN: Duration = Duration::from_secs(5);

/// What one entry of the request asks for.
enum Asked {
    Name(String),
    /// By id, with the name of the topic that has it.
    Id(Uuid, Option<String>),
}

/// A broker that has just started is left for another one, rather than be believed that there
/// are no topics.
pub(super) async fn begin(call: Call, body: Bytes) -> Result<Answer, Hangup> {
    let request = decode(call.api, call.version, body)?;
    if !call.parts().knows_topics(call.context.remaining()).await {
        return Err(Hangup::JustStarted);
    }
    let Some(topics) = leaders::lost_by(&call, &request) else {
        return call.answer(&serve(&call, request).await);
    };
    Ok(Answer::Later(Box::pin(async move {
        leaders::await_elections(&call, &topics).await;
        call.encode(&serve(&call, request).await)
    })))
}

async fn serve(call: &Call, request: MetadataRequest) -> MetadataResponse {
    let asked = asked(call, &request);
    if let Some(asked) = &asked
        && request.allow_auto_topic_creation
        && call.service.config.auto_create_topics
    {
        create_missing(call, asked).await;
    }
    let nodes = call.service.nodes();
    let live = call.service.live_ids();
    let topics = match asked {
        None => all_topics(call, &live),
        Some(asked) => asked.iter().map(|one| asked_topic(call, one, &live)).collect(),
    };
    MetadataResponse::default()
        .with_brokers(nodes.into_iter().map(broker).collect())
        .with_cluster_id(Some(text(&call.parts().cluster)))
        .with_controller_id(call.service.controller())
        .with_topics(topics)
}

/// None: all topics.
fn asked(call: &Call, request: &MetadataRequest) -> Option<Vec<Asked>> {
    let topics = request.topics.as_ref()?;
    if topics.is_empty() && call.version == 0 {
        return None;
    }
    let one = |topic: &kafka_protocol::messages::metadata_request::MetadataRequestTopic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => Asked::Name(name.to_string()),
        _ => {
            let named = call.service.topic_by_uuid(topic.topic_id);
            Asked::Id(topic.topic_id, named.map(|topic| topic.name))
        }
    };
    Some(topics.iter().map(one).collect())
}

fn broker(node: Node) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(node.id)
        .with_host(node.host)
        .with_port(node.port)
        .with_rack(node.rack)
}

fn all_topics(call: &Call, live: &BTreeSet<WireBroker>) -> Vec<MetadataResponseTopic> {
    let topics = call.parts().view.topics();
    let shown = topics.iter().filter(|topic| call.authorize(Verb::Describe, Resource::Topic(&topic.name)).is_ok());
    shown.map(|topic| describe(call, topic, live)).collect()
}

fn asked_topic(call: &Call, asked: &Asked, live: &BTreeSet<WireBroker>) -> MetadataResponseTopic {
    let (name, missing) = match asked {
        Asked::Name(name) => (name, None),
        Asked::Id(_, Some(name)) => (name, None),
        Asked::Id(id, None) => (&String::new(), Some(*id)),
    };
    if let Some(id) = missing {
        let response = MetadataResponseTopic::default().with_topic_id(id).with_error_code(errors::UNKNOWN_TOPIC_ID);
        // Only newer versions have topics without names, and only those ask by id.
        return response.with_name(None);
    }
    let failed = |code| MetadataResponseTopic::default().with_name(Some(topic_name(name))).with_error_code(code);
    if let Err(error) = call.authorize(Verb::Describe, Resource::Topic(name)) {
        return failed(error.code.kafka());
    }
    match call.parts().view.topic(name) {
        Some(topic) => describe(call, &topic, live),
        None if CheckedName::any(name).is_err() => failed(ErrorCode::InvalidTopicName.kafka()),
        None => failed(ErrorCode::UnknownTopic.kafka()),
    }
}

fn describe(call: &Call, topic: &Arc<TopicView>, live: &BTreeSet<WireBroker>) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(call.service.topic_uuid(topic.id))
        .with_is_internal(topic.name.starts_with("__"))
        .with_partitions(partitions_of(call, topic, live))
}

/// The partitions of a topic, all of them, in their order.
pub(super) fn partitions_of(
    call: &Call,
    topic: &TopicView,
    live: &BTreeSet<WireBroker>,
) -> Vec<MetadataResponsePartition> {
    let unknown = |partition: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
            .with_error_code(errors::LEADER_NOT_AVAILABLE)
            .with_leader_id(NOBODY)
    };
    let mut partitions: Vec<MetadataResponsePartition> = (0..topic.partitions).map(unknown).collect();
    for (number, known) in call.parts().view.states_of(topic.id) {
        if let Some(partition) = usize::try_from(number).ok().and_then(|n| partitions.get_mut(n)) {
            *partition = describe_partition(number, &known.state, live);
        }
    }
    partitions
}

fn describe_partition(number: u32, state: &PartitionState, live: &BTreeSet<WireBroker>) -> MetadataResponsePartition {
    let leader = state.leader.map(|leader| wire_id(leader.broker)).filter(|leader| live.contains(leader));
    let replicas: Vec<WireBroker> = state.assignment.replicas.iter().copied().map(wire_id).collect();
    let mut in_sync: Vec<BrokerId> = state.isr.iter().map(|member| member.broker).collect();
    in_sync.sort_unstable();
    in_sync.dedup();
    let offline = replicas.iter().copied().filter(|replica| !live.contains(replica)).collect();
    MetadataResponsePartition::default()
        .with_partition_index(i32::try_from(number).unwrap_or(i32::MAX))
        .with_error_code(if leader.is_some() { errors::NONE } else { errors::LEADER_NOT_AVAILABLE })
        .with_leader_id(leader.unwrap_or(NOBODY))
        .with_leader_epoch(wire_epoch(state.epoch.0))
        .with_replica_nodes(replicas)
        .with_isr_nodes(in_sync.into_iter().map(wire_id).collect())
        .with_offline_replicas(offline)
}

/// Creates what is not there. What fails shows as an unknown topic: the client asks again.
async fn create_missing(call: &Call, asked: &[Asked]) {
    let names: BTreeSet<String> = asked
        .iter()
        .filter_map(|one| match one {
            Asked::Name(name) => Some(name),
            Asked::Id(..) => None,
        })
        .filter(|name| call.parts().view.topic(name).is_none() && name.parse::<CheckedName>().is_ok())
        .filter(|name| call.authorize(Verb::Create, Resource::Topic(name)).is_ok())
        .take(CREATED_MAX)
        .cloned()
        .collect();
    if names.is_empty() {
        return;
    }
    let create = |name: &String| create(call.clone(), name.clone()).boxed();
    let creating: Vec<_> = names.iter().map(create).collect();
    let all = async {
        futures::stream::iter(creating).buffer_unordered(CREATED_AT_ONCE).collect::<Vec<()>>().await;
        await_leaders(call, &names).await;
    };
    // Late is no error: what is there then is the answer.
    let _ = tokio::time::timeout(CREATED_WITHIN, all).await;
}

async fn create(call: Call, name: String) {
    let timeout_ms = u32::try_from(CREATED_WITHIN.as_millis()).unwrap_or(u32::MAX);
    let request = v1::CreateTopicRequest {
        name: name.clone(),
        partitions: Some(call.service.config.default_partitions),
        timeout_ms,
        who: admin::who(&call),
        ..v1::CreateTopicRequest::default()
    };
    let created = admin::create(&call, request, CREATED_WITHIN).await;
    match created {
        Ok(_) | Err(Error { code: ErrorCode::TopicExists, .. }) => {}
        Err(error) => tracing::warn!(topic = name, %error, "a topic that a client asked for was not created"),
    }
}

/// Until this broker knows of a leader of every partition.
async fn await_leaders(call: &Call, names: &BTreeSet<String>) {
    let view = &call.parts().view;
    let mut changes = view.changes();
    let is_led = |name: &String| {
        view.topic(name).is_none_or(|topic| {
            let states = view.states_of(topic.id);
            states.len() == topic.partitions as usize && states.iter().all(|(_, known)| known.state.leader.is_some())
        })
    };
    loop {
        changes.mark_unchanged();
        let there = names.iter().all(|name| view.topic(name).is_some());
        if there && names.iter().all(is_led) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
