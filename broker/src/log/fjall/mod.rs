//! The log on disk: batches in an LSM store, one fsync for all partitions.
//!
//! ```text
//! callers ─▶ queue ─▶ committer ─▶ store: journal, memtables ─▶ tables, blob files
//!                        │  └────▶ witness (its own thread, its own file)
//!                        └─ view ◀── readers ◀─ queue ◀─ callers
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `directory` | whose the data directory is, and how it was left |
//! | `doctor` | cuts a torn journal before the store is opened |
//! | `store` | how the store is configured, written, synced and kept within its memory |
//! | `mend` | makes damaged blob files readable, so that compactions get past them |
//! | `keys`, `records` | what is stored under which key, byte by byte |
//! | `opening` | opens the store, or sets it aside if it is beyond repair |
//! | `recovery` | what is found on opening, and whether it is whole |
//! | `committer`, `changes` | group commits; one change after another |
//! | `witness` | evidence of what was durable, apart from the store |
//! | `view`, `readers` | what is durable, and reading it |
//! | `time` | the time index |
//! | `retention`, `reclaim` | giving space back |
//! | `reserve` | refusing appends before the disk is full |

mod changes;
mod committer;
#[cfg(feature = "fuzzing")]
pub mod decoders;
mod directory;
mod doctor;
mod keys;
mod mend;
mod opening;
mod queue;
mod readers;
mod reclaim;
mod records;
mod recovery;
mod reserve;
mod retention;
mod store;
mod time;
mod view;
mod witness;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use baton_core::{BrokerId, Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use directory::{DataDirectory, Left, OpenError};
pub use doctor::Repair;
pub use reserve::FreeSpace;

use super::operation::{Change, Operation, Waiting};
use super::{
    Append, DurableEnd, Identity, LocalPartition, Log, LogError, PartitionMeta, Piece, ReadBatches, Recovered,
    StoredBatch, Usage,
};
use committer::Committer;
use queue::{Queue, Rejected};
use readers::{Reader, Request};
use recovery::Recovery;
use retention::Floors;
use store::{Store, StoreError};
use view::View;
use witness::{Testimony, Witness};

/// Makes a file durable.
pub type SyncFile = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;
/// Ends the process, because the storage failed for the reason given.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Beyond the limit for appends, for small changes that have to go on.
const QUEUED_BYTES_SPARE: u64 = 64 << 20;

/// How a [`FjallLog`] uses the machine. The defaults are those that measurements chose.
#[derive(Clone)]
pub struct FjallOptions {
    /// Memtables are flushed to tables when they reach this.
    pub rotate_bytes: u64,
    /// Writers wait while memtables hold more than this.
    pub write_buffer_bytes_max: u64,
    /// The store's cache of blocks and blobs. Readers that keep up never get here.
    pub cache_bytes: u64,
    pub reader_threads: usize,
    /// Reads that may wait.
    pub reads_queued_max: u64,
    /// Bytes that may wait for a commit before appends are refused.
    pub queued_bytes_max: u64,
    /// Bytes of one group commit.
    pub group_bytes_max: u64,
    /// Below this much free space appends are refused.
    pub reserve_bytes: u64,
    pub free_space: FreeSpace,
    /// The time index has an entry each so many bytes.
    pub time_index_bytes: u64,
    /// Memtables are flushed after this time even if they are small.
    pub idle_rotation: Duration,
    /// How often an idle store is rewritten after something was deleted or expired.
    pub reclaim_interval: Duration,
    /// Reads every batch on opening, as a tainted directory always is.
    pub check_all: bool,
    /// How the journal is made durable; tests let it fail.
    pub sync: SyncFile,
    /// Called when the storage failed. It should not return.
    pub on_fatal: OnFatal,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self {
            rotate_bytes: 64 << 20,
            write_buffer_bytes_max: 384 << 20,
            cache_bytes: 64 << 20,
            reader_threads: 2,
            reads_queued_max: 4096,
            queued_bytes_max: 256 << 20,
            group_bytes_max: 16 << 20,
            reserve_bytes: 1 << 30,
            free_space: Arc::new(|path| fs4::available_space(path)),
            time_index_bytes: 1 << 20,
            idle_rotation: Duration::from_secs(300),
            reclaim_interval: Duration::from_secs(600),
            check_all: false,
            sync: Arc::new(File::sync_data),
            on_fatal: Arc::new(|_| std::process::abort()),
        }
    }
}

