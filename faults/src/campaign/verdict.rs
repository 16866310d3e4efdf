//! The verdict on a window, and on everything after the last one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use baton_client::{Admin, BrokerId, Client, ConsumerConfig, ErrorCode, Offset, Start};
use baton_history::Report;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::TOPIC;
use super::load::Cut;
use crate::events::check;
use crate::history::{History, Stored};
use crate::load::{LoadShape, ends, read_all, stored};
use crate::observer::Observer;

/// What every partition held, folded into a number: two readings that agree in it agree in
/// everything that they read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains(BTreeMap<u32, Chain>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chain {
    next: u64,
    epoch: u32,
    hash: u64,
    /// Holes, and places where the epoch falls.
    breaks: u64,
}

impl Chains {
    /// Adds a record. Offsets that are left out change the hash as well.
    pub fn add(&mut self, partition: u32, record: &Stored) {
        let chain = self.0.entry(partition).or_default();
        let mut bytes = [0; 28];
        bytes[..8].copy_from_slice(&record.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&record.epoch.to_le_bytes());
        if let Some(id) = record.id {
            bytes[12..16].copy_from_slice(&(id.producer + 1).to_le_bytes());
            bytes[16..20].copy_from_slice(&id.partition.to_le_bytes());
            bytes[20..].copy_from_slice(&id.sequence.to_le_bytes());
        }
        *chain = Chain {
            next: record.offset + 1,
            epoch: record.epoch,
            hash: xxh3_64_with_seed(&bytes, chain.hash),
            breaks: chain.breaks + u64::from(record.offset != chain.next || record.epoch < chain.epoch),
        };
    }

    /// The partitions with holes or falling epochs, between windows, too.
    #[must_use]
    pub fn broken(&self) -> Vec<u32> {
        self.0.iter().filter(|(_, chain)| chain.breaks > 0).map(|(partition, _)| *partition).collect()
    }

    /// The partitions in which two readings differ.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<u32> {
        let all = self.0.keys().chain(other.0.keys()).copied();
        let mut differing: Vec<u32> = all.filter(|partition| self.0.get(partition) != other.0.get(partition)).collect();
        differing.sort_unstable();
        differing.dedup();
        differing
    }

    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.values().map(|chain| chain.next).sum()
    }
}

/// A window with its verdict.
#[derive(Debug)]
pub struct Judged {
    pub history: History,
    pub carried: usize,
    pub report: Report,
    /// Of this window and all before it.
    pub chains: Chains,
}

/// Reads the window again from its leaders, and holds everything that was promised against it.
///
/// # Errors
/// It cannot be read within `within`.
pub async fn judge(
    client: Client,
    shape: LoadShape,
    mut cut: Cut,
    mut chains: Chains,
    within: Duration,
) -> anyhow::Result<Judged> {
    let again = read_all(&client, &shape, &cut.history.base, &cut.history.ends, within).await;
    cut.history.log = again.context("reading the window again")?;
    for (partition, log) in &mut cut.history.log {
        // The load goes on, and what comes after the window is the next one's.
        let end = cut.history.ends.get(partition).copied().unwrap_or(0);
        log.truncate(log.partition_point(|record| record.offset < end));
        log.iter().for_each(|record| chains.add(*partition, record));
    }
    let report = check(&cut.history)?;
    Ok(Judged { history: cut.history, carried: cut.carried, report, chains })
}

/// Reads everything from the first record on.
///
/// # Errors
/// Not within `within`.
pub async fn read_whole(client: &Client, shape: &LoadShape, within: Duration) -> anyhow::Result<Chains> {
    let ends = ends(client, shape, within).await?;
    let deadline = Instant::now() + within;
    let mut consumer = client.consumer(ConsumerConfig::default());
    let starts: Vec<(u32, Start)> = ends.keys().map(|partition| (*partition, Start::Offset(Offset(0)))).collect();
    consumer.assign(&shape.topic, &starts).await?;
    let mut chains = Chains::default();
    let reached = |chains: &Chains| ends.iter().all(|(p, end)| chains.0.get(p).map_or(0, |chain| chain.next) >= *end);
    while !reached(&chains) {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            chains.add(record.partition, &stored(&record));
        }
        ensure!(Instant::now() < deadline, "not everything can be read within {within:?}");
    }
    Ok(chains)
}

/// Makes every replica of every partition the leader once, and reads what it holds. Returns the
/// partitions in which one differs from what was read before, and from whom.
///
/// # Errors
/// A leader cannot be moved, or not everything be read.
pub async fn compare_replicas(
    client: &Client,
    observer: &Observer,
    shape: &LoadShape,
    expected: &Chains,
    within: Duration,
) -> anyhow::Result<Vec<String>> {
    let admin = client.admin();
    let described = admin.describe_topic(TOPIC).await?;
    let replicas = described.partitions.first().map_or(0, |partition| partition.replicas.len());
    let mut differing = Vec::new();
    for turn in 0..replicas {
        let mut leaders = BTreeMap::new();
        for partition in &described.partitions {
            let mut order = partition.replicas.clone();
            order.sort_unstable();
            order.rotate_left(turn);
            lead(&admin, partition.partition, &order, within).await?;
            leaders.insert(partition.partition, order[0]);
        }
        let wanted: Vec<BrokerId> = leaders.values().copied().collect();
        settle(&admin, observer, &leaders, within).await.with_context(|| format!("leaders {wanted:?}"))?;
        let held = read_whole(client, shape, within).await?;
        let differs = held.differing(expected);
        differing.extend(differs.iter().map(|p| format!("partition {p} on broker {:?}", leaders.get(p))));
    }
    Ok(differing)
}

