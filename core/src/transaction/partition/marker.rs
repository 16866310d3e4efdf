//! The end of a transaction, as a control batch in each of its partitions (KIP-98).
//!
//! ```text
//! batch:  attributes: transactional, control │ producer id, epoch │ base sequence −1 │ one record
//! record: key version i16 = 0 │ type i16: 0 abort, 1 commit
//!         value version i16 = 0 │ coordinator epoch i32
//! ```
//! Big-endian; other versions have the same fields first, and maybe more after them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::batch::{BatchError, BatchHeader, control_batch, records};
use crate::ids::Epoch;
use crate::transaction::message::Producer;

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a control batch may have at most, in bytes: the two that are known have 10.
const RECORD_BYTES_MAX: usize = 64 * 1_024;

/// The end of one producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndMarker {
    pub producer: Producer,
    pub commit: bool,
    /// The leader epoch of the coordinator's own partition.
    pub coordinator_epoch: Epoch,
}

/// A control batch that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("the record of a control batch is cut short")]
    Truncated,
}

impl From<bytes::TryGetError> for MarkerError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Truncated
    }
}

impl EndMarker {
    /// The control batch, for the leader to stamp and append. The timestamp is in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// None that could occur: the record is small.
    pub fn batch(&self, timestamp_ms: i64) -> Result<Bytes, BatchError> {
        let (mut key, mut value) = (BytesMut::with_capacity(4), BytesMut::with_capacity(6));
        key.put_i16(VERSION);
        key.put_i16(if self.commit { COMMIT } else { ABORT });
        value.put_i16(VERSION);
        // The wire's epoch is signed; an epoch rises by one per election and stays far below.
        value.put_i32(i32::try_from(self.coordinator_epoch.0).unwrap_or(i32::MAX));
        control_batch(self.producer.id, self.producer.epoch, timestamp_ms, &key, &value)
    }

    /// The marker in a batch; none if the batch has another purpose, or if compaction has
    /// emptied it, as all that it ended is gone.
    ///
    /// # Errors
    /// It is a control batch, and its record cannot be read.
    pub fn read(header: &BatchHeader, batch: &Bytes) -> Result<Option<Self>, MarkerError> {
        if !header.attributes.control() || !header.idempotent() {
            return Ok(None);
        }
        let Some(record) = records(batch, RECORD_BYTES_MAX)?.next().transpose()? else {
            return Ok(None);
        };
        let (mut key, mut value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let _version = key.try_get_i16()?;
        let commit = match key.try_get_i16()? {
            ABORT => false,
            COMMIT => true,
            _ => return Ok(None),
        };
        let _version = value.try_get_i16()?;
        // Kafka's tool for hanging transactions says −1 if it does not know.
        let coordinator_epoch = Epoch(u32::try_from(value.try_get_i32()?).unwrap_or_default());
        let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
        Ok(Some(Self { producer, commit, coordinator_epoch }))
    }
}
