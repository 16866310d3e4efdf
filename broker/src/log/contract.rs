//! One suite of tests for every implementation of [`Log`].
//!
//! An implementation gives a [`Harness`] and calls [`contract_tests!`]. Each case is a function
//! of the harness; [`model`] holds the randomised one.

pub(crate) mod model;

use std::sync::Arc;

use baton_core::{BrokerId, DiskId, Epoch, Generation, Offset, TopicId, TopicPartition};
use bytes::Bytes;
use futures::future::join_all;

use super::{
    Append, Compaction, DurableEnd, Identity, LocalPartition, Log, LogError, PartitionMeta, Piece, StoredBatch,
};

/// How the suite gets at an implementation.
pub(crate) trait Harness {
    /// Opens the same storage, the first time or again.
    fn open(&mut self) -> Arc<dyn Log>;

    /// Whether the disk pretends to be below its reserve.
    fn set_full(&mut self, full: bool);

    /// What a process that is killed leaves to its successor.
    fn reopen(&mut self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        drop(log);
        self.open()
    }
}

/// Makes one test of every case for the harness that `$harness` gives.
macro_rules! contract_tests {
    ($harness:expr) => {
        $crate::log::contract::contract_tests!($harness;
            appended_batches_are_read_back
            a_read_begins_with_the_batch_that_contains_its_offset
            a_read_is_bounded_but_never_empty_before_the_end
            appends_take_effect_in_the_order_of_their_calls
            concurrent_appends_share_commits
            one_append_covers_many_partitions
            a_gap_is_refused_and_writes_nothing
            a_mislabelled_batch_is_refused
            truncation_removes_the_tail_and_the_log_goes_on
            truncation_inside_a_batch_removes_it
            the_start_hides_what_is_below_it
            deleted_numbers_are_never_reused
            deleted_partitions_stay_deleted
            reset_begins_a_new_generation
            reopening_finds_what_was_acknowledged
            meta_records_round_trip
            a_start_and_its_meta_record_are_one
            a_reset_copy_knows_the_producers_from_below
            batches_are_put_in_the_place_of_others
            ages_and_sizes_are_told
            time_is_found_by_maximum_timestamp
            unknown_partitions_are_errors
            a_full_disk_refuses_appends_only
            a_closed_log_refuses_everything
        );
        #[tokio::test]
        async fn behaves_like_a_vector() {
            $crate::log::contract::model::run(|| $harness).await;
        }
    };
    ($harness:expr; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::log::contract::$case(&mut $harness).await;
            }
        )*
    };
}
pub(crate) use contract_tests;

pub(crate) fn identity() -> Identity {
    Identity { cluster: uuid::Uuid::from_u128(0xc1), broker: BrokerId(3), disk: DiskId(0xd15c) }
}

