//! `baton partition`

use baton_client::{BrokerId, admin::PartitionDescription};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    failure::Outcome,
    options::Options,
    output::{self, list, optional},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show who leads and holds each partition, and how far it is
    List { topic: String },
    /// Give a partition other replicas; the data is copied in the background
    Reassign(Reassign),
    /// Make another replica the leader
    Elect(Elect),
}

#[derive(Debug, Args)]
pub struct Reassign {
    topic: String,
    partition: u32,
    /// The brokers that are to hold it, separated by commas; the first is the preferred leader
    #[arg(
        long,
        env = "BATON_PARTITION_REPLICAS",
        value_delimiter = ',',
        value_name = "BROKER",
        required_unless_present = "cancel"
    )]
    replicas: Vec<u32>,
    /// Leave it as it was before a reassignment that is under way
    #[arg(long, env = "BATON_PARTITION_CANCEL", conflicts_with = "replicas")]
    cancel: bool,
}

#[derive(Debug, Args)]
pub struct Elect {
    topic: String,
    partition: u32,
    /// Believe the copy of this broker though it is not in sync: what only others have is lost
    #[arg(long, env = "BATON_PARTITION_UNCLEAN", value_name = "BROKER")]
    unclean: Option<u32>,
    /// Needed with --unclean
    #[arg(long, env = "BATON_PARTITION_ACCEPT_DATA_LOSS", requires = "unclean")]
    accept_data_loss: bool,
}

pub async fn run(options: &Options, command: Command) -> Outcome {
    match command {
        Command::List { topic } => {
            let partitions = options.connect().await?.admin().partitions(&topic).await?;
            if options.json() {
                let partitions: Vec<Value> = partitions.iter().map(json).collect();
                return output::json(&json!({"partitions": partitions}));
            }
            table(&partitions)
        }
        Command::Reassign(Reassign { topic, partition, replicas, .. }) => {
            let replicas: Vec<BrokerId> = replicas.into_iter().map(BrokerId).collect();
            options.connect().await?.admin().reassign(&topic, partition, &replicas).await?;
            let done = if replicas.is_empty() { "cancelled" } else { "begun" };
            told(options, &topic, partition, &format!("reassignment {done}"))
        }
        Command::Elect(Elect { topic, partition, unclean, accept_data_loss }) => {
            let admin = options.connect().await?.admin();
            match unclean {
                Some(broker) => admin.elect_unclean(&topic, partition, BrokerId(broker), accept_data_loss).await?,
                None => admin.elect_preferred(&topic, partition).await?,
            }
            told(options, &topic, partition, "election asked for")
        }
    }
}

fn told(options: &Options, topic: &str, partition: u32, result: &str) -> Outcome {
    if options.json() {
        return output::json(&json!({"topic": topic, "partition": partition, "result": result}));
    }
    eprintln!("{topic} partition {partition}: {result}");
    Ok(())
}

/// The shape that programs rely on.
pub fn json(partition: &PartitionDescription) -> Value {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect::<Vec<_>>();
    json!({
        "partition": partition.partition,
        "leader": partition.leader.map(|broker| broker.0),
        "epoch": partition.epoch.0,
        "isr": ids(&partition.isr),
        "replicas": ids(&partition.replicas),
        "high_watermark": partition.high_watermark.map(|offset| offset.0),
        "log_start": partition.log_start.map(|offset| offset.0),
        "adding": ids(&partition.adding),
        "removing": ids(&partition.removing),
    })
}

pub fn table(partitions: &[PartitionDescription]) -> Outcome {
    let header = ["PARTITION", "LEADER", "EPOCH", "ISR", "REPLICAS", "START", "HIGH-WATERMARK", "ADDING", "REMOVING"];
    let rows = partitions.iter().map(|p| {
        vec![
            p.partition.to_string(),
            optional(p.leader),
            p.epoch.to_string(),
            list(&p.isr),
            list(&p.replicas),
            optional(p.log_start),
            optional(p.high_watermark),
            list(&p.adding),
            list(&p.removing),
        ]
    });
    output::table(&header, rows)
}
