//! Bytes that were changed or lost on the way.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::batch::fixtures::*;
use crate::batch::*;

const CAP: usize = 1 << 20;
const LIMITS: ProduceLimits = ProduceLimits { max_message_bytes: CAP, keyed: false };

/// Every single flipped bit is found, but for the two fields that the leader overwrites.
#[test]
fn every_flipped_bit_is_found_or_concerns_what_the_leader_overwrites() {
    for codec in Codec::ALL {
        let batch = simple(3, codec);
        let header = validate_produce(&batch, LIMITS).unwrap();
        let records = decode_records(&batch, CAP).unwrap();
        for bit in 0..batch.len() * 8 {
            let mut changed = BytesMut::from(&batch[..]);
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = changed.freeze();
            let Ok(mut found) = validate_produce(&changed, LIMITS) else {
                continue;
            };
            assert!(matches!(bit / 8, 0..8 | 12..16), "bit {bit} was not noticed");
            let mut decoded = decode_records(&changed, CAP).unwrap();
            for record in &mut decoded {
                record.offset.0 -= found.base_offset.0;
            }
            assert_eq!(decoded, records);
            found.base_offset = header.base_offset;
            found.leader_epoch = header.leader_epoch;
            assert_eq!(found, header);
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for name in GOLDEN_PRODUCED {
        let batch = golden(name);
        for len in 0..batch.len() {
            let cut = batch.slice(..len);
            assert!(validate_produce(&cut, LIMITS).is_err(), "{name} at {len}");
            assert!(records(&cut, CAP).is_err(), "{name} at {len}");
            assert!(len == 0 || validate_replica(&cut).is_err(), "{name} at {len}");
            assert_eq!(split_batches(cut.clone()).count(), usize::from(len > 0));
            let mut bytes = BytesMut::from(&cut[..]);
            let at = Stamp { base_offset: crate::Offset(1), leader_epoch: crate::Epoch(1), append_time_ms: None };
            assert!(stamp_in_place(&mut bytes, at).is_err(), "{name} at {len}");
            assert_eq!(bytes, cut, "a failed stamp changed something");
        }
    }
}

/// The records are cut, and header and CRC agree with that: no codec may take it for whole.
#[test]
fn every_truncation_of_the_records_is_found_under_a_right_crc() {
    for name in GOLDEN_PRODUCED {
        let batch = golden(name);
        let codec = name.parse().unwrap_or(Codec::None);
        let packed = batch.slice(HEADER_LEN..);
        for len in 0..packed.len() {
            let cut = with_records(codec, &packed[..len], 4);
            let decoded = decode_records(&cut, CAP);
            // What a codec writes after its last block carries no records.
            let Ok(decoded) = decoded else { continue };
            assert!(packed.len() - len <= 8, "{name} at {len}");
            assert_eq!(decoded.len(), 4, "{name} at {len}");
        }
    }
}

proptest! {
    /// Whoever computes the CRC himself may send anything: no panic, no endless loop, and
    /// never more than the cap.
    #[test]
    fn any_records_under_a_right_crc_are_decoded_or_refused(
        name in proptest::sample::select(GOLDEN_PRODUCED.to_vec()),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let batch = golden(name);
        let mut changed = BytesMut::from(&batch[..]);
        for (at, byte) in changes {
            let at = HEADER_LEN + at.index(batch.len() - HEADER_LEN);
            changed[at] = byte;
        }
        let batch = with_crc(changed);
        let header = validate_produce(&batch, LIMITS).unwrap();
        if let Ok(decoded) = decode_records(&batch, 4096) {
            prop_assert_eq!(decoded.len(), header.record_count as usize);
            let bytes = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
            let total: usize = decoded.iter().map(|r| bytes(&r.key) + bytes(&r.value)).sum();
            prop_assert!(total <= 4096);
        }
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(validate_produce(&bytes, LIMITS).is_err());
        prop_assert!(bytes.is_empty() || validate_replica(&bytes).is_err());
        prop_assert!(records(&bytes, CAP).is_err());
        for codec in Codec::ALL {
            let _ = decompress(codec, &bytes, CAP);
            let _ = decode_records(&with_records(codec, &bytes, 1), CAP);
        }
    }
}
