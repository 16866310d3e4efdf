//! Each rule of the leader's and the follower's check, by a batch that breaks only it.

use bytes::{Bytes, BytesMut};

use crate::batch::fixtures::*;
use crate::batch::*;
use crate::error::ErrorCode;
use crate::ids::{Epoch, Offset};

const LIMITS: ProduceLimits = ProduceLimits { max_message_bytes: 1000, keyed: false };

fn stamped(batch: Bytes, base: u64, epoch: u32) -> Bytes {
    let at = Stamp { base_offset: Offset(base), leader_epoch: Epoch(epoch), append_time_ms: None };
    stamp(batch, at).unwrap().1
}

/// The error and its code for a produced batch.
fn refused(batch: &Bytes) -> (BatchError, ErrorCode) {
    let error = validate_produce(batch, LIMITS).expect_err("it was taken");
    (error.clone(), error.code())
}

#[test]
fn exactly_one_batch_is_taken() {
    let batch = simple(2, Codec::None);
    assert!(validate_produce(&batch, LIMITS).is_ok());
    let none = (BatchError::Empty, ErrorCode::InvalidBatch);
    assert_eq!(refused(&Bytes::new()), none);
    let two = Bytes::from([&batch[..], &batch[..]].concat());
    let many = BatchError::MoreThanOne(batch.len());
    assert_eq!(refused(&two), (many, ErrorCode::InvalidBatch));
    let trailing = Bytes::from([&batch[..], &[0]].concat());
    let one = BatchError::MoreThanOne(1);
    assert_eq!(refused(&trailing), (one, ErrorCode::InvalidBatch));
}

#[test]
fn the_size_limit_counts_the_whole_batch() {
    let batch = simple(2, Codec::None);
    let limit = |max_message_bytes| ProduceLimits { max_message_bytes, keyed: false };
    assert!(validate_produce(&batch, limit(batch.len())).is_ok());
    let (size, max) = (batch.len(), batch.len() - 1);
    let error = validate_produce(&batch, limit(max)).unwrap_err();
    assert_eq!(error, BatchError::TooLarge { size, max });
    assert_eq!(error.code(), ErrorCode::BatchTooLarge);
}

#[test]
fn old_formats_are_refused_as_such_even_when_shorter_than_a_header() {
    for magic in [0_u8, 1, 3, 255] {
        let batch = patched(&simple(1, Codec::None), 16, &[magic]);
        for len in [17, 30, batch.len()] {
            let (error, code) = refused(&batch.slice(..len));
            assert_eq!(error, BatchError::UnsupportedMagic(magic as i8));
            assert_eq!(code, ErrorCode::UnsupportedFormat);
        }
    }
}

#[test]
fn a_length_below_a_header_or_negative_is_refused() {
    for length in [48_i32, 0, -1, i32::MIN] {
        let mut batch = BytesMut::from(&simple(1, Codec::None)[..]);
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let expected = (BatchError::BadLength(length), ErrorCode::CorruptBatch);
        assert_eq!(refused(&batch.freeze()), expected);
    }
}

#[test]
fn a_wrong_crc_is_refused_before_the_meaning_of_the_bytes() {
    let mut batch = BytesMut::from(&simple(1, Codec::None)[..]);
    batch[57] = 0x80; // A negative count, too.
    let (error, code) = refused(&batch.freeze());
    assert!(matches!(error, BatchError::CrcMismatch { .. }), "{error}");
    assert_eq!(code, ErrorCode::CorruptBatch);
}

#[test]
fn unknown_codecs_are_refused() {
    for id in 5..=7 {
        let batch = patched(&simple(1, Codec::None), 22, &[id]);
        let expected = (BatchError::UnknownCodec(id), ErrorCode::UnsupportedCompression);
        assert_eq!(refused(&batch), expected);
        assert_eq!(records(&batch, 100).unwrap_err(), expected.0);
    }
}

#[test]
fn control_batches_come_from_no_client() {
    let control = golden("control");
    assert!(check_crc(&control).is_ok());
    let expected = (BatchError::ControlFromClient, ErrorCode::InvalidBatch);
    assert_eq!(refused(&control), expected);
    assert!(validate_replica(&control).is_ok());
    let horizon = patched(&simple(1, Codec::None), 22, &[1 << 6]);
    assert_eq!(refused(&horizon).0, BatchError::DeleteHorizonFromClient);
}

