use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::batch::{
    BatchBuilder, BatchHeader, BuildOptions, Codec, ProducerStamp, Pushed, Record, Stamp, check_crc, decode_records,
    stamp, validate_replica,
};
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};
use crate::producer::ProducerTable;
use crate::replica::StoredBatch;
use crate::transaction::message::Producer;
use crate::transaction::partition::{AbortedTransaction, EndMarker};

/// (key, value); a value of none is a tombstone.
type Pair = (u8, Option<u8>);

struct Log {
    batches: Vec<StoredBatch>,
    end: u64,
}

impl Log {
    fn new() -> Self {
        Self { batches: Vec::new(), end: 0 }
    }

    fn push(&mut self, epoch: u32, producer: Option<(i64, i32)>, codec: Codec, pairs: &[Pair]) {
        let mut builder = BatchBuilder::new(1 << 20);
        for (n, (key, value)) in pairs.iter().enumerate() {
            let value = value.map(|v| vec![v; 40]);
            let time = 1_000 + self.end as i64 + n as i64;
            assert_eq!(builder.push(time, Some(&[*key]), value.as_deref(), &[]), Ok(Pushed::Added));
        }
        let producer = producer.map(|(id, base_sequence)| ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(0),
            base_sequence,
        });
        let bytes = builder.build(&BuildOptions { codec, producer, ..BuildOptions::default() }).unwrap();
        let place = Stamp { base_offset: Offset(self.end), leader_epoch: Epoch(epoch), append_time_ms: None };
        let (header, bytes) = stamp(bytes, place).unwrap();
        self.batches.push(stored(header, bytes));
        self.end += pairs.len() as u64;
    }

    fn put(&mut self, pairs: &[Pair]) {
        self.push(1, None, Codec::None, pairs);
    }

    fn records(&self) -> Vec<Record> {
        self.batches.iter().flat_map(|b| decode_records(&b.bytes, 1 << 24).unwrap()).collect()
    }

    /// As a log does: what is covered goes.
    fn apply(&mut self, cleaned: &Cleaned) {
        for batch in &cleaned.batches {
            let from = self.batches.iter().position(|b| b.base == batch.base).expect("it begins where one begins");
            let to = self.batches.iter().position(|b| b.last == batch.last).expect("it ends where one ends");
            self.batches.splice(from..=to, [batch.clone()]);
        }
        let all: Vec<u8> = self.batches.iter().flat_map(|b| b.bytes.to_vec()).collect();
        let checked = validate_replica(&Bytes::from(all)).expect("whole, and without gaps");
        for (found, (header, bytes)) in self.batches.iter().zip(checked) {
            assert_eq!(*found, stored(header, bytes));
        }
    }

    /// A whole round, in pieces of so many batches.
    fn compact(&mut self, from: u64, now_ms: i64, map_bytes: usize, piece: usize, remembered: &ProducerTable) -> Round {
        let mut map = OffsetMap::new(map_bytes, 7);
        let end = index(&self.batches, Offset(from), Offset(self.end), &[], &mut map);
        let remembered: BTreeSet<Offset> = remembered.remembered().collect();
        let rules = Rules { map, end, now_ms, delete_retention_ms: 500, remembered, aborted: Vec::new() };
        let (mut at, mut horizon_ms) = (Offset(0), None);
        while at < end {
            let first = self.batches.iter().position(|b| b.base == at).unwrap();
            let batches: Vec<_> = self.batches[first..].iter().take(piece).cloned().collect();
            let cleaned = clean(&batches, &rules);
            assert!(cleaned.next > at || !cleaned.batches.is_empty(), "it gets on");
            at = cleaned.next;
            horizon_ms = [horizon_ms, cleaned.horizon_ms].into_iter().flatten().min();
            self.apply(&cleaned);
        }
        Round { clean_to: end.0, horizon_ms }
    }
}

struct Round {
    clean_to: u64,
    horizon_ms: Option<i64>,
}

fn stored(header: BatchHeader, bytes: Bytes) -> StoredBatch {
    check_crc(&bytes).unwrap();
    StoredBatch {
        base: header.base_offset,
        last: header.last_offset(),
        epoch: header.leader_epoch.unwrap(),
        max_timestamp_ms: header.max_timestamp_ms,
        bytes,
    }
}

fn nobody() -> ProducerTable {
    ProducerTable::default()
}

fn pairs(records: &[Record]) -> Vec<(u64, u8, Option<u8>)> {
    let value = |record: &Record| record.value.as_ref().map(|v| v[0]);
    records.iter().map(|r| (r.offset.0, r.key.as_ref().unwrap()[0], value(r))).collect()
}

