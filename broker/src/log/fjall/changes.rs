//! One change after another, written into the store but not yet synced.

use std::collections::BTreeSet;

use baton_core::{Epoch, Generation, Offset, TopicPartition};
use bytes::Bytes;

use super::committer::Committer;
use super::keys::{self, Prefix};
use super::readers;
use super::records::{self, Descriptor};
use super::recovery::evidence;
use super::store::{StoreError, Writes};
use super::time;
use crate::log::book::Entry;
use crate::log::operation::{Answer, Change, Done};
use crate::log::{Append, Damage, LocalPartition, LogError, PartitionMeta, StoredBatch, frame};

/// What one group commit has to do in the end.
#[derive(Default)]
pub(super) struct Group {
    /// Collected, not yet in the store.
    pub(super) writes: Option<Writes>,
    /// Something is in the store that has to be synced.
    pub(super) written: bool,
    /// Partitions whose start, end or epochs changed.
    pub(super) touched: BTreeSet<LocalPartition>,
    /// For the compaction filter, once durable.
    pub(super) raised: Vec<(Prefix, Offset)>,
    pub(super) ended: Vec<Prefix>,
    /// Batches were put in the place of others.
    pub(super) rewritten: bool,
    pub(super) closed: bool,
}

/// Unwraps what the caller may be told; storage failures have left by `?` before.
macro_rules! allowed {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refused) => return Ok(Err(refused)),
        }
    };
}

impl Committer {
    /// The inner result is for the caller, the outer one ends the process.
    pub(super) fn apply(&mut self, change: Change) -> Result<Answer, StoreError> {
        match change {
            Change::Create { id, generation, start } => self.create(id, generation, start),
            Change::Delete(partition) => self.delete(partition),
            Change::Append(appends) => self.append(&appends),
            Change::Truncate { partition, to, meta } => self.truncate(partition, to, meta),
            Change::SetStart { partition, start, meta } => self.set_start(partition, start, meta),
            Change::Reset { partition, generation, start, producers } => {
                self.reset(partition, generation, start, producers)
            }
            Change::Rewrite { partition, batches, meta } => self.rewrite(partition, &batches, &meta),
            Change::Save { partition, meta } => self.save(partition, &meta),
            Change::NoteDamage { partition, number, damage } => self.note_damage(partition, number, damage),
            Change::Close => {
                self.group.closed = true;
                Ok(Ok(Done::Changed))
            }
        }
    }

    fn writes(&mut self) -> &mut Writes {
        self.group.writes.get_or_insert_with(|| self.store.writes())
    }

    fn prefix(&self, partition: LocalPartition) -> Result<Prefix, StoreError> {
        let found = self.prefixes.get(&partition).copied();
        found.ok_or_else(|| StoreError::Record(format!("{partition:?} has no prefix")))
    }

    fn create(&mut self, id: TopicPartition, generation: Generation, start: Offset) -> Result<Answer, StoreError> {
        let partition = allowed!(self.book.create(id, generation, start));
        // The first generation is kept under the partition's own number.
        self.begin(partition, Prefix(partition.0), generation, start);
        Ok(Ok(Done::Created(partition)))
    }

    /// A new prefix for a partition, with nothing in it.
    fn begin(&mut self, partition: LocalPartition, prefix: Prefix, generation: Generation, start: Offset) {
        self.floors.begin(prefix, start);
        self.prefixes.insert(partition, prefix);
        let next = records::encode_number(self.book.next);
        if let Ok(Entry { id, .. }) = self.book.get(partition) {
            let descriptor = Descriptor { id: *id, generation, prefix, start };
            self.writes().put(&keys::record(keys::DESCRIPTOR, partition), descriptor.encode());
        }
        self.writes().put(keys::NEXT_NUMBER, next);
        self.group.touched.insert(partition);
    }

    fn delete(&mut self, partition: LocalPartition) -> Result<Answer, StoreError> {
        allowed!(self.book.delete(partition));
        let ticket = self.witness.remove(partition);
        self.wait_for_witness(ticket)?;
        self.view.remove(partition);
        self.times.forget(partition);
        self.group.touched.remove(&partition);
        let prefix = self.prefix(partition)?;
        self.prefixes.remove(&partition);
        for kind in [keys::DESCRIPTOR, keys::START, keys::META, keys::DAMAGE] {
            self.writes().remove(&keys::record(kind, partition));
        }
        self.group.ended.push(prefix);
        Ok(Ok(Done::Changed))
    }