/// How opening went, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub left: Left,
    /// What was cut off the journals: torn by a crash, or damaged.
    pub repairs: Vec<Repair>,
    /// Where the old store went, if it could not be opened: everything is refilled then.
    pub set_aside: Option<PathBuf>,
    pub took: Duration,
}

/// The log in a [`DataDirectory`].
pub struct FjallLog {
    identity: Identity,
    recovered: BTreeMap<LocalPartition, Recovered>,
    opening: Opening,
    options: FjallOptions,
    changes: Arc<Queue<Operation>>,
    requests: Arc<Queue<Request>>,
    view: Arc<View>,
    threads: Vec<JoinHandle<()>>,
    /// The lock goes last.
    _directory: Arc<DataDirectory>,
}

impl FjallLog {
    /// Opens the log of `broker` in `cluster`, and formats the directory if it is new.
    ///
    /// Takes as long as the journal is long: about a second for a gigabyte of it, and some
    /// hundredths of one for a thousand partitions. Blocks the caller.
    ///
    /// # Errors
    /// The directory belongs to another cluster or broker, or cannot be used.
    pub fn open(
        directory: Arc<DataDirectory>,
        cluster: Uuid,
        broker: BrokerId,
        options: FjallOptions,
    ) -> Result<Self, OpenError> {
        let began = Instant::now();
        let path = directory.path().to_owned();
        let identity = directory.claim(cluster, broker)?;
        let io = |what| {
            let path = path.clone();
            move |cause| OpenError::Io { path, what, cause }
        };
        let left = directory.left().clone();
        if !matches!(left, Left::New | Left::Closed | Left::Unclean { same_boot: false }) {
            doctor::write_anew(&path.join("store"), &options.sync).map_err(|cause| match cause.kind() {
                ErrorKind::StorageFull => OpenError::NoRoom { path: path.clone(), cause },
                _ => io("writing the journals anew")(cause),
            })?;
        }
        // Should the store stop while it is opened, the next process has to know.
        let poisoned = |error: StoreError| {
            if error.is_poison()
                && let Err(cause) = DataDirectory::taint(&path, &error.to_string())
            {
                tracing::error!("the directory could not be marked as tainted: {cause}");
            }
            error
        };
        let testimony = Testimony::read(&path.join("witness"), left != Left::New).map_err(io("reading the witness"))?;
        let failed = |error: StoreError| error.while_opening(&path);
        let thorough = options.check_all || matches!(left, Left::Tainted(_));
        let open = || opening::open(&path, &options, &testimony, thorough);
        let replaceable = left != Left::New && !testimony.unreadable;
        let (found, set_aside) = match open().and_then(|found| found.refuse_rot(&path, &left)) {
            // The witness knows what was there, so nobody takes this copy for what it was.
            Err(error) if replaceable && opening::is_beyond_repair(&error, &path, &left) => {
                let aside = opening::set_aside(&path, &error).map_err(io("setting the damaged store aside"))?;
                (open().map_err(failed)?, Some(aside))
            }
            found => (found.map_err(poisoned).map_err(failed)?, None),
        };
        let opening::Found { mut store, recovery, floors, repairs } = found;
        let identity = match left {
            Left::New => identity,
            _ if testimony.unreadable && recovery.blank => directory.begin_anew(identity)?,
            _ => identity,
        };
        settle(&mut store, &recovery, &floors).map_err(poisoned).map_err(failed)?;
        let sync = Arc::clone(&options.sync);
        let witness =
            Witness::create(&path.join("witness"), recovery.seen.clone(), sync).map_err(io("writing the witness"))?;
        directory.clear_taint().map_err(io("removing the mark of the taint"))?;
        let opening = Opening { left, repairs, set_aside, took: began.elapsed() };
        let parts = Parts { directory, identity, opening, options, store, recovery, floors, witness };
        parts.start().map_err(io("starting the threads"))
    }

    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    fn submit(&self, change: Change) -> Waiting {
        let (operation, waiting) = Operation::new(change);
        let bytes = operation.change.bytes();
        let limit = match &operation.change {
            Change::Append(_) => self.options.queued_bytes_max,
            Change::Close => u64::MAX,
            _ => self.options.queued_bytes_max + QUEUED_BYTES_SPARE,
        };
        match self.changes.push(operation, bytes, limit) {
            Ok(()) => {}
            Err(Rejected::Full(operation, queued)) => {
                operation.answer(Err(LogError::Overloaded { queued, limit }));
            }
            Err(Rejected::Closed(operation)) => operation.answer(Err(self.stopped())),
        }
        waiting
    }

