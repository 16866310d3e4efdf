//! `baton group`

use std::{collections::BTreeMap, sync::Arc};

use baton_client::admin::{At, GroupDescription, MemberDescription};
use baton_client::{Admin, Offset, Start, group::Committed};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::{Failure, Outcome},
    options::Options,
    output, when,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the consumer groups
    List,
    /// Show a group's members, and how far it got
    Describe { group: String },
    /// Have a group without members go on from another place
    Seek {
        group: String,
        topic: String,
        /// start, end, an offset, a time (2026-01-31T12:00:00Z, milliseconds since 1970), or -10m
        #[arg(long, env = "BATON_GROUP_TO", value_name = "WHERE", allow_hyphen_values = true, value_parser = place)]
        to: Start,
        /// Which partitions, separated by commas [default: all]
        #[arg(long, env = "BATON_GROUP_PARTITION", value_delimiter = ',', value_name = "N")]
        partition: Vec<u32>,
    },
    /// Forget a group without members, or what it has committed of a topic
    Delete {
        group: String,
        /// Only what it has committed of this topic
        #[arg(long, env = "BATON_GROUP_TOPIC", value_name = "TOPIC")]
        topic: Option<String>,
    },
}

fn place(text: &str) -> Result<Start, String> {
    when::parse(text, when::now_ms())
}

/// How far a group is in one partition.
struct Progress {
    topic: Arc<str>,
    partition: u32,
    committed: Committed,
    end: Option<Offset>,
    reader: String,
}

impl Progress {
    fn lag(&self) -> Option<u64> {
        self.end.map(|end| end.0.saturating_sub(self.committed.offset.0))
    }
}

pub async fn run(options: &Options, command: Command) -> Outcome {
    let admin = options.connect().await?.admin();
    match command {
        Command::List => list(options, &admin).await,
        Command::Describe { group } => describe(options, &admin, &group).await,
        Command::Seek { group, topic, to, partition } => seek(options, &admin, &group, &topic, to, partition).await,
        Command::Delete { group, topic } => delete(options, &admin, &group, topic).await,
    }
}

async fn list(options: &Options, admin: &Admin) -> Outcome {
    let groups = admin.groups().await?;
    if options.json() {
        let one = |g: &baton_client::admin::GroupSummary| json!({"group": g.group, "state": g.state, "protocol_type": g.protocol_type});
        return output::json(&json!({"groups": groups.iter().map(one).collect::<Vec<Value>>()}));
    }
    let rows = groups.into_iter().map(|group| vec![group.group, group.state, group.protocol_type]);
    output::table(&["GROUP", "STATE", "TYPE"], rows)
}

