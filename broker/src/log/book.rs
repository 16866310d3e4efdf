//! Which partitions a data directory holds, and which changes of them are allowed.
//!
//! Both implementations keep one book, change it in the order of the calls, and so agree on
//! what is refused.

use std::collections::BTreeMap;

use baton_core::{Epoch, Generation, Offset, TopicPartition};

use super::{Append, Damage, DurableEnd, LocalPartition, LogError, StoredBatch, frame};

/// One partition as the log accounts for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: TopicPartition,
    pub(super) generation: Generation,
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// The epoch of the last batch, or [`Epoch::NONE`] when there is none.
    pub(super) tail_epoch: Epoch,
    pub(super) highest_epoch: Epoch,
    pub(super) damage: Option<Damage>,
}

impl Entry {
    pub(super) fn empty(id: TopicPartition, generation: Generation, start: Offset) -> Self {
        Self { id, generation, start, end: start, tail_epoch: Epoch::NONE, highest_epoch: Epoch::NONE, damage: None }
    }

    /// The first offset that the damage makes doubtful.
    fn doubtful_from(&self) -> Option<Offset> {
        Some(match self.damage.as_ref()? {
            Damage::EndBelowWitness { end, .. } => *end,
            Damage::BadChecksum { at } => *at,
            Damage::Gap { expected, .. } => *expected,
            Damage::EpochBelowWitness { .. } | Damage::Unreadable { .. } => self.start,
        })
    }

