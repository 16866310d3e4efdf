//! Reading: a few threads, so that callers never wait for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use baton_core::Offset;
use bytes::Bytes;
use fjall::{UserKey, UserValue};
use tokio::sync::oneshot;

use super::keys::{self, Prefix};
use super::queue::{Queue, Taken};
use super::store::{Reading, StoreError};
use super::time;
use super::view::{View, Visible};
use crate::log::operation::{Change, Operation};
use crate::log::sizes::{Pieces, expired_end};
use crate::log::{Damage, LocalPartition, LogError, Piece, ReadBatches, StoredBatch, frame};

/// A truncation or a reset in between makes a read start again; they are rare.
const ATTEMPTS: usize = 8;
/// Smaller values are copied: the store would keep the whole block alive for them.
const SHARED_BYTES_MIN: usize = 512;

/// Keys that one iterator looks at.
const MEASURED_AT_ONCE: usize = 16_384;

/// Beyond so many bytes that wait for a commit, found damage does not join them.
const NOTES_BYTES_MAX: u64 = 64 << 20;

/// One question to the log.
pub(super) enum Request {
    Batches {
        partition: LocalPartition,
        from: Offset,
        max_bytes: usize,
        reply: oneshot::Sender<Result<ReadBatches, LogError>>,
    },
    Time {
        partition: LocalPartition,
        timestamp_ms: i64,
        reply: oneshot::Sender<Result<Option<Offset>, LogError>>,
    },
    Expired {
        partition: LocalPartition,
        before_ms: i64,
        reply: oneshot::Sender<Result<Offset, LogError>>,
    },
    Measure {
        partition: LocalPartition,
        from: Offset,
        piece_bytes: u64,
        reply: oneshot::Sender<Result<Vec<Piece>, LogError>>,
    },
}

impl Request {
    /// Callers who stopped waiting are not an error.
    pub(super) fn refuse(self, why: LogError) {
        match self {
            Self::Batches { reply, .. } => drop(reply.send(Err(why))),
            Self::Time { reply, .. } => drop(reply.send(Err(why))),
            Self::Expired { reply, .. } => drop(reply.send(Err(why))),
            Self::Measure { reply, .. } => drop(reply.send(Err(why))),
        }
    }
}

/// What one thread works with.
pub(super) struct Reader {
    pub(super) reading: Reading,
    pub(super) view: Arc<View>,
    pub(super) queue: Arc<Queue<Request>>,
    pub(super) changes: Arc<Queue<Operation>>,
}

/// The end of one attempt.
enum Attempt<T> {
    Done(T),
    /// It looked damaged; if nothing has changed meanwhile, it is.
    Suspect(Damage),
}

impl Reader {
    pub(super) fn run(self) {
        loop {
            match self.queue.take(1, Duration::from_secs(3600)) {
                Taken::Items(requests) => requests.into_iter().for_each(|r| self.answer(r)),
                Taken::Idle => {}
                Taken::Closed => return,
            }
        }
    }

    fn answer(&self, request: Request) {
        match request {
            Request::Batches { partition, from, max_bytes, reply } => {
                let read = |visible: &Visible| self.batches(visible, from, max_bytes);
                drop(reply.send(guarded(|| self.attempt(partition, read))));
            }
            Request::Time { partition, timestamp_ms, reply } => {
                let find = |visible: &Visible| self.find(visible, timestamp_ms);
                drop(reply.send(guarded(|| self.attempt(partition, find))));
            }
            Request::Expired { partition, before_ms, reply } => {
                let find = |visible: &Visible| self.expired(visible, before_ms);
                drop(reply.send(guarded(|| self.attempt(partition, find))));
            }
            Request::Measure { partition, from, piece_bytes, reply } => {
                let measure = |visible: &Visible| self.measure(visible, from, piece_bytes);
                drop(reply.send(guarded(|| self.attempt(partition, measure))));
            }
        }
    }

