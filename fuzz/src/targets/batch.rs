//! Record batches, and what is packed into them.

use baton_core::batch::{
    self, BatchHeader, Codec, ProduceLimits, Stamp, check_crc, decode_records, records, split_batches, stamp,
    validate_produce, validate_replica,
};
use baton_core::{Epoch, Offset};
use bytes::{Bytes, BytesMut};

/// As much as a batch may hold when it is unpacked.
const UNPACKED_BYTES_MAX: usize = 1 << 20;

/// Where a batch keeps its length, its CRC-32C, and what that is computed over.
const LENGTH: std::ops::Range<usize> = 8..12;
const CRC: std::ops::Range<usize> = 17..21;

/// A batch, as a producer, a peer or the disk would hand it over. The first byte says whether
/// length and checksum are made right: without that nobody would get beyond them.
pub fn record_batch(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let mut bytes = BytesMut::from(rest);
    if mode & 1 == 1 && bytes.len() > CRC.end {
        let length = u32::try_from(bytes.len() - LENGTH.end).unwrap_or(u32::MAX);
        bytes[LENGTH].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC.end..]);
        bytes[CRC].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = bytes.freeze();
    let parsed = BatchHeader::parse(&bytes);
    let _ = check_crc(&bytes);
    split(&bytes);
    if let Ok(header) = validate_produce(&bytes, ProduceLimits { max_message_bytes: UNPACKED_BYTES_MAX, keyed: false })
    {
        assert_eq!(Ok(&header), parsed.as_ref(), "what is valid is what was parsed");
        assert_eq!(header.total_len(), bytes.len());
        stored(&bytes);
    }
    if let Ok(parts) = validate_replica(&bytes) {
        assert_eq!(parts.iter().map(|(_, part)| part.len()).sum::<usize>(), bytes.len());
    }
    if let Ok(all) = decode_records(&bytes, UNPACKED_BYTES_MAX) {
        let iterated: Vec<_> = records(&bytes, UNPACKED_BYTES_MAX).into_iter().flatten().collect();
        assert_eq!(iterated.len(), all.len());
    }
}

/// Pieces are whole batches, one behind the other.
fn split(bytes: &Bytes) {
    let mut at = 0;
    for part in split_batches(bytes.clone()).map_while(Result::ok) {
        let (header, part) = part;
        assert_eq!((header.total_len(), &bytes[at..at + part.len()]), (part.len(), &part[..]));
        at += part.len();
    }
}

/// A leader stamps what is valid, and a follower takes it.
fn stored(bytes: &Bytes) {
    let how = Stamp { base_offset: Offset(7), leader_epoch: Epoch(3), append_time_ms: Some(5) };
    if let Ok((header, stamped)) = stamp(bytes.clone(), how) {
        assert_eq!((header.base_offset, header.leader_epoch), (Offset(7), Some(Epoch(3))));
        let taken = validate_replica(&stamped).map(|parts| parts.len());
        assert_eq!(taken, Ok(1), "a follower refuses what its leader stamped");
    }
}

/// The first byte names the codec.
pub fn decompress(input: &[u8]) {
    let Some((codec, packed)) = input.split_first() else { return };
    let Some(codec) = Codec::from_id(codec % 5) else { return };
    let Ok(plain) = batch::decompress(codec, &Bytes::copy_from_slice(packed), UNPACKED_BYTES_MAX) else { return };
    assert!(plain.len() <= UNPACKED_BYTES_MAX, "{codec:?} gave {} bytes", plain.len());
}
