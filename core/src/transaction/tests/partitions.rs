//! What a partition knows of its transactions.

use bytes::Bytes;
use proptest::prelude::*;

use super::bench::producer;
use crate::batch::{Attributes, BatchHeader, control_batch};
use crate::error::ErrorCode as E;
use crate::ids::{Epoch, Offset, ProducerId};
use crate::transaction::message::{Producer, Protocol};
use crate::transaction::partition::*;

fn data(producer: Producer, sequence: i32, transactional: bool) -> BatchHeader {
    let batch = control_batch(producer.id, producer.epoch, 1, b"k", b"v").unwrap();
    let mut header = BatchHeader::parse(&batch).unwrap();
    header.attributes = Attributes(if transactional { 1 << 4 } else { 0 });
    header.base_sequence = sequence;
    header
}

fn marker(producer: Producer, commit: bool, coordinator: u32) -> EndMarker {
    EndMarker { producer, commit, coordinator_epoch: Epoch(coordinator) }
}

/// A log of batches of one record each, and the table that follows it.
#[derive(Clone, Debug, Default)]
struct Log {
    table: TransactionTable,
    batches: Vec<(BatchHeader, Option<EndMarker>)>,
}

impl Log {
    fn push(&mut self, header: BatchHeader, marker: Option<EndMarker>) {
        let base = Offset(self.batches.len() as u64);
        self.table.applied(&header, base, marker.as_ref());
        self.batches.push((header, marker));
    }

    fn write(&mut self, producer: Producer) {
        self.push(data(producer, 0, true), None);
    }

    fn end(&mut self, marker: EndMarker) {
        let batch = marker.batch(1).unwrap();
        self.push(BatchHeader::parse(&batch).unwrap(), Some(marker));
    }

    fn stable(&self, high_watermark: u64) -> u64 {
        self.table.last_stable(Offset(high_watermark)).0
    }

    fn aborted(&self, from: u64, to: u64) -> Vec<(i64, u64, u64)> {
        let within = self.table.aborted().within(Offset(from), Offset(to));
        within.map(|one| (one.producer.0, one.first.0, one.last.0)).collect()
    }
}

#[test]
fn markers_are_those_of_kafka() {
    let golden = crate::batch::golden_control();
    let header = BatchHeader::parse(&golden).unwrap();
    let read = EndMarker::read(&header, &golden).unwrap().unwrap();
    assert_eq!(read.producer, Producer { id: header.producer_id, epoch: header.producer_epoch });
    // The client's library leaves the base offset and the leader epoch to the leader, and so do we.
    let ours = read.batch(header.max_timestamp_ms).unwrap();
    assert_eq!(ours[21..], golden[21..]);
}

#[test]
fn markers_come_back_and_damage_is_told() {
    let end = marker(producer(7, 3), true, 12);
    let batch = end.batch(99).unwrap();
    crate::batch::check_crc(&batch).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(EndMarker::read(&header, &batch), Ok(Some(end)));
    let plain = data(producer(7, 3), 0, true);
    assert_eq!(EndMarker::read(&plain, &batch), Ok(None));
    let short = control_batch(ProducerId(7), end.producer.epoch, 1, &[0, 0, 0], &[]).unwrap();
    assert_eq!(EndMarker::read(&BatchHeader::parse(&short).unwrap(), &short), Err(MarkerError::Truncated));
    let other = control_batch(ProducerId(7), end.producer.epoch, 1, &[0, 0, 0, 9], &[]).unwrap();
    assert_eq!(EndMarker::read(&BatchHeader::parse(&other).unwrap(), &other), Ok(None), "another type of control");
    let cut = Bytes::copy_from_slice(&batch[..batch.len() - 1]);
    assert!(matches!(EndMarker::read(&header, &cut), Err(MarkerError::Batch(_))));
}

