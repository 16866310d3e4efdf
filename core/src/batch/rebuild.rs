//! Batches that compaction writes: what is left of one, with its offsets, epoch and producer.

use bytes::{BufMut, Bytes, BytesMut};

use super::record::{RecordBody, count_len};
use super::{Attributes, BatchError, BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_PREFIX, MAGIC, Record, compress};
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};

/// The batch of `header` with these of its records, which keep their offsets and timestamps.
/// With `horizon_ms` its base timestamp says from when on its tombstones may go (KIP-534).
///
/// # Errors
/// The codec is unknown or fails, or a record is not one of the batch.
pub fn rebuild(header: &BatchHeader, records: &[Record], horizon_ms: Option<i64>) -> Result<Bytes, BatchError> {
    let first_ms = records.first().map_or(header.max_timestamp_ms, |record| record.timestamp_ms);
    let base_timestamp_ms = horizon_ms.unwrap_or(first_ms);
    let mut plain = BytesMut::new();
    for (index, record) in (0..).zip(records) {
        let delta = record.offset.0.checked_sub(header.base_offset.0).and_then(|delta| i32::try_from(delta).ok());
        let Some(offset_delta) = delta.filter(|delta| i64::from(*delta) <= i64::from(header.last_offset_delta)) else {
            return Err(BatchError::BadRecord { index, cause: "its offset is outside the batch" });
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let timestamp_delta = record.timestamp_ms.wrapping_sub(base_timestamp_ms);
        let body = RecordBody { timestamp_delta, offset_delta, key, value, headers: &record.headers };
        let len = body.len();
        plain.reserve(len.saturating_add(count_len(len)));
        body.encode(&mut plain);
    }
    // With the leader's time every record has the greatest one of the batch.
    let latest = records.iter().map(|record| record.timestamp_ms).max();
    let packed = compress(header.attributes.codec()?, &plain)?;
    let kept = header.attributes.0 & !Attributes::DELETE_HORIZON;
    let attributes = if horizon_ms.is_some() { kept | Attributes::DELETE_HORIZON } else { kept };
    let fields = Fields {
        attributes,
        base_timestamp_ms,
        max_timestamp_ms: latest.unwrap_or(header.max_timestamp_ms),
        count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        ..Fields::of(header)
    };
    fields.write(&packed)
}

/// A batch without records over the offsets from `base` to `last`. With the header of an
/// original it goes on saying what its producer had sent; that one's offsets are kept.
///
/// # Errors
/// It covers more offsets than a batch can.
pub fn empty(
    base: Offset,
    last: Offset,
    epoch: Epoch,
    max_timestamp_ms: i64,
    original: Option<&BatchHeader>,
) -> Result<Bytes, BatchError> {
    let delta = last.0.checked_sub(base.0).and_then(|delta| i32::try_from(delta).ok());
    let Some(delta) = delta else {
        return Err(BatchError::BadLastOffsetDelta { delta: i32::MAX, count: 0 });
    };
    let nobody = Fields {
        base,
        epoch,
        attributes: 0,
        last_offset_delta: delta.unsigned_abs(),
        base_timestamp_ms: max_timestamp_ms,
        max_timestamp_ms,
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        count: 0,
    };
    let fields = match original {
        None => nobody,
        // Nothing is compressed any more, and no tombstone is left.
        Some(header) => Fields {
            attributes: header.attributes.0 & !(Attributes::CODEC_MASK | Attributes::DELETE_HORIZON),
            base_timestamp_ms: header.max_timestamp_ms,
            count: 0,
            ..Fields::of(header)
        },
    };
    fields.write(&[])
}

/// What a header says.
struct Fields {
    base: Offset,
    epoch: Epoch,
    attributes: i16,
    last_offset_delta: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    count: u32,
}

impl Fields {
    fn of(header: &BatchHeader) -> Self {
        Self {
            base: header.base_offset,
            epoch: header.leader_epoch.unwrap_or(Epoch::NONE),
            attributes: header.attributes.0,
            last_offset_delta: header.last_offset_delta,
            base_timestamp_ms: header.base_timestamp_ms,
            max_timestamp_ms: header.max_timestamp_ms,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            count: header.record_count,
        }
    }

    fn write(self, packed: &[u8]) -> Result<Bytes, BatchError> {
        let size = HEADER_LEN + packed.len();
        let max = i32::MAX.unsigned_abs() as usize;
        let length = i32::try_from(size - LENGTH_PREFIX).map_err(|_| BatchError::TooLarge { size, max })?;
        let mut batch = BytesMut::with_capacity(size);
        batch.put_i64(self.base.to_wire());
        batch.put_i32(length);
        batch.put_i32(i32::try_from(self.epoch.0).unwrap_or(i32::MAX));
        batch.put_i8(MAGIC);
        batch.put_u32(0);
        batch.put_i16(self.attributes);
        batch.put_u32(self.last_offset_delta);
        batch.put_i64(self.base_timestamp_ms);
        batch.put_i64(self.max_timestamp_ms);
        batch.put_i64(self.producer_id.0);
        batch.put_i16(self.producer_epoch.0);
        batch.put_i32(self.base_sequence);
        batch.put_u32(self.count);
        batch.put_slice(packed);
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        Ok(batch.freeze())
    }
}
