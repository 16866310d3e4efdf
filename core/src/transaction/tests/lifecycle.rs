//! Producers come, write, end their transactions, and are too slow.

use super::bench::*;
use crate::error::ErrorCode as E;
use crate::transaction::message::Protocol::{First, Second};
use crate::transaction::message::{Input, MarkerOutcome};
use crate::transaction::metadata::TransactionState as State;
use crate::transaction::settings::TransactionSettings;
use crate::transaction::{TransactionFilter, partition_of};

#[test]
fn a_transaction_is_committed_in_every_partition() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0, 1]);
    assert_eq!(one, producer(1_000, 0));
    assert_eq!(bench.end("t", one, true, Second), Ok(producer(1_000, 1)));
    assert_eq!(bench.state("t"), State::PrepareCommit);
    let (round, marker, raised, partitions) = bench.markers.pop().unwrap();
    assert_eq!((marker.producer, marker.commit, marker.coordinator_epoch.0), (producer(1_000, 1), true, 1));
    assert!(raised);
    assert_eq!(partitions, these(&[0, 1]));
    bench.step(Input::Marked { round, at: at(0), outcome: MarkerOutcome::Written });
    bench.step(Input::Marked { round, at: at(1), outcome: MarkerOutcome::Failed });
    assert_eq!(bench.state("t"), State::PrepareCommit);
    assert_eq!(bench.add("t", producer(1_000, 1), &[0]), Err(E::ConcurrentTransactions));
    bench.wait(500);
    assert_eq!(bench.markers.pop().unwrap().3, these(&[1]), "asked again for the one that failed");
    bench.step(Input::Marked { round, at: at(1), outcome: MarkerOutcome::Gone });
    assert_eq!(bench.state("t"), State::CompleteCommit);
    assert_eq!(bench.add("t", producer(1_000, 1), &[0]), Ok(()));
}

#[test]
fn the_first_protocol_keeps_the_epoch() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0]);
    assert_eq!(bench.end("t", one, false, First), Ok(one));
    let (_, marker, raised, _) = bench.markers[0].clone();
    assert_eq!((marker.producer, marker.commit, raised), (one, false, false));
    assert_eq!(bench.end("t", one, false, First), Err(E::ConcurrentTransactions));
    assert_eq!(bench.end("t", one, true, First), Err(E::InvalidTransactionState));
    bench.confirm();
    assert_eq!(bench.end("t", one, false, First), Ok(one), "repeated");
    assert_eq!(bench.end("t", one, true, First), Err(E::InvalidTransactionState));
    assert_eq!(bench.add("t", one, &[1]), Ok(()));
}

#[test]
fn repeated_ends_of_the_second_protocol_are_known_by_their_epoch() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0]);
    let two = bench.end("t", one, true, Second).unwrap();
    assert_eq!(bench.end("t", one, true, Second), Ok(two));
    assert_eq!(bench.end("t", one, false, Second), Err(E::InvalidTransactionState));
    bench.confirm();
    assert_eq!(bench.end("t", one, true, Second), Ok(two));
    assert_eq!(bench.end("t", one, false, Second), Err(E::InvalidTransactionState));
    assert_eq!(bench.end("t", two, true, Second), Err(E::InvalidTransactionState), "nothing was begun");
    let three = bench.end("t", two, false, Second).unwrap();
    assert_eq!(three, producer(1_000, 2), "aborting nothing raises the epoch: a batch may be on its way");
    assert!(bench.markers.is_empty());
    assert_eq!(bench.add("t", three, &[0]), Ok(()));
    assert_eq!(bench.end("t", two, false, Second), Err(E::ProducerFenced), "the answer was used");
}