    fn append(&mut self, appends: &[Append]) -> Result<Answer, StoreError> {
        allowed!(self.book.check_append(appends));
        let batches = appends.iter().flat_map(|a| &a.batches);
        let size = batches.map(|b| b.bytes.len() as u64).sum();
        allowed!(self.reserve.admit(self.directory.path(), size));
        let ends = allowed!(self.book.append(appends));
        let reading = self.store.reading();
        for Append { partition, batches } in appends {
            let prefix = self.prefix(*partition)?;
            let writes = self.group.writes.get_or_insert_with(|| self.store.writes());
            for batch in batches {
                writes.batch(prefix, batch);
                self.times.append(*partition, prefix, batch, &reading, writes)?;
            }
            self.group.touched.insert(*partition);
        }
        Ok(Ok(Done::Ends(ends)))
    }

    fn truncate(
        &mut self,
        partition: LocalPartition,
        to: Offset,
        meta: Option<PartitionMeta>,
    ) -> Result<Answer, StoreError> {
        let cuts = allowed!(self.book.check_truncate(partition, to));
        if cuts {
            allowed!(self.cut(partition, to)?);
        }
        if let Some(meta) = meta {
            allowed!(self.save(partition, &meta)?);
        }
        if cuts {
            // Keys that were removed may be written again in the same group.
            self.write_pending()?;
        }
        Ok(Ok(Done::Changed))
    }

    fn cut(&mut self, partition: LocalPartition, to: Offset) -> Result<Answer, StoreError> {
        self.write_pending()?;
        let prefix = self.prefix(partition)?;
        let mut kept = allowed!(self.book.get(partition)).clone();
        (kept.end, kept.tail_epoch) = self.tail_below(prefix, kept.start, to)?;
        self.lower_witness(partition, prefix, &kept)?;
        self.view.cut(partition, kept.end);
        self.remove_tail(prefix, kept.end)?;
        let was_damaged = kept.damage.is_some();
        allowed!(self.book.truncated(partition, kept.end, kept.tail_epoch));
        if was_damaged && allowed!(self.book.get(partition)).damage.is_none() {
            self.writes().remove(&keys::record(keys::DAMAGE, partition));
        }
        self.times.forget(partition);
        self.group.touched.insert(partition);
        Ok(Ok(Done::Changed))
    }

    /// Where a log ends without the batches that reach `to`, and in which epoch.
    fn tail_below(&self, prefix: Prefix, start: Offset, to: Offset) -> Result<(Offset, Epoch), StoreError> {
        let below = keys::batch(prefix, start)..keys::batch(prefix, to);
        let last = |range| self.store.log.range(range).next_back();
        let Some(item) = last(below.clone()) else {
            return Ok((start, Epoch::NONE));
        };
        let (key, epoch) = match item.into_inner() {
            Ok((key, value)) => (key, frame::parse(readers::bytes(value)).map_or(Epoch::NONE, |b| b.epoch)),
            // The batch cannot be read, and its readers are told; where it ends its key says.
            Err(_) => match last(below) {
                Some(item) => (item.key()?, Epoch::NONE),
                None => return Ok((start, Epoch::NONE)),
            },
        };
        let end = keys::parse_batch(&key).map_or(start, |(_, last)| last.plus(1));
        Ok((end, epoch))
    }

    /// Durably, before anything is removed. What is not durable yet the witness does not know.
    fn lower_witness(&mut self, partition: LocalPartition, prefix: Prefix, kept: &Entry) -> Result<(), StoreError> {
        let durable = self.view.get(partition).map(|v| (v.prefix, v.end));
        let known = matches!(durable, Ok((p, end)) if p == prefix && end > kept.end);
        if known || kept.damage.is_some() {
            let ticket = self.witness.update([(partition, evidence(prefix, kept))]);
            self.wait_for_witness(ticket)?;
        }
        Ok(())
    }

    fn remove_tail(&mut self, prefix: Prefix, end: Offset) -> Result<(), StoreError> {
        let mut removed = Vec::new();
        for item in self.store.log.range(keys::batches_from(prefix, end)) {
            removed.extend(keys::parse_batch(&item.key()?).map(|(_, last)| last));
        }
        let times = time::entries_above(&self.store.reading(), prefix, end)?;
        for last in removed {
            self.writes().remove_batch(prefix, last);
        }
        for key in times {
            self.writes().remove(&key);
        }
        Ok(())
    }

