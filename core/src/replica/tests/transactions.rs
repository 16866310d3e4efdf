//! What a leader does with batches of transactions and with markers, one step after the other.

use super::rules::{E1, Script, ack};
use crate::ErrorCode;
use crate::batch::{BatchBuilder, BatchHeader, BuildOptions, ProducerStamp, Pushed};
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};
use crate::replica::{Acks, Effect, Input, Mark, Message, Produce, RequestId};
use crate::transaction::message::{Producer, Protocol};
use crate::transaction::partition::{EndMarker, Guard};

fn producer(epoch: i16) -> Producer {
    Producer { id: ProducerId(9), epoch: ProducerEpoch(epoch) }
}

fn batch(producer: Producer, base_sequence: i32, transactional: bool) -> Produce {
    let mut builder = BatchBuilder::new(1 << 16);
    assert_eq!(builder.push(1, None, Some(b"v"), &[]), Ok(Pushed::Added));
    let producer = Some(ProducerStamp { id: producer.id, epoch: producer.epoch, base_sequence });
    let bytes = builder.build(&BuildOptions { producer, transactional, ..BuildOptions::default() }).unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    Produce { request: RequestId(1), acks: Acks::All, header, bytes, wall_ms: 0 }
}

fn write(script: &mut Script, produce: Produce, guard: Option<Guard>) -> Vec<Effect> {
    script.step(Input::ProduceIn { produce, protocol: Protocol::Second, guard })
}

fn mark(script: &mut Script, producer: Producer, commit: bool, coordinator: u32) -> Vec<Effect> {
    let marker = EndMarker { producer, commit, coordinator_epoch: Epoch(coordinator) };
    script.step(Input::Mark(Mark { request: RequestId(2), marker, raised: true, wall_ms: 5 }))
}

fn asked(effects: &[Effect]) -> Guard {
    let ask = effects.iter().find_map(|effect| match effect {
        Effect::Verify { guard, .. } => Some(*guard),
        _ => None,
    });
    ask.expect("the coordinator is asked")
}

fn refused(effects: &[Effect]) -> Option<ErrorCode> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reject { why, .. } => Some(why.code),
        _ => None,
    })
}

fn is_acknowledged(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Acknowledge { .. }))
}

fn committed(script: &mut Script, end: u64) -> Vec<Effect> {
    script.receive(2, Message::Ack(ack(end)))
}

fn stable(script: &Script) -> (u64, u64) {
    (script.replica.high_watermark().0, script.replica.last_stable().0)
}

#[test]
fn a_transaction_from_its_first_batch_to_its_marker() {
    let mut script = Script::leading(&[1, 2], None);
    assert_eq!(script.replica.epoch(), E1);
    let guard = asked(&write(&mut script, batch(producer(0), 0, true), None));
    assert_eq!(script.replica.log_end(), Offset(0), "nothing is stored before the coordinator agreed");
    assert_eq!(asked(&write(&mut script, batch(producer(0), 1, true), None)), guard, "it is asked once");
    write(&mut script, batch(producer(0), 0, true), Some(guard));
    write(&mut script, batch(producer(0), 1, true), Some(guard));
    assert_eq!(script.replica.log_end(), Offset(2));
    assert!(is_acknowledged(&committed(&mut script, 2)));
    assert_eq!(stable(&script), (2, 0));
    let outside = write(&mut script, batch(producer(0), 2, false), None);
    assert_eq!(refused(&outside), Some(ErrorCode::InvalidTransactionState));
    assert_eq!(refused(&mark(&mut script, producer(1), false, 3)), None);
    assert_eq!(stable(&script), (2, 0), "a marker that is not committed may be cut off again");
    assert!(is_acknowledged(&committed(&mut script, 3)));
    assert_eq!(stable(&script), (3, 3));
    let aborted = script.replica.producers().transactions().aborted();
    assert_eq!(aborted.iter().map(|one| (one.first.0, one.last.0)).collect::<Vec<_>>(), [(0, 2)]);
}

#[test]
fn what_is_late_lands_nowhere() {
    let mut script = Script::leading(&[1, 2], None);
    let guard = asked(&write(&mut script, batch(producer(0), 0, true), None));
    // The transaction ends before its batch comes with the coordinator's word.
    mark(&mut script, producer(1), false, 3);
    committed(&mut script, 1);
    let late = write(&mut script, batch(producer(0), 0, true), Some(guard));
    assert_eq!(refused(&late), Some(ErrorCode::InvalidProducerEpoch));
    // The marker comes again: nothing is written, and it is confirmed.
    assert!(is_acknowledged(&mark(&mut script, producer(1), false, 3)));
    assert_eq!(script.replica.log_end(), Offset(1));
    // The next transaction is open when it comes once more.
    let guard = asked(&write(&mut script, batch(producer(1), 0, true), None));
    write(&mut script, batch(producer(1), 0, true), Some(guard));
    assert_eq!(refused(&mark(&mut script, producer(1), false, 3)), Some(ErrorCode::InvalidProducerEpoch));
    // A coordinator of before is refused whatever it says.
    let fenced = mark(&mut script, producer(2), true, 2);
    assert_eq!(refused(&fenced), Some(ErrorCode::TransactionCoordinatorFenced));
    assert_eq!(stable(&script).1, 1);
}
