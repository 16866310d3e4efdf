//! AlterConfigs, which replaces all settings of a topic, and IncrementalAlterConfigs, which
//! changes some (KIP-339).

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::topic::{CONFIG_KEYS, ConfigKey, TopicConfig};
use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    alter_configs_response, incremental_alter_configs_response,
};

use super::describe_configs::{BROKER, TOPIC};
use super::{MANY_MAX, Refusal, is_set, told};
use crate::authorizer::{Resource, Verb};
use crate::kafka::admin;
use crate::kafka::service::Call;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What Kafka's tools set for the time of a reassignment and remove after it. Replicas that
/// catch up are throttled by the broker's own configuration: these are never set, so that
/// removing them is done already.
const THROTTLES: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];

/// What is to be done to the settings of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Changes {
    set: BTreeMap<String, String>,
    unset: Vec<String>,
}

pub(in crate::kafka) async fn replace(call: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources.into_iter().take(MANY_MAX) {
        let mut given = Vec::with_capacity(resource.configs.len());
        for config in &resource.configs {
            given.push((config.name.to_string(), config.value.as_ref().map(|value| value.to_string())));
        }
        let plan = move |current: &TopicConfig| replaced(current, given);
        let what = (resource.resource_type, resource.resource_name.as_str());
        let result = alter(call, what, plan, request.validate_only).await;
        let (code, message) = told(&result);
        responses.push(
            alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

pub(in crate::kafka) async fn incremental(
    call: &Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources.into_iter().take(MANY_MAX) {
        let configs = resource.configs;
        let what = (resource.resource_type, resource.resource_name.as_str());
        // Nothing of a broker's is set over the wire: there is nothing to unset.
        let nothing = resource.resource_type == BROKER && configs.iter().all(|one| one.config_operation == DELETE);
        let plan = move |current: &TopicConfig| changed(current, &configs);
        let result = match nothing {
            true => call.authorize(Verb::Alter, Resource::Cluster).map_err(Refusal::from),
            false => alter(call, what, plan, request.validate_only).await,
        };
        let (code, message) = told(&result);
        responses.push(
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    call: &Call,
    (kind, name): (i8, &str),
    plan: impl FnOnce(&TopicConfig) -> Result<Changes, Refusal>,
    validate_only: bool,
) -> Result<(), Refusal> {
    match kind {
        TOPIC => {}
        BROKER => return Err(Refusal::invalid("a broker's settings are in its configuration file")),
        other => return Err(Refusal::invalid(format!("there are no settings of resources of type {other}"))),
    }
    call.authorize(Verb::Alter, Resource::Topic(name))?;
    let topic = call.parts().view.topic(name);
    let topic = topic.ok_or_else(|| Error::new(ErrorCode::UnknownTopic, "there is no such topic"))?;
    let changes = plan(&topic.config)?;
    let after = topic.config.with(&changes.set).map_err(Error::from)?;
    if validate_only || changes == Changes::default() {
        return Ok(());
    }
    let within = Duration::from_millis(call.parts().timing.request_ms);
    let Changes { set, unset } = changes;
    let keys: Vec<String> = set.keys().cloned().collect();
    let request =
        v1::AlterTopicRequest { name: name.to_owned(), set: set.into_iter().collect(), unset, who: admin::who(call) };
    admin::alter(call, request, within).await?;
    let same = |config: &TopicConfig| {
        keys.iter().all(|key| ConfigKey::find(key).is_none_or(|key| key.value(config) == key.value(&after)))
    };
    admin::until_seen(call, || call.parts().view.topic(name).is_none_or(|topic| same(&topic.config))).await;
    Ok(())
}

/// What is not given goes back to its default.
fn replaced(current: &TopicConfig, given: Vec<(String, Option<String>)>) -> Result<Changes, Refusal> {
    let mut changes = Changes::default();
    for (name, value) in given {
        let value = value.ok_or_else(|| Refusal::invalid(format!("{name} has no value")))?;
        if changes.set.insert(name.clone(), value).is_some() {
            return Err(Refusal::invalid(format!("{name} is given twice")));
        }
    }
    let gone = CONFIG_KEYS.iter().filter(|key| is_set(key, current) && !changes.set.contains_key(key.name));
    changes.unset = gone.map(|key| key.name.to_owned()).collect();
    Ok(changes)
}

fn changed(current: &TopicConfig, configs: &[AlterableConfig]) -> Result<Changes, Refusal> {
    let mut changes = Changes::default();
    for config in configs {
        let name = config.name.to_string();
        if changes.set.contains_key(&name) || changes.unset.contains(&name) {
            return Err(Refusal::invalid(format!("{name} is given twice")));
        }
        if config.config_operation == DELETE {
            if !THROTTLES.contains(&name.as_str()) {
                changes.unset.push(name);
            }
            continue;
        }
        let value = config.value.as_ref().ok_or_else(|| Refusal::invalid(format!("{name} has no value")))?;
        let value = match config.config_operation {
            SET => value.to_string(),
            APPEND | SUBTRACT => listed(current, &name, value, config.config_operation == APPEND)?,
            other => return Err(Refusal::invalid(format!("there is no operation {other}"))),
        };
        changes.set.insert(name, value);
    }
    Ok(changes)
}

/// A list with something more in it, or less.
fn listed(current: &TopicConfig, name: &str, value: &str, more: bool) -> Result<String, Refusal> {
    let key = ConfigKey::find(name)
        .filter(|key| key.name == "cleanup.policy")
        .ok_or_else(|| Error::new(ErrorCode::InvalidConfig, format!("{name} is no list of values")))?;
    let now = key.value(current);
    let mut items: Vec<&str> = now.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let given: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    items.retain(|item| !given.contains(item));
    if more {
        items.extend(given);
    }
    Ok(items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::names::text;

    fn one(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text))
    }

    #[test]
    fn incremental_changes_touch_what_they_name() {
        let current = TopicConfig::default();
        let changes =
            changed(&current, &[one("max.message.bytes", SET, Some("5000")), one("min.insync.replicas", DELETE, None)]);
        let changes = changes.ok().unwrap();
        assert_eq!(changes.set.get("max.message.bytes").map(String::as_str), Some("5000"));
        assert_eq!(changes.unset, ["min.insync.replicas"]);
        let none = changed(&current, &[one(THROTTLES[0], DELETE, None)]).ok().unwrap();
        assert_eq!(none, Changes::default());
        let bad = [
            (vec![one("a", SET, None)], 42),
            (vec![one("a", SET, Some("1")), one("a", DELETE, None)], 42),
            (vec![one("a", 9, Some("1"))], 42),
            (vec![one("max.message.bytes", APPEND, Some("1"))], 40),
        ];
        for (configs, code) in bad {
            assert_eq!(changed(&current, &configs).err().map(|refusal| refusal.code), Some(code), "{configs:?}");
        }
    }

    #[test]
    fn replacing_unsets_what_is_not_given() {
        let mut current = TopicConfig::default();
        current.set("max.message.bytes", "5000").unwrap();
        let given = vec![("min.insync.replicas".to_owned(), Some("1".to_owned()))];
        let changes = replaced(&current, given).ok().unwrap();
        assert_eq!(changes.unset, ["max.message.bytes"]);
        assert_eq!(changes.set.len(), 1);
    }
}
