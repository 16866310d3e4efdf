//! Batches that break a rule. The leader checks the header and the CRC and never inflates what
//! it stores; whoever inflates has a cap.

use baton_client::{ConsumerConfig, Start};
use baton_core::batch::Codec;
use baton_core::{ErrorCode, Offset};
use baton_proto::v1::list_offsets_partition::At;
use bytes::{Bytes, BytesMut};

use crate::harness::{Ledger, PATIENCE, shared};
use crate::{raw, watch};

/// Where the header's fields are (RecordBatch v2).
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const RECORD_COUNT: usize = 57;

fn good() -> Bytes {
    raw::batch(b"some value", 1_000, Codec::None)
}

/// The leader refuses the batch, and what follows it is taken.
#[track_caller]
fn refused(topic: &str, code: ErrorCode, batch: Bytes) {
    let cluster = shared();
    let ledger = Ledger::open(cluster, topic);
    let address = cluster.leader_address(topic);
    let result = cluster.run(raw::produce(&address, topic, 0, batch));
    raw::check(result.error.as_ref(), code, (topic, Some(0)));
    assert_eq!(result.base_offset, -1);
    ledger.settle(cluster);
}

#[test]
fn wrong_crc() {
    let mut batch = BytesMut::from(&good()[..]);
    batch[CRC] ^= 1;
    refused("wrong-crc", ErrorCode::CorruptBatch, batch.freeze());
}

#[test]
fn wrong_count() {
    refused("wrong-count", ErrorCode::InvalidBatch, raw::patched(&good(), RECORD_COUNT, &5_i32.to_be_bytes()));
    refused("no-count", ErrorCode::InvalidBatch, raw::patched(&good(), RECORD_COUNT, &0_i32.to_be_bytes()));
    refused("negative-count", ErrorCode::InvalidBatch, raw::patched(&good(), RECORD_COUNT, &(-1_i32).to_be_bytes()));
    let both = raw::patched(&good(), RECORD_COUNT, &i32::MIN.to_be_bytes());
    refused("wrong-delta", ErrorCode::InvalidBatch, raw::patched(&both, LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes()));
}

#[test]
fn control_bit() {
    refused("control-bit", ErrorCode::InvalidBatch, raw::patched(&good(), ATTRIBUTES, &(1_i16 << 5).to_be_bytes()));
}

#[test]
fn unknown_codec() {
    for codec in 5..=7_i16 {
        let batch = raw::patched(&good(), ATTRIBUTES, &codec.to_be_bytes());
        refused(&format!("unknown-codec-{codec}"), ErrorCode::UnsupportedCompression, batch);
    }
}

#[test]
fn batch_over_the_limit() {
    let large = raw::batch(&vec![7; 1 << 20], 1_000, Codec::None);
    refused("over-the-limit", ErrorCode::BatchTooLarge, large);
}

#[test]
fn not_one_batch() {
    refused("no-batch", ErrorCode::InvalidBatch, Bytes::new());
    refused("two-batches", ErrorCode::InvalidBatch, [good(), good()].concat().into());
    refused("half-a-batch", ErrorCode::CorruptBatch, good().slice(..70));
    refused("old-format", ErrorCode::UnsupportedFormat, raw::patched(&good(), 16, &[1]));
}

/// 80 MiB of zeros in a few KiB. It is stored and served as it came; a look at its records is
/// refused, by the broker that searches for a time and by the consumer, and both go on behind it.
#[test]
fn decompression_bomb() {
    let cluster = shared();
    let topic = "bomb";
    // The ledger's topic shows that the cluster works; the bomb lies in another one.
    let ledger = Ledger::open(cluster, "beside-the-bomb");
    drop(Ledger::open(cluster, topic));
    let address = cluster.leader_address(topic);
    let bomb = raw::batch(&vec![0; 80 << 20], 2_000_000_000_000, Codec::Zstd);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    cluster.run(async {
        let produced = raw::produce(&address, topic, 0, bomb.clone()).await;
        assert_eq!((produced.error, produced.base_offset), (None, 5), "it follows the five first records");
        let later = raw::batch(b"later", 3_000_000_000_000, Codec::None);
        assert_eq!(raw::produce(&address, topic, 0, later).await.base_offset, 6);
        let fetched = raw::fetch(&address, topic, 0, 5).await;
        assert_eq!(fetched.batches[0].len(), bomb.len(), "it is served as it came");
        let found = raw::list_offsets(&address, topic, 0, At::TimestampMs(1_999_999_999_999)).await;
        raw::check(found.error.as_ref(), ErrorCode::InvalidBatch, (topic, Some(0)));
        let found = raw::list_offsets(&address, topic, 0, At::TimestampMs(2_500_000_000_000)).await;
        assert_eq!((found.error, found.offset), (None, 6), "what lies behind it is found");

        let mut consumer = ledger.client().consumer(ConsumerConfig::default());
        consumer.assign(topic, &[(0, Start::Offset(Offset(5)))]).await.unwrap();
        let refused = consumer.poll(PATIENCE).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidBatch, "{refused}");
        assert!(refused.to_string().contains("offsets 5 to 5"), "{refused}");
        consumer.seek(topic, 0, Start::Offset(Offset(6))).unwrap();
        let records = consumer.poll(PATIENCE).await.unwrap();
        assert_eq!(records[0].value.as_deref(), Some(&b"later"[..]));
    });
    ledger.settle(cluster);
    watch::assert_no_panics();
}
