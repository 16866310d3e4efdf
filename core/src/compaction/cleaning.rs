//! Which records of a piece of the log go.

use std::collections::BTreeSet;

use crate::batch::{BatchError, BatchHeader, Record, decode_records, empty, rebuild};
use crate::compaction::{INFLATED_BYTES_MAX, OffsetMap};
use crate::ids::{Epoch, Offset};
use crate::replica::StoredBatch;
use crate::transaction::partition::AbortedTransaction;

/// What decides about a record, for one round over one copy.
#[derive(Clone, Debug)]
pub struct Rules {
    pub map: OffsetMap,
    /// Batches at and above it are left alone: what follows them is not in the map.
    pub end: Offset,
    /// Wall clock, in milliseconds since 1970.
    pub now_ms: i64,
    pub delete_retention_ms: u64,
    /// Where the batches begin whose headers are kept for their producers.
    pub remembered: BTreeSet<Offset>,
    /// Transactions below `end` that were aborted: their records are as good as gone.
    pub aborted: Vec<AbortedTransaction>,
}

/// What is to be written of a piece of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Each takes the place of what it covers; ascending. Nothing to do: none.
    pub batches: Vec<StoredBatch>,
    /// Where the next piece begins: at the end, or with the empty batch that ends this one and
    /// may grow. Not further than this piece began only if something is to be written.
    pub next: Offset,
    /// When the first of its tombstones may go.
    pub horizon_ms: Option<i64>,
    /// Bytes that are saved.
    pub saved: u64,
}

/// Notes the last place of each key, batch after batch, as long as the map has room. Returns
/// up to where it speaks of all records. A batch that cannot be read has no keys: it stays.
/// Records of transactions that were `aborted` replace nothing.
pub fn index(
    batches: &[StoredBatch],
    from: Offset,
    end: Offset,
    aborted: &[AbortedTransaction],
    map: &mut OffsetMap,
) -> Offset {
    let mut complete = from;
    for batch in batches.iter().filter(|batch| batch.last >= from) {
        if batch.end() > end {
            break;
        }
        if let Ok(Some(records)) = data(batch, aborted) {
            if map.is_full_with(records.len()) {
                break;
            }
            for record in &records {
                if let Some(key) = &record.key {
                    map.note(key, record.offset);
                }
            }
        }
        complete = batch.end();
    }
    complete
}

/// Whether the batch belongs to a transaction that was aborted.
fn is_aborted(header: &BatchHeader, base: Offset, aborted: &[AbortedTransaction]) -> bool {
    let covers =
        |one: &AbortedTransaction| one.producer == header.producer_id && (one.first..=one.last).contains(&base);
    header.attributes.transactional() && aborted.iter().any(covers)
}

/// The records of a batch of data; none of a control batch, an empty one or one that was aborted.
fn data(batch: &StoredBatch, aborted: &[AbortedTransaction]) -> Result<Option<Vec<Record>>, BatchError> {
    let header = BatchHeader::parse(&batch.bytes)?;
    if header.attributes.control() || header.record_count == 0 || is_aborted(&header, batch.base, aborted) {
        return Ok(None);
    }
    decode_records(&batch.bytes, INFLATED_BYTES_MAX).map(Some)
}

/// Neighbouring batches without records, to be one.
struct Vacant {
    base: Offset,
    last: Offset,
    epoch: Epoch,
    max_timestamp_ms: i64,
    /// How many batches it covers, and whether the only one is empty already.
    batches: usize,
    stored: bool,
    bytes: u64,
}

/// What becomes of one batch.
enum Fate {
    Stays,
    Changes(StoredBatch),
    /// Nothing is left; `stored`: it is an empty batch already.
    Vanishes {
        stored: bool,
    },
}

/// Looks at each batch of a piece. All of them lie below the high watermark, and without gaps.
#[must_use]
pub fn clean(batches: &[StoredBatch], rules: &Rules) -> Cleaned {
    let mut piece = Piece { cleaned: Cleaned::default(), vacant: None };
    let inside = batches.iter().take_while(|batch| batch.end() <= rules.end);
    for batch in inside {
        piece.cleaned.next = batch.end();
        match piece.judge(batch, rules) {
            // What cannot be read is left as it is: it is not ours to lose.
            Ok(Fate::Stays) | Err(_) => piece.flush(),
            Ok(Fate::Changes(changed)) => {
                piece.flush();
                piece.put(changed, batch.len() as u64);
            }
            Ok(Fate::Vanishes { stored }) => piece.vanish(batch, stored),
        }
    }
    let growing = piece.vacant.as_ref().map(|vacant| (vacant.base, vacant.batches > 1));
    let reached_end = piece.cleaned.next >= rules.end;
    piece.flush();
    // Unless that is all that there was: the next piece has to get on.
    let first = batches.first().map(|batch| batch.base);
    if let Some((base, _)) = growing.filter(|(base, grew)| !reached_end && (*grew || Some(*base) != first)) {
        piece.cleaned.next = base;
    }
    piece.cleaned
}

struct Piece {
    cleaned: Cleaned,
    vacant: Option<Vacant>,
}