/// A valid batch of `count` records that hold nothing but `payload` bytes.
pub(crate) fn batch(base: u64, count: u32, epoch: u32, timestamp: i64, payload: usize) -> StoredBatch {
    let mut bytes = vec![0_u8; 61 + payload];
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[0..8].copy_from_slice(&base.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[27..35].copy_from_slice(&timestamp.to_be_bytes());
    bytes[35..43].copy_from_slice(&timestamp.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    for (at, byte) in bytes[61..].iter_mut().enumerate() {
        *byte = (base as usize + at * 7) as u8;
    }
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    StoredBatch {
        base: Offset(base),
        last: Offset(base + u64::from(count) - 1),
        epoch: Epoch(epoch),
        max_timestamp_ms: timestamp,
        bytes: Bytes::from(bytes),
    }
}

pub(crate) fn id(n: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(0x70), partition: n }
}

pub(crate) fn one(partition: LocalPartition, batches: &[StoredBatch]) -> Vec<Append> {
    vec![Append { partition, batches: batches.to_vec() }]
}

async fn create(log: &Arc<dyn Log>, n: u32) -> LocalPartition {
    log.create(id(n), Generation(0), Offset(0)).await.unwrap()
}

/// Ten records a batch, from offset `from`.
fn tens(from: u64, count: u64, epoch: u32) -> Vec<StoredBatch> {
    let base = |n| from + n * 10;
    (0..count).map(|n| batch(base(n), 10, epoch, 1_000 + base(n) as i64, 100)).collect()
}

async fn read_all(log: &Arc<dyn Log>, partition: LocalPartition, from: u64) -> Vec<StoredBatch> {
    log.read(partition, Offset(from), usize::MAX).await.unwrap().batches
}

pub(crate) async fn appended_batches_are_read_back(harness: &mut impl Harness) {
    let log = harness.open();
    let p = create(&log, 0).await;
    let batches = tens(0, 5, 1);
    assert_eq!(read_all(&log, p, 0).await, vec![]);
    let ends = log.append(one(p, &batches)).await.unwrap();
    assert_eq!(ends, vec![DurableEnd { partition: p, end: Offset(50) }]);
    assert_eq!(read_all(&log, p, 0).await, batches);
    assert_eq!(read_all(&log, p, 50).await, vec![]);
    assert_eq!(read_all(&log, p, 70).await, vec![]);
}

pub(crate) async fn a_read_begins_with_the_batch_that_contains_its_offset(h: &mut impl Harness) {
    let log = h.open();
    let p = log.create(id(1), Generation(0), Offset(100)).await.unwrap();
    let batches = tens(100, 4, 1);
    log.append(one(p, &batches)).await.unwrap();
    for from in 100..140 {
        let first = (from - 100) as usize / 10;
        assert_eq!(read_all(&log, p, from).await, batches[first..], "from {from}");
    }
    let below = log.read(p, Offset(99), 1).await;
    assert_eq!(below, Err(LogError::BelowStart { at: Offset(99), start: Offset(100) }));
}

pub(crate) async fn a_read_is_bounded_but_never_empty_before_the_end(h: &mut impl Harness) {
    let log = h.open();
    let p = create(&log, 0).await;
    let batches = tens(0, 6, 1);
    log.append(one(p, &batches)).await.unwrap();
    let size = batches[0].bytes.len();
    for (max_bytes, count) in [(0, 1), (1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2)] {
        let read = log.read(p, Offset(0), max_bytes).await.unwrap().batches;
        assert_eq!(read, batches[..count], "{max_bytes} bytes");
    }
}

pub(crate) async fn appends_take_effect_in_the_order_of_their_calls(h: &mut impl Harness) {
    let log = h.open();
    let p = create(&log, 0).await;
    let batches = tens(0, 50, 1);
    let calls: Vec<_> = batches.iter().map(|b| log.append(one(p, std::slice::from_ref(b)))).collect();
    // Polled in reverse: the order of the calls counts.
    let results = join_all(calls.into_iter().rev()).await;
    for (n, result) in results.into_iter().rev().enumerate() {
        let end = Offset(10 * (n as u64 + 1));
        assert_eq!(result.unwrap(), vec![DurableEnd { partition: p, end }]);
    }
    assert_eq!(read_all(&log, p, 0).await, batches);
}

pub(crate) async fn concurrent_appends_share_commits(h: &mut impl Harness) {
    let log = h.open();
    let mut partitions = Vec::new();
    for n in 0..100 {
        partitions.push(create(&log, n).await);
    }
    let before = log.usage().commits;
    for round in 0..5 {
        let calls = partitions.iter().map(|p| log.append(one(*p, &tens(round * 10, 1, 1))));
        for result in join_all(calls.collect::<Vec<_>>()).await {
            result.unwrap();
        }
    }
    let commits = log.usage().commits - before;
    assert!((5..=100).contains(&commits), "{commits} commits for 500 appends");
}

pub(crate) async fn one_append_covers_many_partitions(h: &mut impl Harness) {
    let log = h.open();
    let mut appends = Vec::new();
    for n in 0..20 {
        let partition = create(&log, n).await;
        appends.push(Append { partition, batches: tens(0, u64::from(n) % 3 + 1, 1) });
    }
    let before = log.usage().commits;
    let ends = log.append(appends.clone()).await.unwrap();
    assert_eq!(log.usage().commits - before, 1);
    for (append, end) in appends.iter().zip(ends) {
        assert_eq!((end.partition, end.end.0), (append.partition, append.batches.len() as u64 * 10));
        assert_eq!(read_all(&log, append.partition, 0).await, append.batches);
    }
}

pub(crate) async fn a_gap_is_refused_and_writes_nothing(h: &mut impl Harness) {
    let log = h.open();
    let (p, q) = (create(&log, 0).await, create(&log, 1).await);
    log.append(one(p, &tens(0, 2, 1))).await.unwrap();
    for base in [0, 10, 21, 30] {
        let mut appends = one(q, &tens(0, 1, 1));
        appends.extend(one(p, &tens(base, 1, 1)));
        let refused = log.append(appends).await;
        let (expected, found) = (Offset(20), Offset(base));
        assert_eq!(refused, Err(LogError::NotContiguous { partition: p, expected, found }));
    }
    let mut holed = tens(20, 3, 1);
    holed.remove(1);
    assert!(matches!(log.append(one(p, &holed)).await, Err(LogError::NotContiguous { .. })));
    assert!(matches!(log.append(one(p, &[])).await, Err(LogError::Refused(_))));
    assert_eq!(read_all(&log, p, 0).await, tens(0, 2, 1));
    assert_eq!(read_all(&log, q, 0).await, vec![]);
    // The same partition twice in one call goes on where it stopped.
    let mut twice = one(p, &tens(20, 1, 1));
    twice.extend(one(p, &tens(30, 1, 1)));
    log.append(twice).await.unwrap();
    assert_eq!(read_all(&log, p, 0).await, tens(0, 4, 1));
}

pub(crate) async fn a_mislabelled_batch_is_refused(h: &mut impl Harness) {
    let log = h.open();
    let p = create(&log, 0).await;
    let good = batch(0, 10, 1, 1_000, 10);
    let mut bad = vec![good.clone(); 4];
    bad[0].last = Offset(8);
    bad[1].epoch = Epoch(2);
    bad[2].max_timestamp_ms = 1;
    bad[3].bytes = good.bytes.slice(1..);
    for batch in bad {
        assert!(matches!(log.append(one(p, &[batch])).await, Err(LogError::Refused(_))));
    }
    log.append(one(p, &[good])).await.unwrap();
}

pub(crate) async fn truncation_removes_the_tail_and_the_log_goes_on(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 10, 1))).await.unwrap();
    // All called before any is answered: the order of the calls holds across kinds.
    let more = log.append(one(p, &tens(100, 2, 1)));
    let cut = log.truncate(p, Offset(40), None);
    let again = log.append(one(p, &tens(40, 3, 2)));
    more.await.unwrap();
    cut.await.unwrap();
    again.await.unwrap();
    let expected = [tens(0, 4, 1), tens(40, 3, 2)].concat();
    assert_eq!(read_all(&log, p, 0).await, expected);
    log.truncate(p, Offset(70), None).await.unwrap();
    log.truncate(p, Offset(900), None).await.unwrap();
    log = h.reopen(log);
    assert_eq!(log.recovered()[&p].end, Offset(70));
    assert_eq!(log.recovered()[&p].damage, None);
    assert_eq!(read_all(&log, p, 0).await, expected);
    log.truncate(p, Offset(0), None).await.unwrap();
    assert_eq!(read_all(&log, p, 0).await, vec![]);
    log = h.reopen(log);
    assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(0), &None));
    log.append(one(p, &tens(0, 1, 3))).await.unwrap();
    assert_eq!(read_all(&log, p, 0).await, tens(0, 1, 3));
}

