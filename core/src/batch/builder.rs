//! Building a batch out of records.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::Attributes;
use super::record::{RecordBody, count_len};
use super::{BatchError, CRC_FROM, Codec, HEADER_LEN, LENGTH_PREFIX, MAGIC, RecordHeader, compress};
use crate::ids::{ProducerEpoch, ProducerId};

/// Who sends the batch, and the sequence number of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub base_sequence: i32,
}

/// What is decided when the batch is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    pub codec: Codec,
    /// None: without idempotence.
    pub producer: Option<ProducerStamp>,
    pub transactional: bool,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    Added,
    /// It would take the batch over its size; build this one and push it into a new one.
    Full,
}

/// Collects records up to a size. The size counts uncompressed bytes with the header, so that
/// the batch is never larger than asked for but by what a codec adds to incompressible data.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Space for the header, then the encoded records.
    buffer: BytesMut,
    max_bytes: usize,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// Bytes of one record or batch stay below the wire's signed 32-bit lengths, with room for
/// what a codec adds.
const ENCODED_BYTES_MAX: usize = 1 << 30;

impl BatchBuilder {
    /// A builder of batches of at most `max_bytes` (at most 1 GiB).
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let mut buffer = BytesMut::new();
        buffer.put_bytes(0, HEADER_LEN);
        let max_bytes = max_bytes.min(ENCODED_BYTES_MAX);
        Self { buffer, max_bytes, count: 0, base_timestamp_ms: -1, max_timestamp_ms: -1 }
    }

    /// Adds a record, its timestamp in milliseconds since 1970. The first record is taken
    /// whatever its size, so that the broker's limit is what refuses it.
    ///
    /// # Errors
    /// The record alone is above 1 GiB.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> Result<Pushed, BatchError> {
        let base = if self.count == 0 { timestamp_ms } else { self.base_timestamp_ms };
        let timestamp_delta = timestamp_ms.wrapping_sub(base);
        let body = RecordBody { timestamp_delta, offset_delta: self.count, key, value, headers };
        let len = body.len();
        let size = len.saturating_add(count_len(len));
        if size > ENCODED_BYTES_MAX {
            return Err(BatchError::TooLarge { size, max: ENCODED_BYTES_MAX });
        }
        if self.count > 0 && self.buffer.len() + size > self.max_bytes {
            return Ok(Pushed::Full);
        }
        self.buffer.reserve(size);
        body.encode(&mut self.buffer);
        self.max_timestamp_ms = if self.count == 0 { base } else { self.max_timestamp_ms.max(timestamp_ms) };
        self.base_timestamp_ms = base;
        self.count += 1;
        Ok(Pushed::Added)
    }

    /// The size of the batch as it stands, uncompressed, header included.
    #[must_use]
    pub fn estimated_size(&self) -> usize {
        self.buffer.len()
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count.unsigned_abs()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch with base offset 0 and no leader epoch, as a producer sends it.
    ///
    /// # Errors
    /// There is no record, or the codec failed.
    pub fn build(self, options: &BuildOptions) -> Result<Bytes, BatchError> {
        if self.count == 0 {
            return Err(BatchError::BadCount(0));
        }
        let mut batch = match options.codec {
            Codec::None => self.buffer,
            codec => {
                let packed = compress(codec, &self.buffer[HEADER_LEN..])?;
                let mut batch = BytesMut::with_capacity(HEADER_LEN + packed.len());
                batch.put_bytes(0, HEADER_LEN);
                batch.put_slice(&packed);
                batch
            }
        };
        let size = batch.len();
        let length =
            i32::try_from(size - LENGTH_PREFIX).map_err(|_| BatchError::TooLarge { size, max: ENCODED_BYTES_MAX })?;
        let times = (self.base_timestamp_ms, self.max_timestamp_ms);
        write_header(&mut batch, length, self.count, times, options);
        Ok(batch.freeze())
    }
}

/// Fills the header's space at the start of `batch`.
fn write_header(
    batch: &mut BytesMut,
    length: i32,
    count: i32,
    (base_timestamp_ms, max_timestamp_ms): (i64, i64),
    options: &BuildOptions,
) {
    let transactional = if options.transactional { Attributes::TRANSACTIONAL } else { 0 };
    let attributes = i16::from(options.codec.id()) | transactional;
    let (id, epoch, sequence) = options.producer.map_or((-1, -1, -1), |p| (p.id.0, p.epoch.0, p.base_sequence));
    let mut header = BytesMut::with_capacity(HEADER_LEN);
    header.put_i64(0);
    header.put_i32(length);
    header.put_i32(-1);
    header.put_i8(MAGIC);
    header.put_u32(0);
    header.put_i16(attributes);
    header.put_i32(count - 1);
    header.put_i64(base_timestamp_ms);
    header.put_i64(max_timestamp_ms);
    header.put_i64(id);
    header.put_i16(epoch);
    header.put_i32(sequence);
    header.put_i32(count);
    batch[..HEADER_LEN].copy_from_slice(&header);
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}
