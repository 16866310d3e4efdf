//! A compacted topic beside the others: whatever befalls its copies, of every key the last
//! acknowledged record stays on each of them, and no record changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_broker::log::memory::StoredCopy;
use baton_client::admin::TopicSpec;
use baton_client::{
    Client, ClientError, ConsumerConfig, Delivery, Offset, OutOfRange, Producer, ProducerConfig, Record, Start,
};
use baton_core::batch::decode_records;
use bytes::Bytes;
use rand::Rng;

use super::load::{DELIVERY, Load, Stage};
use super::verdict::{self, DECOMPRESSED_MAX};
use super::watch::Known;

const NAME: &str = "keyed";
const PARTITIONS: u32 = 2;
const KEYS: u32 = 5;

/// Whose number its producer has among those that still have something to say.
pub(super) const SPEAKER: u32 = 1_000;

/// A value, or the word that a key is deleted.
type Value = Option<Bytes>;

#[derive(Debug, Default)]
pub(super) struct Keyed {
    /// Of every partition and key.
    said: BTreeMap<(u32, Bytes), Said>,
    /// The last reading came to the end.
    pub(super) read: bool,
}

#[derive(Debug, Default)]
struct Said {
    acknowledged: BTreeMap<u64, Value>,
    /// Nobody knows whether these were stored.
    unknown: BTreeSet<Value>,
}

impl Load {
    /// Writes the same few keys over and over.
    pub(super) async fn write_keys(self) {
        let client = self.connect(400).await;
        create(&client).await;
        tokio::spawn(self.clone().read_keys(client.clone()));
        let mut rng = self.rng(400);
        let producer = client.producer(ProducerConfig { delivery_timeout: DELIVERY, ..ProducerConfig::default() });
        let mut number = 0;
        let last = loop {
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
            let last = self.stage() > Stage::Load;
            let partition = rng.random_range(0..PARTITIONS);
            let mut under_way = Vec::new();
            for _ in 0..rng.random_range(1..6) {
                let key = Bytes::from(format!("key {}", rng.random_range(0..KEYS)));
                let filler = "x".repeat(rng.random_range(0..300));
                let value = rng.random_bool(0.85).then(|| Bytes::from(format!("{number}/{filler}")));
                number += 1;
                under_way.push(self.write(&producer, partition, key, value).await);
            }
            for written in under_way {
                self.written(written).await;
            }
            if last {
                break number;
            }
        };
        for partition in 0..PARTITIONS {
            let (key, value) = (Bytes::from_static(b"end"), Some(Bytes::from(format!("{last}"))));
            let written = self.write(&producer, partition, key, value).await;
            if !self.written(written).await {
                self.cluster.violations.add("a key was written when all was mended, and not acknowledged".to_owned());
            }
        }
        self.hush(SPEAKER);
        std::future::pending::<()>().await;
    }

    async fn write(&self, producer: &Producer, partition: u32, key: Bytes, value: Value) -> Written {
        let record =
            Record { key: Some(key.clone()), value: value.clone(), partition: Some(partition), ..Record::default() };
        Written { partition, key, value, delivery: producer.send(NAME, record).await }
    }

    /// Whether it was acknowledged.
    async fn written(&self, written: Written) -> bool {
        let Written { partition, key, value, delivery } = written;
        let Ok(delivery) = delivery else { return false };
        let outcome = delivery.await;
        let mut state = self.lock();
        let said = state.keyed.said.entry((partition, key)).or_default();
        match outcome {
            Ok(stored) => drop(said.acknowledged.insert(stored.offset.0, value)),
            Err(error) if error.maybe_stored() => drop(said.unknown.insert(value)),
            Err(_) => return false,
        }
        said.acknowledged.last_key_value().is_some()
    }

    /// Follows, and goes back to the beginning now and then; in the end reads everything.
    async fn read_keys(self, client: Client) {
        let mut rng = self.rng(401);
        let config = ConsumerConfig {
            fetch_wait: Duration::from_millis(300),
            out_of_range: OutOfRange::Start,
            ..ConsumerConfig::default()
        };
        let mut consumer = client.consumer(config);
        let beginning: Vec<_> = (0..PARTITIONS).map(|partition| (partition, Start::Offset(Offset(0)))).collect();
        while consumer.assign(NAME, &beginning).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut seen: BTreeMap<(u32, u64), (Value, Value)> = BTreeMap::new();
        let mut ends = None;
        loop {
            let ended = ends.is_none() && self.stage() == Stage::Read;
            if ended {
                ends = Some(self.ends_of_keys());
            }
            if ended || rng.random_bool(0.02) {
                for (partition, start) in &beginning {
                    let _ = consumer.seek(NAME, *partition, *start);
                }
            }
            let mut reached = BTreeSet::new();
            for record in consumer.poll(Duration::from_millis(300)).await.unwrap_or_default() {
                let (place, what) = ((record.partition, record.offset.0), (record.key, record.value));
                reached.insert(place);
                if seen.insert(place, what.clone()).is_some_and(|before| before != what) {
                    self.cluster.violations.add(format!("the record at {place:?} of {NAME} has changed"));
                }
            }
            if let Some(ends) = &mut ends {
                ends.retain(|end| !reached.contains(end));
                if ends.is_empty() {
                    break;
                }
            }
        }
        self.lock().keyed.read = true;
        std::future::pending::<()>().await;
    }

