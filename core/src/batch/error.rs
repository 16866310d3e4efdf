//! What can be wrong with a batch.

use crate::error::{Error, ErrorCode};
use crate::ids::Offset;

/// Why a batch was refused. [`BatchError::code`] says what a client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    #[error("the batch needs {needed} bytes, and {available} are there")]
    Truncated { needed: usize, available: usize },
    #[error("the length field says {0}, and no batch is that short")]
    BadLength(i32),
    #[error("the message format is magic {0}; only magic 2 is taken")]
    UnsupportedMagic(i8),
    #[error("the CRC-32C is {computed:#010x}, and the header says {stored:#010x}")]
    CrcMismatch { stored: u32, computed: u32 },
    #[error("no batch was sent; a partition takes exactly one per request")]
    Empty,
    #[error("{0} bytes follow the batch; a partition takes exactly one batch per request")]
    MoreThanOne(usize),
    #[error("the batch has {size} bytes, and the limit is {max}")]
    TooLarge { size: usize, max: usize },
    #[error("the compression codec is {0}; 0 to 4 are known")]
    UnknownCodec(u8),
    #[error("a client may not send a control batch")]
    ControlFromClient,
    #[error("a client may not send a batch with a delete horizon")]
    DeleteHorizonFromClient,
    #[error("the record count is {0}; a batch has at least one record")]
    BadCount(i32),
    #[error("the last offset delta is {delta}, and {count} records need {count} - 1")]
    BadLastOffsetDelta { delta: i32, count: i32 },
    #[error("the base offset is {0}; with its records it leaves the range of offsets")]
    BadBaseOffset(i64),
    #[error("the producer's numbers make no sense: id {id}, epoch {epoch}, base sequence {sequence}")]
    BadSequence { id: i64, epoch: i16, sequence: i32 },
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    #[error("a stored batch has to carry its leader epoch")]
    NoLeaderEpoch,
    #[error("offset {expected} was to follow, and {found} is there")]
    Gap { expected: Offset, found: Offset },
    #[error("the records do not decompress: {0}")]
    Decompress(String),
    #[error("the records decompress to more than {max} bytes")]
    Bomb { max: usize },
    #[error("the records do not compress: {0}")]
    Compress(String),
    /// Producers that are told which records it is about may send the others again (KIP-467).
    #[error("records have no key, and the topic is compacted: {}", list(indexes))]
    NoKey { indexes: Vec<u32> },
    #[error("record {index}: {cause}")]
    BadRecord { index: u32, cause: &'static str },
}

/// The first few, for people.
fn list(indexes: &[u32]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = indexes.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if indexes.len() > SHOWN { " and more" } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl BatchError {
    /// What a client is told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. }
            | Self::BadLength(_)
            | Self::CrcMismatch { .. }
            | Self::NoLeaderEpoch
            | Self::Gap { .. } => ErrorCode::CorruptBatch,
            Self::UnsupportedMagic(_) => ErrorCode::UnsupportedFormat,
            Self::TooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::UnknownCodec(_) => ErrorCode::UnsupportedCompression,
            Self::Compress(_) => ErrorCode::Internal,
            Self::Empty
            | Self::MoreThanOne(_)
            | Self::ControlFromClient
            | Self::DeleteHorizonFromClient
            | Self::BadCount(_)
            | Self::BadLastOffsetDelta { .. }
            | Self::BadBaseOffset(_)
            | Self::BadSequence { .. }
            | Self::TransactionalWithoutProducer
            | Self::Decompress(_)
            | Self::Bomb { .. }
            | Self::NoKey { .. }
            | Self::BadRecord { .. } => ErrorCode::InvalidBatch,
        }
    }
}

impl From<BatchError> for Error {
    fn from(error: BatchError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
