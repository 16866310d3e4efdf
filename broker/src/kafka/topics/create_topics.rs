//! CreateTopics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::topic::{CONFIG_KEYS, TopicConfig};
use baton_core::{Error, ErrorCode, TopicId};
use baton_proto::v1::{self, TopicReply};
use futures::future::join_all;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::turns::Turns;
use super::{MANY_MAX, Refusal, is_set};
use crate::authorizer::{Resource, Verb};
use crate::kafka::admin;
use crate::kafka::errors::{self, INVALID_REPLICA_ASSIGNMENT};
use crate::kafka::names::text;
use crate::kafka::service::Call;
use crate::kafka::topics::describe_configs::{DEFAULT, DYNAMIC_TOPIC};

/// The first version that tells what was made.
const TELLS_DETAILS: i16 = 5;
/// The first version that tells the topic's id.
const TELLS_ID: i16 = 7;

pub(in crate::kafka) async fn serve(call: &Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let turns = Turns::new(call.granted(request.timeout_ms));
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> =
        request.topics.iter().filter(|t| !seen.insert(t.name.clone())).map(|t| t.name.to_string()).collect();
    let (turns, twice, validate_only) = (&turns, &twice, request.validate_only);
    let creating = request.topics.into_iter().take(MANY_MAX).map(|topic| async move {
        let name = topic.name.clone();
        let created = match twice.contains(name.as_str()) {
            true => Err(Refusal::invalid("the topic is named twice in the request")),
            false => turns.run(|within| create(call, topic, validate_only, within)).await,
        };
        let result = CreatableTopicResult::default().with_name(name).with_error_message(None).with_configs(None);
        match created {
            Ok(created) => details(call, result, created),
            Err(refusal) => refused(call, result, &refusal),
        }
    });
    CreateTopicsResponse::default().with_topics(join_all(creating).await)
}

fn refused(call: &Call, result: CreatableTopicResult, refusal: &Refusal) -> CreatableTopicResult {
    let result = result.with_error_code(refusal.code).with_error_message(refusal.message());
    match call.version >= TELLS_DETAILS {
        true => result.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(Vec::new())),
        false => result,
    }
}

struct Created {
    reply: TopicReply,
    config: TopicConfig,
}

async fn create(call: &Call, topic: CreatableTopic, validate_only: bool, within: Duration) -> Result<Created, Refusal> {
    let name = topic.name.to_string();
    call.authorize(Verb::Create, Resource::Topic(&name))?;
    let mut config = BTreeMap::new();
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            let cause = format!("{} has no value", entry.name.as_str());
            return Err(Error::new(ErrorCode::InvalidConfig, cause).into());
        };
        config.insert(entry.name.to_string(), value.to_string());
    }
    if !topic.assignments.is_empty() && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        return Err(Refusal::invalid("with an assignment, the numbers of partitions and replicas follow from it"));
    }
    let request = v1::CreateTopicRequest {
        name: name.clone(),
        partitions: partitions(&topic, call.service.config.default_partitions)?,
        replication: count(i32::from(topic.replication_factor), ErrorCode::InvalidReplication)?,
        config: config.clone().into_iter().collect(),
        assignment: assignment(topic.assignments)?,
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        who: admin::who(call),
        validate_only,
        internal: false,
    };
    let reply = admin::create(call, request, within).await?;
    if !validate_only {
        admin::until_seen(call, || call.parts().view.topic(&name).is_some()).await;
    }
    let config = match call.parts().view.topic(&name) {
        Some(topic) if !validate_only => topic.config.clone(),
        _ => TopicConfig::default().with(&config).map_err(Error::from)?,
    };
    Ok(Created { reply, config })
}

/// An assignment says by itself how many there are.
fn partitions(topic: &CreatableTopic, default: u32) -> Result<Option<u32>, Refusal> {
    let asked = count(topic.num_partitions, ErrorCode::InvalidPartitions)?;
    Ok(asked.or(topic.assignments.is_empty().then_some(default)))
}

