use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, BuildOptions, ProducerStamp};
use crate::ids::Epoch;
use crate::transaction::message::Producer;

fn header(id: i64, epoch: i16, base_sequence: i32, count: u32) -> BatchHeader {
    let mut builder = BatchBuilder::new(usize::MAX);
    let pushed = builder.push(1, None, None, &[]);
    assert_eq!(pushed, Ok(crate::batch::Pushed::Added));
    let (id, epoch) = (ProducerId(id), ProducerEpoch(epoch));
    let producer = (id.0 >= 0).then_some(ProducerStamp { id, epoch, base_sequence });
    let options = BuildOptions { producer, ..BuildOptions::default() };
    let mut header = BatchHeader::parse(&builder.build(&options).unwrap()).unwrap();
    (header.record_count, header.last_offset_delta) = (count, count - 1);
    header
}

fn control(id: i64, epoch: i16) -> BatchHeader {
    let mut header = header(id, epoch, -1, 1);
    header.attributes.0 |= 1 << 5;
    header
}

/// A partition whose end follows the batches.
#[derive(Default)]
struct Log {
    table: ProducerTable,
    end: Offset,
}

impl Log {
    fn append(&mut self, header: &BatchHeader) -> Verdict {
        let verdict = self.table.check(header);
        if verdict == Verdict::Append {
            self.apply(header);
        }
        verdict
    }

    fn apply(&mut self, header: &BatchHeader) {
        self.table.applied(header, self.end);
        self.end = self.end.plus(u64::from(header.last_offset_delta) + 1);
    }

    /// A log that took `count` batches of 10 records of producer 1, epoch 0.
    fn with_batches(count: i32) -> Self {
        let mut log = Self::default();
        for i in 0..count {
            assert_eq!(log.append(&header(1, 0, i * 10, 10)), Verdict::Append);
        }
        log
    }
}

fn duplicate(base: u64, last: u64) -> Verdict {
    let (base, last) = (Offset(base), Offset(last));
    Verdict::Duplicate { base, last }
}

#[test]
fn the_next_sequence_is_appended_and_a_gap_is_not() {
    let mut log = Log::with_batches(2);
    let gap = log.append(&header(1, 0, 21, 1));
    assert_eq!(gap, Verdict::OutOfOrder { expected: 20 });
    assert_eq!(gap.code(), Some(ErrorCode::OutOfOrderSequence));
    assert_eq!(log.append(&header(1, 0, 20, 1)), Verdict::Append);
}

#[test]
fn the_last_five_batches_are_known_with_their_offsets_and_older_ones_as_stored() {
    let mut log = Log::with_batches(7);
    for i in 2..7 {
        let verdict = log.append(&header(1, 0, i * 10, 10));
        assert_eq!(verdict, duplicate(i as u64 * 10, i as u64 * 10 + 9));
        assert_eq!(verdict.code(), None);
    }
    for i in 0..2 {
        let verdict = log.append(&header(1, 0, i * 10, 10));
        let below = Offset(20);
        assert_eq!(verdict, Verdict::Forgotten { below });
        assert_eq!(verdict.code(), Some(ErrorCode::DuplicateSequence));
    }
}

/// A client takes DuplicateSequence for success, so that it may be said only of what
/// certainly is in the log. Here the log starts in the middle of the producer's life: what
/// came before was never seen.
#[test]
fn what_was_never_seen_is_not_called_a_duplicate() {
    let mut log = Log::default();
    for i in 0..7 {
        assert_eq!(log.append(&header(1, 0, 100 + i, 1)), Verdict::Append);
    }
    let expected = 107;
    assert_eq!(log.append(&header(1, 0, 99, 1)), Verdict::OutOfOrder { expected });
    assert_eq!(log.append(&header(1, 0, 99, 2)), Verdict::OutOfOrder { expected });
    let below = Offset(2);
    assert_eq!(log.append(&header(1, 0, 100, 2)), Verdict::Forgotten { below });
    assert_eq!(log.append(&header(1, 0, 100, 3)), Verdict::OutOfOrder { expected });
}