    fn stopped(&self) -> LogError {
        self.view.check_open().err().unwrap_or(LogError::Closed)
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Request,
    ) -> BoxFuture<'static, Result<T, LogError>> {
        let (reply, answer) = oneshot::channel();
        let limit = self.options.reads_queued_max;
        match self.requests.push(request(reply), 1, limit) {
            Ok(()) => {}
            Err(Rejected::Full(request, queued)) => {
                request.refuse(LogError::Overloaded { queued, limit });
            }
            Err(Rejected::Closed(request)) => request.refuse(self.stopped()),
        }
        async move { answer.await.unwrap_or(Err(LogError::Closed)) }.boxed()
    }
}

/// Writes down what opening found: damage, and partitions that the store had lost. Then the
/// compaction may destroy what nothing refers to.
fn settle(store: &mut Store, recovery: &Recovery, floors: &Floors) -> Result<(), StoreError> {
    let mut writes = store.writes();
    for (partition, descriptor) in &recovery.lost {
        writes.put(&keys::record(keys::DESCRIPTOR, *partition), descriptor.encode());
    }
    for (partition, recovered) in &recovery.recovered {
        if let Some(damage) = &recovered.damage {
            let key = keys::record(keys::DAMAGE, *partition);
            writes.put(&key, records::encode_damage(damage));
            tracing::error!("{} is damaged: {damage:?}", recovered.id);
        }
        if let Some(prefix) = recovery.prefixes.get(partition) {
            floors.begin(*prefix, recovered.start);
        }
    }
    writes.put(keys::NEXT_NUMBER, records::encode_number(recovery.book.next));
    store.write(writes)?;
    store.sync()?;
    floors.known_below(recovery.book.next);
    Ok(())
}

/// Everything that was opened, before it runs.
struct Parts {
    directory: Arc<DataDirectory>,
    identity: Identity,
    opening: Opening,
    options: FjallOptions,
    store: Store,
    recovery: Recovery,
    floors: Arc<Floors>,
    witness: Witness,
}