pub(crate) async fn truncation_inside_a_batch_removes_it(h: &mut impl Harness) {
    let log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 3, 1))).await.unwrap();
    log.truncate(p, Offset(15), None).await.unwrap();
    assert_eq!(read_all(&log, p, 0).await, tens(0, 1, 1));
    log.append(one(p, &tens(10, 1, 2))).await.unwrap();
    log.set_start(p, Offset(5), None).await.unwrap();
    let below = log.truncate(p, Offset(4), None).await;
    assert_eq!(below, Err(LogError::BelowStart { at: Offset(4), start: Offset(5) }));
}

pub(crate) async fn the_start_hides_what_is_below_it(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 5, 1))).await.unwrap();
    log.set_start(p, Offset(25), None).await.unwrap();
    log.set_start(p, Offset(7), None).await.unwrap();
    for _ in 0..2 {
        let below = log.read(p, Offset(24), 1).await;
        assert_eq!(below, Err(LogError::BelowStart { at: Offset(24), start: Offset(25) }));
        assert_eq!(read_all(&log, p, 25).await, tens(20, 3, 1));
        log = h.reopen(log);
        assert_eq!(log.recovered()[&p].start, Offset(25));
    }
    assert!(matches!(log.set_start(p, Offset(51), None).await, Err(LogError::Refused(_))));
    log.set_start(p, Offset(50), None).await.unwrap();
    log = h.reopen(log);
    assert_eq!((log.recovered()[&p].start, log.recovered()[&p].end), (Offset(50), Offset(50)));
    assert_eq!(log.recovered()[&p].damage, None);
    assert_eq!(read_all(&log, p, 50).await, vec![]);
    log.append(one(p, &tens(50, 1, 1))).await.unwrap();
    assert_eq!(read_all(&log, p, 50).await, tens(50, 1, 1));
}

