//! What survives a simulated process: durable partitions, and the faults of their disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::{Epoch, Generation, Offset, TopicPartition};

use crate::log::book::{Book, Entry};
use crate::log::operation::{Answer, Change, Done};
use crate::log::sizes::{Pieces, expired_end};
use crate::log::{
    Append, Damage, Identity, LocalPartition, LogError, PartitionMeta, Piece, ReadBatches, Recovered, StoredBatch,
    Usage, frame,
};

/// A disk in memory, shared by the handles that open it one after another.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

struct Disk {
    identity: Identity,
    book: Book,
    copies: BTreeMap<LocalPartition, Copy>,
    /// Written but not synced: lost by [`MemoryDisk::power_off`].
    staged: VecDeque<Change>,
    /// Handles of an older session are fenced off.
    session: u64,
    closed: bool,
    failed: bool,
    commits: u64,
    faults: Faults,
}

/// One copy of a partition, as it is durable.
#[derive(Clone, Debug)]
pub struct StoredCopy {
    pub partition: LocalPartition,
    pub id: TopicPartition,
    pub generation: Generation,
    pub start: Offset,
    pub end: Offset,
    pub batches: Vec<StoredBatch>,
}

#[derive(Default)]
struct Faults {
    full: bool,
    full_once: bool,
    overloaded: bool,
    failing_sync: bool,
    slow: Duration,
}

#[derive(Default)]
struct Copy {
    batches: VecDeque<StoredBatch>,
    meta: PartitionMeta,
    witness: Offset,
}