/// −1 asks for the default.
fn count(number: i32, code: ErrorCode) -> Result<Option<u32>, Refusal> {
    match number {
        -1 => Ok(None),
        0 => Err(Error::new(code, "0 is not enough").into()),
        number => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::new(code, format!("{number} is no number of them")).into()),
        },
    }
}

/// The brokers of partition 0, 1, 2 and so on.
fn assignment(mut given: Vec<CreatableReplicaAssignment>) -> Result<Vec<v1::ReplicaList>, Refusal> {
    given.sort_by_key(|one| one.partition_index);
    let mut lists = Vec::with_capacity(given.len());
    for (expected, one) in (0_i32..).zip(given) {
        if one.partition_index != expected {
            return Err(bad_assignment(format!("partition {expected} is missing, or one is named twice")));
        }
        let mut brokers = Vec::with_capacity(one.broker_ids.len());
        for broker in one.broker_ids {
            let number = u32::try_from(broker.0);
            brokers.push(number.map_err(|_| bad_assignment(format!("{} is no broker", broker.0)))?);
        }
        lists.push(v1::ReplicaList { brokers });
    }
    Ok(lists)
}

fn bad_assignment(cause: String) -> Refusal {
    Refusal { code: INVALID_REPLICA_ASSIGNMENT, error: Error::new(ErrorCode::InvalidRequest, cause) }
}

fn details(call: &Call, result: CreatableTopicResult, created: Created) -> CreatableTopicResult {
    let Created { reply, config } = created;
    let result = match reply.id.parse::<TopicId>() {
        Ok(id) if call.version >= TELLS_ID => result.with_topic_id(call.service.topic_uuid(id)),
        _ => result,
    };
    if call.version < TELLS_DETAILS {
        return result;
    }
    let mut configs = Vec::with_capacity(CONFIG_KEYS.len());
    for key in CONFIG_KEYS {
        configs.push(
            CreatableTopicConfigs::default()
                .with_name(text(key.name))
                .with_value(Some(text(&key.value(&config))))
                .with_config_source(if is_set(key, &config) { DYNAMIC_TOPIC } else { DEFAULT }),
        );
    }
    result
        .with_error_code(errors::NONE)
        .with_num_partitions(i32::try_from(reply.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(reply.replication).unwrap_or(i16::MAX))
        .with_configs(Some(configs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::BrokerId;

    fn given(partitions: &[(i32, &[i32])]) -> Vec<CreatableReplicaAssignment> {
        let one = |(index, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
        };
        partitions.iter().map(one).collect()
    }

    #[test]
    fn assignments_name_every_partition_once() {
        let lists = assignment(given(&[(1, &[2, 3]), (0, &[1, 2])])).ok().unwrap();
        let brokers: Vec<_> = lists.into_iter().map(|list| list.brokers).collect();
        assert_eq!(brokers, [vec![1, 2], vec![2, 3]]);
        for bad in [&[(1, &[1][..])][..], &[(0, &[1]), (0, &[2])], &[(0, &[-1])]] {
            assert_eq!(assignment(given(bad)).err().map(|refusal| refusal.code), Some(INVALID_REPLICA_ASSIGNMENT));
        }
    }

    #[test]
    fn a_topic_that_names_no_number_has_what_is_configured() {
        let topic = |number| CreatableTopic::default().with_num_partitions(number);
        assert_eq!(partitions(&topic(-1), 6).ok(), Some(Some(6)));
        assert_eq!(partitions(&topic(2), 6).ok(), Some(Some(2)));
        let one = CreatableReplicaAssignment::default();
        assert_eq!(partitions(&topic(-1).with_assignments(vec![one]), 6).ok(), Some(None));
    }

    #[test]
    fn minus_one_means_the_default() {
        assert_eq!(count(-1, ErrorCode::InvalidPartitions).ok(), Some(None));
        assert_eq!(count(3, ErrorCode::InvalidPartitions).ok(), Some(Some(3)));
        assert_eq!(count(0, ErrorCode::InvalidPartitions).err().map(|r| r.code), Some(37));
        assert_eq!(count(-2, ErrorCode::InvalidReplication).err().map(|r| r.code), Some(38));
    }
}
