//! Each anomaly planted by itself into a clean history: found, and nothing else with it.

use std::time::Duration;

use super::*;

fn id(sequence: u64) -> RecordId {
    RecordId { producer: 1, partition: 0, sequence }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Ten records of one producer in one partition, from offset 100 on, all acknowledged: the first
/// five in epoch 3, the others in epoch 4.
fn clean() -> History {
    let epoch = |n: u64| if n < 5 { 3 } else { 4 };
    let attempts = (0..10).map(|n| Attempt {
        id: id(n),
        sent: ms(n * 10),
        ended: ms(n * 10 + 3),
        outcome: Outcome::Acknowledged { offset: 100 + n, epoch: epoch(n) },
    });
    let log: Vec<Stored> = (0..10).map(|n| Stored { offset: 100 + n, epoch: epoch(n), id: Some(id(n)) }).collect();
    History {
        partitions: 1,
        attempts: attempts.collect(),
        tail: [(0, log.clone())].into(),
        base: [(0, 100)].into(),
        log: [(0, log)].into(),
        end: ms(100),
        ..History::default()
    }
}

/// The tail would find most damage as well; these look at the rest alone.
fn without_tail() -> History {
    History { tail: BTreeMap::new(), ..clean() }
}

fn log(history: &mut History) -> &mut Vec<Stored> {
    history.log.entry(0).or_default()
}

#[track_caller]
fn finds(history: &History, anomaly: Anomaly, count: u64) {
    let verdict = check(history);
    let kinds: Vec<_> = verdict.0.iter().map(|(kind, found)| (*kind, found.count)).collect();
    assert_eq!(kinds, [(anomaly, count)], "{verdict:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert!(check(&clean()).clean(), "{:?}", check(&clean()));
    assert!(check(&History::default()).clean());
}

#[test]
fn what_is_unknown_may_be_there_or_not() {
    let mut history = clean();
    history.attempts[9].outcome = Outcome::Unknown("no answer".into());
    assert!(check(&history).clean());
    log(&mut history).pop();
    history.tail.clear();
    assert!(check(&history).clean());
}

#[test]
fn a_lost_record() {
    let mut history = without_tail();
    log(&mut history).pop();
    finds(&history, Anomaly::Lost, 1);
}

#[test]
fn a_lost_partition() {
    let mut history = without_tail();
    history.log.clear();
    finds(&history, Anomaly::Lost, 10);
}

#[test]
fn a_record_at_another_place() {
    let mut history = without_tail();
    history.attempts[9].outcome = Outcome::Acknowledged { offset: 110, epoch: 4 };
    finds(&history, Anomaly::Displaced, 1);
}

#[test]
fn two_records_acknowledged_at_one_place() {
    let mut history = without_tail();
    history.attempts[8].outcome = Outcome::Acknowledged { offset: 109, epoch: 4 };
    let verdict = check(&history);
    assert_eq!(verdict.count(Anomaly::AcknowledgedTwice), 1);
    assert_eq!(verdict.count(Anomaly::Displaced), 1, "one of the two is not where it was acknowledged");
}

#[test]
fn a_duplicate() {
    let mut history = without_tail();
    log(&mut history).push(Stored { offset: 110, epoch: 4, id: Some(id(2)) });
    finds(&history, Anomaly::Duplicate, 1);
}

#[test]
fn records_in_another_order() {
    let mut history = without_tail();
    history.attempts[6].outcome = Outcome::Acknowledged { offset: 107, epoch: 4 };
    history.attempts[7].outcome = Outcome::Acknowledged { offset: 106, epoch: 4 };
    log(&mut history)[6].id = Some(id(7));
    log(&mut history)[7].id = Some(id(6));
    finds(&history, Anomaly::Reordered, 1);
}

#[test]
fn a_gap_in_a_producers_sequence_is_no_reordering() {
    let mut history = without_tail();
    history.attempts[9].outcome = Outcome::NotStored("refused".into());
    history.attempts.remove(4);
    log(&mut history).pop();
    log(&mut history)[4].id = None;
    assert!(check(&history).clean(), "{:?}", check(&history));
}

#[test]
fn a_record_that_failed_for_certain_is_there() {
    let mut history = clean();
    history.attempts[9].outcome = Outcome::NotStored("refused".into());
    finds(&history, Anomaly::StoredThoughFailed, 1);
}

#[test]
fn a_record_that_nobody_sent() {
    let mut history = without_tail();
    log(&mut history).push(Stored { offset: 110, epoch: 4, id: Some(id(77)) });
    finds(&history, Anomaly::Foreign, 1);
}

#[test]
fn a_record_in_another_partition() {
    let mut history = without_tail();
    history.attempts[9].outcome = Outcome::Unknown("no answer".into());
    history.attempts[9].id.partition = 5;
    log(&mut history)[9].id = Some(RecordId { partition: 5, ..id(9) });
    finds(&history, Anomaly::Foreign, 1);
}

#[test]
fn other_producers_are_none_of_our_business() {
    let mut history = without_tail();
    let other = RecordId { producer: 99, ..id(3) };
    log(&mut history).push(Stored { offset: 110, epoch: 4, id: Some(other) });
    assert!(check(&history).clean());
}

#[test]
fn a_hole_in_the_log() {
    let mut history = without_tail();
    log(&mut history).push(Stored { offset: 111, epoch: 4, id: None });
    finds(&history, Anomaly::Hole, 1);
}

#[test]
fn an_epoch_that_falls() {
    let mut history = without_tail();
    log(&mut history).push(Stored { offset: 110, epoch: 3, id: None });
    finds(&history, Anomaly::EpochFell, 1);
}

#[test]
fn an_acknowledgement_of_an_older_epoch_than_the_record() {
    let mut history = without_tail();
    history.attempts[5].outcome = Outcome::Acknowledged { offset: 105, epoch: 3 };
    finds(&history, Anomaly::StaleAcknowledgement, 1);
}

#[test]
fn an_old_leader_that_acknowledges_after_the_new_one() {
    let mut history = without_tail();
    // Sent when epoch 4 had acknowledged already, and there as the old leader wrote it.
    history.attempts[4].sent = ms(60);
    history.attempts[4].ended = ms(65);
    finds(&history, Anomaly::StaleAcknowledgement, 1);
}

#[test]
fn a_retry_may_be_acknowledged_by_a_later_epoch() {
    let mut history = clean();
    history.attempts[4].outcome = Outcome::Acknowledged { offset: 104, epoch: 4 };
    assert!(check(&history).clean());
}

#[test]
fn a_tail_that_skips_or_repeats() {
    let mut history = clean();
    history.tail.entry(0).or_default().remove(3);
    finds(&history, Anomaly::TailSkipped, 1);
    let mut history = clean();
    let tail = history.tail.entry(0).or_default();
    tail.insert(3, tail[2]);
    finds(&history, Anomaly::TailSkipped, 1);
}

#[test]
fn a_tail_that_does_not_begin_where_it_should() {
    let mut history = clean();
    history.tail.entry(0).or_default().remove(0);
    finds(&history, Anomaly::TailSkipped, 1);
}

#[test]
fn a_tail_that_read_something_else() {
    let mut history = clean();
    history.tail.entry(0).or_default()[4].id = Some(id(5));
    finds(&history, Anomaly::TailChanged, 1);
}

#[test]
fn a_tail_that_read_what_is_gone() {
    let mut history = clean();
    history.attempts[9].outcome = Outcome::Unknown("no answer".into());
    log(&mut history).pop();
    finds(&history, Anomaly::TailChanged, 1);
}

#[test]
fn a_tail_that_was_told_an_error() {
    let history = History { tail_errors: vec!["OFFSET_OUT_OF_RANGE".into()], ..clean() };
    finds(&history, Anomaly::TailFailed, 1);
}

/// Two rounds: the epochs of the second go on where those of the first ended.
fn two_rounds() -> History {
    let mut second = clean();
    for attempt in &mut second.attempts {
        attempt.id.producer = 2;
        if let Outcome::Acknowledged { offset, epoch } = &mut attempt.outcome {
            (*offset, *epoch) = (*offset + 10, *epoch + 1);
        }
    }
    let stored = |stored: &Stored| Stored {
        offset: stored.offset + 10,
        epoch: stored.epoch + 1,
        id: stored.id.map(|id| RecordId { producer: 2, ..id }),
    };
    let mut whole = History::default();
    whole.absorb(&clean());
    whole.absorb(&second);
    whole.log = clean().log;
    let later: Vec<Stored> = log(&mut whole).iter().map(stored).collect();
    log(&mut whole).extend(later);
    whole
}

#[test]
fn rounds_are_checked_together() {
    assert!(check(&two_rounds()).clean(), "{:?}", check(&two_rounds()));
    let mut lost = two_rounds();
    log(&mut lost).truncate(10);
    finds(&lost, Anomaly::Lost, 10);
}

#[test]
fn a_later_round_goes_on_in_time() {
    let whole = two_rounds();
    assert_eq!(whole.attempts[10].sent, ms(100), "the first round ended at 100 ms");
    assert_eq!(whole.end, ms(200));
}
