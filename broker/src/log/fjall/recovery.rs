//! What is in the store when it is opened, and whether it is all that should be there.
//!
//! Checked of every partition: the last batch, the first one, that they are not behind the
//! witness. A tainted directory is read from end to end.

use std::collections::BTreeMap;

use baton_core::{Epoch, Offset};
use fjall::Keyspace;

use super::keys::{self, Prefix};
use super::readers::{Bad, bytes, check, stored};
use super::records::{self, Descriptor};
use super::store::{Reading, StoreError};
use super::witness::{Seen, Testimony};
use crate::log::book::{Book, Entry};
use crate::log::{Damage, LocalPartition, PartitionMeta, Recovered, frame};

#[derive(Default)]
pub(super) struct Recovery {
    pub(super) book: Book,
    pub(super) prefixes: BTreeMap<LocalPartition, Prefix>,
    pub(super) recovered: BTreeMap<LocalPartition, Recovered>,
    /// What the next witness begins with.
    pub(super) seen: BTreeMap<LocalPartition, Seen>,
    /// Partitions of which only the witness knows: their descriptors are written again.
    pub(super) lost: BTreeMap<LocalPartition, Descriptor>,
    /// Nothing was ever settled in this store, and no witness says otherwise.
    pub(super) blank: bool,
}

/// Reads everything. `thorough` checks every batch.
pub(super) fn recover(reading: &Reading, testimony: &Testimony, thorough: bool) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let descriptors = descriptors(&reading.metadata)?;
    for (partition, descriptor) in &descriptors {
        let witness = testimony.seen.get(partition);
        let found = Found::read(reading, *partition, descriptor)?;
        let damage = match &found.damage {
            Some(damage) => Some(damage.clone()),
            None => found.check(reading, descriptor, witness, testimony, thorough)?,
        };
        recovery.add(*partition, descriptor, found, witness, damage);
    }
    for (partition, seen) in &testimony.seen {
        if !descriptors.contains_key(partition) {
            recovery.add_lost(*partition, seen);
        }
    }
    let settled = next_number(&reading.metadata)?;
    recovery.blank = settled.is_none() && recovery.recovered.is_empty();
    let next = settled.unwrap_or(0);
    let used = numbers_used(reading, testimony, &recovery)?;
    recovery.book.next = recovery.book.next.max(next).max(used);
    Ok(recovery)
}

fn descriptors(metadata: &Keyspace) -> Result<BTreeMap<LocalPartition, Descriptor>, StoreError> {
    let mut found = BTreeMap::new();
    for item in metadata.prefix([keys::DESCRIPTOR]) {
        let (key, value) = item.into_inner()?;
        match (keys::parse_record(&key), Descriptor::decode(&value)) {
            (Some(partition), Ok(descriptor)) => drop(found.insert(partition, descriptor)),
            // The witness may still know the partition.
            (_, Err(why)) => tracing::error!("a partition's descriptor is damaged: {why}"),
            (None, _) => tracing::error!("the key of a descriptor is damaged"),
        }
    }
    Ok(found)
}

/// One above every number that anything refers to: an older version of the metadata may have
/// come back, and a number that is handed out again would bring the batches under it back.
fn numbers_used(reading: &Reading, testimony: &Testimony, recovery: &Recovery) -> Result<u32, StoreError> {
    let prefixes = recovery.prefixes.values().map(|prefix| prefix.0);
    let seen = testimony.seen.iter().flat_map(|(partition, seen)| [partition.0, seen.prefix.0]);
    let stored = match reading.log.iter().next_back() {
        Some(item) => keys::parse_batch(&item.key()?).map(|(prefix, _)| prefix.0),
        None => None,
    };
    Ok(prefixes.chain(seen).chain(stored).max().map_or(0, |number| number.saturating_add(1)))
}

fn next_number(metadata: &Keyspace) -> Result<Option<u32>, StoreError> {
    match metadata.get(keys::NEXT_NUMBER)? {
        None => Ok(None),
        Some(value) => records::decode_number(&value).map(Some).map_err(|e| StoreError::Record(e.to_string())),
    }
}

impl Recovery {
    fn add(
        &mut self,
        partition: LocalPartition,
        descriptor: &Descriptor,
        found: Found,
        witness: Option<&Seen>,
        damage: Option<Damage>,
    ) {
        let Descriptor { id, prefix, .. } = *descriptor;
        // Never a generation again that somebody may have seen.
        let seen = witness.map(|w| w.generation);
        let generation = descriptor.generation.max(seen.unwrap_or_default());
        let Found { start, end, tail_epoch, mut meta, .. } = found;
        // A promise outlives the record of it.
        let promised = witness.map_or(Epoch::NONE, |w| w.highest_epoch);
        meta.highest_epoch = meta.highest_epoch.max(promised);
        let entry =
            Entry { id, generation, start, end, tail_epoch, highest_epoch: meta.highest_epoch, damage: damage.clone() };
        let seen = match (&damage, witness) {
            // The evidence stays until the damage is repaired.
            (Some(_), Some(witness)) => *witness,
            _ => evidence(prefix, &entry),
        };
        self.seen.insert(partition, seen);
        self.book.restore(partition, entry);
        self.prefixes.insert(partition, prefix);
        let recovered = Recovered { partition, id, generation, start, end, meta, damage };
        self.recovered.insert(partition, recovered);
    }

    /// The store has forgotten a partition that it had acknowledged.
    fn add_lost(&mut self, partition: LocalPartition, seen: &Seen) {
        let Seen { id, generation, prefix, end, .. } = *seen;
        let start = Offset::ZERO;
        let descriptor = Descriptor { id, generation, prefix, start };
        let damage = Damage::EndBelowWitness { end: start, witness: end };
        let meta = PartitionMeta { highest_epoch: seen.highest_epoch, ..PartitionMeta::default() };
        let found = Found { start, end: start, tail_epoch: Epoch::NONE, meta, damage: None };
        self.add(partition, &descriptor, found, Some(seen), Some(damage));
        self.lost.insert(partition, descriptor);
    }
}

