//! The LSM store: how it is opened, written, made durable and kept within its memory.
//!
//! Measured, not guessed: one keyspace for all partitions (one each costs three times the CPU
//! and cannot be reopened beyond some thousand), batches apart from the keys, no compression
//! (producers compress), and memtables rotated by us: the store's own rotation can wedge its
//! workers for ever.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::Offset;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch,
    PersistMode, Readable, UserKey,
};
use lsm_tree::compaction::filter::Factory;

use super::directory::{OpenError, sync_directory};
use super::doctor::{self, newest_journal};
use super::keys::{self, Prefix};
use super::retention::{FilterFactory, Floors, parse_time};
use super::{FjallOptions, SyncFile};
use crate::log::StoredBatch;

const EIO: i32 = 5;
const LOG: &str = "log";
const METADATA: &str = "metadata";
/// Values below this stay beside their keys.
const SEPARATED_BYTES: u32 = 512;
const BLOB_FILE_BYTES: u64 = 16 << 20;
const JOURNALS_BYTES_MAX: u64 = 512 << 20;
const OPEN_FILES_MAX: usize = 900;
/// The store stops writers for ever at four, and at thirty runs, if its workers have died.
const SEALED_MEMTABLES_MAX: usize = 3;
const RUNS_MAX: usize = 28;
/// A table has 64 MB of keys at most: so many are rewritten within seconds.
const REWRITTEN_TABLES_MAX: usize = 8;
const PACE: Duration = Duration::from_micros(500);

/// Any failure of the store: the process cannot go on with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Fjall(#[from] fjall::Error),
    #[error("{what}: {cause}")]
    Io { what: &'static str, cause: io::Error },
    #[error("{0}")]
    Record(String),
}

impl StoreError {
    /// Whether the store's own files are not what they were. What the system refuses (space,
    /// descriptors, a disk that does not answer) may work another time.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Fjall(error) => is_damage(error),
            Self::Io { cause, .. } => shows_damage(cause),
            Self::Record(_) => true,
        }
    }

    /// What an operator is told: only a store that is damaged is a reason to give it up.
    pub(super) fn while_opening(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Io { what, cause } => OpenError::Io { path, what, cause },
            Self::Fjall(fjall::Error::Io(cause) | fjall::Error::Storage(lsm_tree::Error::Io(cause)))
                if !shows_damage(&cause) =>
            {
                OpenError::Io { path, what: "opening the store", cause }
            }
            error => OpenError::Store { path, cause: error.to_string() },
        }
    }
}

impl StoreError {
    /// Whether the disk could not read what it holds.
    pub(super) fn is_bad_sector(&self) -> bool {
        let (Self::Fjall(fjall::Error::Io(cause) | fjall::Error::Storage(lsm_tree::Error::Io(cause)))
        | Self::Io { cause, .. }) = self
        else {
            return false;
        };
        cause.raw_os_error() == Some(EIO)
    }

    /// Whether the store stopped because of something that happened on its own threads, and
    /// does not say what.
    pub(super) fn is_poison(&self) -> bool {
        matches!(self, Self::Fjall(fjall::Error::Poisoned))
    }
}

fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(cause) | fjall::Error::Storage(lsm_tree::Error::Io(cause)) => shows_damage(cause),
        fjall::Error::Locked | fjall::Error::Poisoned => false,
        _ => true,
    }
}

/// Files that are too short, say something else, or are not there although another file names
/// them, or there although none does.
fn shows_damage(cause: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(cause.kind(), AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof | io::ErrorKind::Other)
}

pub(super) struct Store {
    database: Database,
    pub(super) log: Keyspace,
    pub(super) metadata: Keyspace,
    directory: PathBuf,
    rotate_bytes: u64,
    write_buffer_bytes_max: u64,
    journal: Option<(u64, File)>,
    sync: SyncFile,
    rotated: Instant,
    /// When memtables were last rotated because they were full.
    filled: Option<Instant>,
}

/// Reading handles, shared with the reader threads.
#[derive(Clone)]
pub(super) struct Reading {
    database: Database,
    pub(super) log: Keyspace,
    pub(super) metadata: Keyspace,
}