#[test]
fn nothing_undecided_is_stable() {
    let (a, b) = (producer(1, 0), producer(2, 0));
    let mut log = Log::default();
    log.push(data(a, 0, false), None);
    assert_eq!(log.stable(1), 1);
    log.write(a);
    log.write(b);
    log.write(a);
    assert_eq!((log.stable(4), log.stable(1)), (1, 1));
    log.end(marker(producer(1, 1), false, 1));
    assert_eq!(log.stable(5), 2, "the other one is open");
    log.end(marker(producer(2, 1), true, 1));
    assert_eq!(log.stable(4), 1, "a marker that is not committed may be cut off");
    assert_eq!(log.stable(5), 2);
    assert_eq!(log.stable(6), 6);
    log.table.committed(Offset(6));
    assert_eq!(log.stable(6), 6);
    assert_eq!(log.aborted(0, 6), [(1, 1, 4)]);
    assert!(log.aborted(0, 1).is_empty() && log.aborted(5, 6).is_empty());
    log.table.log_starts_at(Offset(5));
    assert!(log.table.aborted().is_empty());
}

#[test]
fn batches_stand_where_they_belong() {
    let mut log = Log::default();
    let stands = |log: &Log, p: Producer, transactional| log.table.standing(&data(p, 0, transactional));
    assert_eq!(stands(&log, producer(1, 1), false), Standing::Plain);
    assert_eq!(stands(&log, producer(1, 1), true), Standing::Begins);
    log.write(producer(1, 1));
    assert_eq!(stands(&log, producer(1, 1), true), Standing::Joins);
    assert_eq!(stands(&log, producer(1, 1), false), Standing::Refused(E::InvalidTransactionState));
    assert_eq!(stands(&log, producer(1, 2), true), Standing::Refused(E::ConcurrentTransactions));
    assert_eq!(stands(&log, producer(1, 0), true), Standing::Refused(E::InvalidProducerEpoch));
    log.end(marker(producer(1, 2), true, 1));
    assert_eq!(stands(&log, producer(1, 1), true), Standing::Refused(E::InvalidProducerEpoch));
    assert_eq!(stands(&log, producer(1, 2), true), Standing::Begins);
}

#[test]
fn late_markers_are_told_from_new_ones() {
    let mut log = Log::default();
    log.write(producer(1, 0));
    let end = marker(producer(1, 1), true, 5);
    assert_eq!(log.table.check_marker(&end, true), MarkerVerdict::Append);
    log.end(end);
    assert_eq!(log.table.check_marker(&end, true), MarkerVerdict::Over { below: Offset(2) });
    assert_eq!(log.table.check_marker(&marker(producer(1, 1), true, 4), true), MarkerVerdict::Fenced);
    log.write(producer(1, 1));
    assert_eq!(log.table.check_marker(&end, true), MarkerVerdict::Stale, "it would end the next transaction");
    assert_eq!(log.table.check_marker(&marker(producer(1, 1), false, 5), false), MarkerVerdict::Append);
    assert_eq!(log.table.check_marker(&marker(producer(1, 0), true, 6), false), MarkerVerdict::Stale);
    assert_eq!(log.table.check_marker(&marker(producer(9, 0), true, 1), true), MarkerVerdict::Append);
}

#[test]
fn what_is_remembered_is_bounded() {
    let limits = TableLimits { idle_max: 1, open_max: 2, aborted_max: 2 };
    let mut log = Log { table: TransactionTable::new(limits), ..Log::default() };
    for id in 1..=2 {
        log.write(producer(id, 0));
    }
    assert_eq!(log.table.standing(&data(producer(3, 0), 0, true)), Standing::Refused(E::Throttled));
    assert_eq!(log.table.standing(&data(producer(1, 0), 0, true)), Standing::Joins);
    for id in 1..=2 {
        log.end(marker(producer(id, 1), false, 1));
    }
    assert_eq!(log.table.standing(&data(producer(3, 0), 0, true)), Standing::Refused(E::Throttled), "aborted");
    log.table.log_starts_at(Offset(4));
    assert_eq!(log.table.standing(&data(producer(1, 0), 0, true)), Standing::Begins, "forgotten, as the longest idle");
    assert_eq!(log.table.standing(&data(producer(2, 0), 0, true)), Standing::Refused(E::InvalidProducerEpoch));
}

