//! The table as bytes, so that it outlives the batches that it was built from.
//!
//! ```text
//! version u8 = 1 │ producers u32 │ producer… │ CRC-32C u32 over all before it
//!            2, of a partition with transactions: after the producers also
//!                │ length u32 │ the snapshot of the transactions
//! producer: id i64 │ epoch i16 │ last offset u64 │ last timestamp i64 │ contiguous u32
//!           │ batches u8 │ { base offset u64 │ base sequence i32 │ last delta u32 }…
//! ```
//! Big-endian; the producers stand in the order of their last offsets.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::window::{SequencedBatch, Window};
use super::{BATCHES_REMEMBERED, ProducerState, ProducerTable};
use crate::ids::{Offset, ProducerEpoch, ProducerId};
use crate::transaction::partition::{TableLimits, TransactionTable};

const VERSION: u8 = 1;
const WITH_TRANSACTIONS: u8 = 2;

/// Bytes before the producers, and after them.
const FRAME_BYTES: usize = 1 + 4 + 4;
const PRODUCER_BYTES: usize = 8 + 2 + 8 + 8 + 4 + 1;
const BATCH_BYTES: usize = 8 + 4 + 4;

/// Why a snapshot cannot be used. The table is then rebuilt from the whole log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot of producers is cut short")]
    Truncated,
    #[error("the snapshot of producers has version {0}; {VERSION} and {WITH_TRANSACTIONS} are known")]
    UnknownVersion(u8),
    #[error("the snapshot of producers fails its checksum")]
    Checksum,
    #[error("the snapshot of producers contradicts itself: {0}")]
    Malformed(&'static str),
}

impl ProducerTable {
    /// The snapshot of the table.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_bytes_max());
        out.put_u8(if self.transactions.is_empty() { VERSION } else { WITH_TRANSACTIONS });
        // The table is bounded far below 2³².
        out.put_u32(self.len() as u32);
        for (_, id) in &self.by_last_offset {
            if let Some(state) = self.producers.get(id) {
                put_producer(&mut out, *id, state);
            }
        }
        if !self.transactions.is_empty() {
            let transactions = self.transactions.encode();
            out.put_u32(transactions.len() as u32);
            out.put_slice(&transactions);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.freeze()
    }

    /// The snapshot has at most so many bytes.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        let most = PRODUCER_BYTES + BATCHES_REMEMBERED * BATCH_BYTES;
        let transactions = if self.transactions.is_empty() { 0 } else { 4 + self.transactions.encoded_bytes_max() };
        FRAME_BYTES + self.len() * most + transactions
    }

    /// The table of a snapshot. It remembers at most `producers_max` producers: if the
    /// snapshot has more, the latest.
    ///
    /// # Errors
    /// The bytes are not a snapshot that [`ProducerTable::encode`] wrote.
    pub fn decode(bytes: &[u8], producers_max: usize) -> Result<Self, SnapshotError> {
        let version = *bytes.first().ok_or(SnapshotError::Truncated)?;
        if version != VERSION && version != WITH_TRANSACTIONS {
            return Err(SnapshotError::UnknownVersion(version));
        }
        let (body, crc) = bytes.split_last_chunk().ok_or(SnapshotError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(SnapshotError::Checksum);
        }
        let mut rest = &body[1..];
        let count = rest.try_get_u32().map_err(|_| SnapshotError::Truncated)?;
        let mut table = Self::new(producers_max);
        let mut last = None;
        for _ in 0..count {
            let (id, state) = producer(&mut rest)?;
            let place = (state.last_offset, id);
            if last.replace(place).is_some_and(|last| last >= place) {
                return Err(SnapshotError::Malformed("producers out of order"));
            }
            if table.producers.contains_key(&id) {
                return Err(SnapshotError::Malformed("a producer twice"));
            }
            table.insert(id, state);
        }
        if version == WITH_TRANSACTIONS {
            table.transactions = Box::new(transactions(&mut rest)?);
        }
        if !rest.is_empty() {
            return Err(SnapshotError::Malformed("bytes after the last producer"));
        }
        Ok(table)
    }
}

fn transactions(rest: &mut &[u8]) -> Result<TransactionTable, SnapshotError> {
    let length = rest.try_get_u32().map_err(|_| SnapshotError::Truncated)?;
    let length = usize::try_from(length).map_err(|_| SnapshotError::Truncated)?;
    let (section, after) = rest.split_at_checked(length).ok_or(SnapshotError::Truncated)?;
    *rest = after;
    TransactionTable::decode(section, TableLimits::default())
        .map_err(|_| SnapshotError::Malformed("transactions that cannot be read"))
}

fn put_producer(out: &mut BytesMut, id: ProducerId, state: &ProducerState) {
    out.put_i64(id.0);
    out.put_i16(state.epoch.0);
    out.put_u64(state.last_offset.0);
    out.put_i64(state.last_timestamp_ms);
    out.put_u32(state.window.contiguous());
    out.put_u8(state.batches().len() as u8);
    for batch in state.batches() {
        out.put_u64(batch.base_offset.0);
        out.put_i32(batch.base_sequence);
        out.put_u32(batch.last_delta);
    }
}

fn producer(rest: &mut &[u8]) -> Result<(ProducerId, ProducerState), SnapshotError> {
    if rest.len() < PRODUCER_BYTES {
        return Err(SnapshotError::Truncated);
    }
    let id = ProducerId(rest.get_i64());
    let epoch = ProducerEpoch(rest.get_i16());
    let last_offset = Offset(rest.get_u64());
    let last_timestamp_ms = rest.get_i64();
    let contiguous = rest.get_u32();
    let batches = usize::from(rest.get_u8());
    if rest.len() < batches * BATCH_BYTES {
        return Err(SnapshotError::Truncated);
    }
    let batches = (0..batches)
        .map(|_| SequencedBatch {
            base_offset: Offset(rest.get_u64()),
            base_sequence: rest.get_i32(),
            last_delta: rest.get_u32(),
        })
        .collect();
    if id.0 < 0 {
        return Err(SnapshotError::Malformed("a negative producer id"));
    }
    let window = Window::restored(batches, contiguous).ok_or(SnapshotError::Malformed("batches that do not follow"))?;
    let state = ProducerState { epoch, last_offset, last_timestamp_ms, window, idle_since_ms: None };
    Ok((id, state))
}
