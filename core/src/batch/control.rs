//! Control batches: what the broker itself writes between the records of clients. Readers
//! never see their records.

use bytes::{Bytes, BytesMut};

use super::header::Attributes;
use super::{BatchBuilder, BatchError, BuildOptions, CRC_FROM, HEADER_LEN, ProducerStamp};
use crate::ids::{ProducerEpoch, ProducerId};

/// A control batch has no sequence number.
const NO_SEQUENCE: i32 = -1;

/// A transactional control batch with one record, as a leader stamps and appends it. The
/// timestamp is in milliseconds since 1970.
///
/// # Errors
/// The record is above 1 GiB.
pub fn control_batch(
    id: ProducerId,
    epoch: ProducerEpoch,
    timestamp_ms: i64,
    key: &[u8],
    value: &[u8],
) -> Result<Bytes, BatchError> {
    let mut builder = BatchBuilder::new(HEADER_LEN);
    let _ = builder.push(timestamp_ms, Some(key), Some(value), &[])?;
    let producer = Some(ProducerStamp { id, epoch, base_sequence: NO_SEQUENCE });
    let built = builder.build(&BuildOptions { producer, transactional: true, ..BuildOptions::default() })?;
    let mut batch = BytesMut::from(&built[..]);
    let attributes = Attributes::TRANSACTIONAL | Attributes::CONTROL;
    batch[CRC_FROM..CRC_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    Ok(batch.freeze())
}