pub(crate) async fn deleted_numbers_are_never_reused(h: &mut impl Harness) {
    let mut log = h.open();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..6 {
        let p = create(&log, 0).await;
        assert!(seen.insert(p), "{p:?} was used before");
        assert!(matches!(log.create(id(0), Generation(0), Offset(0)).await, Err(LogError::Refused(_))));
        assert_eq!(read_all(&log, p, 0).await, vec![]);
        log.append(one(p, &tens(0, 3, 1))).await.unwrap();
        log.delete(p).await.unwrap();
        if round % 2 == 0 {
            log = h.reopen(log);
        }
    }
}

pub(crate) async fn deleted_partitions_stay_deleted(h: &mut impl Harness) {
    let mut log = h.open();
    let (p, q) = (create(&log, 0).await, create(&log, 1).await);
    log.append(one(p, &tens(0, 3, 1))).await.unwrap();
    log.append(one(q, &tens(0, 3, 1))).await.unwrap();
    log.delete(p).await.unwrap();
    for _ in 0..2 {
        let unknown = LogError::UnknownPartition(p);
        assert_eq!(log.read(p, Offset(0), 1).await, Err(unknown.clone()));
        assert_eq!(log.append(one(p, &tens(30, 1, 1))).await, Err(unknown.clone()));
        assert_eq!(log.delete(p).await, Err(unknown));
        log = h.reopen(log);
        assert_eq!(log.recovered().keys().copied().collect::<Vec<_>>(), vec![q]);
        assert_eq!(read_all(&log, q, 0).await, tens(0, 3, 1));
    }
}