    fn set_start(
        &mut self,
        partition: LocalPartition,
        start: Offset,
        meta: Option<PartitionMeta>,
    ) -> Result<Answer, StoreError> {
        if allowed!(self.book.set_start(partition, start)) {
            let key = keys::record(keys::START, partition);
            self.writes().put(&key, records::encode_start(start));
            let prefix = self.prefix(partition)?;
            self.group.raised.push((prefix, start));
            self.group.touched.insert(partition);
        }
        if let Some(meta) = meta {
            allowed!(self.save(partition, &meta)?);
        }
        Ok(Ok(Done::Changed))
    }

    /// Puts cleaned batches in the place of those that they cover. Readers see all of it or
    /// nothing: they read from a snapshot.
    fn rewrite(
        &mut self,
        partition: LocalPartition,
        batches: &[StoredBatch],
        meta: &PartitionMeta,
    ) -> Result<Answer, StoreError> {
        allowed!(self.book.check_rewrite(partition, batches));
        self.write_pending()?;
        let prefix = self.prefix(partition)?;
        let start = allowed!(self.book.get(partition)).start;
        let mut removed = Vec::new();
        for batch in batches {
            match self.covered(prefix, start, batch)? {
                Some(covered) => removed.extend(covered),
                None => {
                    let why = format!("{} to {} are no boundaries", batch.base, batch.last);
                    return Ok(Err(LogError::Refused(why)));
                }
            }
        }
        for last in removed {
            self.writes().remove_batch(prefix, last);
        }
        for batch in batches {
            self.writes().batch(prefix, batch);
        }
        self.group.rewritten |= !batches.is_empty();
        allowed!(self.save(partition, meta)?);
        self.write_pending()?;
        Ok(Ok(Done::Changed))
    }

    /// The batches that end inside this one; None unless it begins and ends where stored
    /// batches do. Keys say where batches end, and from the start on there are no gaps; below
    /// it some are destroyed already.
    fn covered(&self, prefix: Prefix, start: Offset, batch: &StoredBatch) -> Result<Option<Vec<Offset>>, StoreError> {
        let begins = match batch.base.0.checked_sub(1).map(Offset) {
            Some(before) if batch.base > start => self.store.log.contains_key(keys::batch(prefix, before))?,
            _ => true,
        };
        let mut covered = Vec::new();
        for item in self.store.log.range(keys::batch(prefix, batch.base)..=keys::batch(prefix, batch.last)) {
            covered.extend(keys::parse_batch(&item.key()?).map(|(_, last)| last));
        }
        let ends = covered.pop() == Some(batch.last);
        Ok((begins && ends).then_some(covered))
    }

    fn reset(
        &mut self,
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
        producers: Bytes,
    ) -> Result<Answer, StoreError> {
        allowed!(self.book.get(partition));
        let number = allowed!(self.book.take_number());
        allowed!(self.book.reset(partition, generation, start));
        let highest_epoch = allowed!(self.book.get(partition)).highest_epoch;
        self.group.ended.push(self.prefix(partition)?);
        self.begin(partition, Prefix(number), generation, start);
        self.times.forget(partition);
        let meta = PartitionMeta::beginning(highest_epoch, start, producers);
        let writes = self.writes();
        writes.put(&keys::record(keys::META, partition), records::encode_meta(&meta));
        writes.remove(&keys::record(keys::START, partition));
        writes.remove(&keys::record(keys::DAMAGE, partition));
        Ok(Ok(Done::Changed))
    }

    /// So that the next opening does not take the copy for whole. One that was reset meanwhile
    /// has another number.
    fn note_damage(&mut self, partition: LocalPartition, number: u32, damage: Damage) -> Result<Answer, StoreError> {
        if self.prefixes.get(&partition) == Some(&Prefix(number))
            && allowed!(self.book.note_damage(partition, damage.clone()))
        {
            self.writes().put(&keys::record(keys::DAMAGE, partition), records::encode_damage(&damage));
        }
        Ok(Ok(Done::Changed))
    }

    fn save(&mut self, partition: LocalPartition, meta: &PartitionMeta) -> Result<Answer, StoreError> {
        allowed!(self.book.get_mut(partition)).highest_epoch = meta.highest_epoch;
        let key = keys::record(keys::META, partition);
        self.writes().put(&key, records::encode_meta(meta));
        self.group.touched.insert(partition);
        Ok(Ok(Done::Changed))
    }
}
