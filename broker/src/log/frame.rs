//! The fields of a stored batch that the log relies on, and its checksum.

use baton_core::Epoch;
use baton_core::batch::{BatchError, BatchHeader, check_crc};
use bytes::Bytes;

use super::StoredBatch;

/// Reads the header of one whole batch without looking at its checksum.
///
/// A batch that no leader has stamped gets the epoch [`Epoch::NONE`].
pub(super) fn parse(bytes: Bytes) -> Result<StoredBatch, BatchError> {
    let header = BatchHeader::parse(&bytes)?;
    let (needed, available) = (header.total_len(), bytes.len());
    if needed != available {
        return Err(BatchError::Truncated { needed, available });
    }
    Ok(StoredBatch {
        base: header.base_offset,
        last: header.last_offset(),
        epoch: header.leader_epoch.unwrap_or(Epoch::NONE),
        max_timestamp_ms: header.max_timestamp_ms,
        bytes,
    })
}

/// [`parse`], and the CRC-32C that the producer computed over everything behind it.
pub(super) fn verify(bytes: Bytes) -> Result<StoredBatch, BatchError> {
    let batch = parse(bytes)?;
    check_crc(&batch.bytes)?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::contract::batch;
    use baton_core::Offset;

    #[test]
    fn a_built_batch_is_verified() {
        let built = batch(7, 3, 2, 1_000, 40);
        let read = verify(built.bytes.clone()).unwrap();
        assert_eq!(read, built);
        assert_eq!((read.base, read.last, read.epoch), (Offset(7), Offset(9), Epoch(2)));
    }

    #[test]
    fn every_flipped_byte_behind_the_epoch_is_noticed() {
        let built = batch(7, 3, 2, 1_000, 40);
        for at in 16..built.bytes.len() {
            let mut bytes = built.bytes.to_vec();
            bytes[at] ^= 1;
            assert!(verify(bytes.into()).is_err(), "byte {at}");
        }
        for cut in 0..built.bytes.len() {
            assert!(verify(built.bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
