use super::*;
use baton_core::Epoch;
use bytes::Bytes;
use proptest::prelude::*;

const P: LocalPartition = LocalPartition(1);
const Q: LocalPartition = LocalPartition(2);

fn batch(base: u64, last: u64, len: usize) -> StoredBatch {
    StoredBatch {
        base: Offset(base),
        last: Offset(last),
        epoch: Epoch(1),
        max_timestamp_ms: 0,
        bytes: Bytes::from(vec![0; len]),
    }
}

fn bases(read: Option<Vec<StoredBatch>>) -> Option<Vec<u64>> {
    read.map(|batches| batches.iter().map(|batch| batch.base.0).collect())
}

fn filled() -> TailCache {
    let mut cache = TailCache::new(1 << 20);
    cache.push(P, batch(10, 14, 100));
    cache.push(P, batch(15, 15, 100));
    cache.push(P, batch(16, 20, 100));
    cache
}

#[test]
fn a_read_starts_with_the_batch_that_contains_the_offset() {
    let cache = filled();
    assert_eq!(bases(cache.read(P, Offset(10), 1 << 20)), Some(vec![10, 15, 16]));
    assert_eq!(bases(cache.read(P, Offset(14), 1 << 20)), Some(vec![10, 15, 16]));
    assert_eq!(bases(cache.read(P, Offset(20), 1 << 20)), Some(vec![16]));
    assert_eq!(cache.read(P, Offset(9), 1 << 20), None, "below what is cached");
    assert_eq!(cache.read(P, Offset(21), 1 << 20), None, "at the end");
    assert_eq!(cache.read(Q, Offset(10), 1 << 20), None);
}

#[test]
fn a_read_returns_at_least_one_batch_and_no_more_than_asked() {
    let cache = filled();
    assert_eq!(bases(cache.read(P, Offset(10), 0)), Some(vec![10]));
    assert_eq!(bases(cache.read(P, Offset(10), 199)), Some(vec![10]));
    assert_eq!(bases(cache.read(P, Offset(10), 200)), Some(vec![10, 15]));
}

#[test]
fn truncation_takes_whole_batches_and_appending_goes_on_from_there() {
    let mut cache = filled();
    cache.truncate(P, Offset(16));
    assert_eq!(cache.read(P, Offset(16), 1), None);
    cache.push(P, batch(16, 17, 10));
    assert_eq!(bases(cache.read(P, Offset(12), 1 << 20)), Some(vec![10, 15, 16]));
    cache.truncate(P, Offset(0));
    assert_eq!((cache.bytes(), cache.read(P, Offset(10), 1)), (0, None));
}

#[test]
fn a_new_log_start_takes_what_is_wholly_below_it() {
    let mut cache = filled();
    cache.set_start(P, Offset(12));
    assert_eq!(bases(cache.read(P, Offset(12), 1)), Some(vec![10]));
    cache.set_start(P, Offset(15));
    assert_eq!(cache.read(P, Offset(12), 1), None);
    assert_eq!(bases(cache.read(P, Offset(15), 1)), Some(vec![15]));
}

#[test]
fn nothing_is_read_across_a_gap() {
    let mut cache = filled();
    cache.push(P, batch(30, 31, 10));
    assert_eq!(cache.read(P, Offset(20), 1), None);
    assert_eq!(bases(cache.read(P, Offset(30), 1)), Some(vec![30]));
    cache.push(P, batch(30, 31, 10));
    assert_eq!(bases(cache.read(P, Offset(30), 1 << 20)), Some(vec![30]), "a rewritten batch was kept twice");
}

#[test]
fn a_batch_larger_than_the_cache_is_not_kept_and_leaves_no_gap() {
    let mut cache = TailCache::new(1_000);
    cache.push(P, batch(0, 0, 100));
    cache.push(P, batch(1, 1, 2_000));
    cache.push(P, batch(2, 2, 100));
    assert_eq!(cache.read(P, Offset(0), 1), None);
    assert_eq!(bases(cache.read(P, Offset(2), 1 << 20)), Some(vec![2]));
    let mut nothing = TailCache::new(0);
    nothing.push(P, batch(0, 0, 0));
    assert_eq!((nothing.bytes(), nothing.read(P, Offset(0), 1)), (0, None));
}

#[test]
fn the_oldest_goes_first_over_all_partitions() {
    let each = 1_000 - OVERHEAD_BYTES as usize;
    let mut cache = TailCache::new(4_000);
    for offset in 0..2 {
        cache.push(P, batch(offset, offset, each));
    }
    for offset in 0..3 {
        cache.push(Q, batch(offset, offset, each));
    }
    assert_eq!(cache.read(P, Offset(0), 1), None, "the oldest batch is still there");
    assert_eq!(bases(cache.read(P, Offset(1), 1)), Some(vec![1]));
    assert_eq!(bases(cache.read(Q, Offset(0), 1 << 20)), Some(vec![0, 1, 2]));
}