async fn describe(options: &Options, admin: &Admin, group: &str) -> Outcome {
    let description = admin.describe_group(group).await?;
    let progress = progress(admin, group, &description).await?;
    if options.json() {
        return output::json(&as_json(&description, &progress));
    }
    let GroupDescription { state, protocol, generation, members, .. } = &description;
    let protocol = if protocol.is_empty() { "-" } else { protocol };
    let members_total = members.len();
    output::text(&format!(
        "group {group}: {state}, generation {generation}, protocol {protocol}, {members_total} members"
    ))?;
    if !members.is_empty() {
        let row = |m: &MemberDescription| {
            vec![m.member.clone(), output::optional(m.instance.as_ref()), m.client_id.clone(), m.client_host.clone()]
        };
        output::table(&["MEMBER", "INSTANCE", "CLIENT", "HOST"], members.iter().map(row))?;
    }
    let row = |p: &Progress| {
        vec![
            p.topic.to_string(),
            p.partition.to_string(),
            p.committed.offset.to_string(),
            output::optional(p.end),
            output::optional(p.lag()),
            if p.reader.is_empty() { "-".to_owned() } else { p.reader.clone() },
        ]
    };
    output::table(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"], progress.iter().map(row))
}

async fn progress(admin: &Admin, group: &str, description: &GroupDescription) -> Outcome<Vec<Progress>> {
    let committed = admin.group_offsets(group).await?;
    let mut by_topic: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
    for (topic, partition) in committed.keys() {
        by_topic.entry(topic.clone()).or_default().push(*partition);
    }
    let mut ends = BTreeMap::new();
    for (topic, partitions) in by_topic {
        for (partition, end) in admin.offsets(&topic, &partitions, At::End).await? {
            ends.insert((topic.clone(), partition), end);
        }
    }
    let reader = |topic: &str, partition: u32| {
        let reads = |m: &&MemberDescription| {
            m.partitions.as_ref().and_then(|all| all.get(topic)).is_some_and(|numbers| numbers.contains(&partition))
        };
        description.members.iter().find(reads).map(|member| member.member.clone()).unwrap_or_default()
    };
    let one = |((topic, partition), committed): ((Arc<str>, u32), Committed)| Progress {
        end: ends.get(&(topic.clone(), partition)).copied().flatten(),
        reader: reader(&topic, partition),
        topic,
        partition,
        committed,
    };
    Ok(committed.into_iter().map(one).collect())
}

fn as_json(description: &GroupDescription, progress: &[Progress]) -> Value {
    let member = |m: &MemberDescription| {
        json!({
            "member": m.member,
            "instance": m.instance,
            "client_id": m.client_id,
            "client_host": m.client_host,
            "partitions": m.partitions,
        })
    };
    let offset = |p: &Progress| {
        json!({
            "topic": &*p.topic,
            "partition": p.partition,
            "committed": p.committed.offset.0,
            "committed_at": when::rfc3339(p.committed.committed_ms),
            "metadata": p.committed.metadata,
            "end": p.end.map(|end| end.0),
            "lag": p.lag(),
            "member": p.reader,
        })
    };
    json!({
        "group": description.group,
        "state": description.state,
        "protocol_type": description.protocol_type,
        "protocol": description.protocol,
        "generation": description.generation,
        "leader": description.leader,
        "members": description.members.iter().map(member).collect::<Vec<_>>(),
        "offsets": progress.iter().map(offset).collect::<Vec<_>>(),
    })
}

async fn seek(options: &Options, admin: &Admin, group: &str, topic: &str, to: Start, partitions: Vec<u32>) -> Outcome {
    let all = admin.partitions(topic).await?.into_iter().map(|p| p.partition);
    let partitions: Vec<u32> = if partitions.is_empty() { all.collect() } else { partitions };
    let found: BTreeMap<u32, Option<Offset>> = match to {
        Start::Offset(offset) => partitions.iter().map(|partition| (*partition, Some(offset))).collect(),
        Start::First => admin.offsets(topic, &partitions, At::Start).await?,
        Start::End => admin.offsets(topic, &partitions, At::End).await?,
        Start::Time(time) => at_time(admin, topic, &partitions, time).await?,
    };
    let name: Arc<str> = topic.into();
    let offsets: BTreeMap<(Arc<str>, u32), Offset> =
        found.into_iter().filter_map(|(partition, offset)| Some(((name.clone(), partition), offset?))).collect();
    if offsets.is_empty() {
        return Err(Failure::Usage(format!("there is nothing of topic {topic} to seek to")));
    }
    admin.commit_group_offsets(group, &offsets).await?;
    if options.json() {
        let one =
            |((_, partition), offset): (&(Arc<str>, u32), &Offset)| json!({"partition": partition, "offset": offset.0});
        let offsets: Vec<Value> = offsets.iter().map(one).collect();
        return output::json(&json!({"group": group, "topic": topic, "offsets": offsets}));
    }
    for ((_, partition), offset) in &offsets {
        eprintln!("group {group} goes on at offset {offset} of {topic} partition {partition}");
    }
    Ok(())
}

/// Where nothing is as late as that, the end.
async fn at_time(admin: &Admin, topic: &str, partitions: &[u32], time: i64) -> Outcome<BTreeMap<u32, Option<Offset>>> {
    let ends = admin.offsets(topic, partitions, At::End).await?;
    let found = admin.offsets(topic, partitions, At::Time(time)).await?;
    let or_end =
        |(partition, offset): (u32, Option<Offset>)| (partition, offset.or_else(|| ends.get(&partition).copied()?));
    Ok(found.into_iter().map(or_end).collect())
}

async fn delete(options: &Options, admin: &Admin, group: &str, topic: Option<String>) -> Outcome {
    match &topic {
        None => admin.delete_group(group).await?,
        Some(topic) => {
            let committed = admin.group_offsets(group).await?;
            let named: Vec<_> = committed.into_keys().filter(|(name, _)| **name == **topic).collect();
            admin.delete_group_offsets(group, &named).await?;
        }
    }
    if options.json() {
        return output::json(&json!({"group": group, "topic": topic, "deleted": true}));
    }
    match topic {
        None => eprintln!("group {group} deleted"),
        Some(topic) => eprintln!("what group {group} has committed of {topic} is deleted"),
    }
    Ok(())
}