    /// Where the last record of each partition is.
    fn ends_of_keys(&self) -> BTreeSet<(u32, u64)> {
        let state = self.lock();
        let lasts = state.keyed.said.iter().filter(|((_, key), _)| key == "end");
        lasts.filter_map(|((partition, _), said)| Some((*partition, *said.acknowledged.last_key_value()?.0))).collect()
    }

    /// What every copy must still have when all is settled.
    ///
    /// # Errors
    /// Says what is not there, or not what was written.
    pub fn check_keys(&self, known: &Known) -> Result<(), String> {
        for (id, copies) in verdict::copies(&self.cluster) {
            if known.topics.get(&id.topic).is_none_or(|node| node.name != NAME) {
                continue;
            }
            for (broker, copy) in copies {
                let records = records(&copy);
                for ((_, key), said) in self.lock().keyed.said.iter().filter(|((p, _), _)| *p == id.partition) {
                    said.check(key, &records).map_err(|why| format!("broker {broker}, {id}, {key:?}: {why}"))?;
                }
            }
        }
        Ok(())
    }
}

/// A record on its way.
struct Written {
    partition: u32,
    key: Bytes,
    value: Value,
    delivery: Result<Delivery, ClientError>,
}

impl Said {
    fn check(&self, key: &Bytes, records: &BTreeMap<u64, (Value, Value)>) -> Result<(), String> {
        let of_key = || records.iter().filter(|(_, (k, _))| k.as_ref() == Some(key));
        for (offset, (_, value)) in of_key() {
            if self.acknowledged.get(offset).is_some_and(|acknowledged| acknowledged != value) {
                return Err(format!("another value than was acknowledged at {offset}"));
            }
        }
        let Some((at, value)) = self.acknowledged.last_key_value() else { return Ok(()) };
        match of_key().next_back() {
            Some((offset, _)) if offset == at => Ok(()),
            Some((offset, (_, later))) if offset > at && self.unknown.contains(later) => Ok(()),
            // A tombstone that is old enough goes, and so does what it deletes.
            None if value.is_none() || self.unknown.contains(&None) => Ok(()),
            other => Err(format!("acknowledged last at {at}, and there is {:?}", other.map(|(offset, _)| offset))),
        }
    }
}

/// Key and value of every record of a copy.
pub(super) fn records(copy: &StoredCopy) -> BTreeMap<u64, (Value, Value)> {
    let kept = copy.batches.iter().flat_map(|b| decode_records(&b.bytes, DECOMPRESSED_MAX).unwrap_or_default());
    kept.filter(|record| record.offset >= copy.start).map(|r| (r.offset.0, (r.key, r.value))).collect()
}

async fn create(client: &Client) {
    let config = [
        ("cleanup.policy", "compact"),
        ("min.insync.replicas", "2"),
        ("min.cleanable.dirty.ratio", "0.05"),
        ("delete.retention.ms", "3000"),
    ];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let spec = TopicSpec { partitions: Some(PARTITIONS), replication: Some(3), ..TopicSpec::new(NAME) };
    let spec = TopicSpec { config: BTreeMap::from(config), timeout: Duration::from_secs(10), ..spec };
    while client.admin().create_topic(spec.clone()).await.is_err() {
        // It may be there from an attempt whose answer was late.
        if client.partitions(NAME).await.is_ok_and(|n| n == PARTITIONS) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> Value {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn verdict(acknowledged: &[(u64, Value)], unknown: &[Value], there: &[(u64, Value)]) -> bool {
        let said =
            Said { acknowledged: acknowledged.iter().cloned().collect(), unknown: unknown.iter().cloned().collect() };
        let records = there.iter().map(|(offset, v)| (*offset, (value("key"), v.clone()))).collect();
        said.check(&Bytes::from_static(b"key"), &records).is_ok()
    }

    #[test]
    fn the_last_acknowledged_word_has_to_be_there() {
        let acknowledged = [(3, value("a")), (7, value("b"))];
        assert!(verdict(&acknowledged, &[], &[(7, value("b"))]));
        assert!(verdict(&acknowledged, &[], &[(3, value("a")), (7, value("b"))]));
        assert!(!verdict(&acknowledged, &[], &[]), "lost");
        assert!(!verdict(&acknowledged, &[], &[(3, value("a"))]), "an older one came back");
        assert!(!verdict(&acknowledged, &[], &[(7, value("c"))]), "changed");
        assert!(!verdict(&acknowledged, &[], &[(3, value("c")), (7, value("b"))]), "an older one changed");
        assert!(!verdict(&acknowledged, &[], &[(9, value("c"))]), "nobody wrote it");
        assert!(verdict(&acknowledged, &[value("c")], &[(9, value("c"))]));
    }

    #[test]
    fn only_what_was_deleted_may_be_gone() {
        let acknowledged = [(3, value("a")), (7, None)];
        assert!(verdict(&acknowledged, &[], &[]));
        assert!(verdict(&acknowledged, &[], &[(7, None)]));
        assert!(!verdict(&acknowledged, &[], &[(3, value("a"))]), "deleted, and back again");
        assert!(verdict(&[(3, value("a"))], &[None], &[]));
    }
}
