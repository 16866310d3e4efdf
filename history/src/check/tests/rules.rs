//! Rules that a history can be made for by hand.

use super::checked;
use crate::event::{Ack, Commit, Event, Final, Poll, Producer, Seen, Send, Unclean};
use crate::record::History;
use crate::report::Kind;
use crate::{Options, Report};

fn send(producer: &'static str, sequence: u64, payload: u64, sent_us: u64) -> Event<'static> {
    Event::Send(Send { producer: producer.into(), partition: "t/0".into(), sequence, payload, sent_us })
}

fn ack(producer: &'static str, sequence: u64, offset: u64, epoch: u32, received_us: u64) -> Event<'static> {
    let epoch = Some(epoch);
    Event::Ack(Ack { producer: producer.into(), partition: "t/0".into(), sequence, offset, epoch, received_us })
}

fn poll(consumer: &'static str, records: &[(u64, u64, u32)], received_us: u64) -> Event<'static> {
    Event::Poll(Poll {
        consumer: consumer.into(),
        partition: "t/0".into(),
        from: records.first().map_or(0, |record| record.0),
        seek: true,
        high_watermark: None,
        sent_us: received_us,
        received_us,
        records: records.iter().map(|(offset, payload, epoch)| Seen::new(*offset, *payload, *epoch)).collect(),
    })
}

fn unclean(epoch: u32, at_us: u64) -> Event<'static> {
    Event::Unclean(Unclean { partition: "t/0".into(), epoch, at_us })
}

fn end(end: u64) -> Event<'static> {
    Event::Final(Final { partition: "t/0".into(), log_start: 0, end, at_us: 1_000_000 })
}

fn report(events: &[Event<'static>]) -> Report {
    checked(&History { events: events.to_vec() })
}

fn kinds(report: &Report) -> (Vec<Kind>, Vec<Kind>) {
    (report.anomalies.keys().copied().collect(), report.permitted.keys().copied().collect())
}

/// Two records, the second one acknowledged and read; then the log ends before it.
fn losing(epoch: u32) -> Vec<Event<'static>> {
    vec![
        send("p", 0, 10, 1),
        ack("p", 0, 0, 1, 2),
        send("p", 1, 11, 10),
        ack("p", 1, 1, epoch, 12),
        poll("c", &[(0, 10, 1), (1, 11, epoch)], 20),
        end(1),
    ]
}

#[test]
fn what_was_acknowledged_before_an_unclean_election_may_be_lost() {
    let mut events = losing(1);
    assert_eq!(kinds(&report(&events)), (vec![Kind::Lost], vec![]));
    events.push(unclean(2, 30));
    assert_eq!(kinds(&report(&events)), (vec![], vec![Kind::Lost]));
}

#[test]
fn what_was_acknowledged_after_an_unclean_election_may_not() {
    let mut events = losing(2);
    events.push(unclean(2, 5));
    assert_eq!(kinds(&report(&events)), (vec![Kind::Lost], vec![]));
}

#[test]
fn another_record_may_take_the_place_of_one_that_an_unclean_election_lost() {
    let mut events = losing(1);
    events.extend([unclean(2, 30), send("q", 0, 20, 40), ack("q", 0, 1, 2, 45), poll("c", &[(1, 20, 2)], 50), end(2)]);
    let report = report(&events);
    assert!(report.clean(), "{report}");
    assert_eq!(report.permitted(Kind::ValuesDiffer), 1, "{report}");
    assert_eq!(report.permitted(Kind::AcknowledgedOver), 1, "{report}");
}

#[test]
fn without_a_last_word_what_nobody_read_is_unverified() {
    let report = report(&[send("p", 0, 10, 1), ack("p", 0, 7, 1, 2)]);
    assert!(report.clean(), "{report}");
    assert_eq!((report.counts.unverified, report.counts.verified), (1, 0));
}

#[test]
fn what_retention_removed_is_not_lost() {
    let last = Event::Final(Final { partition: "t/0".into(), log_start: 8, end: 8, at_us: 9 });
    let report = report(&[send("p", 0, 10, 1), ack("p", 0, 7, 1, 2), last]);
    assert!(report.clean(), "{report}");
    assert_eq!(report.counts.expired, 1);
}

#[test]
fn an_unknown_outcome_allows_both() {
    let clean = |events: &[Event<'static>]| assert!(report(events).clean(), "{}", report(events));
    clean(&[send("p", 0, 10, 1), poll("c", &[(0, 10, 1)], 5), end(1)]);
    clean(&[send("p", 0, 10, 1), end(0)]);
}

#[test]
fn an_old_leader_acknowledges_nothing_that_is_sent_after_the_new_one_did() {
    let old = |sent_us| {
        [
            send("p", 0, 10, 1),
            ack("p", 0, 1, 3, 2),
            send("q", 0, 20, sent_us),
            ack("q", 0, 0, 2, 50),
            poll("c", &[(0, 20, 2), (1, 10, 3)], 60),
            end(2),
        ]
    };
    assert!(report(&old(1)).clean());
    let report = report(&old(40));
    assert_eq!(report.count(Kind::StaleAcknowledgement), 1, "{report}");
}

#[test]
fn a_retry_may_be_acknowledged_by_a_later_leader() {
    let report = report(&[send("p", 0, 10, 1), ack("p", 0, 0, 5, 2), poll("c", &[(0, 10, 1)], 5), end(1)]);
    assert!(report.clean(), "{report}");
}

#[test]
fn what_happens_within_the_skew_is_simultaneous() {
    let events = vec![
        send("p", 0, 10, 100),
        ack("p", 0, 1, 1, 200),
        send("q", 0, 20, 250),
        ack("q", 0, 0, 1, 300),
        poll("c", &[(0, 20, 1), (1, 10, 1)], 400),
        end(2),
    ];
    let history = History { events };
    let check = |skew_us| history.check(Options { skew_us, ..Options::default() }).unwrap();
    assert_eq!(check(49).count(Kind::RealTime), 1);
    assert!(check(50).clean());
}

#[test]
fn duplicates_of_a_plain_producer_are_counted_only() {
    let twice = [send("p", 0, 10, 1), ack("p", 0, 1, 1, 2), poll("c", &[(0, 10, 1), (1, 10, 1)], 5), end(2)];
    assert_eq!(kinds(&report(&twice)), (vec![Kind::Duplicate], vec![]));
    let plain = Event::Producer(Producer { producer: "p".into(), idempotent: false });
    let plain: Vec<_> = [plain].into_iter().chain(twice).collect();
    assert_eq!(kinds(&report(&plain)), (vec![], vec![Kind::Duplicate]));
}

#[test]
fn a_record_of_somebody_else_is_not_judged() {
    let other = Seen { offset: 0, payload: None, epoch: None };
    let Event::Poll(mut read) = poll("c", &[(0, 1, 1)], 5) else { unreachable!() };
    read.records = vec![other];
    let report = report(&[Event::Poll(read), end(1)]);
    assert!(report.clean(), "{report}");
}

fn commit(offset: u64, generation: u32, reset: bool, sent_us: u64, received_us: u64) -> Event<'static> {
    Event::Commit(Commit {
        group: "g".into(),
        partition: "t/0".into(),
        offset,
        generation,
        reset,
        sent_us,
        received_us,
    })
}

#[test]
fn commits_go_back_only_if_somebody_means_it() {
    let count = |events: &[Event<'static>]| report(events).count(Kind::CommitBack);
    assert_eq!(count(&[commit(9, 1, false, 1, 2), commit(5, 1, false, 3, 4)]), 1);
    assert_eq!(count(&[commit(9, 1, false, 1, 2), commit(5, 2, false, 3, 4)]), 1, "nor in another generation");
    assert_eq!(count(&[commit(9, 1, false, 1, 3), commit(5, 1, false, 2, 4)]), 0, "at the same time");
    let reset = [commit(9, 1, false, 1, 2), commit(5, 1, true, 3, 4), commit(6, 1, false, 5, 6)];
    assert_eq!(count(&reset), 0);
    assert_eq!(count(&[reset.as_slice(), &[commit(4, 1, false, 7, 8)]].concat()), 1);
    let late = [commit(9, 1, false, 1, 6), commit(5, 1, true, 3, 4), commit(6, 1, false, 7, 8)];
    assert_eq!(count(&late), 0, "the first one may have come before the reset");
}

#[test]
fn a_writer_that_contradicts_itself_is_told_so() {
    let error = |events: &[Event<'static>]| History { events: events.to_vec() }.check(Options::default()).unwrap_err();
    assert_eq!(error(&[ack("p", 0, 0, 1, 1)]).event, 0);
    let again = error(&[send("p", 4, 1, 1), send("p", 4, 2, 2)]);
    assert_eq!(again.event, 1);
    assert!(again.what.contains("expected a sequence above the last one of p in t/0"), "{again}");
}

#[test]
fn offsets_far_apart_cost_little() {
    let far = u64::MAX - 1;
    let report = report(&[send("p", 0, 10, 1), ack("p", 0, far, 1, 2), poll("c", &[(far, 10, 1)], 3), end(far)]);
    assert_eq!(report.count(Kind::Hole), 1, "{report}");
}
