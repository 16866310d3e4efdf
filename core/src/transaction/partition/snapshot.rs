//! The table as bytes, so that it outlives the batches that it was built from. It stands
//! beside the snapshot of the producers' sequence numbers, and is taken at the same offset.
//!
//! ```text
//! version u8 = 1 │ end offset u64
//!   │ producers u32 │ { id i64 │ epoch i16 │ last offset u64 │ flags u8: 1 open, 2 marked
//!                       │ flag 1: first offset u64 │ flag 2: coordinator epoch u32 }…
//!   │ ended u32 │ { producer id i64 │ epoch i16 │ flags u8: 2 marked │ first offset u64
//!                   │ marker's offset u64 │ flag 2: coordinator epoch u32 }…
//!   │ aborted u32 │ { producer id i64 │ first offset u64 │ marker's offset u64 │ last stable u64 }…
//!   │ CRC-32C u32 over all before it
//! ```
//! Big-endian; the producers rise by id, the others by the marker's offset.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{AbortedIndex, AbortedTransaction, Ended, Known, TableLimits, TransactionTable};
use crate::ids::{Epoch, Offset, ProducerEpoch, ProducerId};

const VERSION: u8 = 1;

const OPEN: u8 = 1;
const MARKED: u8 = 2;

const FRAME_BYTES: usize = 1 + 8 + 3 * 4 + 4;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 8 + 1;
const PRODUCER_BYTES_MAX: usize = PRODUCER_BYTES_MIN + 8 + 4;
const ENDED_BYTES_MIN: usize = 8 + 2 + 1 + 16;
const ENDED_BYTES_MAX: usize = ENDED_BYTES_MIN + 4;
const ABORTED_BYTES: usize = 32;

/// Why a snapshot cannot be used. The table is then rebuilt from the whole log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot of transactions is cut short")]
    Truncated,
    #[error("the snapshot of transactions has version {0}; {VERSION} is known")]
    UnknownVersion(u8),
    #[error("the snapshot of transactions fails its checksum")]
    Checksum,
    #[error("the snapshot of transactions contradicts itself: {0}")]
    Malformed(&'static str),
}

impl From<bytes::TryGetError> for SnapshotError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Truncated
    }
}

impl TransactionTable {
    /// The snapshot has at most so many bytes.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        FRAME_BYTES
            + self.producers.len() * PRODUCER_BYTES_MAX
            + self.ended.len() * ENDED_BYTES_MAX
            + self.aborted.len() * ABORTED_BYTES
    }

    /// The snapshot of the table. All counts are bounded far below 2³².
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_bytes_max());
        out.put_u8(VERSION);
        out.put_u64(self.end.0);
        out.put_u32(self.producers.len() as u32);
        for (id, known) in &self.producers {
            put_producer(&mut out, *id, known);
        }
        out.put_u32(self.ended.len() as u32);
        for ended in &self.ended {
            put_ended(&mut out, ended);
        }
        out.put_u32(self.aborted.len() as u32);
        for aborted in self.aborted.iter() {
            out.put_i64(aborted.producer.0);
            out.put_u64(aborted.first.0);
            out.put_u64(aborted.last.0);
            out.put_u64(aborted.last_stable.0);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.freeze()
    }

    /// # Errors
    /// The bytes are not what [`TransactionTable::encode`] gives.
    pub fn decode(bytes: &[u8], limits: TableLimits) -> Result<Self, SnapshotError> {
        let version = *bytes.first().ok_or(SnapshotError::Truncated)?;
        if version != VERSION {
            return Err(SnapshotError::UnknownVersion(version));
        }
        let (body, crc) = bytes.split_last_chunk().ok_or(SnapshotError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(SnapshotError::Checksum);
        }
        let mut rest = body.get(1..).ok_or(SnapshotError::Truncated)?;
        let mut table = Self { end: Offset(rest.try_get_u64()?), ..Self::new(limits) };
        read_producers(&mut rest, &mut table)?;
        table.ended = ended(&mut rest)?;
        table.aborted = aborted(&mut rest)?;
        if !rest.is_empty() {
            return Err(SnapshotError::Malformed("bytes after the last transaction"));
        }
        let beyond = |offset: Option<Offset>| offset.is_some_and(|offset| offset >= table.end);
        if beyond(table.ended.back().map(|ended| ended.marker)) || beyond(table.aborted.iter().last().map(|a| a.last)) {
            return Err(SnapshotError::Malformed("a marker beyond the end"));
        }
        Ok(table)
    }
}