impl MemoryDisk {
    /// A freshly formatted, empty disk.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            identity,
            book: Book::default(),
            copies: BTreeMap::new(),
            staged: VecDeque::new(),
            session: 0,
            closed: true,
            failed: false,
            commits: 0,
            faults: Faults::default(),
        })))
    }

    /// Takes the power away: everything whose future has not resolved is gone, and the open
    /// handle with it.
    pub fn power_off(&self) {
        self.power_off_keeping(0);
    }

    /// Like [`Self::power_off`], but the first `changes` of those being synced reached the disk
    /// although nobody was told so.
    pub fn power_off_keeping(&self, changes: usize) {
        let mut disk = self.lock();
        for _ in 0..changes {
            let Some(change) = disk.staged.pop_front() else {
                break;
            };
            // Nobody waits for the answer: whether it was refused makes no difference.
            let _ = disk.apply(change);
        }
        disk.staged.clear();
        disk.closed = true;
    }

    /// While set, appends are refused with [`LogError::Full`].
    pub fn set_full(&self, full: bool) {
        self.lock().faults.full = full;
    }

    /// While set, everything is refused with [`LogError::Overloaded`].
    pub fn set_overloaded(&self, overloaded: bool) {
        self.lock().faults.overloaded = overloaded;
    }

    /// The next append is refused with [`LogError::Full`], and only that one.
    pub fn refuse_next_append(&self) {
        self.lock().faults.full_once = true;
    }

    /// The next sync fails: its callers get [`LogError::Failed`], and so does every later call
    /// until the disk is opened again. What was being synced is lost.
    pub fn fail_next_sync(&self) {
        self.lock().faults.failing_sync = true;
    }

    /// Added to the latency of every commit and read.
    pub fn set_slow(&self, slow: Duration) {
        self.lock().faults.slow = slow;
    }

    /// Flips a bit in the batch that holds `at`; says whether there was one.
    pub fn corrupt(&self, partition: LocalPartition, at: Offset) -> bool {
        let mut disk = self.lock();
        let Some(copy) = disk.copies.get_mut(&partition) else {
            return false;
        };
        let Some(batch) = copy.batches.iter_mut().find(|b| b.base <= at && at <= b.last) else {
            return false;
        };
        let mut bytes = batch.bytes.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 0x10;
        }
        batch.bytes = bytes.into();
        true
    }

    /// Loses the newest `batches` of a partition although they were durable: found on the next
    /// opening as [`Damage::EndBelowWitness`].
    pub fn lose_tail(&self, partition: LocalPartition, batches: usize) {
        let mut disk = self.lock();
        let Some(copy) = disk.copies.get_mut(&partition) else {
            return;
        };
        let kept = copy.batches.len().saturating_sub(batches);
        copy.batches.truncate(kept);
        let last = copy.batches.back().map(|b| (b.last.plus(1), b.epoch));
        if let Ok(entry) = disk.book.get_mut(partition) {
            (entry.end, entry.tail_epoch) = last.unwrap_or((entry.start, Epoch::NONE));
        }
    }

    /// Every copy on this disk, as it is durable: for comparing replicas.
    #[must_use]
    pub fn copies(&self) -> Vec<StoredCopy> {
        let disk = self.lock();
        let copy = |(partition, entry): (LocalPartition, &Entry)| StoredCopy {
            partition,
            id: entry.id,
            generation: entry.generation,
            start: entry.start,
            end: entry.end,
            batches: disk.copies.get(&partition).map(|c| c.batches.iter().cloned().collect()).unwrap_or_default(),
        };
        disk.book.iter().map(copy).collect()
    }

    /// Which copies there are, where they begin and where they end, as far as it is durable.
    #[must_use]
    pub fn bounds(&self) -> Vec<(TopicPartition, Generation, Offset, Offset)> {
        self.lock().book.iter().map(|(_, entry)| (entry.id, entry.generation, entry.start, entry.end)).collect()
    }

    /// Who this disk is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.lock().identity.clone()
    }

    /// How many changes are being synced at this moment.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.lock().staged.len()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> (u64, Identity, BTreeMap<LocalPartition, Recovered>) {
        let mut disk = self.lock();
        disk.session += 1;
        disk.staged.clear();
        disk.closed = false;
        disk.failed = false;
        disk.commits = 0;
        disk.faults.failing_sync = false;
        disk.find_damage();
        (disk.session, disk.identity.clone(), disk.recovered())
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.lock().faults.overloaded
    }

    pub(super) fn slowness(&self) -> Duration {
        self.lock().faults.slow
    }

    pub(super) fn stage(&self, session: u64, changes: Vec<Change>) {
        let mut disk = self.lock();
        if disk.check_open(session).is_ok() {
            disk.staged = changes.into();
        }
    }

    /// Makes what was staged durable; one answer for each change, none when fenced off.
    pub(super) fn sync(&self, session: u64) -> Vec<Answer> {
        let mut disk = self.lock();
        let disk = &mut *disk;
        if session != disk.session || disk.closed {
            return Vec::new();
        }
        let staged = std::mem::take(&mut disk.staged);
        if std::mem::take(&mut disk.faults.failing_sync) {
            disk.failed = true;
            let failed = LogError::Failed("fsync failed".to_owned());
            return vec![Err(failed); staged.len()];
        }
        disk.commits += 1;
        let apply = |change| {
            if disk.closed { Err(LogError::Closed) } else { disk.apply(change) }
        };
        staged.into_iter().map(apply).collect()
    }

    pub(super) fn read(
        &self,
        session: u64,
        partition: LocalPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ReadBatches, LogError> {
        let disk = self.lock();
        disk.check_open(session)?;
        if disk.faults.overloaded {
            return Err(LogError::Overloaded { queued: 0, limit: 0 });
        }
        let Entry { start, end, .. } = *disk.book.get(partition)?;
        if from < start {
            return Err(LogError::BelowStart { at: from, start });
        }
        let Some(copy) = disk.copies.get(&partition).filter(|_| from < end) else {
            return Ok(ReadBatches::default());
        };
        let first = copy.batches.partition_point(|b| b.last < from);
        let mut batches: Vec<StoredBatch> = Vec::new();
        let mut bytes = 0;
        for batch in copy.batches.iter().skip(first) {
            if !batches.is_empty() && bytes + batch.bytes.len() > max_bytes {
                break;
            }
            match frame::verify(batch.bytes.clone()) {
                Ok(batch) => batches.push(batch),
                Err(_) if !batches.is_empty() => break,
                Err(_) => return Err(LogError::Damaged(Damage::BadChecksum { at: batch.base })),
            }
            bytes += batch.bytes.len();
        }
        Ok(ReadBatches { batches })
    }

    pub(super) fn find_time(
        &self,
        session: u64,
        partition: LocalPartition,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, LogError> {
        let disk = self.lock();
        disk.check_open(session)?;
        let start = disk.book.get(partition)?.start;
        let mut batches = disk.copies.get(&partition).into_iter().flat_map(|c| &c.batches);
        let found = batches.find(|b| b.last >= start && b.max_timestamp_ms >= timestamp_ms);
        Ok(found.map(|b| b.base.max(start)))
    }

    pub(super) fn expired(&self, session: u64, partition: LocalPartition, before_ms: i64) -> Result<Offset, LogError> {
        let disk = self.lock();
        disk.check_open(session)?;
        let start = disk.book.get(partition)?.start;
        let batches = disk.copies.get(&partition).into_iter().flat_map(|c| &c.batches);
        Ok(expired_end(start, batches.filter(|b| b.last >= start).map(|b| (b.end(), b.max_timestamp_ms)), before_ms))
    }

    pub(super) fn measure(
        &self,
        session: u64,
        partition: LocalPartition,
        from: Offset,
        piece_bytes: u64,
    ) -> Result<Vec<Piece>, LogError> {
        let disk = self.lock();
        disk.check_open(session)?;
        let start = disk.book.get(partition)?.start.max(from);
        let batches = disk.copies.get(&partition).into_iter().flat_map(|c| &c.batches);
        let mut pieces = Pieces::new(piece_bytes);
        batches.filter(|b| b.last >= start).for_each(|b| pieces.add(b.end(), b.bytes.len() as u64));
        Ok(pieces.finish())
    }

    pub(super) fn usage(&self) -> Usage {
        let disk = self.lock();
        let batches = disk.copies.values().flat_map(|c| &c.batches);
        Usage {
            bytes: batches.map(|b| b.bytes.len() as u64).sum(),
            free_bytes: if disk.faults.full { 0 } else { u64::MAX },
            below_reserve: disk.faults.full,
            commits: disk.commits,
        }
    }
}

impl Disk {
    fn check_open(&self, session: u64) -> Result<(), LogError> {
        if session != self.session || self.closed {
            return Err(LogError::Closed);
        }
        if self.failed {
            return Err(LogError::Failed("an earlier fsync failed".to_owned()));
        }
        Ok(())
    }

    fn apply(&mut self, change: Change) -> Answer {
        match change {
            Change::Create { id, generation, start } => {
                let partition = self.book.create(id, generation, start)?;
                let copy = Copy { witness: start, ..Copy::default() };
                self.copies.insert(partition, copy);
                return Ok(Done::Created(partition));
            }
            Change::Delete(partition) => {
                self.book.delete(partition)?;
                self.copies.remove(&partition);
            }
            Change::Append(appends) => return self.append(appends),
            Change::Truncate { partition, to, meta } => {
                self.truncate(partition, to)?;
                if let Some(meta) = meta {
                    self.save(partition, meta)?;
                }
            }
            Change::SetStart { partition, start, meta } => {
                self.book.set_start(partition, start)?;
                if let Some(meta) = meta {
                    self.save(partition, meta)?;
                }
                let batches = &mut self.copies.entry(partition).or_default().batches;
                batches.drain(..batches.partition_point(|b| b.last < start));
            }
            Change::Rewrite { partition, batches, meta } => {
                self.rewrite(partition, batches)?;
                self.save(partition, meta)?;
            }
            Change::Reset { partition, generation, start, producers } => {
                self.book.reset(partition, generation, start)?;
                let highest_epoch = self.book.get(partition)?.highest_epoch;
                let meta = PartitionMeta::beginning(highest_epoch, start, producers);
                let copy = Copy { meta, witness: start, ..Copy::default() };
                self.copies.insert(partition, copy);
            }
            Change::Save { partition, meta } => self.save(partition, meta)?,
            Change::NoteDamage { partition, damage, .. } => {
                self.book.note_damage(partition, damage)?;
            }
            Change::Close => self.closed = true,
        }
        Ok(Done::Changed)
    }

    fn append(&mut self, appends: Vec<Append>) -> Answer {
        if self.faults.full || std::mem::take(&mut self.faults.full_once) {
            return Err(LogError::Full { free: 0, reserve: 1 });
        }
        let ends = self.book.append(&appends)?;
        for Append { partition, batches } in appends {
            let copy = self.copies.entry(partition).or_default();
            copy.batches.extend(batches);
            copy.witness = self.book.get(partition)?.end;
        }
        Ok(Done::Ends(ends))
    }

    fn truncate(&mut self, partition: LocalPartition, to: Offset) -> Result<(), LogError> {
        if !self.book.check_truncate(partition, to)? {
            return Ok(());
        }
        let Entry { start, end, .. } = *self.book.get(partition)?;
        let copy = self.copies.entry(partition).or_default();
        let kept = copy.batches.partition_point(|b| b.last < to);
        let cut = copy.batches.get(kept).map_or(to.min(end), |b| b.base.min(to));
        copy.batches.truncate(kept);
        // A start inside the batch that goes leaves an empty log at that start.
        let end = cut.max(start);
        copy.witness = end;
        let epoch = copy.batches.back().map_or(Epoch::NONE, |b| b.epoch);
        self.book.truncated(partition, end, epoch)
    }

    fn rewrite(&mut self, partition: LocalPartition, batches: Vec<StoredBatch>) -> Result<(), LogError> {
        self.book.check_rewrite(partition, &batches)?;
        let copy = self.copies.entry(partition).or_default();
        let bounds = |batch: &StoredBatch| {
            let from = copy.batches.partition_point(|b| b.last < batch.base);
            let to = copy.batches.partition_point(|b| b.last <= batch.last);
            let begins = copy.batches.get(from).is_some_and(|b| b.base == batch.base);
            let ends = to.checked_sub(1).and_then(|n| copy.batches.get(n)).is_some_and(|b| b.last == batch.last);
            (begins && ends).then_some((from, to))
        };
        if let Some(torn) = batches.iter().find(|batch| bounds(batch).is_none()) {
            return Err(LogError::Refused(format!("{} to {} are no boundaries", torn.base, torn.last)));
        }
        let mut rewritten = VecDeque::with_capacity(copy.batches.len());
        let mut next = 0;
        for batch in batches {
            let from = copy.batches.partition_point(|b| b.last < batch.base);
            rewritten.extend(copy.batches.range(next..from).cloned());
            next = copy.batches.partition_point(|b| b.last <= batch.last);
            rewritten.push_back(batch);
        }
        rewritten.extend(copy.batches.range(next..).cloned());
        copy.batches = rewritten;
        Ok(())
    }

    fn save(&mut self, partition: LocalPartition, meta: PartitionMeta) -> Result<(), LogError> {
        self.book.get_mut(partition)?.highest_epoch = meta.highest_epoch;
        self.copies.entry(partition).or_default().meta = meta;
        Ok(())
    }

    /// What opening would notice: lost tails, bad checksums.
    fn find_damage(&mut self) {
        let partitions: Vec<_> = self.book.iter().map(|(partition, _)| partition).collect();
        for partition in partitions {
            let (Ok(entry), Some(copy)) = (self.book.get_mut(partition), self.copies.get(&partition)) else {
                continue;
            };
            let bad = copy.batches.iter().find(|b| frame::verify(b.bytes.clone()).is_err());
            if entry.end < copy.witness {
                let (end, witness) = (entry.end, copy.witness);
                entry.damage = Some(Damage::EndBelowWitness { end, witness });
            } else if let Some(batch) = bad {
                entry.damage = Some(Damage::BadChecksum { at: batch.base });
            }
        }
    }

    fn recovered(&self) -> BTreeMap<LocalPartition, Recovered> {
        let recover = |(partition, entry): (LocalPartition, &Entry)| {
            let meta = self.copies.get(&partition).map(|c| c.meta.clone()).unwrap_or_default();
            let recovered = Recovered {
                partition,
                id: entry.id,
                generation: entry.generation,
                start: entry.start,
                end: entry.end,
                meta,
                damage: entry.damage.clone(),
            };
            (partition, recovered)
        };
        self.book.iter().map(recover).collect()
    }
}
