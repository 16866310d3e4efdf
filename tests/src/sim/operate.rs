//! Those who administer: what the plan says, and what an operator does when a partition of the
//! drafts is without a leader in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_client::admin::{At, PartitionDescription, TopicSpec};
use baton_client::{BrokerId, Client, ClientError, Offset};
use tokio::sync::mpsc;

use super::load::{Load, Stage};
use super::plan::What;
use super::topic::{Place, Topic};

/// An operator gives up hope after so many looks, 500 ms apart.
const LOOKS_MAX: u32 = 8;

impl Load {
    /// Makes the topics, and then what the plan says.
    pub(super) async fn administer(self, mut orders: mpsc::UnboundedReceiver<What>, retention_bytes: Option<u64>) {
        let client = self.connect(1).await;
        for topic in Topic::ALL {
            create(&client, topic, retention_bytes.filter(|_| topic == Topic::Orders)).await;
        }
        tokio::spawn(self.clone().operate(client.clone()));
        while let Some(what) = orders.recv().await {
            let (client, this) = (client.clone(), self.clone());
            tokio::spawn(async move {
                for _ in 0..attempts(&what) {
                    let Err(error) = this.change(&client, &what).await else { return };
                    tracing::info!(?what, %error, "the change was refused, or its answer was lost");
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            });
        }
    }

    async fn change(&self, client: &Client, what: &What) -> Result<(), ClientError> {
        match what {
            What::DeleteRecords { partition, percent } => self.delete_records(client, *partition, *percent).await,
            _ => change(client, what).await,
        }
    }

    async fn delete_records(&self, client: &Client, partition: u32, percent: u32) -> Result<(), ClientError> {
        let (admin, topic) = (client.admin(), Topic::Orders.name());
        let at = async |at| admin.offsets(topic, &[partition], at).await.map(|found| found.get(&partition).copied());
        let (start, end) = (at(At::Start).await?.flatten(), at(At::End).await?.flatten());
        let (Some(Offset(start)), Some(Offset(end))) = (start, end) else { return Ok(()) };
        let before = start + end.saturating_sub(start) * u64::from(percent) / 100;
        self.lock().note_asked(Place { topic: Topic::Orders, partition }, before);
        let starts = admin.delete_records(topic, &[partition], Some(Offset(before))).await?;
        let told = starts.get(&partition).map_or(0, |start| start.0);
        if told < before {
            self.cluster.violations.add(format!("records below {before} were deleted, and the log begins at {told}"));
        }
        let mut state = self.lock();
        let deleted = state.deleted.entry(Place { topic: Topic::Orders, partition }).or_default();
        *deleted = told.max(*deleted);
        Ok(())
    }

    /// In the end a partition of the drafts may have lost the only copy that counts: then an
    /// operator believes another one.
    async fn operate(self, client: Client) {
        let mut stage = self.stage.clone();
        if stage.wait_for(|stage| *stage >= Stage::Settle).await.is_err() {
            return;
        }
        let mut looks: BTreeMap<u32, u32> = BTreeMap::new();
        while self.stage() == Stage::Settle {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let Ok(partitions) = client.admin().partitions(Topic::Drafts.name()).await else { continue };
            for partition in partitions {
                // The registry may name a leader that is gone for ever.
                if partition.high_watermark.is_some() {
                    looks.remove(&partition.partition);
                    continue;
                }
                let looked = looks.entry(partition.partition).or_default();
                *looked += 1;
                if *looked >= LOOKS_MAX {
                    believe(&client, &partition, *looked - LOOKS_MAX).await;
                }
            }
        }
    }
}

/// Whoever believes one copy repeats it: others may have been elected meanwhile.
fn attempts(what: &What) -> u32 {
    if matches!(what, What::ElectUnclean { .. }) { 4 } else { 1 }
}

async fn believe(client: &Client, partition: &PartitionDescription, attempt: u32) {
    let Some(broker) = partition.replicas.iter().cycle().nth(attempt as usize % 16) else { return };
    let done = client.admin().elect_unclean(Topic::Drafts.name(), partition.partition, *broker, true).await;
    tracing::info!(partition = partition.partition, %broker, ?done, "the operator believes another copy");
}

async fn create(client: &Client, topic: Topic, retention_bytes: Option<u64>) {
    let name = topic.name();
    let spec = TopicSpec { partitions: Some(topic.partitions()), replication: Some(3), ..TopicSpec::new(name) };
    let mut config = BTreeMap::from([("min.insync.replicas".to_owned(), topic.min_insync().to_string())]);
    config.extend(retention_bytes.map(|bytes| ("retention.bytes".to_owned(), bytes.to_string())));
    let spec = TopicSpec { config, timeout: Duration::from_secs(10), ..spec };
    while client.admin().create_topic(spec.clone()).await.is_err() {
        // It may be there from an attempt whose answer was late.
        if client.partitions(name).await.is_ok_and(|n| n == topic.partitions()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn change(client: &Client, what: &What) -> Result<(), ClientError> {
    let admin = client.admin();
    match what {
        What::CreateTopic { number, partitions, replication } => {
            let spec = TopicSpec::new(format!("t{number}")).partitions(*partitions).replication(*replication);
            admin.create_topic(TopicSpec { timeout: Duration::from_secs(10), ..spec }).await.map(drop)
        }
        What::DeleteTopic { number } => admin.delete_topic(&format!("t{number}")).await,
        What::AddPartition => {
            let topic = Topic::Orders.name();
            let known = client.partitions(topic).await?;
            admin.add_partitions(topic, known + 1, true).await.map(drop)
        }
        What::MinInsync { topic, replicas } => {
            let set = BTreeMap::from([("min.insync.replicas".to_owned(), replicas.to_string())]);
            admin.alter_topic(topic.name(), set, Vec::new()).await.map(drop)
        }
        What::Reassign { place, replicas } => {
            let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
            admin.reassign(place.topic.name(), place.partition, &replicas).await
        }
        What::ElectPreferred { place } => admin.elect_preferred(place.topic.name(), place.partition).await,
        What::ElectUnclean { partition, broker } => {
            admin.elect_unclean(Topic::Drafts.name(), *partition, BrokerId(*broker), true).await
        }
        _ => Ok(()),
    }
}
