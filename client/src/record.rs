//! Records as applications write and read them.

use std::sync::Arc;

use baton_core::{Epoch, Offset};
use bytes::Bytes;

pub use baton_core::batch::RecordHeader as Header;

/// What a producer sends. An absent key or value differs from an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; the client's clock if it is absent.
    pub timestamp_ms: Option<i64>,
    /// Where it goes; by its key, or spread evenly, if it is absent.
    pub partition: Option<u32>,
}

impl Record {
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    #[must_use]
    pub fn header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// An upper bound of the bytes that it takes in a batch.
    pub(crate) fn size_max(&self) -> usize {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) + 5;
        let headers: usize = self.headers.iter().map(|h| h.key.len() + 5 + part(&h.value)).sum();
        // Length, attributes, timestamp delta, offset delta, header count: as long as varints get.
        part(&self.key) + part(&self.value) + headers + 5 + 1 + 10 + 5 + 5
    }
}

/// Where an acknowledged record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    pub topic: Arc<str>,
    pub partition: u32,
    pub offset: Offset,
    /// The time that the broker stamped, if the topic asks for it.
    pub timestamp_ms: Option<i64>,
    /// The leader epoch that acknowledged it.
    pub epoch: Epoch,
}

/// What a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    pub topic: Arc<str>,
    pub partition: u32,
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    /// The leader epoch that wrote it.
    pub epoch: Epoch,
}