#[test]
fn count_and_last_offset_delta_have_to_agree() {
    let batch = simple(3, Codec::None);
    for count in [0_i32, -1, i32::MIN] {
        let wrong = patched(&batch, 57, &count.to_be_bytes());
        let expected = (BatchError::BadCount(count), ErrorCode::InvalidBatch);
        assert_eq!(refused(&wrong), expected);
    }
    for delta in [0_i32, 1, 3, -1, i32::MAX] {
        let wrong = patched(&batch, 23, &delta.to_be_bytes());
        let error = BatchError::BadLastOffsetDelta { delta, count: 3 };
        assert_eq!(refused(&wrong), (error, ErrorCode::InvalidBatch));
    }
}

#[test]
fn a_producers_numbers_have_to_make_sense() {
    let batch = golden("idempotent");
    let cases: [(usize, &[u8]); 3] =
        [(43, &(-2_i64).to_be_bytes()), (51, &(-1_i16).to_be_bytes()), (53, &(-1_i32).to_be_bytes())];
    for (at, bytes) in cases {
        let (error, code) = refused(&patched(&batch, at, bytes));
        assert!(matches!(error, BatchError::BadSequence { .. }), "{error}");
        assert_eq!(code, ErrorCode::InvalidBatch);
    }
    // Without an id, clients put 0 or −1 into the others.
    let plain = golden("none");
    assert!(validate_produce(&patched(&plain, 51, &[0; 6]), LIMITS).is_ok());
    let transactional = patched(&plain, 22, &[1 << 4]);
    let error = BatchError::TransactionalWithoutProducer;
    assert_eq!(refused(&transactional).0, error);
}

#[test]
fn offsets_stay_in_range() {
    for base in [-1, i64::MIN, i64::MAX, i64::MAX - 2] {
        let mut batch = BytesMut::from(&simple(3, Codec::None)[..]);
        batch[0..8].copy_from_slice(&base.to_be_bytes());
        let expected = (BatchError::BadBaseOffset(base), ErrorCode::InvalidBatch);
        assert_eq!(refused(&batch.freeze()), expected);
    }
}

#[test]
fn replicas_take_several_batches_that_follow_one_another() {
    let first = stamped(simple(3, Codec::None), 10, 4);
    let second = stamped(simple(2, Codec::Zstd), 13, 5);
    let both = Bytes::from([&first[..], &second[..]].concat());
    let batches = validate_replica(&both).unwrap();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[0].1, first);
    assert_eq!(batches[1].1, second);
    assert_eq!(batches[1].0.next_offset(), Offset(15));
    assert_eq!(batches[1].0.leader_epoch, Some(Epoch(5)));
    assert_eq!(batches[0].1.as_ptr(), both.as_ptr(), "it was copied");
    assert_eq!(validate_replica(&Bytes::new()), Ok(vec![]));
}

#[test]
fn replicas_refuse_gaps_overlaps_missing_epochs_and_broken_crcs() {
    let first = stamped(simple(3, Codec::None), 10, 4);
    for base in [12, 14] {
        let second = stamped(simple(1, Codec::None), base, 4);
        let both = Bytes::from([&first[..], &second[..]].concat());
        let (expected, found) = (Offset(13), Offset(base));
        let gap = BatchError::Gap { expected, found };
        assert_eq!(validate_replica(&both), Err(gap));
    }
    let unstamped = simple(1, Codec::None);
    assert_eq!(validate_replica(&unstamped), Err(BatchError::NoLeaderEpoch));
    let mut broken = BytesMut::from(&first[..]);
    broken[70] ^= 1;
    let error = validate_replica(&broken.freeze()).unwrap_err();
    assert!(matches!(error, BatchError::CrcMismatch { .. }));
}

#[test]
fn splitting_ends_at_the_first_broken_batch() {
    let first = simple(1, Codec::None);
    let mut bytes = BytesMut::from(&[&first[..], &first[..], &first[..]].concat()[..]);
    bytes[first.len() + 8..first.len() + 12].copy_from_slice(&(-5_i32).to_be_bytes());
    let items: Vec<_> = split_batches(bytes.freeze()).collect();
    assert_eq!(items.len(), 2);
    assert!(items[0].is_ok());
    assert_eq!(items[1], Err(BatchError::BadLength(-5)));
}
