//! A batch as logs keep it and peers carry it: the bytes, and what is read from their header once.

use bytes::Bytes;

use crate::ids::{Epoch, Offset};

/// One whole RecordBatch v2 with its base offset and leader epoch stamped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredBatch {
    pub base: Offset,
    pub last: Offset,
    pub epoch: Epoch,
    pub max_timestamp_ms: i64,
    pub bytes: Bytes,
}

impl StoredBatch {
    /// The offset after this batch.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.last.plus(1)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true for a valid batch: its header alone has 61 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
