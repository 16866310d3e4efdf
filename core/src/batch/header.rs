//! The 61 bytes before the records, as types.

use super::{BatchError, CRC_FROM, Codec, HEADER_LEN, LENGTH_PREFIX, MAGIC, MAGIC_AT};
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};

/// Who set the timestamps of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer, record by record.
    #[default]
    CreateTime,
    /// The leader when it appended: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    pub(super) const CODEC_MASK: i16 = 0b111;
    pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
    pub(super) const TRANSACTIONAL: i16 = 1 << 4;
    pub(super) const CONTROL: i16 = 1 << 5;
    pub(super) const DELETE_HORIZON: i16 = 1 << 6;

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the codes 5 to 7, which nobody has defined.
    pub fn codec(self) -> Result<Codec, BatchError> {
        let id = (self.0 & Self::CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(BatchError::UnknownCodec(id))
    }

    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// The batch is part of a transaction.
    #[must_use]
    pub fn transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// The batch marks the end of a transaction; its record is not shown to readers.
    #[must_use]
    pub fn control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// The base timestamp is the time from which on tombstones may go (KIP-534).
    #[must_use]
    pub fn delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// Everything that a batch says about itself without a look at its records. Reading it costs
/// a few nanoseconds and copies nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes that follow the length field; see [`BatchHeader::total_len`].
    pub length: u32,
    /// None as long as no leader has stamped the batch.
    pub leader_epoch: Option<Epoch>,
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: u32,
    /// Milliseconds since 1970; the records' timestamps are relative to it.
    pub base_timestamp_ms: i64,
    /// Milliseconds since 1970; −1 when no record has a timestamp.
    pub max_timestamp_ms: i64,
    /// −1 without idempotence; see [`BatchHeader::idempotent`].
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record; −1 without idempotence.
    pub base_sequence: i32,
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may go on after it: with the batch's
    /// records, with more batches, or not at all.
    ///
    /// # Errors
    /// Too short, another message format, a length below a header's, or numbers that cannot
    /// be: a negative count, an offset outside the range. The CRC is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let length = check_frame(bytes)?;
        let record_count = i32::from_be_bytes(field(bytes, 57));
        let last_offset_delta = i32::from_be_bytes(field(bytes, 23));
        let Ok(count) = u32::try_from(record_count) else {
            return Err(BatchError::BadCount(record_count));
        };
        let Ok(delta) = u32::try_from(last_offset_delta) else {
            let (delta, count) = (last_offset_delta, record_count);
            return Err(BatchError::BadLastOffsetDelta { delta, count });
        };
        let base = i64::from_be_bytes(field(bytes, 0));
        let base_offset = Offset::from_wire(base)
            .filter(|_| base.checked_add(i64::from(delta) + 1).is_some())
            .ok_or(BatchError::BadBaseOffset(base))?;
        let epoch = i32::from_be_bytes(field(bytes, 12));
        Ok(Self {
            base_offset,
            length,
            leader_epoch: u32::try_from(epoch).ok().map(Epoch),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, CRC_FROM))),
            last_offset_delta: delta,
            base_timestamp_ms: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp_ms: i64::from_be_bytes(field(bytes, 35)),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: count,
        })
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub fn total_len(&self) -> usize {
        LENGTH_PREFIX + self.length as usize
    }

    /// The offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Whether the batch takes part in the detection of duplicates.
    #[must_use]
    pub fn idempotent(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The sequence number of the last record. Sequence numbers wrap from `i32::MAX` to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sum & i64::from(i32::MAX)) as i32
    }
}

/// Checks what has to be right before a field can be read, and returns the length field.
/// The magic byte is looked at first, for it stands at the same place in older formats,
/// whose messages may be shorter than one of our headers.
fn check_frame(bytes: &[u8]) -> Result<u32, BatchError> {
    if let Some(&magic) = bytes.get(MAGIC_AT)
        && magic as i8 != MAGIC
    {
        return Err(BatchError::UnsupportedMagic(magic as i8));
    }
    if bytes.len() < HEADER_LEN {
        return Err(BatchError::Truncated { needed: HEADER_LEN, available: bytes.len() });
    }
    let length = i32::from_be_bytes(field(bytes, 8));
    u32::try_from(length)
        .ok()
        .filter(|&length| length as usize >= HEADER_LEN - LENGTH_PREFIX)
        .ok_or(BatchError::BadLength(length))
}

/// The bytes of the whole batch at the start of `bytes`, by its length field alone.
pub(super) fn framed_len(bytes: &[u8]) -> Result<usize, BatchError> {
    check_frame(bytes).map(|length| LENGTH_PREFIX + length as usize)
}

/// `N` bytes at `at`. Callers have checked that a whole header is there.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}
