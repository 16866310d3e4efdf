//! Single records inside a batch.
//!
//! ```text
//! length varint │ attributes i8 │ timestamp delta varlong │ offset delta varint
//! key length varint (−1: null) │ key │ value length varint (−1: null) │ value
//! header count varint │ { key length varint │ key │ value length varint (−1: null) │ value }…
//! ```
//! Variable-length numbers are zigzag-encoded, seven bits a byte, the lowest first.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BatchError, BatchHeader, HEADER_LEN, TimestampType, decompress};
use crate::ids::Offset;

/// A named value of a record. Keys may repeat and need not be text; a null value is not an
/// empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// One record. A null key or value is not an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// Milliseconds since 1970; with log append time, when the leader appended it.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In the order of the producer.
    pub headers: Vec<RecordHeader>,
}

/// Decodes the records of one whole batch; see [`records`]. The memory taken is a small
/// multiple of `max_decompressed`.
///
/// # Errors
/// As [`records`] and its iterator.
pub fn decode_records(batch: &Bytes, max_decompressed: usize) -> Result<Vec<Record>, BatchError> {
    records(batch, max_decompressed)?.collect()
}

/// The records of one whole batch, one by one. Keys and values share the memory of the batch,
/// or of its decompressed records. The CRC is not looked at.
///
/// # Errors
/// The batch is not whole, its codec is unknown, or its records do not decompress to at most
/// `max_decompressed` bytes. Broken records are told by the iterator, which then ends.
pub fn records(batch: &Bytes, max_decompressed: usize) -> Result<Records, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let (needed, available) = (header.total_len(), batch.len());
    if available < needed {
        return Err(BatchError::Truncated { needed, available });
    }
    let packed = batch.slice(HEADER_LEN..needed);
    let rest = decompress(header.attributes.codec()?, &packed, max_decompressed)?;
    Ok(Records { header, rest, index: 0, least_delta: 0 })
}

/// The iterator of [`records`].
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    rest: Bytes,
    index: u32,
    /// The smallest offset delta that the next record may have. Compaction leaves gaps, but
    /// offsets always rise.
    least_delta: u32,
}

impl Records {
    /// The header of the batch.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn decode(&mut self) -> Result<Record, &'static str> {
        let length = varint(&mut self.rest)?;
        let mut body = take(&mut self.rest, length)?;
        let [_attributes] = take_array(&mut body)?;
        let timestamp_delta = varlong(&mut body)?;
        let delta = u32::try_from(varint(&mut body)?).map_err(|_| "negative offset delta")?;
        if delta < self.least_delta || delta > self.header.last_offset_delta {
            return Err("offset delta out of order or beyond the batch's last");
        }
        self.least_delta = delta + 1;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let headers = decode_headers(&mut body)?;
        if !body.is_empty() {
            return Err("bytes follow its headers");
        }
        let timestamp_ms = match self.header.attributes.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp_ms.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.header.max_timestamp_ms,
        };
        let offset = self.header.base_offset.plus(u64::from(delta));
        Ok(Record { offset, timestamp_ms, key, value, headers })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = if self.index < self.header.record_count {
            self.decode()
        } else if self.rest.is_empty() {
            return None;
        } else {
            Err("bytes follow the last record")
        };
        let item = decoded.map_err(|cause| BatchError::BadRecord { index: self.index, cause });
        self.index += 1;
        if item.is_err() {
            self.index = self.header.record_count;
            self.rest.clear();
        }
        Some(item)
    }
}

impl std::iter::FusedIterator for Records {}

/// A header takes at least two bytes: the lengths of its key and its value.
const HEADER_BYTES_MIN: usize = 2;

fn decode_headers(body: &mut Bytes) -> Result<Vec<RecordHeader>, &'static str> {
    let count = usize::try_from(varint(body)?).map_err(|_| "negative header count")?;
    if count > body.len() / HEADER_BYTES_MIN {
        return Err("more headers than bytes are left for");
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = nullable(body)?.ok_or("a header key is null")?;
        let value = nullable(body)?;
        headers.push(RecordHeader { key, value });
    }
    Ok(headers)
}

fn take(bytes: &mut Bytes, length: i32) -> Result<Bytes, &'static str> {
    let length = usize::try_from(length).map_err(|_| "negative length")?;
    if length > bytes.len() {
        return Err("a length beyond its end");
    }
    Ok(bytes.split_to(length))
}

fn take_array<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], &'static str> {
    let array = *bytes.first_chunk().ok_or("it ends in the middle of a field")?;
    bytes.advance(N);
    Ok(array)
}

fn nullable(bytes: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
    match varint(bytes)? {
        -1 => Ok(None),
        length => take(bytes, length).map(Some),
    }
}

fn varint(bytes: &mut Bytes) -> Result<i32, &'static str> {
    i32::try_from(varlong(bytes)?).map_err(|_| "a number beyond 32 bits")
}

/// At most ten bytes, the tenth holding the 64th bit only.
fn varlong(bytes: &mut Bytes) -> Result<i64, &'static str> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            bytes.advance(index + 1);
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a variable-length number does not end")
}

/// What is written of one record, but for its length.
pub(super) struct RecordBody<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [RecordHeader],
}

impl RecordBody<'_> {
    /// Bytes of the record without its length field; saturates, so that a caller's limit
    /// catches what is absurd.
    pub fn len(&self) -> usize {
        let fixed = 1 + varlong_len(self.timestamp_delta) + varint_len(self.offset_delta);
        let headers = self.headers.iter().fold(count_len(self.headers.len()), |sum, header| {
            let value = nullable_len(header.value.as_deref());
            sum.saturating_add(nullable_len(Some(&header.key))).saturating_add(value)
        });
        [nullable_len(self.key), nullable_len(self.value), headers].into_iter().fold(fixed, usize::saturating_add)
    }

    /// Appends the record with its length. The caller has kept [`RecordBody::len`] below 2³¹.
    pub fn encode(&self, out: &mut BytesMut) {
        put_length(out, self.len());
        out.put_i8(0);
        put_varlong(out, self.timestamp_delta);
        put_varlong(out, i64::from(self.offset_delta));
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        put_length(out, self.headers.len());
        for header in self.headers {
            put_nullable(out, Some(&header.key));
            put_nullable(out, header.value.as_deref());
        }
    }
}

/// Bytes of the variable-length form of a length.
pub(super) fn count_len(count: usize) -> usize {
    varlong_len(i64::try_from(count).unwrap_or(i64::MAX))
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| count_len(bytes.len()).saturating_add(bytes.len()))
}

fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

fn varlong_len(value: i64) -> usize {
    let bits = 64 - zigzag(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

fn put_length(out: &mut BytesMut, length: usize) {
    put_varlong(out, i64::try_from(length).unwrap_or(i64::MAX));
}

fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_do_not_end_or_do_not_fit_are_refused() {
        for bad in [&[][..], &[0x80], &[0xff; 9], &[0xff; 11]] {
            assert!(varlong(&mut Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        let mut beyond = BytesMut::new();
        put_varlong(&mut beyond, i64::from(i32::MAX) + 1);
        assert!(varint(&mut beyond.freeze()).is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip_and_their_length_is_known(value: i64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            put_varlong(&mut out, value);
            prop_assert_eq!(out.len(), varlong_len(value));
            let mut bytes = out.freeze();
            prop_assert_eq!(varlong(&mut bytes), Ok(value));
            prop_assert!(bytes.is_empty());
        }
    }
}