pub(crate) async fn reset_begins_a_new_generation(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 10, 1))).await.unwrap();
    let meta = PartitionMeta { highest_epoch: Epoch(4), high_watermark: Offset(100), ..Default::default() };
    log.save(p, meta).await.unwrap();
    let reset = log.reset(p, Generation(1), Offset(30), Bytes::new());
    let refill = log.append(one(p, &tens(30, 2, 4)));
    reset.await.unwrap();
    refill.await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_all(&log, p, 30).await, tens(30, 2, 4));
        assert!(matches!(log.read(p, Offset(29), 1).await, Err(LogError::BelowStart { .. })));
        log = h.reopen(log);
        let found = &log.recovered()[&p];
        assert_eq!((found.id, found.generation), (id(0), Generation(1)));
        assert_eq!((found.start, found.end), (Offset(30), Offset(50)));
        assert_eq!(found.damage, None);
        let meta = PartitionMeta { highest_epoch: Epoch(4), ..Default::default() };
        assert_eq!(found.meta, meta);
    }
    assert_eq!(log.find_time(p, 0).await.unwrap(), Some(Offset(30)));
    assert_eq!(create(&log, 1).await, create_after(&log, 2).await);
}

/// The number before the one that a new partition gets: numbers rise one by one or faster.
async fn create_after(log: &Arc<dyn Log>, n: u32) -> LocalPartition {
    LocalPartition(create(log, n).await.0 - 1)
}

pub(crate) async fn reopening_finds_what_was_acknowledged(h: &mut impl Harness) {
    let mut log = h.open();
    assert!(log.recovered().is_empty());
    let identity = log.identity();
    let mut partitions = Vec::new();
    for n in 0..8 {
        partitions.push(create(&log, n).await);
    }
    for round in 0..6_u64 {
        for p in &partitions {
            log.append(one(*p, &tens(round * 20, 2, round as u32 + 1))).await.unwrap();
        }
        if round % 2 == 0 {
            log.close().await.unwrap();
        }
        log = h.reopen(log);
        assert_eq!(log.identity(), identity);
        for (n, p) in partitions.iter().enumerate() {
            let found = &log.recovered()[p];
            assert_eq!((found.id, found.start), (id(n as u32), Offset(0)));
            assert_eq!((found.end, &found.damage), (Offset((round + 1) * 20), &None));
            assert_eq!(read_all(&log, *p, 0).await.len() as u64, (round + 1) * 2);
        }
    }
}

pub(crate) async fn meta_records_round_trip(h: &mut impl Harness) {
    let mut log = h.open();
    let (p, q) = (create(&log, 0).await, create(&log, 1).await);
    assert_eq!(log.recovered().get(&p), None);
    let meta = PartitionMeta {
        highest_epoch: Epoch(9),
        lineage: (1..200).map(|n| (Epoch(n), Offset(u64::from(n) << 33))).collect(),
        high_watermark: Offset(u64::MAX >> 1),
        producers: Bytes::from(vec![7; 100_000]),
        producers_at: Offset(12),
        ..PartitionMeta::default()
    };
    log.save(p, PartitionMeta::default()).await.unwrap();
    log.save(p, meta.clone()).await.unwrap();
    log = h.reopen(log);
    assert_eq!(log.recovered()[&p].meta, meta);
    assert_eq!(log.recovered()[&q].meta, PartitionMeta::default());
}

pub(crate) async fn time_is_found_by_maximum_timestamp(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    // Timestamps of producers need not rise.
    let stamps = [100, 50, 300, 200, 300, -5, 400];
    let batches: Vec<_> = stamps.iter().enumerate().map(|(n, t)| batch(n as u64 * 10, 10, 1, *t, 50)).collect();
    assert_eq!(log.find_time(p, 0).await, Ok(None));
    log.append(one(p, &batches)).await.unwrap();
    for _ in 0..2 {
        for (time, at) in [(-9, 0), (60, 0), (100, 0), (101, 20), (300, 20), (301, 60), (400, 60)] {
            assert_eq!(log.find_time(p, time).await, Ok(Some(Offset(at))), "time {time}");
        }
        assert_eq!(log.find_time(p, 401).await, Ok(None));
        log = h.reopen(log);
    }
    log.set_start(p, Offset(25), None).await.unwrap();
    assert_eq!(log.find_time(p, 0).await, Ok(Some(Offset(25))));
    log.truncate(p, Offset(60), None).await.unwrap();
    assert_eq!(log.find_time(p, 301).await, Ok(None));
}