impl Piece {
    fn judge(&mut self, batch: &StoredBatch, rules: &Rules) -> Result<Fate, BatchError> {
        let header = BatchHeader::parse(&batch.bytes)?;
        let remembered = header.idempotent() && rules.remembered.contains(&batch.base);
        if header.attributes.control() {
            // The end of a transaction: who reads it decides when it may go.
            return Ok(Fate::Stays);
        }
        if header.record_count == 0 {
            return Ok(if remembered { Fate::Stays } else { Fate::Vanishes { stored: !header.idempotent() } });
        }
        let records = decode_records(&batch.bytes, INFLATED_BYTES_MAX)?;
        let horizon = header.attributes.delete_horizon().then_some(header.base_timestamp_ms);
        let over = horizon.is_some_and(|horizon| horizon <= rules.now_ms);
        let count = records.len();
        let gone = is_aborted(&header, batch.base, &rules.aborted);
        let stays = |record: &Record| !gone && stays(record, over, &rules.map);
        let kept: Vec<Record> = records.into_iter().filter(stays).collect();
        if kept.is_empty() {
            return match remembered {
                true => empty(batch.base, batch.last, batch.epoch, batch.max_timestamp_ms, Some(&header))
                    .map(|bytes| Fate::Changes(restored(batch, &header, bytes))),
                false => Ok(Fate::Vanishes { stored: false }),
            };
        }
        let tombstones = kept.iter().any(|record| record.value.is_none());
        let fresh = || rules.now_ms.saturating_add(i64::try_from(rules.delete_retention_ms).unwrap_or(i64::MAX));
        let horizon_now = tombstones.then(|| horizon.unwrap_or_else(fresh));
        if let Some(at) = horizon_now {
            self.cleaned.horizon_ms = Some(self.cleaned.horizon_ms.map_or(at, |first| first.min(at)));
        }
        if kept.len() == count && horizon_now.is_some() == horizon.is_some() {
            return Ok(Fate::Stays);
        }
        let bytes = rebuild(&header, &kept, horizon_now)?;
        Ok(Fate::Changes(restored(batch, &header, bytes)))
    }

    fn vanish(&mut self, batch: &StoredBatch, stored: bool) {
        let bytes = batch.len() as u64;
        let joins =
            |vacant: &Vacant| vacant.epoch == batch.epoch && i32::try_from(batch.last.0 - vacant.base.0).is_ok();
        if let Some(vacant) = self.vacant.as_mut().filter(|vacant| joins(vacant)) {
            vacant.last = batch.last;
            vacant.max_timestamp_ms = vacant.max_timestamp_ms.max(batch.max_timestamp_ms);
            vacant.batches += 1;
            vacant.bytes += bytes;
            return;
        }
        self.flush();
        let StoredBatch { base, last, epoch, max_timestamp_ms, .. } = *batch;
        self.vacant = Some(Vacant { base, last, epoch, max_timestamp_ms, batches: 1, stored, bytes });
    }

    fn flush(&mut self) {
        let Some(vacant) = self.vacant.take() else { return };
        if vacant.batches == 1 && vacant.stored {
            return;
        }
        let Vacant { base, last, epoch, max_timestamp_ms, bytes, .. } = vacant;
        // It covers no more offsets than were checked when it grew.
        if let Ok(written) = empty(base, last, epoch, max_timestamp_ms, None) {
            self.put(StoredBatch { base, last, epoch, max_timestamp_ms, bytes: written }, bytes);
        }
    }

    fn put(&mut self, batch: StoredBatch, instead_of: u64) {
        self.cleaned.saved += instead_of.saturating_sub(batch.len() as u64);
        self.cleaned.batches.push(batch);
    }
}

/// A later record with the key replaces it, and a tombstone goes when its time is over. A record
/// without a key, from before the topic was compacted, cannot be told from others.
fn stays(record: &Record, over: bool, map: &OffsetMap) -> bool {
    let Some(key) = &record.key else { return false };
    let last = map.last(key).is_none_or(|last| last <= record.offset);
    last && !(over && record.value.is_none())
}

fn restored(batch: &StoredBatch, header: &BatchHeader, bytes: bytes::Bytes) -> StoredBatch {
    let max_timestamp_ms = BatchHeader::parse(&bytes).map_or(header.max_timestamp_ms, |header| header.max_timestamp_ms);
    StoredBatch { max_timestamp_ms, bytes, ..batch.clone() }
}

/// A follower may end inside an empty batch that compaction made of several: what it lacks is
/// an empty batch, too. None for a batch with records, and for one that begins there.
#[must_use]
pub fn cut_empty(batch: &StoredBatch, from: Offset) -> Option<StoredBatch> {
    let header = BatchHeader::parse(&batch.bytes).ok()?;
    if header.record_count != 0 || header.idempotent() || from <= batch.base || from > batch.last {
        return None;
    }
    let bytes = empty(from, batch.last, batch.epoch, batch.max_timestamp_ms, None).ok()?;
    Some(StoredBatch { base: from, bytes, ..batch.clone() })
}
