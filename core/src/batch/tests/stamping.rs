//! What the leader writes, and that it writes nothing else.

use bytes::Bytes;
use proptest::prelude::*;

use crate::batch::fixtures::*;
use crate::batch::*;
use crate::ids::{Epoch, Offset};

fn at(base: u64, epoch: u32, append_time_ms: Option<i64>) -> Stamp {
    Stamp { base_offset: Offset(base), leader_epoch: Epoch(epoch), append_time_ms }
}

#[test]
fn a_batch_that_nobody_else_holds_is_stamped_in_place() {
    let batch = Bytes::from(simple(3, Codec::None).to_vec());
    let address = batch.as_ptr();
    let (header, stamped) = stamp(batch, at(7, 2, None)).unwrap();
    assert_eq!(stamped.as_ptr(), address, "it was copied");
    assert_eq!(header.last_offset(), Offset(9));
    assert_eq!(header.leader_epoch, Some(Epoch(2)));
}

#[test]
fn a_batch_that_others_hold_is_copied_and_theirs_stays() {
    let batch = simple(3, Codec::None);
    let before = batch.to_vec();
    let (_, stamped) = stamp(batch.clone(), at(7, 2, None)).unwrap();
    assert_eq!(batch, before);
    assert_ne!(stamped, batch);
}

#[test]
fn log_append_time_counts_for_every_record() {
    let (header, batch) = stamp(golden("gzip"), at(7, 2, Some(99))).unwrap();
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.attributes.codec(), Ok(Codec::Gzip));
    assert_eq!(header.max_timestamp_ms, 99);
    assert_eq!(header.base_timestamp_ms, 1_700_000_000_000);
    check_crc(&batch).unwrap();
    let records = decode_records(&batch, 10_000).unwrap();
    assert!(records.iter().all(|r| r.timestamp_ms == 99));
    assert_eq!(records[0].offset, Offset(7));
    assert_eq!(records[3].key, golden_records()[3].key);
}

#[test]
fn a_stamp_beyond_the_last_offset_is_refused() {
    let last = i64::MAX as u64;
    let error = stamp(simple(3, Codec::None), at(last - 2, 1, None)).unwrap_err();
    assert_eq!(error, BatchError::BadBaseOffset(i64::MAX - 2));
    assert!(stamp(simple(3, Codec::None), at(last - 3, 1, None)).is_ok());
}

proptest! {
    #[test]
    fn stamping_touches_twelve_bytes_and_keeps_the_crc(
        plains in plains(), options in options(), base in 0..u64::MAX / 4, epoch in 0..u32::MAX / 2,
    ) {
        let batch = build(&plains, &options);
        let (header, stamped) = stamp(batch.clone(), at(base, epoch, None)).unwrap();
        prop_assert_eq!(&stamped[..8], base.to_be_bytes());
        prop_assert_eq!(&stamped[8..12], &batch[8..12]);
        prop_assert_eq!(&stamped[12..16], epoch.to_be_bytes());
        prop_assert_eq!(&stamped[16..], &batch[16..]);
        let found = validate_replica(&stamped).unwrap();
        prop_assert_eq!(found, vec![(header, stamped.clone())]);
    }
}
