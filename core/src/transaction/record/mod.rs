//! What survives a coordinator: one record for each transactional id, with a key, on a
//! compacted partition, so that the last of each key is enough. One file per record.
//!
//! The first byte of a key says what it is about, the first of a value its version. A record
//! without a value says that the transactional id is forgotten.

mod metadata;

use bytes::{Buf, Bytes};

use super::metadata::TransactionMetadata;

const KIND_TRANSACTION: u8 = 1;

/// One record of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    pub id: String,
    /// None: nobody uses the id any more.
    pub metadata: Option<TransactionMetadata>,
}

/// Bytes that are not a record of this partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record of a transactional id ends too early")]
    Truncated,
    #[error("a record of the unknown kind {0}: a newer version may have written it")]
    Kind(u8),
    #[error("a record of version {0}, which is not known: a newer version may have written it")]
    Version(u8),
    #[error("a transactional id is not UTF-8")]
    NotText,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("the record contradicts itself: {0}")]
    Malformed(&'static str),
}

impl From<bytes::TryGetError> for RecordError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Truncated
    }
}

impl TransactionRecord {
    /// What compaction goes by.
    #[must_use]
    pub fn key(&self) -> Bytes {
        metadata::key(&self.id)
    }

    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        self.metadata.as_ref().map(metadata::value)
    }

    /// # Errors
    /// The bytes are not what [`TransactionRecord::key`] and [`TransactionRecord::value`] give.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        let mut rest = key;
        match rest.try_get_u8()? {
            KIND_TRANSACTION => {
                let id = metadata::read_key(rest)?;
                Ok(Self { id, metadata: value.map(metadata::read_value).transpose()? })
            }
            kind => Err(RecordError::Kind(kind)),
        }
    }
}
