//! `baton topic`

use std::collections::BTreeMap;

use baton_client::admin::{TopicDescription, TopicSpec, TopicSummary};
use baton_core::Offset;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::{Failure, Outcome},
    options::Options,
    output, partition,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a topic; returns when every partition is led
    Create {
        name: String,
        /// How many partitions [default: 1]
        #[arg(long, env = "BATON_TOPIC_PARTITIONS", value_name = "N")]
        partitions: Option<u32>,
        /// How many copies of each [default: 3, or as many as there are brokers]
        #[arg(long, env = "BATON_TOPIC_REPLICATION", value_name = "R")]
        replication: Option<u32>,
        /// A setting, by Kafka's key; may be repeated
        #[arg(long, env = "BATON_TOPIC_CONFIG", value_name = "KEY=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Check only, make nothing
        #[arg(long, env = "BATON_TOPIC_VALIDATE_ONLY")]
        validate_only: bool,
    },
    /// List the topics
    List {
        /// Also those that Baton keeps for itself
        #[arg(long, env = "BATON_TOPIC_INTERNAL")]
        internal: bool,
    },
    /// Show a topic's settings and partitions
    Describe { name: String },
    /// Change settings, or add partitions
    Alter {
        name: String,
        /// A setting to change; may be repeated
        #[arg(long, env = "BATON_TOPIC_CONFIG", value_name = "KEY=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// A setting to put back to its default; may be repeated
        #[arg(long, env = "BATON_TOPIC_UNSET", value_name = "KEY")]
        unset: Vec<String>,
        /// Add partitions until there are so many
        #[arg(long, env = "BATON_TOPIC_PARTITIONS", value_name = "N")]
        partitions: Option<u32>,
        /// Add them though records of a key will go to another partition than before
        #[arg(long, env = "BATON_TOPIC_ACCEPT_MOVED_KEYS")]
        accept_moved_keys: bool,
    },
    /// Delete a topic and its data
    Delete { name: String },
    /// Delete the oldest records of a topic's partitions
    Trim {
        name: String,
        /// The partition; may be repeated [default: all of them]
        #[arg(long, env = "BATON_TOPIC_PARTITION", value_name = "N")]
        partition: Vec<u32>,
        /// Records below this offset go
        #[arg(long, env = "BATON_TOPIC_BEFORE", value_name = "OFFSET", required_unless_present = "all")]
        before: Option<u64>,
        /// Delete all records that are there
        #[arg(long, env = "BATON_TOPIC_ALL", conflicts_with = "before")]
        all: bool,
    },
}

pub async fn run(options: &Options, command: Command) -> Outcome {
    match command {
        Command::Create { name, partitions, replication, config, validate_only } => {
            let config = settings(config)?;
            let timeout = options.timeout;
            let spec = TopicSpec { partitions, replication, config, timeout, validate_only, ..TopicSpec::new(name) };
            let made = options.connect().await?.admin().create_topic(spec).await?;
            let done = if validate_only { "could be created" } else { "created" };
            told(options, &made, done)
        }
        Command::List { internal } => list(options, internal).await,
        Command::Describe { name } => {
            let admin = options.connect().await?.admin();
            let mut topic = admin.describe_topic(&name).await?;
            topic.partitions = admin.partitions(&name).await?;
            describe(options, &topic)
        }
        Command::Alter { name, config, unset, partitions, accept_moved_keys } => {
            let set = settings(config)?;
            if set.is_empty() && unset.is_empty() && partitions.is_none() {
                return Err(Failure::Usage("nothing to change: give --config, --unset or --partitions".to_owned()));
            }
            let admin = options.connect().await?.admin();
            let mut altered = None;
            if !set.is_empty() || !unset.is_empty() {
                altered = Some(admin.alter_topic(&name, set, unset).await?);
            }
            if let Some(total) = partitions {
                altered = Some(admin.add_partitions(&name, total, accept_moved_keys).await?);
            }
            altered.map_or(Ok(()), |altered| told(options, &altered, "altered"))
        }
        Command::Delete { name } => {
            options.connect().await?.admin().delete_topic(&name).await?;
            if options.json() {
                return output::json(&json!({"name": name, "deleted": true}));
            }
            eprintln!("topic {name} deleted");
            Ok(())
        }
        Command::Trim { name, partition, before, all: _ } => trim(options, &name, partition, before.map(Offset)).await,
    }
}

async fn trim(options: &Options, name: &str, mut partitions: Vec<u32>, before: Option<Offset>) -> Outcome {
    let admin = options.connect().await?.admin();
    if partitions.is_empty() {
        partitions = admin.partitions(name).await?.iter().map(|partition| partition.partition).collect();
    }
    let starts = admin.delete_records(name, &partitions, before).await?;
    if options.json() {
        let starts: Vec<Value> =
            starts.iter().map(|(partition, start)| json!({"partition": partition, "log_start": start.0})).collect();
        return output::json(&json!({"name": name, "partitions": starts}));
    }
    let rows = starts.iter().map(|(partition, start)| vec![partition.to_string(), start.to_string()]);
    output::table(&["PARTITION", "LOG START"], rows)
}

fn told(options: &Options, topic: &TopicSummary, done: &str) -> Outcome {
    let TopicSummary { name, id, partitions, replication } = topic;
    if options.json() {
        let json = json!({"name": name, "id": id, "partitions": partitions, "replication": replication});
        return output::json(&json);
    }
    eprintln!("topic {name} {done}: {partitions} partitions, replication {replication}");
    Ok(())
}

async fn list(options: &Options, internal: bool) -> Outcome {
    let topics = options.connect().await?.admin().topics(internal).await?;
    if options.json() {
        let topics: Vec<Value> = topics.iter().map(brief).collect();
        return output::json(&json!({"topics": topics}));
    }
    let rows = topics.iter().map(|topic| {
        vec![topic.name.clone(), topic.partitions.len().to_string(), topic.replication().to_string(), topic.id.clone()]
    });
    output::table(&["TOPIC", "PARTITIONS", "REPLICATION", "ID"], rows)
}

fn brief(topic: &TopicDescription) -> Value {
    json!({
        "name": topic.name,
        "id": topic.id,
        "partitions": topic.partitions.len(),
        "replication": topic.replication(),
        "internal": topic.internal,
    })
}

fn describe(options: &Options, topic: &TopicDescription) -> Outcome {
    if options.json() {
        let partitions: Vec<Value> = topic.partitions.iter().map(partition::json).collect();
        return output::json(&json!({
            "name": topic.name,
            "id": topic.id,
            "internal": topic.internal,
            "partitions": partitions,
            "config": topic.config,
        }));
    }
    let (name, id) = (&topic.name, &topic.id);
    output::text(&format!("topic {name}, id {id}, replication {}", topic.replication()))?;
    for (key, value) in &topic.config {
        output::text(&format!("{key}={value}"))?;
    }
    partition::table(&topic.partitions)
}

/// `key=value`
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}

fn settings(pairs: Vec<(String, String)>) -> Outcome<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for (key, value) in pairs {
        if settings.insert(key.clone(), value).is_some() {
            return Err(Failure::Usage(format!("{key} is given twice")));
        }
    }
    Ok(settings)
}
