//! Records that are written once and stay, large enough to be stored apart from their keys, and
//! whose every byte is known.

use std::time::Duration;

use anyhow::{Context, ensure};
use baton_client::admin::TopicSpec;
use baton_client::{Client, ConsumerConfig, Offset, ProducerConfig, Record, Start};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Each of another length around this.
const VALUE_BYTES: usize = 1_500;

/// A topic that nobody writes to any more.
#[derive(Clone, Debug)]
pub struct Ballast {
    pub topic: String,
    pub partitions: u32,
    pub records: u64,
}

/// What became of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// All records, byte for byte.
    Whole,
    /// The first ones, byte for byte; then an error or silence.
    Refused { read: u64, why: String },
    /// Something that was never written there.
    Wrong(String),
}

impl Ballast {
    /// Creates the topic and fills it; every record is acknowledged when this returns.
    ///
    /// # Errors
    /// It cannot be created or written.
    pub async fn fill(client: &Client, name: &str, replication: u32, records: u64) -> anyhow::Result<Self> {
        let ballast = Self { topic: name.to_owned(), partitions: 4, records };
        let min = replication.div_ceil(2).to_string();
        let spec = TopicSpec::new(name).partitions(ballast.partitions).replication(replication);
        let spec = spec.config("min.insync.replicas", &min);
        client.admin().create_topic(spec).await.with_context(|| format!("creating {name}"))?;
        let producer = client.producer(ProducerConfig::default());
        let mut deliveries = Vec::new();
        for sequence in 0..records {
            for partition in 0..ballast.partitions {
                let record = Record::new(value(name, partition, sequence)).partition(partition);
                deliveries.push(producer.send(name, record).await?);
            }
        }
        for delivery in deliveries {
            delivery.wait().await.with_context(|| format!("filling {name}"))?;
        }
        Ok(ballast)
    }

    /// Reads every partition from its beginning.
    ///
    /// # Errors
    /// None: what cannot be read is in the answer.
    pub async fn check(&self, client: &Client, patience: Duration) -> Vec<Held> {
        let read = (0..self.partitions).map(|partition| self.check_partition(client, partition, patience));
        futures::future::join_all(read).await
    }

    async fn check_partition(&self, client: &Client, partition: u32, patience: Duration) -> Held {
        let mut next = 0;
        let deadline = Instant::now() + patience;
        let mut why = String::from("nothing more came");
        let mut consumer = client.consumer(ConsumerConfig::default());
        if let Err(error) = consumer.assign(&self.topic, &[(partition, Start::Offset(Offset(0)))]).await {
            return Held::Refused { read: 0, why: error.to_string() };
        }
        while next < self.records && Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(200)).await {
                Ok(records) => {
                    for record in records {
                        let expected = value(&self.topic, partition, next);
                        if record.offset.0 != next || record.value.as_deref() != Some(expected.as_slice()) {
                            let what =
                                format!("partition {partition}: offset {} in the place of {next}", record.offset);
                            return Held::Wrong(what);
                        }
                        next += 1;
                    }
                }
                Err(error) => {
                    why = error.to_string();
                    // That partition rests now: begin again where it stopped.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    consumer = client.consumer(ConsumerConfig::default());
                    if let Err(error) = consumer.assign(&self.topic, &[(partition, Start::Offset(Offset(next)))]).await
                    {
                        why = error.to_string();
                    }
                }
            }
        }
        if next == self.records { Held::Whole } else { Held::Refused { read: next, why } }
    }

    /// Fails unless every partition is whole.
    ///
    /// # Errors
    /// What is not.
    pub async fn whole(&self, client: &Client, patience: Duration) -> anyhow::Result<()> {
        let held = self.check(client, patience).await;
        ensure!(held.iter().all(|held| *held == Held::Whole), "{}: {held:?}", self.topic);
        Ok(())
    }
}

/// The bytes of one record.
fn value(topic: &str, partition: u32, sequence: u64) -> Vec<u8> {
    let seed = xxh3_64_with_seed(topic.as_bytes(), u64::from(partition) << 32 | sequence);
    let length = VALUE_BYTES / 2 + usize::try_from(seed % VALUE_BYTES as u64).unwrap_or(0);
    let words = (0..length.div_ceil(8) as u64).flat_map(|n| xxh3_64_with_seed(&n.to_le_bytes(), seed).to_le_bytes());
    words.take(length).collect()
}
