//! Every decoder of what the data directory holds, for the fuzzer: bytes in, and a panic where
//! something is decoded that would be encoded otherwise.

use std::fmt::Debug;

use baton_core::Offset;
use bytes::Bytes;

use super::{directory, keys, records, witness};
use crate::log::{LocalPartition, frame};

/// A key or a value of the store; `kind` says which.
pub fn record(kind: u8, bytes: &[u8]) {
    match kind % 9 {
        0 => round_trip(bytes, records::Descriptor::decode, records::Descriptor::encode),
        1 => round_trip(bytes, records::decode_start, |it| records::encode_start(*it)),
        2 => round_trip(bytes, records::decode_number, |it| records::encode_number(*it)),
        3 => round_trip(bytes, records::decode_meta, records::encode_meta),
        4 => round_trip(bytes, records::decode_damage, records::encode_damage),
        5 => round_trip(
            bytes,
            |key| keys::parse_batch(key).ok_or(()),
            |(prefix, last)| keys::batch(*prefix, *last).into(),
        ),
        6 => round_trip(
            bytes,
            |key| keys::parse_time(key).ok_or(()),
            |(prefix, time, offset)| keys::time(*prefix, *time, *offset).into(),
        ),
        7 => stored_batch(bytes),
        _ => drop(directory::decode_identity(&String::from_utf8_lossy(bytes))),
    }
}

/// A batch as the store gives it back.
fn stored_batch(bytes: &[u8]) {
    let Ok(batch) = frame::verify(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(batch.bytes, bytes, "all of it is one batch");
    assert!(batch.base <= batch.last && batch.last < Offset(u64::MAX), "{batch:?}");
}

/// One block of the witness; with `repaired`, its checksum is made right.
pub fn witness(bytes: &[u8], repaired: bool) {
    witness::decode_any(bytes, repaired);
}

/// One of each, with the number that [`record`] knows it by.
#[must_use]
pub fn examples() -> Vec<(u8, Vec<u8>)> {
    let (prefix, partition) = (keys::Prefix(2), LocalPartition(3));
    let id = baton_core::TopicPartition { topic: baton_core::TopicId(7), partition: 1 };
    let generation = baton_core::Generation(1);
    let descriptor = records::Descriptor { id, generation, prefix, start: Offset(5) };
    let meta = crate::log::PartitionMeta {
        highest_epoch: baton_core::Epoch(4),
        lineage: vec![(baton_core::Epoch(1), Offset(0)), (baton_core::Epoch(4), Offset(9))],
        high_watermark: Offset(8),
        producers: Bytes::from_static(b"snapshot"),
        producers_at: Offset(6),
        ..crate::log::PartitionMeta::default()
    };
    let damage = crate::log::Damage::Gap { expected: Offset(1), found: Offset(2) };
    vec![
        (0, descriptor.encode()),
        (1, records::encode_start(Offset(5))),
        (2, records::encode_number(partition.0)),
        (3, records::encode_meta(&meta)),
        (4, records::encode_damage(&damage)),
        (5, keys::batch(prefix, Offset(9)).into()),
        (6, keys::time(prefix, -5, Offset(9)).into()),
    ]
}

/// A block of the witness with some entries.
#[must_use]
pub fn witness_example() -> Vec<u8> {
    witness::example()
}

fn round_trip<T: PartialEq + Debug, E: Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(decode(&encode(&value)), Ok(value));
    }
}
