//! Batches for the tests: those of Apache Kafka's Java client, and generated ones.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::ids::{ProducerEpoch, ProducerId};

/// Batches that kafka-clients 3.9.1 built (`MemoryRecords.builder`), as `name hex` lines.
const GOLDEN: &str = include_str!("golden/kafka-clients-3.9.1.txt");

/// The golden batches that a producer may send, and the one with a control record.
pub const GOLDEN_PRODUCED: [&str; 7] = ["none", "idempotent", "transactional", "gzip", "snappy", "lz4", "zstd"];

pub fn golden(name: &str) -> Bytes {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.expect("no such golden batch");
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// The records in each of the produced golden batches: timestamp, key, value, headers.
pub fn golden_records() -> Vec<Plain> {
    let text = Bytes::from_static;
    let headers = [("h", Some(text(b"x"))), ("h", None), ("", Some(Bytes::new()))];
    let headers = headers.map(|(key, value)| RecordHeader { key: key.into(), value });
    vec![
        Plain {
            timestamp_ms: 1_700_000_000_000,
            key: Some(text(b"k1")),
            value: Some(text(b"v1")),
            headers: headers.to_vec(),
        },
        Plain { timestamp_ms: 1_700_000_000_005, value: Some(Bytes::new()), ..Plain::default() },
        Plain { timestamp_ms: 1_699_999_999_997, key: Some(Bytes::new()), ..Plain::default() },
        Plain {
            timestamp_ms: 1_700_000_000_001,
            key: Some(text(b"k4")),
            value: Some("abcabcabc".repeat(30).into()),
            headers: vec![],
        },
    ]
}

/// A record before it has an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

impl From<Record> for Plain {
    fn from(record: Record) -> Self {
        let Record { timestamp_ms, key, value, headers, .. } = record;
        Self { timestamp_ms, key, value, headers }
    }
}

/// Builds one batch of all `records`.
pub fn build(records: &[Plain], options: &BuildOptions) -> Bytes {
    let mut builder = BatchBuilder::new(usize::MAX);
    for r in records {
        let pushed = builder.push(r.timestamp_ms, r.key.as_deref(), r.value.as_deref(), &r.headers);
        assert_eq!(pushed, Ok(Pushed::Added));
    }
    builder.build(options).unwrap()
}

/// A batch of `count` records with text in them.
pub fn simple(count: usize, codec: Codec) -> Bytes {
    let record = |i: usize| Plain {
        timestamp_ms: 1_000 + i as i64,
        value: Some(format!("value {i}").into()),
        ..Plain::default()
    };
    let records: Vec<_> = (0..count).map(record).collect();
    build(&records, &BuildOptions { codec, ..BuildOptions::default() })
}

/// `batch` with other bytes at `at`, and a CRC that agrees with them.
pub fn patched(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    with_crc(changed)
}

/// The bytes of a batch with a CRC that agrees with them.
pub fn with_crc(mut batch: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// A batch whose records are `packed`, whatever that is; the header claims `count` records.
pub fn with_records(codec: Codec, packed: &[u8], count: i32) -> Bytes {
    let mut batch = BytesMut::from(&simple(1, Codec::None)[..HEADER_LEN]);
    batch.extend_from_slice(packed);
    let length = (batch.len() - LENGTH_PREFIX) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec.id();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    with_crc(batch)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn plain() -> impl Strategy<Value = Plain> {
    let header = (bytes(), proptest::option::of(bytes()));
    let header = header.prop_map(|(key, value)| RecordHeader { key, value });
    (
        any::<i64>(),
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec(header, 0..4),
    )
        .prop_map(|(timestamp_ms, key, value, headers)| Plain { timestamp_ms, key, value, headers })
}

pub fn plains() -> impl Strategy<Value = Vec<Plain>> {
    proptest::collection::vec(plain(), 1..30)
}

pub fn codecs() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

pub fn options() -> impl Strategy<Value = BuildOptions> {
    let producer = (0..i64::MAX, 0..i16::MAX, 0..i32::MAX);
    let producer = producer.prop_map(|(id, epoch, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence,
    });
    (codecs(), proptest::option::of(producer), any::<bool>()).prop_map(|(codec, producer, tx)| BuildOptions {
        codec,
        producer,
        transactional: tx && producer.is_some(),
    })
}
