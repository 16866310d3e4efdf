//! Evidence, apart from the log, of how far each partition was durable.
//!
//! Damage inside the store's journal can make everything behind it vanish without an error.
//! The witness says on the next opening that something is missing.
//!
//! **What it guarantees.** When group commit N + 1 is acknowledged, the ends and epochs of
//! commit N are in the witness on stable storage. So at most the last acknowledged commit can
//! vanish unnoticed. It is written and synced by a thread of its own while the committer
//! prepares and syncs the next commit. A truncation or a deletion is in the witness, synced,
//! *before* it is in the log; so the witness is never ahead of the log by our own doing.
//!
//! ```text
//! file   pairs of blocks of 4096 bytes; of each pair the whole block with the higher
//!        sequence number counts, and only the other one is ever written
//! block  "BWIT" ‖ 1 ‖ 000 ‖ sequence u64 ‖ entries u32 ‖ CRC-32C u32 of the rest of the block
//!        and of the sequence ‖ 8 × 0 ‖ entry…
//! entry  local u32 ‖ prefix u32 ‖ topic u32 ‖ partition u32 ‖ generation u32
//!        ‖ tail epoch u32 ‖ highest epoch u32 ‖ end u64
//! ```
//! Its size is bounded by the largest number of partitions there ever were at once.

mod block;
#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub(super) use block::{decode_any, example};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub(super) use block::Seen;
use block::{BLOCK_BYTES, ENTRIES, Found};

use super::SyncFile;
use crate::log::LocalPartition;

/// The file grows by this many pairs of blocks.
const PAIRS: usize = 32;
const BYTES_MAX: u64 = 1 << 30;

/// Says up to where the witness has to be durable; see [`Witness::wait`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What a witness file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Testimony {
    pub(super) seen: BTreeMap<LocalPartition, Seen>,
    /// A pair of blocks cannot be read: what is not in `seen` may have been there.
    pub(super) unreadable: bool,
}

/// The open witness and its thread.
pub(super) struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    image: Mutex<Image>,
    /// Wakes the thread, and those who wait for it.
    changed: Condvar,
}

struct Image {
    slots: Vec<Option<(LocalPartition, Seen)>>,
    by_partition: BTreeMap<LocalPartition, usize>,
    free: BTreeSet<usize>,
    dirty: BTreeSet<usize>,
    /// The sequence number of the newer block of each pair; its parity says which one it is.
    sequences: Vec<u64>,
    /// Tickets handed out, and the last one that is durable.
    asked: Ticket,
    durable: Ticket,
    failed: Option<String>,
    stopping: bool,
}

impl Testimony {
    /// Reads the witness of a directory; `expected` says that there ought to be one.
    pub(super) fn read(path: &Path, expected: bool) -> io::Result<Self> {
        let mut testimony = Self::default();
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                testimony.unreadable = expected;
                return Ok(testimony);
            }
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        if length > BYTES_MAX || length % (2 * BLOCK_BYTES as u64) != 0 {
            testimony.unreadable = true;
        }
        let mut pair = vec![0; 2 * BLOCK_BYTES];
        for _ in 0..length.min(BYTES_MAX) / pair.len() as u64 {
            file.read_exact(&mut pair)?;
            let (first, second) = pair.split_at(BLOCK_BYTES);
            let newer = match (block::decode(first), block::decode(second)) {
                // The first write of a pair may be torn by a crash, but then it may as well have
                // been damaged later: nobody can tell, so it counts as lost evidence.
                (Found::Bad, Found::Bad | Found::Empty) | (Found::Empty, Found::Bad) => {
                    testimony.unreadable = true;
                    continue;
                }
                (Found::Bad, good) | (good, Found::Bad) => good,
                (a, b) => {
                    if a.sequence() > b.sequence() {
                        a
                    } else {
                        b
                    }
                }
            };
            if let Found::Block { entries, .. } = newer {
                testimony.seen.extend(entries);
            }
        }
        Ok(testimony)
    }
}

impl Witness {
    /// Writes a new witness file with `seen`, durably, and starts its thread.
    ///
    /// The file takes the place of the old one by rename, so a crash leaves one of the two.
    pub(super) fn create(path: &Path, seen: BTreeMap<LocalPartition, Seen>, sync: SyncFile) -> io::Result<Self> {
        let mut image = Image::new(seen);
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&temporary)?;
        image.grow(&file)?;
        image.dirty = (0..image.sequences.len()).collect();
        for (at, block) in image.take_dirty() {
            file.write_all_at(&block, at)?;
        }
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let shared = Arc::new(Shared { image: Mutex::new(image), changed: Condvar::new() });
        let running = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("log-witness".to_owned()).spawn(move || running.run(&file, &sync))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes note of partitions; the thread writes it down.
    pub(super) fn update(&self, seen: impl IntoIterator<Item = (LocalPartition, Seen)>) -> Ticket {
        let mut image = self.shared.lock();
        for (partition, seen) in seen {
            image.set(partition, seen);
        }
        self.asked(image)
    }