#[test]
fn a_first_batch_needs_the_coordinators_word() {
    let mut log = Log::default();
    let mut leader = Verification::new(Epoch(3), 1);
    let one = producer(1, 0);
    let Admission::Verify(guard) = leader.admit(&log.table, false, &data(one, 0, true), Protocol::Second, None) else {
        panic!("not asked about");
    };
    let admit = |leader: &mut Verification, log: &Log, header: &BatchHeader, guard| {
        leader.admit(&log.table, false, header, Protocol::Second, guard)
    };
    assert_eq!(admit(&mut leader, &log, &data(one, 0, true), None), Admission::Verify(guard), "the same question");
    let first = data(one, 0, true);
    assert_eq!(admit(&mut leader, &log, &first, Some(guard)), Admission::Append);
    let later = data(one, 4, true);
    assert_eq!(admit(&mut leader, &log, &later, Some(guard)), Admission::Refused(E::OutOfOrderSequence));
    assert_eq!(leader.admit(&log.table, true, &later, Protocol::Second, Some(guard)), Admission::Append);
    log.end(marker(producer(1, 1), false, 1));
    leader.ended(&marker(producer(1, 1), false, 1), true);
    assert_eq!(admit(&mut leader, &log, &first, Some(guard)), Admission::Refused(E::InvalidProducerEpoch));
    let next = data(producer(1, 1), 0, true);
    let Admission::Verify(second) = admit(&mut leader, &log, &next, Some(guard)) else { panic!("an old guard") };
    leader.ended(&marker(producer(1, 1), false, 1), true);
    assert_eq!(admit(&mut leader, &log, &next, Some(second)), Admission::Append, "a repeated marker takes nothing");
    log.write(producer(1, 1));
    leader.began(&next);
    assert_eq!(admit(&mut leader, &log, &data(producer(1, 1), 1, true), None), Admission::Append);
    let mut successor = Verification::new(Epoch(4), 1);
    let other = data(producer(2, 0), 0, true);
    assert!(matches!(admit(&mut successor, &log, &other, Some(guard)), Admission::Verify(new) if new != guard));
    let third = admit(&mut successor, &log, &data(producer(3, 0), 0, true), None);
    assert!(matches!(third, Admission::Verify(_)), "the oldest question is forgotten");
    assert!(matches!(admit(&mut successor, &log, &other, None), Admission::Verify(new) if new != guard));
}

#[test]
fn of_old_clients_the_lowest_sequence_comes_first() {
    let table = TransactionTable::default();
    let mut leader = Verification::new(Epoch(1), 10);
    let one = producer(1, 0);
    let mut admit = |sequence, guard| leader.admit(&table, false, &data(one, sequence, true), Protocol::First, guard);
    let Admission::Verify(guard) = admit(7, None) else { panic!("not asked about") };
    assert_eq!(admit(3, None), Admission::Verify(guard));
    assert_eq!(admit(7, Some(guard)), Admission::Refused(E::OutOfOrderSequence));
    assert_eq!(admit(3, Some(guard)), Admission::Append);
}

/// A producer's batch, transactional or not; or its end, committed or not, by a coordinator.
type Step = (Producer, Option<(bool, u32)>, bool);

/// Anything that a log may contain, whoever took it.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let producers = (0..4_i64, 0..3_i16).prop_map(|(id, epoch)| producer(id, epoch));
    prop::collection::vec((producers, prop::option::of((any::<bool>(), 0..5_u32)), any::<bool>()), 0..60)
}

fn replayed(
    mut table: TransactionTable,
    batches: &[(BatchHeader, Option<EndMarker>)],
    from: usize,
) -> TransactionTable {
    for (offset, (header, marker)) in batches.iter().enumerate().skip(from) {
        table.applied(header, Offset(offset as u64), marker.as_ref());
    }
    table
}