impl Reading {
    /// The batches of a range as they are at this moment: a rewriting that goes on meanwhile is
    /// seen whole or not at all. A range of the keyspace itself would show what is being written.
    pub(super) fn batches(&self, range: impl RangeBounds<keys::BatchKey>) -> fjall::Iter {
        self.database.snapshot().range(&self.log, range)
    }

    /// Keys with the lengths of their values, none of which is read. The store gives one or the
    /// other, so that two walks over the same snapshot are needed.
    pub(super) fn sizes(
        &self,
        range: impl RangeBounds<keys::BatchKey> + Clone,
    ) -> impl Iterator<Item = Result<(UserKey, u32), StoreError>> {
        let snapshot = self.database.snapshot();
        let keys = snapshot.range(&self.log, range.clone());
        let sizes = snapshot.range(&self.log, range);
        keys.zip(sizes).map(|(key, size)| Ok((key.key()?, size.size()?)))
    }
}

/// Writes that become visible, and survive, together.
pub(super) struct Writes {
    batch: OwnedWriteBatch,
    /// One value per key: the batch has one sequence number for all its writes.
    metadata: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    log: Keyspace,
}

impl Writes {
    pub(super) fn batch(&mut self, prefix: Prefix, batch: &StoredBatch) {
        self.batch.insert(&self.log, keys::batch(prefix, batch.last), &batch.bytes[..]);
    }

    pub(super) fn remove_batch(&mut self, prefix: Prefix, last: Offset) {
        self.batch.remove(&self.log, keys::batch(prefix, last));
    }

    /// The last value of a key counts.
    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.metadata.insert(key.to_vec(), Some(value));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.metadata.insert(key.to_vec(), None);
    }
}

impl Store {
    pub(super) fn open(directory: &Path, options: &FjallOptions, floors: &Arc<Floors>) -> Result<Self, StoreError> {
        let io = |what| move |cause| StoreError::Io { what, cause };
        doctor::remove_unborn(directory).map_err(io("removing a store that was never finished"))?;
        let floors = Arc::clone(floors);
        let filters = move |keyspace: &str| -> Option<Arc<dyn Factory>> {
            let floors = Arc::clone(&floors);
            let parse = if keyspace == LOG { keys::parse_batch } else { parse_time };
            Some(Arc::new(FilterFactory { floors, parse }))
        };
        let database = Database::builder(directory)
            .worker_threads(2)
            .cache_size(options.cache_bytes)
            .manual_journal_persist(true)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .with_compaction_filter_factories(Arc::new(filters))
            .open()?;
        let log = database.keyspace(LOG, keyspace_options)?;
        let metadata = database.keyspace(METADATA, keyspace_options)?;
        let mut store = Self {
            database,
            log,
            metadata,
            directory: directory.to_owned(),
            rotate_bytes: options.rotate_bytes,
            write_buffer_bytes_max: options.write_buffer_bytes_max,
            journal: None,
            sync: Arc::clone(&options.sync),
            rotated: Instant::now(),
            filled: None,
        };
        sync_names(directory).map_err(io("fsync of the store's directories"))?;
        // What a killed process wrote but did not sync is read again now, and counted on.
        store.sync()?;
        Ok(store)
    }

    pub(super) fn reading(&self) -> Reading {
        Reading { database: self.database.clone(), log: self.log.clone(), metadata: self.metadata.clone() }
    }

    pub(super) fn writes(&self) -> Writes {
        let batch = self.database.batch().durability(None);
        Writes { batch, metadata: BTreeMap::new(), log: self.log.clone() }
    }

    /// Makes the writes visible to readers of the store. They are not durable before
    /// [`Self::sync`], but a crash keeps all of them or none.
    pub(super) fn write(&mut self, writes: Writes) -> Result<(), StoreError> {
        let Writes { mut batch, metadata, .. } = writes;
        for (key, value) in metadata {
            match value {
                Some(value) => batch.insert(&self.metadata, key, value),
                None => batch.remove(&self.metadata, key),
            }
        }
        self.pace()?;
        batch.commit()?;
        if self.memtable_bytes() >= self.rotate_bytes {
            self.filled = Some(Instant::now());
            self.rotate()?;
        }
        Ok(())
    }