    /// Reads until nothing was cut away while reading.
    fn attempt<T>(
        &self,
        partition: LocalPartition,
        read: impl Fn(&Visible) -> Result<Attempt<T>, ReadError>,
    ) -> Result<T, LogError> {
        let mut before = self.view.get(partition)?;
        for _ in 0..ATTEMPTS {
            let attempt = read(&before);
            let after = self.view.get(partition)?;
            let same = |v: &Visible| (v.prefix, v.start, v.cuts);
            let unchanged = same(&before) == same(&after);
            match attempt {
                Ok(Attempt::Done(found)) if unchanged => return Ok(found),
                Ok(Attempt::Suspect(damage)) if unchanged => {
                    self.note(partition, before.prefix, &damage);
                    return Err(LogError::Damaged(damage));
                }
                Err(ReadError::Log(error)) => return Err(error),
                Err(ReadError::Store(error)) => return Err(LogError::Failed(error.to_string())),
                Ok(_) => before = after,
            }
        }
        Err(LogError::Overloaded { queued: 0, limit: 0 })
    }

    /// Has the damage remembered. Where the queue is full the next reader tries again.
    fn note(&self, partition: LocalPartition, prefix: Prefix, damage: &Damage) {
        let change = Change::NoteDamage { partition, number: prefix.0, damage: damage.clone() };
        let bytes = change.bytes();
        let (operation, _) = Operation::new(change);
        if self.changes.push(operation, bytes, NOTES_BYTES_MAX).is_err() {
            tracing::debug!("the damage of a copy is not remembered yet");
        }
    }

    fn batches(&self, visible: &Visible, from: Offset, max_bytes: usize) -> Result<Attempt<ReadBatches>, ReadError> {
        let Visible { prefix, start, end, .. } = *visible;
        if from < start {
            return Err(ReadError::Log(LogError::BelowStart { at: from, start }));
        }
        let mut found = ReadBatches::default();
        if from >= end {
            return Ok(Attempt::Done(found));
        }
        let mut bytes = 0;
        let mut expected = None;
        for item in self.reading.batches(keys::batches_from(prefix, from)) {
            let item = stored(item);
            if let Ok((_, value)) = &item
                && !found.batches.is_empty()
                && bytes + value.len() > max_bytes
            {
                return Ok(Attempt::Done(found));
            }
            match item.and_then(|(key, value)| Ok(check(&key, value, expected, from)?)) {
                Ok(batch) if batch.last >= end => break,
                Ok(batch) => {
                    bytes += batch.bytes.len();
                    expected = Some(batch.last.plus(1));
                    found.batches.push(batch);
                }
                // The next read begins here and reports it.
                Err(_) if !found.batches.is_empty() => return Ok(Attempt::Done(found)),
                Err(Bad::Damage(damage)) => return Ok(Attempt::Suspect(damage)),
                Err(Bad::Store(error)) => return Err(error.into()),
            }
        }
        match expected {
            // What was promised is not there.
            None => Ok(Attempt::Suspect(Damage::Gap { expected: from, found: end })),
            Some(_) => Ok(Attempt::Done(found)),
        }
    }

    fn find(&self, visible: &Visible, timestamp_ms: i64) -> Result<Attempt<Option<Offset>>, ReadError> {
        let Visible { prefix, start, end, .. } = *visible;
        let from = time::begin_at(&self.reading, prefix, timestamp_ms)?.max(start);
        let mut expected = None;
        for item in self.reading.batches(keys::batches_from(prefix, from)) {
            match stored(item).and_then(|(key, value)| Ok(check(&key, value, expected, from)?)) {
                Ok(batch) if batch.last >= end => break,
                Ok(batch) if batch.max_timestamp_ms >= timestamp_ms => {
                    return Ok(Attempt::Done(Some(batch.base.max(start))));
                }
                Ok(batch) => expected = Some(batch.last.plus(1)),
                Err(Bad::Damage(damage)) => return Ok(Attempt::Suspect(damage)),
                Err(Bad::Store(error)) => return Err(error.into()),
            }
        }
        Ok(Attempt::Done(None))
    }