#[test]
fn of_every_key_the_last_record_stays_in_its_place() {
    for codec in Codec::ALL {
        let mut log = Log::new();
        log.push(1, None, codec, &[(1, Some(1)), (2, Some(2)), (1, Some(3))]);
        log.push(1, None, codec, &[(3, Some(4))]);
        log.push(1, None, codec, &[(2, Some(5)), (4, Some(6))]);
        let before = log.records();
        log.compact(0, 0, 1 << 16, 10, &nobody());
        assert_eq!(pairs(&log.records()), [(2, 1, Some(3)), (3, 3, Some(4)), (4, 2, Some(5)), (5, 4, Some(6))]);
        for record in log.records() {
            assert!(before.contains(&record), "nothing else of a record changes: {record:?}");
        }
        assert_eq!(log.batches.len(), 3);
    }
}

#[test]
fn what_is_empty_becomes_one_and_grows() {
    let mut log = Log::new();
    for n in 0..100 {
        log.put(&[(7, Some(n))]);
    }
    log.compact(0, 0, 1 << 16, 3, &nobody());
    assert_eq!(pairs(&log.records()), [(99, 7, Some(99))]);
    assert_eq!(log.batches.len(), 2, "one empty batch, and the last record");
    let clean = log.end;
    for n in 100..150 {
        log.put(&[(7, Some(n))]);
    }
    log.compact(clean, 0, 1 << 16, 4, &nobody());
    assert_eq!(log.batches.len(), 2);
    assert_eq!((log.batches[0].base, log.batches[0].last), (Offset(0), Offset(148)));
    let (unchanged, end) = (log.batches.clone(), log.end);
    log.compact(end, 0, 1 << 16, 4, &nobody());
    assert_eq!(log.batches, unchanged, "a clean log is left alone");
}

#[test]
fn epochs_stay_where_they_began() {
    let mut log = Log::new();
    for epoch in [1, 1, 2, 2, 4] {
        log.push(epoch, None, Codec::None, &[(1, Some(1)), (1, Some(2))]);
    }
    log.compact(0, 0, 1 << 16, 10, &nobody());
    let epochs: Vec<_> = log.batches.iter().map(|b| (b.base.0, b.epoch.0)).collect();
    assert_eq!(epochs, [(0, 1), (4, 2), (8, 4)]);
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let mut log = Log::new();
    log.put(&[(1, Some(1)), (2, Some(2))]);
    log.put(&[(1, None)]);
    log.put(&[(3, Some(3))]);
    let times: Vec<i64> = log.records().iter().map(|r| r.timestamp_ms).collect();
    let round = log.compact(0, 10_000, 1 << 16, 10, &nobody());
    assert_eq!(pairs(&log.records()), [(1, 2, Some(2)), (2, 1, None), (3, 3, Some(3))]);
    assert_eq!(round.horizon_ms, Some(10_500));
    assert_eq!(log.records()[1].timestamp_ms, times[2], "its own time is kept beside");
    let round = log.compact(log.end, 10_499, 1 << 16, 10, &nobody());
    assert_eq!((log.records().len(), round.horizon_ms), (3, Some(10_500)), "the time counts from the first round");
    let round = log.compact(log.end, 10_500, 1 << 16, 10, &nobody());
    assert_eq!(round.clean_to, log.end);
    assert_eq!(pairs(&log.records()), [(1, 2, Some(2)), (3, 3, Some(3))]);
    assert_eq!(round.horizon_ms, None);
}

#[test]
fn a_round_ends_where_the_map_is_full_and_the_next_goes_on() {
    let mut log = Log::new();
    for n in 0..200_u8 {
        log.put(&[(n, Some(1))]);
    }
    for n in 0..200_u8 {
        log.put(&[(n, Some(2))]);
    }
    let (mut clean, mut rounds) = (0, 0);
    while clean < log.end {
        clean = log.compact(clean, 0, 64 * 50, 10, &nobody()).clean_to;
        rounds += 1;
    }
    assert_eq!(rounds, 8);
    let expected: Vec<_> = (0..200_u8).map(|n| (200 + u64::from(n), n, Some(2))).collect();
    assert_eq!(pairs(&log.records()), expected);
}

#[test]
fn a_copy_filled_from_a_compacted_one_knows_the_producers() {
    let mut log = Log::new();
    for n in 0..20 {
        log.push(1, Some((5, n * 2)), Codec::None, &[(1, Some(1)), (1, Some(2))]);
        log.push(1, Some((6, n)), Codec::None, &[(2, Some(1))]);
    }
    let table = |log: &Log| {
        let mut table = ProducerTable::default();
        for batch in &log.batches {
            table.applied(&BatchHeader::parse(&batch.bytes).unwrap(), batch.base);
        }
        table
    };
    let before = table(&log);
    log.compact(0, 0, 1 << 16, 10, &before);
    assert_eq!(log.records().len(), 2);
    assert_eq!(log.batches.len(), 11, "five batches of each, and what lies below as one");
    let after = table(&log);
    for ((id, state), (other, found)) in before.iter().zip(after.iter()) {
        assert_eq!((id, state.batches(), state.last_offset), (other, found.batches(), found.last_offset));
    }
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let mut log = Log::new();
    log.put(&[(1, Some(1))]);
    log.put(&[(1, Some(2))]);
    let mut bytes = log.batches[0].bytes.to_vec();
    bytes[61] = 0x7f;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    log.batches[0].bytes = Bytes::from(bytes);
    let before = log.batches.clone();
    log.compact(0, 0, 1 << 16, 10, &nobody());
    assert_eq!(log.batches, before);
}

