//! The checks before a batch is appended: by the leader, and by followers and recovery.

use bytes::Bytes;

use super::header::{field, framed_len};
use super::{BatchError, BatchHeader, CRC_FROM, records};

/// What a topic allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceLimits {
    /// The topic's `max.message.bytes`: the largest batch, as it is sent, header included.
    pub max_message_bytes: usize,
    /// Every record needs a key, as the topic is compacted: then records are decoded.
    pub keyed: bool,
}

/// The records that an error names at most: what is told of them is larger than a compressed
/// batch of them.
const NAMED_MAX: usize = 1_000;

/// What the records of one batch may inflate to while their keys are looked at.
const KEYED_BYTES_MAX: usize = 64 << 20;

/// The whole check of the leader before it appends what a client sent. It reads the header
/// and computes the CRC; records are decoded only where each needs a key.
///
/// # Errors
/// The first rule that the batch breaks. What concerns the bytes comes before what they
/// mean, so that damage on the way is told as damage and the client sends again.
pub fn validate_produce(bytes: &Bytes, limits: ProduceLimits) -> Result<BatchHeader, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::Empty);
    }
    let total = framed_len(bytes)?;
    if total > limits.max_message_bytes {
        return Err(BatchError::TooLarge { size: total, max: limits.max_message_bytes });
    }
    if bytes.len() < total {
        return Err(BatchError::Truncated { needed: total, available: bytes.len() });
    }
    if bytes.len() > total {
        return Err(BatchError::MoreThanOne(bytes.len() - total));
    }
    check_crc(bytes)?;
    let header = BatchHeader::parse(bytes)?;
    check_meaning(&header)?;
    if limits.keyed {
        check_keys(bytes)?;
    }
    Ok(header)
}

/// A record without a key could never be told from others when the log is compacted.
fn check_keys(bytes: &Bytes) -> Result<(), BatchError> {
    let mut indexes = Vec::new();
    for (index, record) in (0..).zip(records(bytes, KEYED_BYTES_MAX)?) {
        if record?.key.is_none() && indexes.len() < NAMED_MAX {
            indexes.push(index);
        }
    }
    match indexes.is_empty() {
        true => Ok(()),
        false => Err(BatchError::NoKey { indexes }),
    }
}

/// What a client's batch may say.
fn check_meaning(header: &BatchHeader) -> Result<(), BatchError> {
    header.attributes.codec()?;
    if header.attributes.control() {
        return Err(BatchError::ControlFromClient);
    }
    if header.attributes.delete_horizon() {
        return Err(BatchError::DeleteHorizonFromClient);
    }
    // Both were read from an i32, so that the way back loses nothing.
    let (count, delta) = (header.record_count as i32, header.last_offset_delta as i32);
    if count == 0 {
        return Err(BatchError::BadCount(count));
    }
    if delta != count - 1 {
        return Err(BatchError::BadLastOffsetDelta { delta, count });
    }
    check_producer(header)
}

/// A producer id comes with an epoch and a sequence. Without one the two are not looked at:
/// clients differ in what they put there.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let (id, epoch, sequence) = (header.producer_id.0, header.producer_epoch.0, header.base_sequence);
    if id < -1 || (id >= 0 && (epoch < 0 || sequence < 0)) {
        return Err(BatchError::BadSequence { id, epoch, sequence });
    }
    if id < 0 && header.attributes.transactional() {
        return Err(BatchError::TransactionalWithoutProducer);
    }
    Ok(())
}

/// Compares the CRC-32C of the first batch in `bytes`, all of which has to be there.
///
/// # Errors
/// The frame is not whole, or the CRC differs.
pub fn check_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let total = framed_len(bytes)?;
    let Some(covered) = bytes.get(CRC_FROM..total) else {
        return Err(BatchError::Truncated { needed: total, available: bytes.len() });
    };
    let stored = u32::from_be_bytes(field(bytes, 17));
    let computed = crc32c::crc32c(covered);
    if stored != computed {
        return Err(BatchError::CrcMismatch { stored, computed });
    }
    Ok(())
}

/// Cuts concatenated batches apart by their headers, without a copy and without a CRC.
#[must_use]
pub fn split_batches(bytes: Bytes) -> SplitBatches {
    SplitBatches { rest: bytes }
}

/// The iterator of [`split_batches`]. After an error it ends: nothing behind a broken
/// length field can be found again.
#[derive(Clone, Debug)]
pub struct SplitBatches {
    rest: Bytes,
}

impl SplitBatches {
    fn cut(&mut self) -> Result<(BatchHeader, Bytes), BatchError> {
        let header = BatchHeader::parse(&self.rest)?;
        let (needed, available) = (header.total_len(), self.rest.len());
        if needed > available {
            return Err(BatchError::Truncated { needed, available });
        }
        Ok((header, self.rest.split_to(needed)))
    }
}

impl Iterator for SplitBatches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.cut();
        if item.is_err() {
            self.rest.clear();
        }
        Some(item)
    }
}

impl std::iter::FusedIterator for SplitBatches {}

/// The check of followers, of readers that do not trust the disk, and of recovery: every
/// batch whole, of our format, with a leader epoch and an intact CRC, each following the one
/// before. Returns the batches, sharing the memory of `bytes`.
///
/// # Errors
/// The first thing that is wrong; all of `bytes` is then to be refused.
pub fn validate_replica(bytes: &Bytes) -> Result<Vec<(BatchHeader, Bytes)>, BatchError> {
    let mut batches: Vec<(BatchHeader, Bytes)> = Vec::new();
    for item in split_batches(bytes.clone()) {
        let (header, batch) = item?;
        check_crc(&batch)?;
        if header.leader_epoch.is_none() {
            return Err(BatchError::NoLeaderEpoch);
        }
        if let Some((previous, _)) = batches.last()
            && previous.next_offset() != header.base_offset
        {
            let (expected, found) = (previous.next_offset(), header.base_offset);
            return Err(BatchError::Gap { expected, found });
        }
        batches.push((header, batch));
    }
    Ok(batches)
}
