//! Random calls against a plain vector: whatever was acknowledged is there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_core::{Epoch, Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::{Harness, batch, id};
use crate::log::{Append, Compaction, LocalPartition, Log, LogError, PartitionMeta, StoredBatch};

const SEEDS: u64 = 6;
const STEPS: usize = 250;

#[derive(Clone, Debug, Default)]
struct Copy {
    local: LocalPartition,
    generation: Generation,
    start: u64,
    end: u64,
    batches: Vec<StoredBatch>,
    meta: PartitionMeta,
}

struct Model {
    random: StdRng,
    copies: BTreeMap<TopicPartition, Copy>,
    numbers: BTreeSet<LocalPartition>,
    epoch: u32,
}

/// Runs every seed on a storage of its own. `BATON_SEED` names a single one.
pub(crate) async fn run<H: Harness>(harness: impl Fn() -> H) {
    let chosen = std::env::var("BATON_SEED").ok().and_then(|s| s.parse().ok());
    let seeds = chosen.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed} (BATON_SEED={seed} runs only this one)");
        let mut harness = harness();
        let mut log = harness.open();
        let random = StdRng::seed_from_u64(seed);
        let mut model = Model { random, copies: BTreeMap::new(), numbers: BTreeSet::new(), epoch: 1 };
        for _ in 0..STEPS {
            if model.random.random_ratio(1, 25) {
                if model.random.random() {
                    log.close().await.unwrap();
                }
                log = harness.reopen(log);
                model.check_recovered(&log);
            }
            model.step(&log).await;
        }
        model.check_all(&log).await;
    }
}

impl Model {
    fn pick(&mut self) -> Option<TopicPartition> {
        self.copies.keys().copied().choose(&mut self.random)
    }

    async fn step(&mut self, log: &Arc<dyn Log>) {
        let Some(chosen) = self.pick() else {
            return self.create(log).await;
        };
        match self.random.random_range(0..100) {
            0..6 => self.create(log).await,
            6..8 => self.delete(log, chosen).await,
            8..45 => self.append(log).await,
            45..60 => self.read(log, chosen).await,
            60..70 => self.find_time(log, chosen).await,
            70..79 => self.truncate(log, chosen).await,
            79..86 => self.set_start(log, chosen).await,
            86..89 => self.reset(log, chosen).await,
            89..94 => self.save(log, chosen).await,
            94..97 => self.rewrite(log, chosen).await,
            _ => self.check_all(log).await,
        }
    }

    async fn create(&mut self, log: &Arc<dyn Log>) {
        let id = id(self.random.random_range(0..12));
        let start = self.random.random_range(0..50);
        let created = log.create(id, Generation(0), Offset(start)).await;
        if self.copies.contains_key(&id) {
            assert!(matches!(created, Err(LogError::Refused(_))), "{id} twice: {created:?}");
            return;
        }
        let local = created.unwrap();
        assert!(self.numbers.insert(local), "{local:?} was used before");
        self.copies.insert(id, Copy { local, start, end: start, ..Copy::default() });
    }

    async fn delete(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        if let Some(copy) = self.copies.remove(&chosen) {
            log.delete(copy.local).await.unwrap();
        }
    }

    fn new_batches(&mut self, chosen: TopicPartition) -> Append {
        let count = self.random.random_range(1..5);
        let copy = self.copies.get_mut(&chosen).unwrap();
        let mut batches = Vec::new();
        for _ in 0..count {
            let records = self.random.random_range(1..20);
            let stamp = self.random.random_range(-10..1_000);
            let large = self.random.random_ratio(1, 10);
            let payload = self.random.random_range(0..if large { 9_000 } else { 900 });
            let batch = batch(copy.end, records, self.epoch, stamp, payload);
            copy.end += u64::from(records);
            batches.push(batch);
        }
        copy.batches.extend(batches.iter().cloned());
        Append { partition: copy.local, batches }
    }