proptest! {
    #[test]
    fn a_snapshot_and_the_rest_are_the_whole(
        steps in steps(), at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), small: bool,
    ) {
        let limits = if small { TableLimits { idle_max: 1, open_max: 1, aborted_max: 1 } } else { TableLimits::default() };
        let mut log = Log { table: TransactionTable::new(limits), batches: Vec::new() };
        let mut snapshots = vec![log.table.encode()];
        for (who, end, transactional) in steps {
            match end {
                Some((commit, coordinator)) => log.end(marker(who, commit, coordinator)),
                None => log.push(data(who, 0, transactional), None),
            }
            snapshots.push(log.table.encode());
        }
        let from = at.index(snapshots.len());
        let restored = TransactionTable::decode(&snapshots[from], limits).unwrap();
        prop_assert_eq!(&replayed(restored.clone(), &log.batches, from), &log.table);
        // A truncation to somewhere above the snapshot.
        let keep = from + cut.index(log.batches.len() - from + 1);
        let whole = replayed(TransactionTable::new(limits), &log.batches[..keep], 0);
        prop_assert_eq!(&replayed(restored, &log.batches[..keep], from), &whole);
        // The index gives all that overlaps, and nothing else.
        for (low, high) in [(0, keep), (from, keep), (from, from + 1)] {
            let (low, high) = (Offset(low as u64), Offset(high as u64));
            let naive: Vec<_> = whole.aborted().iter().filter(|a| a.last >= low && a.first < high).collect();
            let found: Vec<_> = whole.aborted().within(low, high).collect();
            prop_assert_eq!(found, naive);
        }
    }

    #[test]
    fn what_was_known_at_an_offset_is_found_again(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut log = Log::default();
        for (who, end, transactional) in steps {
            match end {
                Some((commit, coordinator)) => log.end(marker(who, commit, coordinator)),
                None => log.push(data(who, 0, transactional), None),
            }
        }
        let at = at.index(log.batches.len() + 1);
        let then = replayed(TransactionTable::default(), &log.batches[..at], 0);
        let before = log.table.before(Offset(at as u64));
        prop_assert_eq!(before.open().collect::<Vec<_>>(), then.open().collect::<Vec<_>>());
        prop_assert_eq!(before.aborted(), then.aborted());
        prop_assert!(TransactionTable::decode(&before.encode(), TableLimits::default()).is_ok());
        // What follows makes of it what is known now, as far as readers see it.
        let again = replayed(before, &log.batches, at);
        prop_assert_eq!(again.open().collect::<Vec<_>>(), log.table.open().collect::<Vec<_>>());
        prop_assert_eq!(again.aborted(), log.table.aborted());
        for high_watermark in at..=log.batches.len() {
            let high_watermark = Offset(high_watermark as u64);
            prop_assert_eq!(again.last_stable(high_watermark), log.table.last_stable(high_watermark));
        }
    }

    #[test]
    fn damaged_snapshots_are_told(steps in steps(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut log = Log::default();
        for (who, end, _) in steps {
            match end {
                Some((commit, coordinator)) => log.end(marker(who, commit, coordinator)),
                None => log.write(who),
            }
        }
        let bytes = log.table.encode();
        let index = at.index(bytes.len());
        prop_assert!(TransactionTable::decode(&bytes[..index], TableLimits::default()).is_err());
        let mut flipped = bytes.to_vec();
        flipped[index] ^= 1 << bit;
        prop_assert!(TransactionTable::decode(&flipped, TableLimits::default()).is_err());
        // With a checksum that agrees, it is sorted out by what it says, or harmless.
        let end = flipped.len() - 4;
        let crc = crc32c::crc32c(&flipped[..end]);
        flipped[end..].copy_from_slice(&crc.to_be_bytes());
        let _ = TransactionTable::decode(&flipped, TableLimits::default());
    }
}