#[test]
fn a_newer_producer_fences_the_one_before() {
    let mut bench = Bench::new();
    let old = bench.ongoing("t", &[0, 2]);
    assert_eq!(bench.init("t", None), Err(E::ConcurrentTransactions), "the open transaction ends first");
    assert_eq!(bench.markers[0].1.producer, producer(1_000, 1));
    assert!(!bench.markers[0].1.commit);
    assert_eq!(bench.init("t", None), Err(E::ConcurrentTransactions));
    assert_eq!(bench.end("t", old, true, Second), Err(E::ProducerFenced));
    bench.confirm();
    assert_eq!(bench.init("t", None), Ok(producer(1_000, 2)));
    assert_eq!(bench.add("t", old, &[1]), Err(E::ProducerFenced));
    assert_eq!(bench.verify("t", old, &[0]), Err(E::ProducerFenced));
    assert_eq!(bench.end("t", old, false, First), Err(E::ProducerFenced));
    assert_eq!(bench.init("t", Some(old)), Err(E::ProducerFenced));
    assert_eq!(bench.add("t", producer(7, 0), &[1]), Err(E::InvalidProducerMapping));
    assert_eq!(bench.add("u", old, &[1]), Err(E::InvalidProducerMapping));
}

#[test]
fn a_producer_goes_on_after_an_error() {
    let mut bench = Bench::new();
    let one = bench.init("t", None).unwrap();
    let two = bench.init("t", Some(one)).unwrap();
    assert_eq!(two, producer(1_000, 1));
    assert_eq!(bench.init("t", Some(one)), Ok(two), "it did not hear the answer");
    assert_eq!(bench.add("t", two, &[0]), Ok(()));
    assert_eq!(bench.init("t", Some(one)), Err(E::ProducerFenced), "it did: this one is late");
    assert_eq!(bench.init("t", Some(two)), Err(E::ConcurrentTransactions));
    bench.confirm();
    assert_eq!(bench.init("t", Some(two)), Ok(producer(1_000, 2)));
}

#[test]
fn requests_meet_at_one_change() {
    let mut bench = Bench::new();
    let one = bench.init("t", None).unwrap();
    bench.held = true;
    let first = bench.ask_add("t", one, &[0]);
    let (second, third) = (bench.ask_add("t", one, &[1]), bench.ask_add("t", one, &[2]));
    assert_eq!(bench.init("t", None), Err(E::ConcurrentTransactions));
    assert_eq!(bench.end("t", one, true, Second), Err(E::ConcurrentTransactions));
    bench.store();
    assert_eq!(bench.added(first), Ok(()));
    assert_eq!(bench.verify("t", one, &[0]), Ok(()), "nothing but more partitions is on its way");
    assert_eq!(bench.verify("t", one, &[1]), Err(E::TransactionAbortable));
    assert_eq!(bench.waiting.len(), 1, "what waited goes together");
    bench.store();
    assert_eq!((bench.added(second), bench.added(third)), (Ok(()), Ok(())));
    let end = bench.ask_end("t", one, true, Second);
    assert_eq!(bench.verify("t", one, &[0]), Err(E::ConcurrentTransactions));
    assert_eq!(bench.add("t", one, &[0]), Err(E::ConcurrentTransactions));
    bench.refuse();
    assert_eq!(bench.producer(end), Err(E::CoordinatorUnavailable));
    assert_eq!(bench.state("t"), State::Ongoing);
}

#[test]
fn a_slow_transaction_is_aborted_and_its_producer_may_go_on() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0]);
    bench.wait(TIMEOUT_MS - 1);
    assert_eq!(bench.state("t"), State::Ongoing);
    bench.held = true;
    bench.wait(1);
    bench.refuse();
    bench.held = false;
    bench.wait(500);
    assert_eq!(bench.state("t"), State::PrepareAbort, "tried again");
    assert_eq!(bench.end("t", one, true, Second), Err(E::InvalidTransactionState));
    bench.confirm();
    assert_eq!(bench.state("t"), State::CompleteAbort);
    assert_eq!(bench.add("t", one, &[0]), Err(E::ProducerFenced));
    assert_eq!(bench.end("t", one, true, First), Err(E::ProducerFenced));
    assert_eq!(bench.end("t", one, false, Second), Ok(producer(1_000, 1)));
    assert_eq!(bench.init("t", Some(one)), Ok(producer(1_000, 1)));
}

