//! Records in, the same records out, by every codec; and byte for byte what Kafka's own
//! client writes and reads.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use crate::batch::fixtures::*;
use crate::batch::*;
use crate::ids::{Offset, ProducerEpoch, ProducerId};

const CAP: usize = 1 << 20;

fn plain_records(batch: &Bytes) -> Vec<Plain> {
    let records = decode_records(batch, CAP).unwrap();
    records.into_iter().map(Plain::from).collect()
}

#[test]
fn batches_of_the_java_client_are_taken_and_decoded() {
    for name in GOLDEN_PRODUCED {
        let batch = golden(name);
        let limits = ProduceLimits { max_message_bytes: batch.len(), keyed: false };
        let header = validate_produce(&batch, limits).unwrap();
        assert_eq!(plain_records(&batch), golden_records(), "{name}");
        assert_eq!(header.base_timestamp_ms, 1_700_000_000_000);
        assert_eq!(header.max_timestamp_ms, 1_700_000_000_005);
        assert_eq!((header.record_count, header.leader_epoch), (4, None));
        assert_eq!(header.attributes.transactional(), name == "transactional");
        let codec = name.parse().unwrap_or(Codec::None);
        assert_eq!(header.attributes.codec(), Ok(codec), "{name}");
    }
}

#[test]
fn the_builder_writes_the_bytes_of_the_java_client() {
    let producer = |base_sequence| ProducerStamp { id: ProducerId(4711), epoch: ProducerEpoch(3), base_sequence };
    let mut options = BuildOptions::default();
    assert_eq!(build(&golden_records(), &options), golden("none"));
    options.producer = Some(producer(i32::MAX - 1));
    assert_eq!(build(&golden_records(), &options), golden("idempotent"));
    options.producer = Some(producer(0));
    options.transactional = true;
    assert_eq!(build(&golden_records(), &options), golden("transactional"));
}

#[test]
fn sequences_wrap_after_the_largest() {
    let header = BatchHeader::parse(&golden("idempotent")).unwrap();
    assert_eq!(header.base_sequence, i32::MAX - 1);
    assert_eq!(header.last_sequence(), 1);
}

#[test]
fn one_bare_snappy_block_is_read_as_librdkafka_writes_it() {
    let plain = golden("none").slice(HEADER_LEN..);
    let packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let batch = with_records(Codec::Snappy, &packed, 4);
    assert_eq!(decode_records(&batch, CAP).unwrap().len(), 4);
}

#[test]
fn snappy_streams_of_several_blocks_are_read() {
    let plain = Bytes::from(vec![7; 100_000]);
    let packed = Bytes::from(compress(Codec::Snappy, &plain).unwrap());
    assert!(packed.starts_with(b"\x82SNAPPY\0"));
    assert_eq!(decompress(Codec::Snappy, &packed, 100_000), Ok(plain));
    let bomb = Err(BatchError::Bomb { max: 99_999 });
    assert_eq!(decompress(Codec::Snappy, &packed, 99_999), bomb);
}

#[test]
fn what_decompresses_to_exactly_the_cap_is_taken_and_one_byte_more_is_not() {
    let plain = Bytes::from(vec![1; 5_000]);
    for codec in Codec::ALL {
        let packed = Bytes::from(compress(codec, &plain).unwrap());
        assert_eq!(decompress(codec, &packed, 5_000), Ok(plain.clone()), "{codec}");
        let bomb = Err(BatchError::Bomb { max: 4_999 });
        assert_eq!(decompress(codec, &packed, 4_999), bomb, "{codec}");
    }
}

#[test]
fn bombs_are_refused_by_every_codec() {
    let plain = vec![0; 64 << 20];
    for codec in Codec::ALL {
        let packed = compress(codec, &plain).unwrap();
        assert!(codec == Codec::None || packed.len() < plain.len() / 15, "{codec}");
        let batch = with_records(codec, &packed, 1);
        let bomb = BatchError::Bomb { max: CAP };
        assert_eq!(bomb.code(), crate::ErrorCode::InvalidBatch);
        assert_eq!(records(&batch, CAP).unwrap_err(), bomb, "{codec}");
    }
}

#[test]
fn a_snappy_block_is_not_believed_about_its_length() {
    // 0xff 0xff 0xff 0x7f claims 256 MiB, and nothing follows.
    let packed = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]);
    let error = decompress(Codec::Snappy, &packed, usize::MAX).unwrap_err();
    assert!(error.to_string().contains("more than it can hold"), "{error}");
}