impl Parts {
    fn start(self) -> io::Result<FjallLog> {
        let Self { directory, identity, opening, options, store, recovery, floors, witness } = self;
        let view = Arc::new(View::default());
        let visible = recovery.recovered.iter().filter_map(|(partition, found)| {
            Some((*partition, *recovery.prefixes.get(partition)?, found.start, found.end))
        });
        view.publish(visible);
        let mut log = FjallLog {
            identity,
            recovered: recovery.recovered,
            opening,
            options: options.clone(),
            changes: Arc::new(Queue::new()),
            requests: Arc::new(Queue::new()),
            view: Arc::clone(&view),
            threads: Vec::new(),
            _directory: Arc::clone(&directory),
        };
        for n in 0..options.reader_threads.max(1) {
            let (reading, queue) = (store.reading(), Arc::clone(&log.requests));
            let changes = Arc::clone(&log.changes);
            let reader = Reader { reading, view: Arc::clone(&view), queue, changes };
            let thread = std::thread::Builder::new().name(format!("log-reader-{n}"));
            log.threads.push(thread.spawn(move || reader.run())?);
        }
        let mut reserve = reserve::Reserve::new(Arc::clone(&options.free_space), options.reserve_bytes);
        reserve.sample(directory.path());
        let bytes = store.bytes().map_err(io::Error::other)?;
        log.view.set_space(bytes, reserve.free(), options.reserve_bytes);
        let committer = Committer {
            queue: Arc::clone(&log.changes),
            store,
            book: recovery.book,
            prefixes: recovery.prefixes,
            floors,
            witness,
            view,
            times: time::TimeIndex::new(options.time_index_bytes),
            reserve,
            reclaim: reclaim::Reclaim::new(options.reclaim_interval, log.opening.left != Left::Closed),
            directory,
            options,
            group: changes::Group::default(),
            ticket: witness::Ticket::default(),
            measured: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("log-committer".to_owned());
        log.threads.push(thread.spawn(move || committer.run())?);
        Ok(log)
    }
}

impl Drop for FjallLog {
    /// What was called is still made durable, but the directory counts as not closed.
    fn drop(&mut self) {
        self.changes.close();
        self.requests.close();
        for thread in self.threads.drain(..) {
            // A panic of a thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Log for FjallLog {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn recovered(&self) -> BTreeMap<LocalPartition, Recovered> {
        self.recovered.clone()
    }

    fn create(
        &self,
        id: TopicPartition,
        generation: Generation,
        start: Offset,
    ) -> BoxFuture<'static, Result<LocalPartition, LogError>> {
        self.submit(Change::Create { id, generation, start }).created()
    }

    fn delete(&self, partition: LocalPartition) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Delete(partition)).changed()
    }

    fn append(&self, appends: Vec<Append>) -> BoxFuture<'static, Result<Vec<DurableEnd>, LogError>> {
        self.submit(Change::Append(appends)).ends()
    }

    fn truncate(
        &self,
        partition: LocalPartition,
        to: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Truncate { partition, to, meta }).changed()
    }

    fn set_start(
        &self,
        partition: LocalPartition,
        start: Offset,
        meta: Option<PartitionMeta>,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::SetStart { partition, start, meta }).changed()
    }

    fn reset(
        &self,
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
        producers: Bytes,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Reset { partition, generation, start, producers }).changed()
    }

    fn rewrite(
        &self,
        partition: LocalPartition,
        batches: Vec<StoredBatch>,
        meta: PartitionMeta,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Rewrite { partition, batches, meta }).changed()
    }

    fn save(&self, partition: LocalPartition, meta: PartitionMeta) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Save { partition, meta }).changed()
    }

    fn read(
        &self,
        partition: LocalPartition,
        from: Offset,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<ReadBatches, LogError>> {
        self.ask(|reply| Request::Batches { partition, from, max_bytes, reply })
    }

    fn find_time(
        &self,
        partition: LocalPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Offset>, LogError>> {
        self.ask(|reply| Request::Time { partition, timestamp_ms, reply })
    }

    fn expired(&self, partition: LocalPartition, before_ms: i64) -> BoxFuture<'static, Result<Offset, LogError>> {
        self.ask(|reply| Request::Expired { partition, before_ms, reply })
    }

    fn measure(
        &self,
        partition: LocalPartition,
        from: Offset,
        piece_bytes: u64,
    ) -> BoxFuture<'static, Result<Vec<Piece>, LogError>> {
        self.ask(|reply| Request::Measure { partition, from, piece_bytes, reply })
    }

    fn usage(&self) -> Usage {
        self.view.usage()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), LogError>> {
        self.submit(Change::Close).changed()
    }
}