    /// Everything written so far is on stable storage when this returns.
    ///
    /// The journal is synced through a descriptor of our own: the store would hold the lock of
    /// its journal meanwhile. It syncs each journal itself before it begins the next, so the
    /// newest one is all that is left to do.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::Buffer)?;
        let io = |what| move |cause| StoreError::Io { what, cause };
        while let Some((number, _)) = &self.journal {
            let next = number + 1;
            let path = self.directory.join(format!("{next}.jnl"));
            if !path.try_exists().map_err(io("looking for the next journal"))? {
                break;
            }
            let file = File::open(path).map_err(io("opening the journal"))?;
            self.journal = Some((next, file));
        }
        if self.journal.is_none() {
            let found = newest_journal(&self.directory).map_err(io("looking for the journal"))?;
            let (number, path) = found.ok_or_else(|| StoreError::Record("there is no journal".to_owned()))?;
            self.journal = Some((number, File::open(path).map_err(io("opening the journal"))?));
        }
        if let Some((_, file)) = &self.journal {
            (self.sync)(file).map_err(io("fsync of the journal"))?;
        }
        // The store's own fsync, while it flushed, may have been told of an error before our
        // descriptor was there to be told as well; then it is poisoned by now.
        self.database.persist(PersistMode::Buffer)?;
        Ok(())
    }

    fn memtable_bytes(&self) -> u64 {
        self.log.tree.active_memtable().size() + self.metadata.tree.active_memtable().size()
    }

    /// Begins new memtables; the full ones are flushed to tables. Both keyspaces together, so
    /// that neither pins the journals of the other.
    fn rotate(&mut self) -> Result<(), StoreError> {
        for keyspace in [&self.log, &self.metadata] {
            if keyspace.tree.sealed_memtable_count() < SEALED_MEMTABLES_MAX
                && keyspace.tree.active_memtable().size() > 0
            {
                keyspace.rotate_memtable()?;
            }
        }
        self.rotated = Instant::now();
        Ok(())
    }

    /// Waits while the workers are behind, so that memory stays bounded; notices when they
    /// are dead, which the store itself would wait out for ever.
    fn pace(&self) -> Result<(), StoreError> {
        let behind = || {
            let flushing = self.log.tree.sealed_memtable_count() + self.metadata.tree.sealed_memtable_count() > 0;
            let full = self.database.write_buffer_size() > self.write_buffer_bytes_max;
            (flushing && full) || self.log.tree.l0_run_count() >= RUNS_MAX
        };
        while behind() {
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// Now and then when nothing is written: a short journal is quickly read after a crash.
    pub(super) fn rotate_if_older(&mut self, age: Duration) -> Result<(), StoreError> {
        if self.rotated.elapsed() >= age && self.memtable_bytes() > 0 {
            self.rotate()?;
        }
        Ok(())
    }

    /// Whether rewriting all tables would hold up nobody for long.
    pub(super) fn may_rewrite(&self, quiet: Duration) -> bool {
        self.log.table_count() <= REWRITTEN_TABLES_MAX || self.filled.is_none_or(|at| at.elapsed() >= quiet)
    }

    /// Whether all memtables that were rotated are tables by now.
    pub(super) fn is_flushed(&self) -> bool {
        [&self.log, &self.metadata].iter().all(|keyspace| keyspace.tree.sealed_memtable_count() == 0)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.database.disk_space()?)
    }
}

/// Rewrites tables so that the space of destroyed batches comes back. The first pass finds
/// stale blob files, the second rewrites or drops them. Takes long; readers and the committer
/// go on meanwhile.
pub(super) fn reclaim(reading: &Reading) -> Result<(), StoreError> {
    for _ in 0..2 {
        reading.log.major_compact()?;
        reading.metadata.major_compact()?;
    }
    Ok(())
}

/// Makes the names of the directories and files durable that the store created. It does so
/// itself for journals and tables. Of blob files that come later it does not: there the file
/// system is relied on to keep the name of a new file together with its fsync, as ext4, XFS
/// and Btrfs do.
fn sync_names(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    sync_directory(directory)
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        // Never reached: rotation is ours.
        .max_memtable_size(1 << 50)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .with_kv_separation(Some(
            KvSeparationOptions::default()
                .compression(CompressionType::None)
                .separation_threshold(SEPARATED_BYTES)
                .file_target_size(BLOB_FILE_BYTES)
                .staleness_threshold(0.5)
                .age_cutoff(1.0),
        ))
}
