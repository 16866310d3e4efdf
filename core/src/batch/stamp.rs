//! What the leader writes into a batch: its place in the log.

use bytes::{Bytes, BytesMut};

use super::{Attributes, BatchError, BatchHeader, CRC_FROM};
use crate::ids::{Epoch, Offset};

/// The place of a batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub base_offset: Offset,
    pub leader_epoch: Epoch,
    /// The time of appending in milliseconds since 1970, for topics with
    /// `message.timestamp.type=LogAppendTime`; else none, and the CRC stays as it is.
    pub append_time_ms: Option<i64>,
}

/// Stamps a batch that [`super::validate_produce`] took. The bytes are changed in place when
/// nobody else holds them, and copied once otherwise.
///
/// # Errors
/// `bytes` does not hold one whole batch.
pub fn stamp(bytes: Bytes, stamp: Stamp) -> Result<(BatchHeader, Bytes), BatchError> {
    let mut owned = match bytes.try_into_mut() {
        Ok(unique) => unique,
        Err(shared) => BytesMut::from(&shared[..]),
    };
    let header = stamp_in_place(&mut owned, stamp)?;
    Ok((header, owned.freeze()))
}

/// Stamps the batch at the start of `bytes` and returns its new header.
///
/// # Errors
/// The batch is not whole, or would leave the range of offsets; nothing is changed then.
pub fn stamp_in_place(bytes: &mut [u8], stamp: Stamp) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let (needed, available) = (header.total_len(), bytes.len());
    let Some(batch) = bytes.get_mut(..needed) else {
        return Err(BatchError::Truncated { needed, available });
    };
    let base = stamp.base_offset.to_wire();
    if base.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
        return Err(BatchError::BadBaseOffset(base));
    }
    // The wire's epoch is signed; an epoch rises by one per election and stays far below.
    let epoch = i32::try_from(stamp.leader_epoch.0).unwrap_or(i32::MAX);
    batch[0..8].copy_from_slice(&base.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
    if let Some(time) = stamp.append_time_ms {
        let attributes = header.attributes.0 | Attributes::LOG_APPEND_TIME;
        batch[CRC_FROM..23].copy_from_slice(&attributes.to_be_bytes());
        batch[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    BatchHeader::parse(batch)
}