#[test]
fn what_is_decided_is_carried_through_by_the_next_coordinator() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0, 1]);
    let two = bench.end("t", one, true, Second).unwrap();
    let stale = bench.markers[0].0;
    bench.fail_over();
    let (round, marker, raised, partitions) = bench.markers[0].clone();
    assert_eq!((marker.producer, marker.coordinator_epoch.0, raised), (two, 2, true));
    assert_eq!(partitions, these(&[0, 1]));
    bench.confirm();
    assert_eq!(bench.state("t"), State::CompleteCommit);
    assert_eq!(bench.end("t", one, true, Second), Ok(two));
    bench.step(Input::Marked { round: stale, at: at(0), outcome: MarkerOutcome::Written });
    bench.step(Input::Marked { round, at: at(0), outcome: MarkerOutcome::Fenced });
    assert!(!bench.superseded, "that round is over");
}

#[test]
fn what_is_open_goes_on_under_the_next_coordinator() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0]);
    bench.wait(TIMEOUT_MS / 2);
    bench.fail_over();
    assert_eq!(bench.add("t", one, &[1]), Ok(()));
    bench.now_ms -= TIMEOUT_MS * 10;
    bench.fail_over();
    bench.wait(TIMEOUT_MS);
    assert_eq!(bench.markers[0].3, these(&[0, 1]), "another clock makes nothing last longer");
}

#[test]
fn a_superseded_coordinator_ends() {
    let mut bench = Bench::new();
    let one = bench.ongoing("t", &[0]);
    bench.end("t", one, true, First).unwrap();
    bench.held = true;
    let waiting = bench.request();
    bench.step(Input::Init { request: waiting, id: "u".to_owned(), timeout_ms: 1, expected: None, connection: None });
    let round = bench.markers[0].0;
    bench.step(Input::Marked { round, at: at(0), outcome: MarkerOutcome::Fenced });
    assert!(bench.superseded);
    assert_eq!(bench.producer(waiting), Err(E::NotCoordinator));
    assert_eq!(bench.init("t", None), Err(E::NotCoordinator));
    assert_eq!(bench.verify("t", one, &[0]), Err(E::NotCoordinator));
    assert_eq!(bench.coordinator.next_deadline_ms(), None);
}

#[test]
fn used_up_epochs_lead_to_another_id() {
    let mut bench = Bench::new();
    let last = bench.with_epoch("t", i16::MAX - 1);
    assert_eq!(bench.add("t", last, &[0]), Ok(()));
    let next = bench.end("t", last, true, Second).unwrap();
    assert_eq!(next.epoch.0, 0);
    assert_ne!(next.id, last.id);
    assert_eq!(bench.markers[0].1.producer, producer(5, i16::MAX));
    assert_eq!(bench.add("t", next, &[0]), Err(E::ConcurrentTransactions));
    bench.confirm();
    assert_eq!(bench.end("t", last, true, Second), Ok(next));
    assert_eq!(bench.add("t", next, &[0]), Ok(()));
    let other = bench.with_epoch("u", i16::MAX - 1);
    let renewed = bench.init("u", Some(other)).unwrap();
    assert_eq!((renewed.epoch.0, renewed.id == other.id), (0, false));
    assert_eq!(bench.init("u", Some(other)), Ok(renewed));
}

#[test]
fn nobody_gets_the_epoch_that_is_left_for_fencing() {
    let mut bench = Bench::new();
    bench.ids_given = false;
    let last = bench.with_epoch("t", i16::MAX - 1);
    assert_eq!(bench.add("t", last, &[0]), Ok(()));
    assert_eq!(bench.end("t", last, true, Second), Err(E::CoordinatorUnavailable), "there is no id to go on with");
    bench.wait(TIMEOUT_MS);
    bench.confirm();
    assert_eq!(bench.state("t"), State::CompleteAbort);
    assert_eq!(bench.end("t", last, false, Second), Err(E::ProducerFenced));
    assert_eq!(bench.init("t", Some(last)), Err(E::CoordinatorUnavailable));
    bench.ids_given = true;
    let _ = bench.init("t", Some(last));
    let next = bench.init("t", Some(last)).unwrap();
    assert_eq!((next.epoch.0, next.id == last.id), (0, false));
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    let mut bench = Bench::new();
    let one = bench.init("t", None).unwrap();
    bench.wait(bench.settings.id_expiration_ms - 1);
    assert_eq!(bench.state("t"), State::Empty);
    bench.wait(1);
    assert_eq!(bench.coordinator.describe("t").map_err(|e| e.code), Err(E::TransactionalIdNotFound));
    assert_eq!(bench.log.last().unwrap().value(), None);
    assert_eq!(bench.add("t", one, &[0]), Err(E::InvalidProducerMapping));
    assert_eq!(bench.init("t", Some(one)), Ok(producer(1_001, 0)));
    bench.fail_over();
    assert_eq!(bench.state("t"), State::Empty);
}