/// Makes one broker the leader of every partition and reads what it holds, up to where
/// `expected` ends: more may have been written since.
///
/// # Errors
/// It cannot be made the leader, or holds something else.
pub async fn read_from_one(
    client: &Client,
    observer: &Observer,
    shape: &LoadShape,
    broker: BrokerId,
    expected: &Chains,
    within: Duration,
) -> anyhow::Result<()> {
    let admin = client.admin();
    let described = admin.describe_topic(TOPIC).await?;
    let mut leaders = BTreeMap::new();
    for partition in &described.partitions {
        let mut order = partition.replicas.clone();
        order.sort_by_key(|replica| (*replica != broker, *replica));
        if order.first() == Some(&broker) {
            lead(&admin, partition.partition, &order, within).await?;
            leaders.insert(partition.partition, broker);
        }
    }
    settle(&admin, observer, &leaders, within).await?;
    let held = read_up_to(client, shape, expected, within).await?;
    let differing = held.differing(expected);
    ensure!(differing.is_empty(), "broker {broker} holds something else in {differing:?}");
    Ok(())
}

/// As much of everything as `expected` covers.
async fn read_up_to(client: &Client, shape: &LoadShape, expected: &Chains, within: Duration) -> anyhow::Result<Chains> {
    let deadline = Instant::now() + within;
    let mut consumer = client.consumer(ConsumerConfig::default());
    let starts: Vec<(u32, Start)> = expected.0.keys().map(|p| (*p, Start::Offset(Offset(0)))).collect();
    consumer.assign(&shape.topic, &starts).await?;
    let mut held = Chains::default();
    let next = |chains: &Chains, p: &u32| chains.0.get(p).map_or(0, |chain| chain.next);
    while !expected.0.iter().all(|(p, chain)| next(&held, p) >= chain.next) {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            if record.offset.0 < next(expected, &record.partition) {
                held.add(record.partition, &stored(&record));
            }
        }
        ensure!(Instant::now() < deadline, "not everything can be read within {within:?}");
    }
    Ok(held)
}

/// Asks for a leader: the first of a partition's replicas.
async fn lead(admin: &Admin, partition: u32, order: &[BrokerId], within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let asked = admin.reassign(TOPIC, partition, order).await;
        match asked {
            Ok(()) => return Ok(()),
            Err(error) if error.retriable() || error.code() == ErrorCode::Unreachable => {
                ensure!(Instant::now() < deadline, "reassigning partition {partition}: {error}");
            }
            Err(error) => bail!("reassigning partition {partition}: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for elections until every partition is led by whom it should be.
async fn settle(
    admin: &Admin,
    observer: &Observer,
    leaders: &BTreeMap<u32, BrokerId>,
    within: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let sample = observer.sample();
        let is = |(p, leader): &(&u32, &BrokerId)| sample.get(p).is_some_and(|seen| seen.leader == Some(**leader));
        let late: Vec<u32> = leaders.iter().filter(|entry| !is(entry)).map(|(p, _)| *p).collect();
        if late.is_empty() {
            return Ok(());
        }
        let mut last = String::new();
        for partition in &late {
            if let Err(error) = admin.elect_preferred(TOPIC, *partition).await {
                last = error.to_string();
            }
        }
        ensure!(Instant::now() < deadline, "partitions {late:?} are led by others: {last}");
        sleep(Duration::from_millis(300)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::RecordId;

    fn record(offset: u64, sequence: u64) -> Stored {
        Stored { offset, epoch: 1, id: Some(RecordId { producer: 0, partition: 0, sequence }) }
    }

    fn chains(records: &[Stored]) -> Chains {
        let mut chains = Chains::default();
        records.iter().for_each(|record| chains.add(0, record));
        chains
    }

    #[test]
    fn whatever_differs_changes_the_chain() {
        let whole = chains(&[record(0, 0), record(1, 1), record(2, 2)]);
        assert_eq!(whole.differing(&whole.clone()), Vec::<u32>::new());
        assert_eq!(whole.records(), 3);
        assert!(whole.broken().is_empty());
        assert_eq!(chains(&[record(0, 0), record(2, 2)]).broken(), vec![0]);
        let others: [&[Stored]; 5] = [
            &[record(0, 0), record(1, 1)],
            &[record(0, 0), record(1, 2), record(2, 1)],
            &[record(0, 0), record(2, 2)],
            &[record(0, 0), Stored { epoch: 2, ..record(1, 1) }, record(2, 2)],
            &[record(0, 0), Stored { id: None, ..record(1, 1) }, record(2, 2)],
        ];
        for other in others {
            assert_eq!(whole.differing(&chains(other)), vec![0], "{other:?}");
        }
    }
}