    /// Several calls before the first answer.
    async fn append(&mut self, log: &Arc<dyn Log>) {
        let mut calls = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let mut appends = Vec::new();
            for _ in 0..self.random.random_range(1..4) {
                let Some(chosen) = self.pick() else { return };
                appends.push(self.new_batches(chosen));
            }
            calls.push(log.append(appends));
        }
        for answer in join_all(calls).await {
            for end in answer.unwrap() {
                assert!(self.copies.values().any(|c| c.local == end.partition && c.end >= end.end.0));
            }
        }
    }

    async fn read(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = &self.copies[&chosen];
        let from = self.random.random_range(copy.start.saturating_sub(3)..copy.end + 3);
        let max_bytes = self.random.random_range(0..20_000);
        let read = log.read(copy.local, Offset(from), max_bytes).await;
        if from < copy.start {
            let (at, start) = (Offset(from), Offset(copy.start));
            assert_eq!(read, Err(LogError::BelowStart { at, start }));
            return;
        }
        let mut bytes = 0;
        let from_here = copy.batches.iter().filter(|b| b.last.0 >= from).enumerate();
        let bounded = from_here.take_while(|(n, b)| {
            bytes += b.bytes.len();
            *n == 0 || bytes <= max_bytes
        });
        let expected: Vec<_> = bounded.map(|(_, b)| b.clone()).collect();
        assert_eq!(read.unwrap().batches, expected, "from {from}, {max_bytes} bytes");
    }

    async fn find_time(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = &self.copies[&chosen];
        let time = self.random.random_range(-20..1_020);
        let found = copy.batches.iter().find(|b| b.max_timestamp_ms >= time);
        let expected = found.map(|b| b.base.max(Offset(copy.start)));
        assert_eq!(log.find_time(copy.local, time).await, Ok(expected), "time {time}");
    }

    async fn truncate(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = self.copies.get_mut(&chosen).unwrap();
        let to = if self.random.random_ratio(1, 4) {
            self.random.random_range(copy.start..=copy.end)
        } else {
            let bases = copy.batches.iter().map(|b| b.base.0).filter(|b| *b >= copy.start);
            bases.choose(&mut self.random).unwrap_or(copy.end)
        };
        log.truncate(copy.local, Offset(to), None).await.unwrap();
        if let Some(cut) = copy.batches.iter().position(|b| b.last.0 >= to) {
            copy.end = copy.batches[cut].base.0.max(copy.start);
            copy.batches.truncate(cut);
        }
        self.epoch += 1;
    }

    async fn set_start(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = self.copies.get_mut(&chosen).unwrap();
        let start = self.random.random_range(copy.start..=copy.end);
        log.set_start(copy.local, Offset(start), None).await.unwrap();
        copy.start = start;
        copy.batches.retain(|b| b.last.0 >= start);
    }

    async fn reset(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = self.copies.get_mut(&chosen).unwrap();
        copy.generation = copy.generation.next();
        (copy.start, copy.batches) = (self.random.random_range(0..200), Vec::new());
        copy.end = copy.start;
        copy.meta = PartitionMeta { highest_epoch: copy.meta.highest_epoch, ..PartitionMeta::default() };
        log.reset(copy.local, copy.generation, Offset(copy.start), Bytes::new()).await.unwrap();
    }

    /// Some neighbours of one epoch become one batch.
    async fn rewrite(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let payload = self.random.random_range(0..900);
        let copy = self.copies.get_mut(&chosen).unwrap();
        let Some(first) = (0..copy.batches.len()).choose(&mut self.random) else { return };
        let epoch = copy.batches[first].epoch;
        let same = copy.batches[first..].iter().take_while(|b| b.epoch == epoch).count();
        let last = first + self.random.random_range(0..same);
        let covered = &copy.batches[first..=last];
        let (base, end) = (covered[0].base.0, covered[last - first].end().0);
        let stamp = covered.iter().map(|b| b.max_timestamp_ms).max().unwrap();
        let merged = batch(base, u32::try_from(end - base).unwrap(), epoch.0, stamp, payload);
        copy.batches.splice(first..=last, [merged.clone()]);
        copy.meta.compaction.rewritten_to = Offset(end);
        log.rewrite(copy.local, vec![merged], copy.meta.clone()).await.unwrap();
    }

    async fn save(&mut self, log: &Arc<dyn Log>, chosen: TopicPartition) {
        let copy = self.copies.get_mut(&chosen).unwrap();
        let producers = vec![1; self.random.random_range(0..2_000)];
        copy.meta = PartitionMeta {
            highest_epoch: Epoch(self.epoch),
            lineage: vec![(Epoch(1), Offset(0)), (Epoch(self.epoch), Offset(copy.end))],
            high_watermark: Offset(copy.start),
            producers: Bytes::from(producers),
            producers_at: Offset(copy.end),
            compaction: Compaction { clean_to: Offset(copy.start), ..Compaction::default() },
        };
        log.save(copy.local, copy.meta.clone()).await.unwrap();
    }

    fn check_recovered(&self, log: &Arc<dyn Log>) {
        let recovered = log.recovered();
        assert_eq!(recovered.len(), self.copies.len());
        for (id, copy) in &self.copies {
            let found = &recovered[&copy.local];
            assert_eq!((found.id, found.generation), (*id, copy.generation));
            assert_eq!((found.start.0, found.end.0), (copy.start, copy.end));
            assert_eq!((&found.meta, &found.damage), (&copy.meta, &None));
        }
    }

    async fn check_all(&self, log: &Arc<dyn Log>) {
        for copy in self.copies.values() {
            let read = log.read(copy.local, Offset(copy.start), usize::MAX).await.unwrap();
            assert_eq!(read.batches, copy.batches);
        }
    }
}
