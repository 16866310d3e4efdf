//! `baton consume`

use std::{collections::BTreeMap, io, time::Duration};

use baton_client::{
    Client, ConsumedRecord, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, Offset, Start, admin::At,
};
use clap::Args as ClapArgs;

use super::{
    failure::Outcome,
    format::{self, Format},
    options::Options,
    when,
};

/// How often the end is looked at while nothing comes.
const POLL: Duration = Duration::from_millis(200);

/// How often a group hears how far this member is.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, ClapArgs)]
pub struct Args {
    topic: String,
    /// start, end, an offset, a time (2026-01-31T12:00:00Z, milliseconds since 1970), or -10m
    #[arg(long, env = "BATON_CONSUME_FROM", default_value = "end", value_name = "WHERE", allow_hyphen_values = true,
          value_parser = start)]
    from: Start,
    /// Which partitions, separated by commas [default: all]
    #[arg(long, env = "BATON_CONSUME_PARTITION", value_delimiter = ',', value_name = "N")]
    partition: Vec<u32>,
    /// Share the topic with the other members of this consumer group, and go on from where the
    /// group is; --from is where to begin if it has committed nothing
    #[arg(long, env = "BATON_CONSUME_GROUP", value_name = "NAME", conflicts_with = "partition")]
    group: Option<String>,
    /// The name of this member, which keeps its part while it is restarted
    #[arg(long, env = "BATON_CONSUME_INSTANCE", value_name = "NAME", requires = "group")]
    instance: Option<String>,
    /// Stop after so many records
    #[arg(long, env = "BATON_CONSUME_COUNT", value_name = "N")]
    count: Option<u64>,
    /// Stop at what is the end now
    #[arg(long, env = "BATON_CONSUME_EXIT_AT_END")]
    exit_at_end: bool,
    /// How to print a record: {topic} {partition} {offset} {timestamp} {time} {key} {value}
    /// {headers}, with \t and \n
    #[arg(long, env = "BATON_CONSUME_FORMAT", default_value = "{value}", value_parser = Format::parse)]
    format: Format,
}

fn start(text: &str) -> Result<Start, String> {
    when::parse(text, when::now_ms())
}

pub async fn run(options: &Options, args: Args) -> Outcome {
    let client = options.connect().await?;
    let all = client.partitions(&args.topic).await?;
    if let Some(group) = &args.group {
        return in_group(options, &args, &client, group, all).await;
    }
    let partitions = if args.partition.is_empty() { (0..all).collect() } else { args.partition.clone() };
    let mut consumer = client.consumer(ConsumerConfig::default());
    let assigned: Vec<(u32, Start)> = partitions.iter().map(|partition| (*partition, args.from)).collect();
    consumer.assign(&args.topic, &assigned).await?;
    let ends = if args.exit_at_end { Some(ends(&client, &args.topic, &partitions).await?) } else { None };
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !ends.as_ref().is_some_and(|ends| at_end(&consumer, &args.topic, ends)) {
        let records = tokio::select! {
            records = consumer.poll(POLL) => records?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        // What was written behind the end that was asked for is not printed.
        let records = records.into_iter().filter(|record| before(ends.as_ref(), record)).take(wanted);
        left -= print(options, &args.format, records)?;
    }
    Ok(())
}

/// Reads what the group gives to this member; what is printed is committed.
async fn in_group(options: &Options, args: &Args, client: &Client, group: &str, partitions: u32) -> Outcome {
    let all: Vec<u32> = (0..partitions).collect();
    let ends = if args.exit_at_end { Some(ends(client, &args.topic, &all).await?) } else { None };
    let config = GroupConfig {
        instance: args.instance.clone(),
        start: args.from,
        commit_every: Some(COMMIT_EVERY),
        ..GroupConfig::new(group, [args.topic.as_str()])
    };
    let mut consumer = client.group_consumer(config);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !ends.as_ref().is_some_and(|ends| group_at_end(&consumer, &args.topic, ends)) {
        let mut records = tokio::select! {
            records = consumer.poll(POLL) => records?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(records.len());
        let later = records.split_off(wanted);
        left -= print(options, &args.format, records.into_iter())?;
        consumer.hand_back(&later)?;
    }
    Ok(consumer.close().await?)
}

/// Everything that this member reads; one that has nothing to read waits for others to leave.
fn group_at_end(consumer: &GroupConsumer, topic: &str, ends: &BTreeMap<u32, Offset>) -> bool {
    let parts = consumer.assignment();
    let at_end = |partition: &u32| {
        let end = ends.get(partition).copied().unwrap_or_default();
        consumer.position(topic, *partition).is_some_and(|position| position >= end)
    };
    !parts.is_empty() && parts.iter().all(|(_, partition)| at_end(partition))
}

async fn ends(client: &Client, topic: &str, partitions: &[u32]) -> Outcome<BTreeMap<u32, Offset>> {
    let ends = client.admin().offsets(topic, partitions, At::End).await?;
    Ok(ends.into_iter().map(|(partition, end)| (partition, end.unwrap_or_default())).collect())
}

fn at_end(consumer: &Consumer, topic: &str, ends: &BTreeMap<u32, Offset>) -> bool {
    ends.iter().all(|(partition, end)| consumer.position(topic, *partition).is_some_and(|position| position >= *end))
}

fn before(ends: Option<&BTreeMap<u32, Offset>>, record: &ConsumedRecord) -> bool {
    ends.and_then(|ends| ends.get(&record.partition)).is_none_or(|end| record.offset < *end)
}

/// Prints and returns how many there were.
fn print(options: &Options, format: &Format, records: impl Iterator<Item = ConsumedRecord>) -> Outcome<u64> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    for record in records {
        count += 1;
        if options.json() {
            serde_json::to_writer(&mut bytes, &format::json(&record)).map_err(io::Error::from)?;
            bytes.push(b'\n');
        } else {
            format.write(&record, &mut bytes);
        }
    }
    if !bytes.is_empty() {
        super::output::print(&bytes)?;
    }
    Ok(count)
}