/// What the witness is told about an entry.
pub(super) fn evidence(prefix: Prefix, entry: &Entry) -> Seen {
    Seen {
        prefix,
        id: entry.id,
        generation: entry.generation,
        tail_epoch: entry.tail_epoch,
        highest_epoch: entry.highest_epoch,
        end: entry.end,
    }
}

/// One partition in the store.
struct Found {
    start: Offset,
    end: Offset,
    tail_epoch: Epoch,
    meta: PartitionMeta,
    damage: Option<Damage>,
}

impl Found {
    fn read(reading: &Reading, partition: LocalPartition, descriptor: &Descriptor) -> Result<Self, StoreError> {
        let get = |kind| reading.metadata.get(keys::record(kind, partition));
        let mut damage = None;
        let mut note = |why: records::BadRecord| {
            damage.get_or_insert(Damage::Unreadable { what: why.to_string() });
        };
        let start = match get(keys::START)?.map(|v| records::decode_start(&v)) {
            Some(Ok(start)) => start,
            Some(Err(why)) => {
                note(why);
                descriptor.start
            }
            None => descriptor.start,
        };
        let meta = match get(keys::META)?.map(|v| records::decode_meta(&v)) {
            Some(Ok(meta)) => meta,
            Some(Err(why)) => {
                note(why);
                PartitionMeta::default()
            }
            None => PartitionMeta::default(),
        };
        match get(keys::DAMAGE)?.map(|v| records::decode_damage(&v)) {
            Some(Ok(known)) => damage = Some(known),
            Some(Err(why)) => note(why),
            None => {}
        }
        let mut found = Self { start, end: start, tail_epoch: Epoch::NONE, meta, damage };
        found.read_tail(reading, descriptor.prefix)?;
        Ok(found)
    }

    /// The end, by the last batch; one below the start is only waiting to be destroyed.
    fn read_tail(&mut self, reading: &Reading, prefix: Prefix) -> Result<(), StoreError> {
        let mut tail = reading.log.range(keys::batches_from(prefix, self.start)).rev();
        let Some(item) = tail.next() else { return Ok(()) };
        let (key, value) = match stored(item) {
            Ok(item) => item,
            Err(Bad::Damage(damage)) => {
                self.damage.get_or_insert(damage);
                return Ok(());
            }
            Err(Bad::Store(error)) => return Err(error),
        };
        let last = keys::parse_batch(&key).map_or(Offset::ZERO, |(_, last)| last);
        self.end = last.plus(1);
        match frame::verify(bytes(value)) {
            Ok(batch) if batch.last == last => self.tail_epoch = batch.epoch,
            _ => {
                let before = tail.next().transpose_key()?;
                let at = before.map_or(self.start, |last| last.plus(1));
                self.damage.get_or_insert(Damage::BadChecksum { at });
            }
        }
        Ok(())
    }

    fn check(
        &self,
        reading: &Reading,
        descriptor: &Descriptor,
        witness: Option<&Seen>,
        testimony: &Testimony,
        thorough: bool,
    ) -> Result<Option<Damage>, StoreError> {
        if let Some(damage) = self.check_batches(reading, descriptor.prefix, thorough)? {
            return Ok(Some(damage));
        }
        Ok(match witness {
            Some(witness) => self.check_witness(descriptor, witness),
            None if testimony.unreadable => {
                let what = "the witness, which may have known more".to_owned();
                Some(Damage::Unreadable { what })
            }
            // Created by the last commit, or deleted in the witness but not in the log.
            None => None,
        })
    }

    fn check_batches(&self, reading: &Reading, prefix: Prefix, thorough: bool) -> Result<Option<Damage>, StoreError> {
        let mut expected = None;
        let mut batches = reading.log.range(keys::batches_from(prefix, self.start));
        let count = if thorough { usize::MAX } else { 1 };
        for item in batches.by_ref().take(count) {
            match stored(item).and_then(|(key, value)| Ok(check(&key, value, expected, self.start)?)) {
                Ok(batch) => expected = Some(batch.last.plus(1)),
                Err(Bad::Damage(damage)) => return Ok(Some(damage)),
                Err(Bad::Store(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    fn check_witness(&self, descriptor: &Descriptor, witness: &Seen) -> Option<Damage> {
        if witness.prefix < descriptor.prefix {
            // A reset was durable, and the witness did not hear of it any more.
            return None;
        }
        if witness.prefix > descriptor.prefix {
            let what = "an older generation, which had been given up, came back".to_owned();
            return Some(Damage::Unreadable { what });
        }
        let (end, highest) = (self.end, self.meta.highest_epoch);
        if end < witness.end {
            return Some(Damage::EndBelowWitness { end, witness: witness.end });
        }
        let behind = |epoch, witness| (epoch < witness).then_some(Damage::EpochBelowWitness { epoch, witness });
        let tail = behind(self.tail_epoch, witness.tail_epoch).filter(|_| end > self.start);
        behind(highest, witness.highest_epoch).or(tail)
    }
}

/// The last offset of an item of the log, if there is one.
trait LastOffset {
    fn transpose_key(self) -> Result<Option<Offset>, StoreError>;
}

impl LastOffset for Option<fjall::Guard> {
    fn transpose_key(self) -> Result<Option<Offset>, StoreError> {
        let Some(item) = self else { return Ok(None) };
        Ok(keys::parse_batch(&item.key()?).map(|(_, last)| last))
    }
}