#[test]
fn a_flood_leaves_the_quiet_partitions_their_share() {
    let mut cache = TailCache::new(64_000);
    for quiet in 0..15 {
        cache.push(LocalPartition(quiet), batch(0, 0, 1_000));
    }
    for offset in 0..1_000 {
        cache.push(LocalPartition(99), batch(offset, offset, 1_000));
    }
    for quiet in 0..15 {
        assert_eq!(bases(cache.read(LocalPartition(quiet), Offset(0), 1)), Some(vec![0]), "partition {quiet}");
    }
    let kept = cache.read(LocalPartition(99), Offset(970), 1 << 20);
    assert!(kept.is_some_and(|batches| batches.len() == 30), "the flood has too little");
}

/// What one partition could have at most: everything since the last gap, newest last.
#[derive(Default)]
struct Model(BTreeMap<u32, Vec<StoredBatch>>);

#[derive(Clone, Debug)]
enum Step {
    Push { partition: u32, records: u64, len: usize, gap: bool },
    Truncate { partition: u32, back: u64 },
    SetStart { partition: u32, back: u64 },
    Remove { partition: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6_u32, 1..5_u64, 0..700_usize, prop::bool::weighted(0.05))
            .prop_map(|(partition, records, len, gap)| Step::Push { partition, records, len, gap }),
        1 => (0..6_u32, 0..10_u64).prop_map(|(partition, back)| Step::Truncate { partition, back }),
        1 => (0..6_u32, 0..10_u64).prop_map(|(partition, back)| Step::SetStart { partition, back }),
        1 => (0..6_u32).prop_map(|partition| Step::Remove { partition }),
    ]
}

impl Model {
    fn end(&self, partition: u32) -> u64 {
        self.0.get(&partition).and_then(|batches| batches.last()).map_or(0, |batch| batch.last.0 + 1)
    }

    fn apply(&mut self, cache: &mut TailCache, step: &Step) {
        match *step {
            Step::Push { partition, records, len, gap } => {
                let base = self.end(partition) + u64::from(gap);
                let batch = batch(base, base + records - 1, len);
                let batches = self.0.entry(partition).or_default();
                if gap {
                    batches.clear();
                }
                batches.push(batch.clone());
                cache.push(LocalPartition(partition), batch);
            }
            Step::Truncate { partition, back } => {
                let to = Offset(self.end(partition).saturating_sub(back));
                self.0.entry(partition).or_default().retain(|batch| batch.last < to);
                cache.truncate(LocalPartition(partition), to);
            }
            Step::SetStart { partition, back } => {
                let start = Offset(self.end(partition).saturating_sub(back));
                self.0.entry(partition).or_default().retain(|batch| batch.last >= start);
                cache.set_start(LocalPartition(partition), start);
            }
            Step::Remove { partition } => {
                self.0.remove(&partition);
                cache.remove(LocalPartition(partition));
            }
        }
    }
}

proptest! {
    /// Whatever happens: what is cached is a suffix of the model, a read returns exactly what
    /// the model has there, and the sums and the bound hold.
    #[test]
    fn the_cache_is_a_bounded_suffix(bytes_max in 0..6_000_u64, steps in prop::collection::vec(step(), 0..150)) {
        let mut cache = TailCache::new(bytes_max);
        let mut model = Model::default();
        for step in &steps {
            model.apply(&mut cache, step);
            let mut bytes = 0;
            for (&partition, batches) in &model.0 {
                let cached = cache.partitions.get(&LocalPartition(partition)).map_or(0, |tail| tail.batches.len());
                prop_assert!(cached <= batches.len());
                let (gone, kept) = batches.split_at(batches.len() - cached);
                for (i, batch) in kept.iter().enumerate() {
                    for offset in [batch.base, batch.last] {
                        let read = cache.read(LocalPartition(partition), offset, usize::MAX);
                        prop_assert_eq!(read.as_deref(), Some(&kept[i..]));
                    }
                    bytes += cost(batch);
                }
                for batch in gone {
                    prop_assert_eq!(cache.read(LocalPartition(partition), batch.last, usize::MAX), None);
                }
            }
            prop_assert_eq!(cache.bytes(), bytes);
            prop_assert!(bytes <= bytes_max);
            let share = cache.share_bytes;
            let above: BTreeMap<u64, LocalPartition> = cache
                .partitions
                .iter()
                .filter(|(_, tail)| tail.bytes > share)
                .map(|(partition, tail)| (tail.batches[0].age, *partition))
                .collect();
            prop_assert_eq!(&cache.above_share, &above);
            prop_assert!(!cache.partitions.values().any(|tail| tail.batches.is_empty()));
        }
    }
}
