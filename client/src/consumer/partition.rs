//! One assigned partition: its position, and what was fetched ahead of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use baton_core::{
    Epoch, Error, ErrorCode, Offset,
    batch::{self, BatchError, BatchHeader, Records},
};
use bytes::Bytes;
use tokio::time::Instant;

use super::Start;
use crate::{error::ClientError, record::ConsumedRecord};

/// A broker, or this client, may not know yet what another one knows already: the topic, or its
/// own end.
const DENIED_PATIENCE: Duration = Duration::from_secs(5);

/// A fetched batch.
struct Chunk {
    header: BatchHeader,
    bytes: Bytes,
}

/// A batch that is being handed out.
struct Opened {
    header: BatchHeader,
    records: Records,
    bytes: usize,
}

pub(super) struct Slot {
    /// Not resolved to an offset yet.
    pub start: Option<Start>,
    /// The next record to hand out.
    pub position: Offset,
    /// The next offset to fetch.
    pub fetch_at: Offset,
    chunks: VecDeque<Chunk>,
    opened: Option<Opened>,
    /// The call that works for it; answers of other calls are not for it any more.
    pub flight: Option<u64>,
    pub flight_epoch: Epoch,
    pub wait_until: Option<Instant>,
    pub failed_epoch: Option<Epoch>,
    pub failures: u32,
    /// With which code the broker refused last, and since when with no other.
    pub denied_since: Option<(ErrorCode, Instant)>,
    pub searched: Option<Instant>,
    /// Told once by `poll`; then the partition rests until it is sought.
    pub error: Option<ClientError>,
    pub resting: bool,
    pub high_watermark: Option<Offset>,
}

impl Slot {
    pub(super) fn new(start: Start) -> Self {
        let (position, resolved) = match start {
            Start::Offset(offset) => (offset, true),
            _ => (Offset::ZERO, false),
        };
        Self {
            start: (!resolved).then_some(start),
            position,
            fetch_at: position,
            chunks: VecDeque::new(),
            opened: None,
            flight: None,
            flight_epoch: Epoch::NONE,
            wait_until: None,
            failed_epoch: None,
            failures: 0,
            denied_since: None,
            searched: None,
            error: None,
            resting: false,
            high_watermark: None,
        }
    }

    pub(super) fn resolve(&mut self, offset: Offset) {
        self.start = None;
        self.position = offset;
        self.fetch_at = offset;
    }

    pub(super) fn fail(&mut self, error: ClientError) {
        self.error = Some(error);
        self.resting = true;
    }

    /// Notes a refusal, and says whether it may still be one that passes by itself.
    pub(super) fn is_denied_briefly(&mut self, code: ErrorCode, now: Instant) -> bool {
        let since = self.denied_since.filter(|(before, _)| *before == code).map_or(now, |(_, since)| since);
        self.denied_since = Some((code, since));
        now.saturating_duration_since(since) < DENIED_PATIENCE
    }

    /// Takes fetched batches in; returns how many bytes are kept.
    pub(super) fn accept(&mut self, batches: Vec<Bytes>, compacted: bool) -> Result<usize, Error> {
        let mut kept = 0;
        for bytes in batches.into_iter().flat_map(batch::split_batches) {
            let (header, bytes) = bytes?;
            if header.next_offset() <= self.fetch_at {
                continue;
            }
            batch::check_crc(&bytes)?;
            if header.base_offset > self.fetch_at && !compacted {
                let cause = format!("asked from offset {}, the answer begins at {}", self.fetch_at, header.base_offset);
                return Err(Error::new(ErrorCode::CorruptBatch, cause));
            }
            self.fetch_at = header.next_offset();
            kept += bytes.len();
            self.chunks.push_back(Chunk { header, bytes });
        }
        Ok(kept)
    }

    /// Hands records out, up to `most` in `into`; returns how many bytes of the buffer became
    /// free. A batch whose records cannot be read ends it: see [`Slot::fail`]. The position
    /// stays at the first record that was not handed out, so that nothing is skipped unasked.
    pub(super) fn drain(
        &mut self,
        name: &(Arc<str>, u32),
        most: usize,
        inflated_max: usize,
        into: &mut Vec<ConsumedRecord>,
    ) -> usize {
        let mut freed = 0;
        if let Err(error) = self.hand_out(name, most, inflated_max, into, &mut freed) {
            freed += self.held();
            self.chunks.clear();
            self.opened = None;
            self.fail(error);
        }
        freed
    }

    fn hand_out(
        &mut self,
        name: &(Arc<str>, u32),
        most: usize,
        inflated_max: usize,
        into: &mut Vec<ConsumedRecord>,
        freed: &mut usize,
    ) -> Result<(), ClientError> {
        while into.len() < most {
            let Some(opened) = &mut self.opened else {
                match self.chunks.pop_front() {
                    // What a control batch holds is not for readers; the position passes it.
                    Some(chunk) if chunk.header.attributes.control() => {
                        *freed += chunk.bytes.len();
                        self.position = chunk.header.next_offset();
                    }
                    Some(Chunk { header, bytes }) => {
                        let len = bytes.len();
                        let records = batch::records(&bytes, inflated_max).map_err(|error| {
                            *freed += len;
                            unreadable(error, &header, name)
                        })?;
                        self.opened = Some(Opened { header, records, bytes: len });
                    }
                    None => break,
                }
                continue;
            };
            match opened.records.next() {
                // The batch that contains the position comes whole.
                Some(Ok(record)) if record.offset < self.position => {}
                Some(Ok(record)) => {
                    self.position = record.offset.plus(1);
                    into.push(ConsumedRecord {
                        topic: name.0.clone(),
                        partition: name.1,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                        epoch: opened.header.leader_epoch.unwrap_or_default(),
                    });
                }
                Some(Err(error)) => return Err(unreadable(error, &opened.header, name)),
                None => {
                    *freed += opened.bytes;
                    self.position = opened.header.next_offset();
                    self.opened = None;
                }
            }
        }
        Ok(())
    }

    /// Drops what was fetched and goes on behind it; returns how many bytes became free.
    pub(super) fn skip_fetched(&mut self) -> usize {
        let freed = self.held();
        self.chunks.clear();
        self.opened = None;
        freed
    }

    /// Bytes that it holds in the buffer.
    pub(super) fn held(&self) -> usize {
        let opened = self.opened.as_ref().map_or(0, |opened| opened.bytes);
        opened + self.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>()
    }
}

/// Names the batch, so that whoever decides to go on without it knows where to seek to.
fn unreadable(error: BatchError, header: &BatchHeader, (topic, partition): &(Arc<str>, u32)) -> ClientError {
    let cause = format!("the batch of offsets {} to {}: {error}", header.base_offset, header.last_offset());
    Error::new(error.code(), cause).topic(&**topic).partition(*partition).into()
}