pub(crate) async fn a_start_and_its_meta_record_are_one(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 3, 1))).await.unwrap();
    let meta = PartitionMeta {
        highest_epoch: Epoch(2),
        producers: Bytes::from_static(b"some"),
        producers_at: Offset(20),
        compaction: Compaction { clean_to: Offset(10), rewritten_to: Offset(20), horizon_ms: 9 },
        ..PartitionMeta::default()
    };
    log.set_start(p, Offset(20), Some(meta.clone())).await.unwrap();
    log = h.reopen(log);
    let found = &log.recovered()[&p];
    assert_eq!((found.start, &found.meta), (Offset(20), &meta));
}

pub(crate) async fn a_reset_copy_knows_the_producers_from_below(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    log.append(one(p, &tens(0, 3, 1))).await.unwrap();
    log.save(p, PartitionMeta { highest_epoch: Epoch(4), ..PartitionMeta::default() }).await.unwrap();
    log.reset(p, Generation(1), Offset(70), Bytes::from_static(b"some")).await.unwrap();
    log = h.reopen(log);
    let found = &log.recovered()[&p];
    let meta = PartitionMeta {
        highest_epoch: Epoch(4),
        producers: Bytes::from_static(b"some"),
        producers_at: Offset(70),
        ..PartitionMeta::default()
    };
    assert_eq!((found.start, found.end, &found.meta), (Offset(70), Offset(70), &meta));
}

pub(crate) async fn batches_are_put_in_the_place_of_others(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    let mut batches = tens(0, 6, 1);
    log.append(one(p, &batches)).await.unwrap();
    let meta = PartitionMeta { highest_epoch: Epoch(3), ..PartitionMeta::default() };
    let (merged, smaller) = (batch(10, 30, 1, 1_030, 0), batch(50, 10, 1, 1_050, 1));
    for torn in [batch(11, 9, 1, 0, 0), batch(10, 9, 1, 0, 0), batch(50, 20, 1, 0, 0)] {
        let refused = log.rewrite(p, vec![torn], meta.clone()).await;
        assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    }
    assert_eq!(read_all(&log, p, 0).await, batches, "nothing was written");
    log.rewrite(p, vec![merged.clone(), smaller.clone()], meta.clone()).await.unwrap();
    batches.splice(1..4, [merged.clone()]);
    *batches.last_mut().unwrap() = smaller;
    for _ in 0..2 {
        assert_eq!(read_all(&log, p, 0).await, batches);
        assert_eq!(read_all(&log, p, 25).await, batches[1..]);
        log = h.reopen(log);
        let found = &log.recovered()[&p];
        assert_eq!((found.end, &found.meta, &found.damage), (Offset(60), &meta, &None));
    }
    // What was removed can be written again, and the log goes on.
    log.truncate(p, Offset(40), None).await.unwrap();
    log.append(one(p, &tens(40, 3, 2))).await.unwrap();
    log.set_start(p, Offset(20), None).await.unwrap();
    log.rewrite(p, vec![batch(10, 30, 1, 1_030, 7)], meta).await.unwrap();
    log = h.reopen(log);
    assert_eq!(read_all(&log, p, 20).await[0], batch(10, 30, 1, 1_030, 7));
    assert_eq!(read_all(&log, p, 40).await, tens(40, 3, 2));
}