#[test]
fn a_batch_cut_otherwise_than_the_stored_one_is_no_duplicate() {
    let mut log = Log::with_batches(3);
    for (sequence, count) in [(20, 9), (20, 11), (15, 10), (0, 30)] {
        let verdict = log.append(&header(1, 0, sequence, count));
        assert_eq!(verdict, Verdict::OutOfOrder { expected: 30 });
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let mut log = Log::default();
    assert_eq!(log.append(&header(1, 0, i32::MAX - 1, 2)), Verdict::Append);
    assert_eq!(log.append(&header(1, 0, 0, 3)), Verdict::Append);
    assert_eq!(log.append(&header(1, 0, i32::MAX - 1, 2)), duplicate(0, 1));
    let expected = 3;
    assert_eq!(log.append(&header(1, 0, 4, 1)), Verdict::OutOfOrder { expected });

    let mut across = Log::default();
    assert_eq!(across.append(&header(1, 0, i32::MAX - 1, 5)), Verdict::Append);
    assert_eq!(across.append(&header(1, 0, 3, 1)), Verdict::Append);
    for i in 4..10 {
        assert_eq!(across.append(&header(1, 0, i, 1)), Verdict::Append);
    }
    let below = Offset(7);
    let verdict = across.append(&header(1, 0, i32::MAX - 1, 5));
    assert_eq!(verdict, Verdict::Forgotten { below });
}

#[test]
fn epochs_fence_and_a_higher_one_starts_at_zero() {
    let mut log = Log::default();
    assert_eq!(log.append(&header(1, 5, 7, 1)), Verdict::Append);
    let current = ProducerEpoch(5);
    let fenced = log.append(&header(1, 4, 8, 1));
    assert_eq!(fenced, Verdict::Fenced { current });
    assert_eq!(fenced.code(), Some(ErrorCode::InvalidProducerEpoch));
    assert_eq!(log.append(&header(1, 6, 8, 1)), Verdict::OutOfOrder { expected: 0 });
    assert_eq!(log.append(&header(1, 6, 0, 1)), Verdict::Append);
    assert_eq!(log.append(&header(1, 6, 0, 1)), duplicate(1, 1));
    assert_eq!(log.append(&header(1, 5, 8, 1)), Verdict::Fenced { current: ProducerEpoch(6) });
}

#[test]
fn producers_do_not_disturb_each_other_and_plain_batches_pass() {
    let mut log = Log::with_batches(2);
    assert_eq!(log.append(&header(2, 0, 0, 10)), Verdict::Append);
    assert_eq!(log.append(&header(-1, -1, -1, 10)), Verdict::Append);
    assert_eq!(log.append(&header(-1, -1, -1, 10)), Verdict::Append);
    assert_eq!(log.append(&header(1, 0, 20, 10)), Verdict::Append);
    assert_eq!(log.table.len(), 2);
}

#[test]
fn a_control_batch_keeps_the_sequences_of_its_epoch_and_opens_a_higher_one() {
    let mut log = Log::with_batches(1);
    log.apply(&control(1, 0));
    assert_eq!(log.append(&header(1, 0, 0, 10)), duplicate(0, 9));
    assert_eq!(log.append(&header(1, 0, 10, 1)), Verdict::Append);
    log.apply(&control(1, 1));
    let current = ProducerEpoch(1);
    assert_eq!(log.append(&header(1, 0, 11, 1)), Verdict::Fenced { current });
    assert_eq!(log.append(&header(1, 1, 11, 1)), Verdict::OutOfOrder { expected: 0 });
    assert_eq!(log.append(&header(1, 1, 0, 1)), Verdict::Append);
}

#[test]
fn a_follower_takes_what_the_leader_took_after_forgetting() {
    let mut log = Log::with_batches(3);
    log.apply(&header(1, 0, 500, 10));
    assert_eq!(log.append(&header(1, 0, 510, 1)), Verdict::Append);
    // What lies before the gap is not known to be stored in one row.
    assert_eq!(log.append(&header(1, 0, 0, 10)), Verdict::OutOfOrder { expected: 511 });
}

#[test]
fn the_producer_that_wrote_longest_ago_is_evicted() {
    let mut log = Log { table: ProducerTable::new(2), ..Log::default() };
    for id in [1, 2, 1, 3] {
        let sequence = if id == 1 && log.end > Offset(0) { 1 } else { 0 };
        assert_eq!(log.append(&header(id, 0, sequence, 1)), Verdict::Append);
    }
    let ids: Vec<_> = log.table.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn a_producer_expires_only_after_it_was_seen_idle_for_the_whole_age() {
    let mut log = Log::with_batches(1);
    log.table.expire(1_000_000, 100);
    log.table.expire(1_000_099, 100);
    assert_eq!(log.table.len(), 1, "the old timestamps of the records counted");
    assert_eq!(log.append(&header(1, 0, 10, 10)), Verdict::Append);
    log.table.expire(1_000_150, 100);
    // A clock that is set back must not forget anybody early.
    log.table.expire(5_000, 100);
    log.table.expire(5_099, 100);
    assert_eq!(log.table.len(), 1);
    log.table.expire(5_100, 100);
    assert!(log.table.is_empty());
    assert_eq!(log.table, ProducerTable::default());
}

#[test]
fn a_snapshot_of_another_version_or_damaged_is_refused() {
    let snapshot = Log::with_batches(3).table.encode();
    let decode = |bytes: &[u8]| ProducerTable::decode(bytes, 10);
    assert!(decode(&snapshot).is_ok());
    assert_eq!(decode(&[]), Err(SnapshotError::Truncated));
    for len in 1..snapshot.len() {
        assert!(decode(&snapshot[..len]).is_err(), "{len}");
    }
    for at in 0..snapshot.len() {
        let mut changed = snapshot.to_vec();
        changed[at] ^= 0x10;
        assert!(decode(&changed).is_err(), "{at}");
    }
    let mut newer = snapshot.to_vec();
    newer[0] = 3;
    assert_eq!(decode(&newer), Err(SnapshotError::UnknownVersion(3)));
}

#[test]
fn transactions_are_saved_with_their_producers() {
    let plain = Log::with_batches(3).table;
    assert_eq!(plain.encode()[0], 1, "as before there were transactions");
    let mut table = plain.clone();
    let producer = Producer { id: ProducerId(77), epoch: ProducerEpoch(2) };
    let marker = EndMarker { producer, commit: false, coordinator_epoch: Epoch(4) };
    let batch = marker.batch(1).unwrap();
    let mut opens = BatchHeader::parse(&batch).unwrap();
    (opens.attributes, opens.base_sequence) = (crate::batch::Attributes(1 << 4), 0);
    table.applied_batch(&opens, Offset(100), &batch);
    let open = table.clone();
    table.applied_batch(&BatchHeader::parse(&batch).unwrap(), Offset(101), &batch);
    assert_eq!(table.transactions().aborted().len(), 1);
    for table in [&open, &table] {
        let bytes = table.encode();
        assert!(bytes.len() <= table.encoded_bytes_max());
        assert_eq!(ProducerTable::decode(&bytes, PRODUCERS_MAX).as_ref(), Ok(table));
        for len in 1..bytes.len() {
            assert!(ProducerTable::decode(&bytes[..len], PRODUCERS_MAX).is_err(), "{len}");
        }
    }
    assert_eq!(table.before(Offset(101)).transactions().open().collect::<Vec<_>>(), [(Offset(100), producer.id)]);
}

#[test]
fn a_snapshot_under_a_right_checksum_is_still_not_believed() {
    let seal = |mut bytes: Vec<u8>| {
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    };
    let decode = |bytes: Vec<u8>| ProducerTable::decode(&seal(bytes), 10);
    // Four thousand million producers, none of which is there.
    let counted = decode(vec![1, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(counted, Err(SnapshotError::Truncated));
    assert_eq!(decode(vec![1, 0, 0]), Err(SnapshotError::Truncated));
    let snapshot = Log::with_batches(2).table.encode();
    let body = &snapshot[..snapshot.len() - 4];
    let once = &body[5..];
    let twice = [&[1, 0, 0, 0, 2], once, once].concat();
    assert!(matches!(decode(twice), Err(SnapshotError::Malformed(_))));
    assert!(matches!(decode([body, &[0]].concat()), Err(SnapshotError::Malformed(_))));
    let mut gap = body.to_vec();
    let last = gap.len() - 5; // The lowest byte of the last batch's base sequence.
    gap[last] ^= 1;
    assert!(matches!(decode(gap), Err(SnapshotError::Malformed(_))));
}

/// Batches of four producers: mostly the next one, now and then another epoch, a
/// repetition, a gap, a marker, or a batch without a producer.
fn batches() -> impl Strategy<Value = Vec<BatchHeader>> {
    let step = (0..4_i64, 0..20_u8, 1..4_u32);
    proptest::collection::vec(step, 0..80).prop_map(|steps| {
        let mut next = [(0_i16, i32::MAX - 6); 4];
        let mut out = vec![];
        for (id, kind, count) in steps {
            let (epoch, sequence) = &mut next[id as usize];
            match kind {
                0 => out.push(header(-1, -1, -1, count)),
                1 => out.push(control(id, *epoch)),
                2 => (*epoch, *sequence) = (*epoch + 1, 0),
                3 => *sequence = sequence.wrapping_add(5) & i32::MAX,
                4 => *sequence = sequence.wrapping_sub(3) & i32::MAX,
                _ => {
                    let batch = header(id, *epoch, *sequence, count);
                    *sequence = sequence.wrapping_add(count as i32) & i32::MAX;
                    out.push(batch);
                }
            }
        }
        out
    })
}

fn table_of(start: ProducerTable, from: Offset, batches: &[BatchHeader]) -> Log {
    let mut log = Log { table: start, end: from };
    batches.iter().for_each(|batch| log.apply(batch));
    log
}

proptest! {
    #[test]
    fn snapshots_round_trip(batches in batches(), max in 1_usize..6) {
        let table = table_of(ProducerTable::new(max), Offset(7), &batches).table;
        prop_assert!(table.len() <= max);
        prop_assert_eq!(ProducerTable::decode(&table.encode(), max), Ok(table.clone()));
        let fewer = ProducerTable::decode(&table.encode(), 1).unwrap();
        prop_assert_eq!(fewer.len(), table.len().min(1));
    }

    /// The leader's table, that of a follower, of recovery from any snapshot, and of a
    /// truncation (an older snapshot and the batches that are left) are one and the same.
    #[test]
    fn the_table_is_a_function_of_a_snapshot_and_the_batches_after_it(
        batches in batches(), max in 1_usize..6, at: prop::sample::Index, cut: prop::sample::Index,
    ) {
        let mut leader = Log { table: ProducerTable::new(max), end: Offset(0) };
        let appended: Vec<_> = batches
            .into_iter()
            .filter(|batch| {
                let marker = batch.attributes.control();
                if marker {
                    leader.apply(batch);
                }
                marker || leader.append(batch) == Verdict::Append
            })
            .collect();
        let kept = cut.index(appended.len() + 1);
        let at = at.index(kept + 1);
        let before = table_of(ProducerTable::new(max), Offset(0), &appended[..at]);
        let restored = ProducerTable::decode(&before.table.encode(), max).unwrap();
        let rebuilt = table_of(restored, before.end, &appended[at..kept]);
        let whole = table_of(ProducerTable::new(max), Offset(0), &appended[..kept]);
        prop_assert_eq!(&rebuilt.table, &whole.table);
        if kept == appended.len() {
            prop_assert_eq!(&rebuilt.table, &leader.table);
        }
    }

    /// One offset per producer and sequence, in the order of the sequences, whatever is sent.
    #[test]
    fn a_sequence_is_appended_once_and_in_order(
        sends in proptest::collection::vec((0..60_i32, 1..6_u32), 1..200),
    ) {
        let mut log = Log::default();
        prop_assert_eq!(log.append(&header(1, 0, 0, 1)), Verdict::Append);
        let mut next = 1;
        for (sequence, count) in sends {
            match log.append(&header(1, 0, sequence, count)) {
                Verdict::Append => {
                    prop_assert_eq!(sequence, next);
                    next += count as i32;
                }
                Verdict::Duplicate { base, last } => {
                    prop_assert_eq!(base.0, sequence as u64);
                    prop_assert_eq!(last.0, sequence as u64 + u64::from(count) - 1);
                }
                Verdict::Forgotten { below } => {
                    prop_assert!(sequence as u64 + u64::from(count) <= below.0);
                }
                Verdict::OutOfOrder { expected } => prop_assert_eq!(expected, next),
                Verdict::Fenced { .. } => prop_assert!(false),
            }
            prop_assert_eq!(log.end, Offset(next as u64));
        }
    }
}