    /// Forgets a partition, and gives its slot to the next one.
    pub(super) fn remove(&self, partition: LocalPartition) -> Ticket {
        let mut image = self.shared.lock();
        if let Some(slot) = image.by_partition.remove(&partition) {
            image.slots[slot] = None;
            image.free.insert(slot);
            image.dirty.insert(slot / ENTRIES);
        }
        self.asked(image)
    }

    fn asked(&self, mut image: MutexGuard<'_, Image>) -> Ticket {
        if image.dirty.is_empty() {
            return image.asked;
        }
        image.asked.0 += 1;
        let ticket = image.asked;
        drop(image);
        self.shared.changed.notify_all();
        ticket
    }

    /// Returns when everything up to `ticket` is durable.
    pub(super) fn wait(&self, ticket: Ticket) -> Result<(), String> {
        let image = self.shared.lock();
        let behind = |image: &mut Image| image.durable < ticket && image.failed.is_none();
        let waited = self.shared.changed.wait_while(image, behind);
        match &waited.unwrap_or_else(PoisonError::into_inner).failed {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One cycle after another: what changed is written beside what is durable, then synced.
    /// So whatever is torn, the other block of its pair is whole and on stable storage.
    fn run(&self, file: &File, sync: &SyncFile) {
        loop {
            let image = self.lock();
            let idle = |image: &mut Image| image.durable == image.asked && !image.stopping;
            let waited = self.changed.wait_while(image, idle);
            let mut image = waited.unwrap_or_else(PoisonError::into_inner);
            if image.durable == image.asked {
                return;
            }
            let ticket = image.asked;
            let grown = image.grow(file);
            let blocks = image.take_dirty();
            drop(image);
            let write = || {
                blocks.iter().try_for_each(|(at, block)| file.write_all_at(block, *at))?;
                if blocks.is_empty() { Ok(()) } else { sync(file) }
            };
            let written = grown.and_then(|()| write());
            let mut image = self.lock();
            match written {
                Ok(()) => image.durable = ticket,
                Err(e) => image.failed = Some(format!("the witness: {e}")),
            }
            let failed = image.failed.is_some();
            drop(image);
            self.changed.notify_all();
            if failed {
                return;
            }
        }
    }
}

impl Image {
    fn new(seen: BTreeMap<LocalPartition, Seen>) -> Self {
        let mut image = Self {
            slots: Vec::new(),
            by_partition: BTreeMap::new(),
            free: BTreeSet::new(),
            dirty: BTreeSet::new(),
            sequences: Vec::new(),
            asked: Ticket(0),
            durable: Ticket(0),
            failed: None,
            stopping: false,
        };
        for (partition, seen) in seen {
            image.set(partition, seen);
        }
        image
    }

    fn set(&mut self, partition: LocalPartition, seen: Seen) {
        let slot = match self.by_partition.get(&partition) {
            Some(slot) => *slot,
            None => {
                let slot = self.free.pop_first().unwrap_or(self.slots.len());
                self.by_partition.insert(partition, slot);
                slot
            }
        };
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        if self.slots[slot] != Some((partition, seen)) {
            self.slots[slot] = Some((partition, seen));
            self.dirty.insert(slot / ENTRIES);
        }
    }

    /// Makes room for all slots with blocks of zeros, which count as empty. Written out, for
    /// a sync of what was allocated before costs the least.
    fn grow(&mut self, file: &File) -> io::Result<()> {
        let needed = self.slots.len().div_ceil(ENTRIES).max(1).next_multiple_of(PAIRS);
        let zeros = vec![0; 2 * BLOCK_BYTES];
        while self.sequences.len() < needed {
            file.write_all_at(&zeros, (self.sequences.len() * zeros.len()) as u64)?;
            self.sequences.push(0);
        }
        Ok(())
    }

    /// The blocks to write, with their places in the file.
    fn take_dirty(&mut self) -> Vec<(u64, Vec<u8>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let encode = |pair: usize| {
            self.sequences[pair] += 1;
            let sequence = self.sequences[pair];
            let from = (pair * ENTRIES).min(self.slots.len());
            let to = (from + ENTRIES).min(self.slots.len());
            let entries = self.slots[from..to].iter().flatten();
            let at = (2 * pair) as u64 + sequence % 2;
            (at * BLOCK_BYTES as u64, block::encode(sequence, entries))
        };
        dirty.into_iter().map(encode).collect()
    }
}