pub(crate) async fn ages_and_sizes_are_told(h: &mut impl Harness) {
    let log = h.open();
    let p = create(&log, 0).await;
    assert_eq!(log.expired(p, 5).await, Ok(Offset(0)));
    assert_eq!(log.measure(p, Offset(0), 1).await, Ok(vec![]));
    let batches: Vec<_> = (0..40).map(|n| batch(n * 10, 10, 1, 1_000 + n as i64, 439)).collect();
    log.append(one(p, &batches)).await.unwrap();
    for (before, end) in [(999, 0), (1_000, 0), (1_001, 10), (1_020, 200), (5_000, 400)] {
        assert_eq!(log.expired(p, before).await, Ok(Offset(end)), "before {before}");
    }
    let piece = |end, bytes| Piece { end: Offset(end), bytes };
    let expected = vec![piece(160, 8_000), piece(320, 8_000), piece(400, 4_000)];
    assert_eq!(log.measure(p, Offset(0), 8_000).await, Ok(expected));
    log.set_start(p, Offset(305), None).await.unwrap();
    assert_eq!(log.expired(p, 1_000).await, Ok(Offset(305)));
    assert_eq!(log.measure(p, Offset(0), u64::MAX).await, Ok(vec![piece(400, 5_000)]));
    assert_eq!(log.measure(p, Offset(350), 1_000).await.unwrap().len(), 3);
}

pub(crate) async fn unknown_partitions_are_errors(h: &mut impl Harness) {
    let log = h.open();
    let p = LocalPartition(77);
    let unknown = LogError::UnknownPartition(p);
    assert_eq!(log.append(one(p, &tens(0, 1, 1))).await, Err(unknown.clone()));
    assert_eq!(log.read(p, Offset(0), 1).await, Err(unknown.clone()));
    assert_eq!(log.find_time(p, 0).await, Err(unknown.clone()));
    assert_eq!(log.truncate(p, Offset(0), None).await, Err(unknown.clone()));
    assert_eq!(log.set_start(p, Offset(0), None).await, Err(unknown.clone()));
    assert_eq!(log.save(p, PartitionMeta::default()).await, Err(unknown.clone()));
    assert_eq!(log.reset(p, Generation(1), Offset(0), Bytes::new()).await, Err(unknown.clone()));
    assert_eq!(log.delete(p).await, Err(unknown));
}

pub(crate) async fn a_full_disk_refuses_appends_only(h: &mut impl Harness) {
    let mut log = h.open();
    let (p, q) = (create(&log, 0).await, create(&log, 1).await);
    log.append(one(p, &tens(0, 4, 1))).await.unwrap();
    h.set_full(true);
    assert!(matches!(log.append(one(p, &tens(40, 1, 1))).await, Err(LogError::Full { .. })));
    assert!(log.usage().below_reserve);
    assert_eq!(read_all(&log, p, 0).await, tens(0, 4, 1));
    log.truncate(p, Offset(30), None).await.unwrap();
    log.set_start(p, Offset(10), None).await.unwrap();
    log.save(p, PartitionMeta::default()).await.unwrap();
    log.delete(q).await.unwrap();
    log = h.reopen(log);
    assert_eq!((log.recovered()[&p].start, log.recovered()[&p].end), (Offset(10), Offset(30)));
    h.set_full(false);
    log.append(one(p, &tens(30, 1, 1))).await.unwrap();
    assert!(!log.usage().below_reserve);
}

pub(crate) async fn a_closed_log_refuses_everything(h: &mut impl Harness) {
    let mut log = h.open();
    let p = create(&log, 0).await;
    let append = log.append(one(p, &tens(0, 1, 1)));
    let close = log.close();
    let late = log.append(one(p, &tens(10, 1, 1)));
    append.await.unwrap();
    close.await.unwrap();
    assert_eq!(late.await, Err(LogError::Closed));
    assert_eq!(log.append(one(p, &tens(10, 1, 1))).await, Err(LogError::Closed));
    assert_eq!(log.read(p, Offset(0), 1).await, Err(LogError::Closed));
    log = h.reopen(log);
    assert_eq!(log.recovered()[&p].end, Offset(10));
}