#[test]
fn an_empty_batch_is_cut_for_who_ends_inside_it() {
    let mut log = Log::new();
    for n in 0..10 {
        log.put(&[(7, Some(n))]);
    }
    log.compact(0, 0, 1 << 16, 10, &nobody());
    let cut = cut_empty(&log.batches[0], Offset(4)).unwrap();
    assert_eq!((cut.base, cut.last, cut.epoch), (Offset(4), Offset(8), Epoch(1)));
    let header = BatchHeader::parse(&cut.bytes).unwrap();
    assert_eq!((header.base_offset, header.last_offset(), header.record_count), (Offset(4), Offset(8), 0));
    check_crc(&cut.bytes).unwrap();
    assert_eq!(cut_empty(&log.batches[0], Offset(0)), None);
    assert_eq!(cut_empty(&log.batches[1], Offset(9)), None);
}

proptest! {
    /// Whatever is written, a reader of all of it ends up with the same values, and copies that
    /// are compacted differently hold the same record at each offset that both still have.
    #[test]
    fn reading_it_all_gives_the_same_state(
        batches in proptest::collection::vec(
            (proptest::collection::vec((0_u8..12, proptest::option::weighted(0.8, any::<u8>())), 1..6), 0_u32..2),
            1..40,
        ),
        map_keys in 1_usize..20, piece in 1_usize..9, rounds in 1_usize..4,
    ) {
        let (mut log, mut epoch) = (Log::new(), 1);
        for (pairs, later) in &batches {
            epoch += later;
            log.push(epoch, None, Codec::None, pairs);
        }
        let state = |records: &[Record]| {
            let mut state = BTreeMap::new();
            for (_, key, value) in pairs(records) {
                match value {
                    Some(value) => drop(state.insert(key, value)),
                    None => drop(state.remove(&key)),
                }
            }
            state
        };
        let before = log.records();
        let mut clean = 0;
        for round in 0..rounds {
            clean = log.compact(clean, round as i64 * 400, 64 * map_keys, piece, &nobody()).clean_to;
            prop_assert_eq!(state(&log.records()), state(&before));
            for record in log.records() {
                prop_assert_eq!(&before[record.offset.0 as usize], &record);
            }
        }
    }
}

/// What was aborted replaces nothing and goes; the end of its transaction stays.
#[test]
fn aborted_records_replace_nothing() {
    let mut log = Log::new();
    log.put(&[(1, Some(10)), (2, Some(20))]);
    let producer = Producer { id: ProducerId(5), epoch: ProducerEpoch(0) };
    let write = |log: &mut Log, bytes: Bytes| {
        let place = Stamp { base_offset: Offset(log.end), leader_epoch: Epoch(1), append_time_ms: None };
        let (header, bytes) = stamp(bytes, place).unwrap();
        log.end = header.next_offset().0;
        log.batches.push(stored(header, bytes));
    };
    let mut builder = BatchBuilder::new(1 << 16);
    let _ = builder.push(1, Some(&[1]), Some(&[11]), &[]).unwrap();
    let stamp_of = Some(ProducerStamp { id: producer.id, epoch: producer.epoch, base_sequence: 0 });
    let options = BuildOptions { producer: stamp_of, transactional: true, ..BuildOptions::default() };
    write(&mut log, builder.build(&options).unwrap());
    write(&mut log, EndMarker { producer, commit: false, coordinator_epoch: Epoch(1) }.batch(1).unwrap());
    log.put(&[(2, Some(21))]);
    let aborted =
        vec![AbortedTransaction { producer: producer.id, first: Offset(2), last: Offset(3), last_stable: Offset(4) }];
    let mut map = OffsetMap::new(1 << 16, 7);
    let end = index(&log.batches, Offset(0), Offset(log.end), &aborted, &mut map);
    let rules = Rules { map, end, now_ms: 0, delete_retention_ms: 500, remembered: BTreeSet::new(), aborted };
    log.apply(&clean(&log.batches.clone(), &rules));
    let control = log.batches.iter().filter(|b| BatchHeader::parse(&b.bytes).unwrap().attributes.control()).count();
    assert_eq!(control, 1);
    log.batches.retain(|b| !BatchHeader::parse(&b.bytes).unwrap().attributes.control());
    let left: Vec<u64> = log.records().iter().map(|record| record.offset.0).collect();
    assert_eq!(left, [0, 4]);
}
