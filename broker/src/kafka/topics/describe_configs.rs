//! DescribeConfigs: the settings of topics, and what this broker has in common with Kafka's.

use baton_core::placement;
use baton_core::topic::{CONFIG_KEYS, ConfigKey, TopicConfig};
use baton_core::{Error, ErrorCode};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{MANY_MAX, Refusal, is_set};
use crate::authorizer::{Resource, Verb};
use crate::kafka::names::text;
use crate::kafka::service::Call;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Where a value is from.
pub(super) const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
pub(super) const DEFAULT: i8 = 5;

/// The sort of a value.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const LONG: i8 = 5;

pub(in crate::kafka) async fn serve(call: &Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut results = Vec::new();
    for resource in request.resources.into_iter().take(MANY_MAX) {
        let described = describe(call, &resource);
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        results.push(match described {
            Ok(settings) => {
                let wanted = |name: &str| match &resource.configuration_keys {
                    None => true,
                    Some(keys) => keys.iter().any(|key| key.as_str() == name),
                };
                let mut configs = Vec::new();
                for setting in settings.into_iter().filter(|setting| wanted(setting.name)) {
                    configs.push(setting.to_wire(
                        call.version,
                        request.include_synonyms,
                        request.include_documentation,
                    ));
                }
                result.with_configs(configs)
            }
            Err(refusal) => result.with_error_code(refusal.code).with_error_message(refusal.message()),
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

/// One setting with what is told of it.
struct Setting {
    name: &'static str,
    value: String,
    default: Option<&'static str>,
    source: i8,
    doc: &'static str,
}

fn describe(call: &Call, resource: &DescribeConfigsResource) -> Result<Vec<Setting>, Refusal> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            call.authorize(Verb::Describe, Resource::Topic(name))?;
            let topic = call.parts().view.topic(name);
            let topic = topic.ok_or_else(|| Error::new(ErrorCode::UnknownTopic, "there is no such topic"))?;
            Ok(CONFIG_KEYS.iter().map(|key| of_topic(key, &topic.config)).collect())
        }
        BROKER => {
            call.authorize(Verb::Describe, Resource::Cluster)?;
            if name != call.parts().me.to_string() {
                return Err(Refusal::invalid(format!("this is broker {}, not {name}", call.parts().me)));
            }
            Ok(of_broker(call))
        }
        other => Err(Refusal::invalid(format!("there are no settings of resources of type {other}"))),
    }
}

fn of_topic(key: &ConfigKey, config: &TopicConfig) -> Setting {
    let source = if is_set(key, config) { DYNAMIC_TOPIC } else { DEFAULT };
    Setting { name: key.name, value: key.value(config), default: Some(key.default), source, doc: key.doc }
}

/// The settings of Kafka's brokers that mean the same here; they come from the configuration
/// file, and are not changed while the broker runs.
fn of_broker(call: &Call) -> Vec<Setting> {
    let fixed = |name, value: String, doc| Setting { name, value, default: None, source: STATIC_BROKER, doc };
    let (config, limits) = (&call.service.config, &call.parts().limits);
    let live = u32::try_from(call.service.nodes().len()).unwrap_or(u32::MAX);
    let replication = placement::replication_default(live);
    let of_new_topics = TopicConfig::for_new_topic(live, replication);
    let of_topic = |name, key: &str, doc| {
        let value = ConfigKey::find(key).map(|key| key.value(&of_new_topics)).unwrap_or_default();
        fixed(name, value, doc)
    };
    let dir = || call.parts().dir.to_string_lossy().into_owned();
    vec![
        fixed("advertised.listeners", listeners(call), "Where clients of this listener reach the broker."),
        fixed(
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            "Whether topics are created that clients ask for.",
        ),
        of_topic("compression.type", "compression.type", "How batches are stored: as producers compressed them."),
        fixed("broker.id", call.parts().me.to_string(), "The broker's number."),
        fixed("connections.max.idle.ms", config.idle_ms.to_string(), "When a silent connection is closed."),
        fixed("default.replication.factor", replication.to_string(), "The replicas of a topic that names no number."),
        fixed("delete.topic.enable", true.to_string(), "Whether topics can be deleted."),
        fixed("log.dir", dir(), "The data directory."),
        fixed("log.dirs", dir(), "The data directory."),
        of_topic("log.cleanup.policy", "cleanup.policy", "What becomes of old records, where a topic does not say."),
        of_topic(
            "log.retention.bytes",
            "retention.bytes",
            "How much is kept of a partition, where a topic does not say.",
        ),
        of_topic("log.retention.ms", "retention.ms", "How long records are kept, where a topic does not say."),
        fixed("max.connections", limits.connections.to_string(), "Open connections of clients."),
        fixed("message.max.bytes", limits.batch_bytes_max.to_string(), "The largest batch, whatever a topic allows."),
        of_topic("min.insync.replicas", "min.insync.replicas", "Of a new topic that does not say."),
        fixed("node.id", call.parts().me.to_string(), "The broker's number."),
        fixed(
            "num.partitions",
            config.default_partitions.to_string(),
            "The partitions of a topic that names no number.",
        ),
        fixed("socket.request.max.bytes", limits.frame_bytes_max.to_string(), "The largest request."),
    ]
}

/// The listener as Kafka writes it.
fn listeners(call: &Call) -> String {
    let name = call.service.name.to_uppercase();
    match call.service.node(call.parts().me) {
        Some(node) if node.host.contains(':') => format!("{name}://[{}]:{}", node.host.as_str(), node.port),
        Some(node) => format!("{name}://{}:{}", node.host.as_str(), node.port),
        None => String::new(),
    }
}

impl Setting {
    fn to_wire(&self, version: i16, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
        let mut wire = DescribeConfigsResourceResult::default()
            .with_name(text(self.name))
            .with_value(Some(text(&self.value)))
            .with_read_only(self.source == STATIC_BROKER)
            .with_config_source(self.source)
            .with_documentation(None);
        if synonyms {
            let synonym = |value: &str, source| {
                DescribeConfigsSynonym::default()
                    .with_name(text(self.name))
                    .with_value(Some(text(value)))
                    .with_source(source)
            };
            let own = (self.source != DEFAULT).then(|| synonym(&self.value, self.source));
            let default = self.default.map(|value| synonym(value, DEFAULT));
            wire = wire.with_synonyms(own.into_iter().chain(default).collect());
        }
        if version >= 3 {
            let kind = match self.value.as_str() {
                "true" | "false" => BOOLEAN,
                number if number.parse::<i64>().is_ok() => LONG,
                _ => STRING,
            };
            wire = wire.with_config_type(kind);
            if documentation {
                wire = wire.with_documentation(Some(text(self.doc)));
            }
        }
        wire
    }
}
