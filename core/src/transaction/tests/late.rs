//! Requests that come behind those that repeated them, on connections that were given up.

use super::bench::*;
use crate::error::ErrorCode as E;
use crate::transaction::message::Protocol::First;
use crate::transaction::metadata::TransactionState as State;

#[test]
fn a_late_init_fences_nobody() {
    let mut bench = Bench::new();
    bench.connect(1);
    let one = bench.init("t", None).unwrap();
    // The answer is lost; the client asks again, on a new connection.
    bench.connect(2);
    let two = bench.init("t", None).unwrap();
    assert_eq!(bench.add("t", two, &[0]), Ok(()));
    for (expected, refused) in
        [(None, E::ConnectionReplaced), (Some(one), E::ProducerFenced), (Some(two), E::ConnectionReplaced)]
    {
        bench.connect(1);
        assert_eq!(bench.init("t", expected), Err(refused), "{expected:?}");
    }
    bench.connect(2);
    assert_eq!(bench.state("t"), State::Ongoing);
    assert_eq!(bench.end("t", two, true, First), Ok(two));
}

#[test]
fn a_late_end_does_not_end_the_next_transaction_of_an_old_client() {
    let mut bench = Bench::new();
    bench.connect(1);
    let one = bench.ongoing("t", &[0]);
    bench.connect(2);
    assert_eq!(bench.end("t", one, true, First), Ok(one));
    bench.confirm();
    assert_eq!(bench.add("t", one, &[1]), Ok(()));
    bench.connect(1);
    assert_eq!(bench.end("t", one, true, First), Err(E::ConnectionReplaced));
    assert_eq!(bench.state("t"), State::Ongoing);
}

#[test]
fn a_late_addition_does_not_begin_a_transaction() {
    let mut bench = Bench::new();
    bench.connect(1);
    let one = bench.ongoing("t", &[0]);
    bench.connect(2);
    assert_eq!(bench.end("t", one, false, First), Ok(one));
    bench.confirm();
    bench.connect(1);
    assert_eq!(bench.add("t", one, &[1]), Err(E::ConnectionReplaced));
    assert_eq!(bench.state("t"), State::CompleteAbort);
}

/// Its first request came on the later connection: that says nothing of the one that has the id.
#[test]
fn who_is_fenced_does_not_replace_the_connection_of_the_producer() {
    let mut bench = Bench::new();
    bench.connect(1);
    let zombie = bench.init("t", None).unwrap();
    bench.connect(2);
    let one = bench.init("t", None).unwrap();
    assert_eq!(bench.add("t", one, &[0]), Ok(()));
    bench.connect(3);
    assert_eq!(bench.add("t", zombie, &[0]), Err(E::ProducerFenced));
    assert_eq!(bench.init("t", Some(zombie)), Err(E::ProducerFenced));
    bench.connect(2);
    assert_eq!(bench.end("t", one, true, First), Ok(one));
}

#[test]
fn an_earlier_connection_still_takes_the_id_from_a_producer_that_adds_on_a_later_one() {
    let mut bench = Bench::new();
    bench.connect(2);
    let one = bench.init("t", None).unwrap();
    bench.connect(5);
    assert_eq!(bench.add("t", one, &[0]), Ok(()));
    bench.connect(3);
    // The transaction that is open is aborted first.
    assert_eq!(bench.init("t", None), Err(E::ConcurrentTransactions));
}
