//! Questions for offsets, put to the leaders.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use baton_core::{BrokerId, Epoch, Error, ErrorCode, Offset};
use baton_proto::v1::{self, list_offsets_partition::At};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, timeout};

use crate::{
    client::Shared,
    error::{Attempt, ClientError},
    metadata::PartitionName,
    net::{self, Purpose},
};

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Start,
    End,
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
    /// Delete what lies below, or below the end, and say where the partition begins then.
    Delete(Option<Offset>),
}

/// None: there is no record at or after that time.
pub(crate) type Listed = Result<Option<Offset>, ClientError>;

/// A question with the epoch of the leader that it is put to.
type Part = (PartitionName, Ask, Epoch);

/// How long one leader may take before another is looked for.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Asks the leaders, and again whoever leads then, until all have answered or time is up.
pub(crate) async fn list(
    shared: &Shared,
    asked: Vec<(PartitionName, Ask)>,
    within: Duration,
) -> BTreeMap<PartitionName, Listed> {
    let deadline = Instant::now() + within;
    let mut open: BTreeMap<PartitionName, Ask> = asked.into_iter().collect();
    let mut found = BTreeMap::new();
    let mut last = BTreeMap::new();
    let mut failures = 0;
    let topics: BTreeSet<Arc<str>> = open.keys().map(|(topic, _)| topic.clone()).collect();
    for topic in topics {
        if let Err(error) = shared.topic(&topic).await {
            let gone: Vec<PartitionName> = open.keys().filter(|(name, _)| *name == topic).cloned().collect();
            for name in gone {
                open.remove(&name);
                found.insert(name, Err(error.clone()));
            }
        }
    }
    while !open.is_empty() && Instant::now() < deadline {
        for (name, listed) in round(shared, &open, deadline).await {
            match listed {
                Err(error) if error.retriable() => {
                    last.insert(name, error);
                }
                listed => {
                    open.remove(&name);
                    found.insert(name, listed);
                }
            }
        }
        if !open.is_empty() {
            let wait = shared.dice.backoff(Duration::from_millis(20), Duration::from_millis(500), failures);
            failures += 1;
            shared.view_changed(deadline.min(Instant::now() + wait)).await;
        }
    }
    for (name, _) in open {
        let last = last.remove(&name).map(Box::new);
        let what = format!("asking for offsets of {} partition {}", name.0, name.1);
        found.insert(name, Err(ClientError::TimedOut { what, after: within, last }));
    }
    found
}

async fn round(
    shared: &Shared,
    open: &BTreeMap<PartitionName, Ask>,
    deadline: Instant,
) -> Vec<(PartitionName, Listed)> {
    let view = shared.metadata.view();
    let mut by_leader: BTreeMap<BrokerId, (String, Vec<Part>)> = BTreeMap::new();
    let mut answers = Vec::new();
    let now = Instant::now();
    for (name, ask) in open {
        let (topic, partition) = name;
        if let Some((broker, epoch, address)) = view.leader(topic, *partition) {
            let entry = by_leader.entry(broker).or_insert_with(|| (address.to_owned(), Vec::new()));
            entry.1.push((name.clone(), *ask, epoch));
        } else {
            let count = view.topics.get(topic).map_or(0, |topic| topic.partitions.len());
            let error = if (*partition as usize) < count {
                shared.metadata.leader_lost(
                    topic,
                    *partition,
                    view.leadership(topic, *partition).unwrap_or_default().epoch,
                    now,
                );
                Error::new(ErrorCode::NoLeader, "nobody leads it")
            } else {
                Error::new(ErrorCode::UnknownPartition, format!("there are {count} partitions"))
            };
            answers.push((name.clone(), Err(error.topic(&**topic).partition(*partition).into())));
        }
    }
    let mut calls: FuturesUnordered<_> =
        by_leader.into_values().map(|(address, parts)| ask_leader(shared, address, parts, deadline)).collect();
    while let Some(some) = calls.next().await {
        answers.extend(some);
    }
    answers
}

/// One call for all of it: either questions, or deletions.
async fn call(
    shared: &Shared,
    address: &str,
    parts: &[Part],
    limit: Duration,
) -> Result<Vec<v1::ListOffsetsResult>, ClientError> {
    let mut broker = shared.pool.broker(address, Purpose::Control)?;
    let (mut listed, mut deleted) = (Vec::new(), Vec::new());
    for ((topic, partition), ask, _) in parts {
        let (topic, partition) = (topic.to_string(), *partition);
        let at = match ask {
            Ask::Start => At::Start(true),
            Ask::End => At::End(true),
            Ask::Time(time) => At::TimestampMs(*time),
            Ask::Delete(before) => {
                let before = before.map(|before| before.0);
                deleted.push(v1::DeleteRecordsPartition { topic, partition, before });
                continue;
            }
        };
        listed.push(v1::ListOffsetsPartition { topic, partition, at: Some(at) });
    }
    let mut results = Vec::new();
    if !listed.is_empty() {
        let answer = broker.list_offsets(v1::ListOffsetsRequest { partitions: listed }).await;
        results = answer.map_err(|status| net::status_error(address, &status))?.into_inner().results;
    }
    if !deleted.is_empty() {
        let timeout_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let request = v1::DeleteRecordsRequest { timeout_ms, partitions: deleted };
        let answer = broker.delete_records(request).await.map_err(|status| net::status_error(address, &status))?;
        results.extend(answer.into_inner().results.into_iter().map(|result| v1::ListOffsetsResult {
            topic: result.topic,
            partition: result.partition,
            offset: result.log_start,
            error: result.error,
            ..v1::ListOffsetsResult::default()
        }));
    }
    Ok(results)
}

async fn ask_leader(
    shared: &Shared,
    address: String,
    parts: Vec<Part>,
    deadline: Instant,
) -> Vec<(PartitionName, Listed)> {
    let started = Instant::now();
    let limit = ATTEMPT.min(deadline.saturating_duration_since(started));
    let answer = async {
        match timeout(limit, call(shared, &address, &parts, limit)).await {
            Ok(answer) => answer,
            Err(_) => {
                let reason = format!("no answer within {limit:?}");
                Err(ClientError::Unreachable(vec![Attempt { address: address.clone(), reason }]))
            }
        }
    };
    let results = match answer.await {
        Ok(results) => results,
        Err(error) => {
            for ((topic, partition), _, epoch) in &parts {
                shared.metadata.leader_lost(topic, *partition, *epoch, started);
            }
            return parts.into_iter().map(|(name, _, _)| (name, Err(error.clone()))).collect();
        }
    };
    let mut answers = Vec::new();
    for (name, _, epoch) in parts {
        let result = results.iter().find(|result| result.topic == *name.0 && result.partition == name.1);
        let listed = match result {
            None => Err(ClientError::Protocol(format!("{address} left {} partition {} out", name.0, name.1))),
            Some(v1::ListOffsetsResult { error: Some(error), .. }) => {
                if let Some(leader) = &error.leader {
                    shared.metadata.hint(&name.0, name.1, leader);
                }
                let error = Error::from(error);
                if matches!(error.code, ErrorCode::NotLeader | ErrorCode::NoLeader | ErrorCode::ShuttingDown) {
                    shared.metadata.leader_lost(&name.0, name.1, epoch, started);
                }
                Err(error.into())
            }
            Some(result) => Ok(Offset::from_wire(result.offset)),
        };
        answers.push((name, listed));
    }
    answers
}