    fn check_undamaged(&self, partition: LocalPartition) -> Result<(), LogError> {
        match &self.damage {
            Some(damage) => Err(LogError::DamagedCopy { partition, damage: damage.clone() }),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// The next number to hand out; numbers are never reused.
    pub(super) next: u32,
    entries: BTreeMap<LocalPartition, Entry>,
    by_id: BTreeMap<TopicPartition, LocalPartition>,
}

impl Book {
    pub(super) fn iter(&self) -> impl Iterator<Item = (LocalPartition, &Entry)> {
        self.entries.iter().map(|(partition, entry)| (*partition, entry))
    }

    pub(super) fn get(&self, partition: LocalPartition) -> Result<&Entry, LogError> {
        self.entries.get(&partition).ok_or(LogError::UnknownPartition(partition))
    }

    pub(super) fn get_mut(&mut self, partition: LocalPartition) -> Result<&mut Entry, LogError> {
        self.entries.get_mut(&partition).ok_or(LogError::UnknownPartition(partition))
    }

    /// A number that no partition ever had in this directory.
    pub(super) fn take_number(&mut self) -> Result<u32, LogError> {
        let number = self.next;
        self.next = number
            .checked_add(1)
            .ok_or_else(|| LogError::Refused("all 2³² partition numbers are used up".to_owned()))?;
        Ok(number)
    }

    /// Puts back what was found on opening.
    pub(super) fn restore(&mut self, partition: LocalPartition, entry: Entry) {
        self.next = self.next.max(partition.0.saturating_add(1));
        self.by_id.insert(entry.id, partition);
        self.entries.insert(partition, entry);
    }

    pub(super) fn create(
        &mut self,
        id: TopicPartition,
        generation: Generation,
        start: Offset,
    ) -> Result<LocalPartition, LogError> {
        if let Some(existing) = self.by_id.get(&id) {
            return Err(LogError::Refused(format!("{id} exists already as {existing:?}")));
        }
        let partition = LocalPartition(self.take_number()?);
        self.restore(partition, Entry::empty(id, generation, start));
        Ok(partition)
    }

    pub(super) fn delete(&mut self, partition: LocalPartition) -> Result<Entry, LogError> {
        let entry = self.entries.remove(&partition).ok_or(LogError::UnknownPartition(partition))?;
        self.by_id.remove(&entry.id);
        Ok(entry)
    }

    /// Whether all of `appends` may be written; changes nothing.
    pub(super) fn check_append(&self, appends: &[Append]) -> Result<(), LogError> {
        // A partition named twice goes on where its first part ends.
        let mut ends: BTreeMap<LocalPartition, Offset> = BTreeMap::new();
        for append in appends {
            let partition = append.partition;
            let entry = self.get(partition)?;
            entry.check_undamaged(partition)?;
            if append.batches.is_empty() {
                return Err(LogError::Refused(format!("no batches for {partition:?}")));
            }
            let end = ends.entry(partition).or_insert(entry.end);
            for batch in &append.batches {
                if batch.base != *end {
                    let (expected, found) = (*end, batch.base);
                    return Err(LogError::NotContiguous { partition, expected, found });
                }
                check_header(batch)?;
                *end = batch.last.plus(1);
            }
        }
        Ok(())
    }

    /// Takes note of what [`Self::check_append`] has allowed.
    pub(super) fn append(&mut self, appends: &[Append]) -> Result<Vec<DurableEnd>, LogError> {
        self.check_append(appends)?;
        let mut ends = Vec::with_capacity(appends.len());
        for Append { partition, batches } in appends {
            let entry = self.get_mut(*partition)?;
            if let Some(last) = batches.last() {
                entry.end = last.last.plus(1);
                entry.tail_epoch = last.epoch;
            }
            ends.push(DurableEnd { partition: *partition, end: entry.end });
        }
        Ok(ends)
    }

    /// Whether the log may be cut at `to`, and whether that changes anything.
    pub(super) fn check_truncate(&self, partition: LocalPartition, to: Offset) -> Result<bool, LogError> {
        let Entry { start, end, .. } = *self.get(partition)?;
        if to < start {
            return Err(LogError::BelowStart { at: to, start });
        }
        Ok(to < end || self.accepts_loss(partition, to))
    }

    fn accepts_loss(&self, partition: LocalPartition, to: Offset) -> bool {
        let entry = self.entries.get(&partition);
        entry.and_then(Entry::doubtful_from).is_some_and(|doubtful| to <= doubtful)
    }

    /// Takes note of a truncation to `end`, whose last batch has the epoch `tail_epoch`.
    pub(super) fn truncated(
        &mut self,
        partition: LocalPartition,
        end: Offset,
        tail_epoch: Epoch,
    ) -> Result<(), LogError> {
        let accepted = self.accepts_loss(partition, end);
        let entry = self.get_mut(partition)?;
        entry.end = end;
        entry.tail_epoch = tail_epoch;
        if accepted {
            entry.damage = None;
        }
        Ok(())
    }

    /// Remembers damage that was met; says whether that is news.
    pub(super) fn note_damage(&mut self, partition: LocalPartition, damage: Damage) -> Result<bool, LogError> {
        let entry = self.get_mut(partition)?;
        let news = entry.damage.is_none();
        entry.damage.get_or_insert(damage);
        Ok(news)
    }

    /// Raises the start; says whether that changed anything.
    pub(super) fn set_start(&mut self, partition: LocalPartition, start: Offset) -> Result<bool, LogError> {
        let entry = self.get_mut(partition)?;
        if start > entry.end {
            let end = entry.end;
            return Err(LogError::Refused(format!("start {start} is beyond the end {end}")));
        }
        let raised = start > entry.start;
        entry.start = entry.start.max(start);
        Ok(raised)
    }

    /// Whether these batches may take the place of others; changes nothing.
    pub(super) fn check_rewrite(&self, partition: LocalPartition, batches: &[StoredBatch]) -> Result<(), LogError> {
        let entry = self.get(partition)?;
        entry.check_undamaged(partition)?;
        for batch in batches {
            check_header(batch)?;
            if batch.last < entry.start || batch.end() > entry.end {
                let (start, end) = (entry.start, entry.end);
                return Err(LogError::Refused(format!("{} to {} is not in {start} to {end}", batch.base, batch.last)));
            }
        }
        let ascend = batches.windows(2).all(|pair| pair[0].last < pair[1].base);
        if ascend { Ok(()) } else { Err(LogError::Refused("rewritten batches overlap".to_owned())) }
    }

    pub(super) fn reset(
        &mut self,
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
    ) -> Result<(), LogError> {
        let entry = self.get_mut(partition)?;
        let highest_epoch = entry.highest_epoch;
        *entry = Entry { highest_epoch, ..Entry::empty(entry.id, generation, start) };
        Ok(())
    }
}

/// The caller's description of a batch has to be what the batch says itself: readers see only
/// the latter.
fn check_header(batch: &StoredBatch) -> Result<(), LogError> {
    let read = frame::parse(batch.bytes.clone()).map_err(|why| LogError::Refused(format!("not a batch: {why}")))?;
    let fields = |b: &StoredBatch| (b.base, b.last, b.epoch, b.max_timestamp_ms);
    if fields(&read) != fields(batch) {
        let (said, found) = (fields(batch), fields(&read));
        return Err(LogError::Refused(format!("the batch says {found:?}, its caller {said:?}")));
    }
    Ok(())
}