#[test]
fn limits_are_told() {
    let limits = TransactionSettings {
        ids_max: 1,
        partitions_max: 2,
        waiting_max: 1,
        appends_max: 1,
        id_bytes_max: 3,
        ..TransactionSettings::default()
    };
    let mut bench = Bench::with(limits);
    assert_eq!(bench.init("", None), Err(E::InvalidRequest));
    assert_eq!(bench.init("long", None), Err(E::InvalidRequest));
    for timeout_ms in [-1, 0, 900_001, i64::MAX] {
        let request = bench.request();
        bench.step(Input::Init { request, id: "t".to_owned(), timeout_ms, expected: None, connection: None });
        assert_eq!(bench.producer(request), Err(E::InvalidTransactionTimeout), "{timeout_ms}");
    }
    let one = bench.init("t", None).unwrap();
    assert_eq!(bench.init("u", None), Err(E::PolicyViolation));
    assert_eq!(bench.add("t", one, &[]), Err(E::InvalidRequest));
    assert_eq!(bench.add("t", one, &[0, 1, 2]), Err(E::PolicyViolation));
    bench.held = true;
    bench.ask_add("t", one, &[0]);
    assert_eq!(bench.init("t", None), Err(E::CoordinatorUnavailable), "too many appends");
    bench.held = false;
    bench.store();
    assert_eq!(bench.add("t", one, &[1]), Ok(()));
    assert_eq!(bench.add("t", one, &[2]), Err(E::PolicyViolation));
}

#[test]
fn transactions_are_listed() {
    let mut bench = Bench::new();
    bench.ongoing("a", &[0]);
    bench.init("b", None).unwrap();
    bench.wait(10);
    let ids = |filter: TransactionFilter| {
        let lines = bench.coordinator.list(bench.now_ms, &filter);
        lines.into_iter().map(|line| (line.id, line.state)).collect::<Vec<_>>()
    };
    let (a, b) = (("a".to_owned(), State::Ongoing), ("b".to_owned(), State::Empty));
    assert_eq!(ids(TransactionFilter::default()), [a.clone(), b.clone()]);
    assert_eq!(
        ids(TransactionFilter { states: [State::Empty].into(), ..Default::default() }),
        std::slice::from_ref(&b)
    );
    assert_eq!(
        ids(TransactionFilter { producers: [producer(1_001, 0).id].into(), ..Default::default() }),
        std::slice::from_ref(&b)
    );
    assert_eq!(ids(TransactionFilter { open_for_ms: Some(9), ..Default::default() }), [a]);
    assert!(ids(TransactionFilter { open_for_ms: Some(10), ..Default::default() }).is_empty());
    assert_eq!(bench.coordinator.describe("a").unwrap().partitions, these(&[0]));
    assert_eq!(bench.coordinator.describe("").map_err(|e| e.code), Err(E::InvalidRequest));
    assert_eq!(partition_of("test", 50), 3_556_498 % 50, "as for groups");
}

#[test]
fn old_clients_hear_codes_that_they_know() {
    use crate::transaction::message::KnownCodes;
    let old = KnownCodes { producer_fenced: false, abortable: false };
    assert_eq!(old.nearest(E::ProducerFenced).kafka(), 47);
    assert_eq!(old.nearest(E::TransactionAbortable).kafka(), 48);
    let new = KnownCodes { producer_fenced: true, abortable: true };
    assert_eq!(new.nearest(E::ProducerFenced).kafka(), 90);
    assert_eq!(new.nearest(E::TransactionAbortable).kafka(), 120);
    assert_eq!(old.nearest(E::ConcurrentTransactions).kafka(), 51);
}