fn put_producer(out: &mut BytesMut, id: ProducerId, known: &Known) {
    out.put_i64(id.0);
    out.put_i16(known.epoch.0);
    out.put_u64(known.last.0);
    let open = if known.open_since.is_some() { OPEN } else { 0 };
    let marked = if known.coordinator_epoch.is_some() { MARKED } else { 0 };
    out.put_u8(open | marked);
    if let Some(first) = known.open_since {
        out.put_u64(first.0);
    }
    if let Some(epoch) = known.coordinator_epoch {
        out.put_u32(epoch.0);
    }
}

fn put_ended(out: &mut BytesMut, ended: &Ended) {
    out.put_i64(ended.producer.0);
    out.put_i16(ended.epoch.0);
    out.put_u8(if ended.coordinator_epoch.is_some() { MARKED } else { 0 });
    out.put_u64(ended.first.0);
    out.put_u64(ended.marker.0);
    if let Some(epoch) = ended.coordinator_epoch {
        out.put_u32(epoch.0);
    }
}

fn read_producers(rest: &mut &[u8], table: &mut TransactionTable) -> Result<(), SnapshotError> {
    for _ in 0..count(rest, PRODUCER_BYTES_MIN)? {
        let id = ProducerId(rest.try_get_i64()?);
        let epoch = ProducerEpoch(rest.try_get_i16()?);
        let last = Offset(rest.try_get_u64()?);
        let flags = rest.try_get_u8()?;
        if flags & !(OPEN | MARKED) != 0 {
            return Err(SnapshotError::Malformed("a flag that is not known"));
        }
        let open_since = (flags & OPEN != 0).then(|| rest.try_get_u64()).transpose()?.map(Offset);
        let coordinator_epoch = (flags & MARKED != 0).then(|| rest.try_get_u32()).transpose()?.map(Epoch);
        if id.0 < 0 || table.producers.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(SnapshotError::Malformed("producers out of order"));
        }
        if last >= table.end || open_since.is_some_and(|first| first > last) {
            return Err(SnapshotError::Malformed("a transaction beyond the end"));
        }
        table.put_in(id, Known { epoch, last, open_since, coordinator_epoch });
    }
    Ok(())
}

fn ended(rest: &mut &[u8]) -> Result<VecDeque<Ended>, SnapshotError> {
    let mut ended: VecDeque<Ended> = VecDeque::new();
    for _ in 0..count(rest, ENDED_BYTES_MIN)? {
        let (producer, epoch) = (ProducerId(rest.try_get_i64()?), ProducerEpoch(rest.try_get_i16()?));
        let flags = rest.try_get_u8()?;
        if flags & !MARKED != 0 {
            return Err(SnapshotError::Malformed("a flag that is not known"));
        }
        let (first, marker) = (Offset(rest.try_get_u64()?), Offset(rest.try_get_u64()?));
        let coordinator_epoch = (flags & MARKED != 0).then(|| rest.try_get_u32()).transpose()?.map(Epoch);
        let one = Ended { producer, first, marker, epoch, coordinator_epoch };
        if one.first >= one.marker || ended.back().is_some_and(|last| last.marker >= one.marker) {
            return Err(SnapshotError::Malformed("ended transactions out of order"));
        }
        ended.push_back(one);
    }
    Ok(ended)
}

fn aborted(rest: &mut &[u8]) -> Result<AbortedIndex, SnapshotError> {
    let mut aborted = Vec::new();
    for _ in 0..count(rest, ABORTED_BYTES)? {
        aborted.push(AbortedTransaction {
            producer: ProducerId(rest.try_get_i64()?),
            first: Offset(rest.try_get_u64()?),
            last: Offset(rest.try_get_u64()?),
            last_stable: Offset(rest.try_get_u64()?),
        });
    }
    AbortedIndex::restored(aborted).ok_or(SnapshotError::Malformed("aborted transactions out of order"))
}

/// A number of things of at least `bytes_min` bytes each: never more than could follow.
fn count(rest: &mut &[u8], bytes_min: usize) -> Result<usize, SnapshotError> {
    let count = rest.try_get_u32()? as usize;
    if count > rest.len() / bytes_min { Err(SnapshotError::Truncated) } else { Ok(count) }
}
