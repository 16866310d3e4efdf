//! What survives a coordinator: records with a key, on a compacted partition, so that the last
//! of each key is enough. One file per record.
//!
//! The first byte of a key says what it is about, the first of a value its version. A record
//! without a value says that there is nothing under its key any more.

mod codec;
mod metadata;
mod offset;

use bytes::Bytes;

use self::codec::Reader;
pub use self::metadata::{GroupMetadata, MemberMetadata};
use super::offsets::Committed;
use crate::ids::TopicPartition;

const KIND_GROUP: u8 = 1;
const KIND_OFFSET: u8 = 2;

/// One record of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A group as its generation began or its assignment became known; none: it is gone.
    Group { group: String, metadata: Option<GroupMetadata> },
    /// An offset; none: it is forgotten.
    Offset { group: String, at: TopicPartition, committed: Option<Committed> },
}

/// Bytes that are not a record of this partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record of a group ends too early")]
    Truncated,
    #[error("a record of the unknown kind {0}: a newer version may have written it")]
    Kind(u8),
    #[error("a record of version {0}, which is not known: a newer version may have written it")]
    Version(u8),
    #[error("a text is not UTF-8")]
    NotText,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("the record contradicts itself: {0}")]
    Malformed(&'static str),
}

impl GroupRecord {
    /// What compaction goes by.
    #[must_use]
    pub fn key(&self) -> Bytes {
        match self {
            Self::Group { group, .. } => metadata::key(group),
            Self::Offset { group, at, .. } => offset::key(group, *at),
        }
    }

    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        match self {
            Self::Group { metadata, .. } => metadata.as_ref().map(metadata::value),
            Self::Offset { committed, .. } => committed.as_ref().map(offset::value),
        }
    }

    /// # Errors
    /// The bytes are not what [`GroupRecord::key`] and [`GroupRecord::value`] give.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        let mut rest = Reader::new(key);
        match rest.u8()? {
            KIND_GROUP => {
                let group = metadata::read_key(rest)?;
                Ok(Self::Group { group, metadata: value.map(metadata::read_value).transpose()? })
            }
            KIND_OFFSET => {
                let (group, at) = offset::read_key(rest)?;
                Ok(Self::Offset { group, at, committed: value.map(offset::read_value).transpose()? })
            }
            kind => Err(RecordError::Kind(kind)),
        }
    }
}