/// Found by fuzzing: the decoder takes 16 MiB for the header of an empty frame of the older form.
#[test]
fn an_lz4_frame_of_the_older_form_is_refused() {
    let refused = decompress(Codec::Lz4, &Bytes::from_static(b"\x02\x21\x4c\x18\x03\x00"), CAP);
    assert_eq!(refused, Err(BatchError::Decompress("no LZ4 frame".to_owned())));
    let empty = compress(Codec::Lz4, b"").unwrap();
    assert_eq!(decompress(Codec::Lz4, &empty.into(), CAP), Ok(Bytes::new()));
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // A frame header alone: magic, no single segment, window descriptor for 2^31 bytes.
    let packed = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0]);
    let error = decompress(Codec::Zstd, &packed, CAP).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn counts_and_lengths_inside_a_record_are_not_believed() {
    // Attributes, timestamp delta, offset delta, null key, null value, then the rest.
    let record = |rest: &[u8]| {
        let mut body = vec![0, 0, 0, 1, 1];
        body.extend_from_slice(rest);
        let mut record = BytesMut::new();
        record.put_u8(2 * body.len() as u8);
        record.put_slice(&body);
        with_records(Codec::None, &record, 1)
    };
    assert!(decode_records(&record(&[0]), CAP).is_ok());
    let cases: [(&[u8], &str); 7] = [
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f], "more headers"),
        (&[1], "negative header count"),
        (&[2, 1, 1], "header key is null"),
        (&[2, 0x7e, 0], "beyond its end"),
        (&[2, 3, 0], "negative length"),
        (&[0, 0], "follow its headers"),
        (&[], "does not end"),
    ];
    for (rest, cause) in cases {
        let error = decode_records(&record(rest), CAP).unwrap_err();
        assert!(error.to_string().contains(cause), "{error} for {rest:?}");
    }
}

#[test]
fn the_number_of_records_has_to_be_the_headers() {
    let records_of = |batch: &Bytes| batch.slice(HEADER_LEN..);
    let batch = simple(3, Codec::None);
    for count in [1, 2, 4, i32::MAX] {
        let wrong = with_records(Codec::None, &records_of(&batch), count);
        let error = decode_records(&wrong, CAP).unwrap_err();
        assert!(matches!(error, BatchError::BadRecord { .. }), "{error}");
    }
}

#[test]
fn offsets_have_to_rise() {
    let one = simple(1, Codec::None).slice(HEADER_LEN..);
    let twice = [&one[..], &one[..]].concat();
    let error = decode_records(&with_records(Codec::None, &twice, 2), CAP).unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
}

#[test]
fn the_builder_keeps_its_size_and_takes_a_first_record_of_any() {
    let mut builder = BatchBuilder::new(100);
    assert_eq!(builder.push(0, None, Some(&[0; 500]), &[]), Ok(Pushed::Added));
    assert_eq!(builder.push(0, None, None, &[]), Ok(Pushed::Full));

    let mut builder = BatchBuilder::new(100);
    while builder.push(0, None, Some(b"0123"), &[]) == Ok(Pushed::Added) {
        assert!(builder.estimated_size() <= 100);
    }
    assert_eq!(builder.len(), 3);
    let size = builder.estimated_size();
    assert_eq!(builder.build(&BuildOptions::default()).unwrap().len(), size);

    let empty = BatchBuilder::new(100);
    assert!(empty.is_empty());
    assert_eq!(empty.build(&BuildOptions::default()), Err(BatchError::BadCount(0)));
}

proptest! {
    #[test]
    fn records_round_trip(plains in plains(), options in options()) {
        let batch = build(&plains, &options);
        let limits = ProduceLimits { max_message_bytes: batch.len(), keyed: false };
        let header = validate_produce(&batch, limits).unwrap();
        prop_assert_eq!(header.record_count as usize, plains.len());
        prop_assert_eq!(header.attributes.codec(), Ok(options.codec));
        prop_assert_eq!(header.attributes.transactional(), options.transactional);
        let producer = header.idempotent().then_some(ProducerStamp {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
        prop_assert_eq!(producer, options.producer);
        let max = plains.iter().map(|p| p.timestamp_ms).max().unwrap();
        prop_assert_eq!(header.max_timestamp_ms, max);
        let decoded = decode_records(&batch, CAP).unwrap();
        let offsets: Vec<_> = decoded.iter().map(|r| r.offset).collect();
        let expected: Vec<_> = (0..plains.len() as u64).map(Offset).collect();
        prop_assert_eq!(offsets, expected);
        prop_assert_eq!(plain_records(&batch), plains);
    }
}