    /// A damaged batch ends the search: whoever reads it reports it.
    fn expired(&self, visible: &Visible, before_ms: i64) -> Result<Attempt<Offset>, ReadError> {
        let Visible { prefix, start, end, .. } = *visible;
        let from = time::begin_at(&self.reading, prefix, before_ms)?.clamp(start, end);
        let batches = self.reading.batches(keys::batches_from(prefix, from)).map_while(|item| {
            let (_, value) = stored(item).ok()?;
            let batch = frame::parse(bytes(value)).ok().filter(|batch| batch.last < end)?;
            Some((batch.end(), batch.max_timestamp_ms))
        });
        Ok(Attempt::Done(expired_end(from, batches, before_ms)))
    }

    /// By the keys and the lengths beside them; no batch is read.
    fn measure(&self, visible: &Visible, from: Offset, piece_bytes: u64) -> Result<Attempt<Vec<Piece>>, ReadError> {
        let Visible { prefix, start, end, .. } = *visible;
        let mut pieces = Pieces::new(piece_bytes);
        let mut at = from.max(start);
        loop {
            // A long iterator would keep files of the store alive.
            let mut next = None;
            for item in self.reading.sizes(keys::batches_from(prefix, at)).take(MEASURED_AT_ONCE) {
                let (key, bytes) = item?;
                let Some((_, last)) = keys::parse_batch(&key).filter(|(_, last)| *last < end) else { break };
                pieces.add(last.plus(1), u64::from(bytes));
                next = Some(last.plus(1));
            }
            match next {
                Some(next) if next < end => at = next,
                _ => return Ok(Attempt::Done(pieces.finish())),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Log(LogError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Why a stored batch is not what was asked for.
#[derive(Debug)]
pub(super) enum Bad {
    /// Of this copy, not of the whole store.
    Damage(Damage),
    /// The system refuses to read, which says nothing about what is stored: a copy must not be
    /// given up because the process has run out of file descriptors.
    Store(StoreError),
}

impl From<Damage> for Bad {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// One item of the store.
pub(super) fn stored(item: fjall::Guard) -> Result<(UserKey, UserValue), Bad> {
    item.into_inner().map_err(|error| {
        let error = StoreError::from(error);
        if error.is_damage() || error.is_bad_sector() {
            Bad::Damage(Damage::Unreadable { what: error.to_string() })
        } else {
            Bad::Store(error)
        }
    })
}

/// The store panics on some damage of its own files. The thread has to live on: it reads for
/// everybody.
fn guarded<T>(read: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let what = "the store panicked while it was read".to_owned();
        Err(LogError::Damaged(Damage::Unreadable { what }))
    })
}

/// Checks one stored batch: its key, its checksum, and that it continues at `expected`; the
/// first one contains `from`.
pub(super) fn check(
    key: &[u8],
    value: UserValue,
    expected: Option<Offset>,
    from: Offset,
) -> Result<StoredBatch, Damage> {
    let at = expected.unwrap_or(from);
    let batch = frame::verify(bytes(value)).map_err(|_| Damage::BadChecksum { at })?;
    let last = keys::parse_batch(key).map(|(_, last)| last);
    let continues = match expected {
        Some(expected) => batch.base == expected,
        None => batch.base <= from,
    };
    if !continues {
        return Err(Damage::Gap { expected: at, found: batch.base });
    }
    if last != Some(batch.last) {
        return Err(Damage::BadChecksum { at });
    }
    Ok(batch)
}

/// A value of the store as shared bytes.
pub(super) fn bytes(value: UserValue) -> Bytes {
    if value.len() < SHARED_BYTES_MIN { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}
