//! Whole data directories, damaged: opening one must not panic or hang, and what it serves then
//! is what was written. Whatever is missing, it says so.
//!
//! ```text
//! input  directory u8 (closed or not) ‖ damage of 8 bytes… (four at most)
//! damage file u8 ‖ kind u8 ‖ where u16 (of 65,536) ‖ fine u8 ‖ length u8 ‖ value u8 ‖ other file u8
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use baton_broker::log::fjall::{DataDirectory, FjallLog, FjallOptions};
use baton_broker::log::{Append, Log, LogError, PartitionMeta, StoredBatch};
use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, Stamp, stamp};
use baton_core::{BrokerId, Epoch, Generation, Offset, TopicId, TopicPartition};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(0xc1);
const BROKER: BrokerId = BrokerId(3);
const PARTITIONS: u32 = 3;
const DAMAGES_MAX: usize = 4;
const DAMAGE_BYTES: usize = 8;
/// Nothing on a directory of a megabyte takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 64 << 10;

/// What was written, by partition.
type Truth = BTreeMap<TopicPartition, Vec<StoredBatch>>;

struct Originals {
    closed: TempDir,
    unclosed: TempDir,
    truth: Truth,
    runtime: Runtime,
}

/// Why the storage failed under a log, if it did.
type Fatal = Arc<Mutex<Option<String>>>;

/// Damages a copy of a directory, opens it and reads everything.
pub fn recovery(input: &[u8]) {
    static ORIGINALS: OnceLock<Originals> = OnceLock::new();
    let originals = ORIGINALS.get_or_init(Originals::write);
    let Some((which, damages)) = input.split_first() else { return };
    let original = if which & 1 == 0 { &originals.closed } else { &originals.unclosed };
    let copy = tempfile::tempdir_in(place()).expect("a temporary directory");
    copy_all(original.path(), copy.path());
    let mut hit: Vec<PathBuf> =
        damages.chunks_exact(DAMAGE_BYTES).take(DAMAGES_MAX).flat_map(|damage| spoil(copy.path(), damage)).collect();
    hit.sort();
    hit.dedup();
    let fatal = Fatal::default();
    let opened = open(copy.path(), Arc::clone(&fatal));
    // What says that it cannot be opened serves nothing.
    let Ok(log) = opened else { return };
    originals.runtime.block_on(async {
        let checked = tokio::time::timeout(PATIENCE, check(&log, &originals.truth, &hit, copy.path()));
        checked.await.expect("reading hangs");
    });
}

/// In memory, where there is such a place: thousands of directories are written.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn options(fatal: Fatal) -> FjallOptions {
    FjallOptions {
        rotate_bytes: 32 << 10,
        write_buffer_bytes_max: 4 << 20,
        cache_bytes: 1 << 20,
        reader_threads: 1,
        reserve_bytes: 0,
        time_index_bytes: 8 << 10,
        free_space: Arc::new(|_| Ok(1 << 40)),
        // What survives a loss of power is tested elsewhere.
        sync: Arc::new(|_| Ok(())),
        on_fatal: Arc::new(move |why| *fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned())),
        ..FjallOptions::default()
    }
}

fn open(path: &Path, fatal: Fatal) -> Result<FjallLog, String> {
    let directory = DataDirectory::lock(path).map_err(|error| error.to_string())?;
    FjallLog::open(Arc::new(directory), CLUSTER, BROKER, options(fatal)).map_err(|error| error.to_string())
}

fn id(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(0x70), partition }
}

/// Five records from `base` on.
fn batch(base: u64, epoch: u32, value: &[u8]) -> StoredBatch {
    let mut builder = BatchBuilder::new(1 << 20);
    for n in 0..5_u8 {
        let value = [&[n], value].concat();
        let _ = builder.push(1_000 + base.cast_signed(), None, Some(&value), &[]).expect("it fits");
    }
    let bytes = builder.build(&BuildOptions::default()).expect("it has records");
    let place = Stamp { base_offset: Offset(base), leader_epoch: Epoch(epoch), append_time_ms: None };
    let (header, bytes) = stamp(bytes, place).expect("it is a whole batch");
    stored(&header, bytes)
}

fn stored(header: &BatchHeader, bytes: bytes::Bytes) -> StoredBatch {
    StoredBatch {
        base: header.base_offset,
        last: header.last_offset(),
        epoch: header.leader_epoch.unwrap_or(Epoch::NONE),
        max_timestamp_ms: header.max_timestamp_ms,
        bytes,
    }
}

impl Originals {
    fn write() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let directory = || tempfile::tempdir_in(place()).expect("a temporary directory");
        let (closed, unclosed) = (directory(), directory());
        let mut truth = Truth::new();
        for (path, close) in [(closed.path(), true), (unclosed.path(), false)] {
            let log = open(path, Fatal::default()).expect("a new directory opens");
            truth = runtime.block_on(fill(&log));
            if close {
                runtime.block_on(log.close()).expect("it closes");
            }
        }
        Self { closed, unclosed, truth, runtime }
    }
}

/// Small batches and large ones, in several tables, blob files and a journal.
async fn fill(log: &FjallLog) -> Truth {
    let mut truth = Truth::new();
    for partition in 0..PARTITIONS {
        let local = log.create(id(partition), Generation(0), Offset(0)).await.expect("it is new");
        let mut batches = Vec::new();
        for n in 0..20_u64 {
            let epoch = 1 + u32::try_from(n / 7).expect("it is small");
            let bytes = if n % 3 == 0 { 1_500 } else { 40 };
            let noise = (0..bytes)
                .map(|at: u64| (at * 31 + n * 7 + u64::from(partition)).to_le_bytes()[0] ^ (at >> 3).to_le_bytes()[0]);
            let batch = batch(n * 5, epoch, &noise.collect::<Vec<u8>>());
            log.append(vec![Append { partition: local, batches: vec![batch.clone()] }]).await.expect("it is appended");
            batches.push(batch);
        }
        let meta = PartitionMeta {
            highest_epoch: Epoch(3),
            lineage: vec![(Epoch(1), Offset(0)), (Epoch(2), Offset(35)), (Epoch(3), Offset(70))],
            high_watermark: Offset(90),
            ..PartitionMeta::default()
        };
        log.save(local, meta).await.expect("it is saved");
        truth.insert(id(partition), batches);
    }
    truth
}

/// Reads every partition and holds it against what was written.
#[expect(clippy::panic, reason = "a target panics when something is wrong")]
async fn check(log: &FjallLog, truth: &Truth, hit: &[PathBuf], path: &Path) {
    let recovered = log.recovered();
    let whole = log.opening().set_aside.is_none();
    // One file alone is damaged; with two, nothing need be left that knows of the damage.
    let evidence = hit.len() <= 1 && !hit.iter().any(|file| file == &path.join("identity"));
    for (id, batches) in truth {
        let end = batches.last().map_or(0, |batch| batch.last.0 + 1);
        let Some((local, found)) = recovered.iter().find(|(_, found)| found.id == *id) else {
            assert!(!evidence, "{id} is gone, and nobody says so: {hit:?}");
            continue;
        };
        if evidence && found.damage.is_none() {
            assert!(whole && found.end.0 >= end, "{id} ends at {}, and nobody says so: {hit:?}", found.end);
        }
        let by_base: BTreeMap<u64, &StoredBatch> = batches.iter().map(|batch| (batch.base.0, batch)).collect();
        let mut from = found.start;
        while from < found.end {
            match log.read(*local, from, READ_BYTES).await {
                Ok(read) if read.batches.is_empty() => break,
                Ok(read) => {
                    for batch in read.batches {
                        assert_eq!(Some(&&batch), by_base.get(&batch.base.0), "{id} serves what nobody wrote: {hit:?}");
                        from = Offset(batch.last.0 + 1);
                    }
                }
                Err(LogError::Damaged(_) | LogError::Failed(_) | LogError::Closed) => break,
                Err(error) => panic!("{id} at {from}: {error}: {hit:?}"),
            }
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("it is a directory") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("it can be made");
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Damages one file, or two; says which.
fn spoil(path: &Path, damage: &[u8]) -> Vec<PathBuf> {
    let &[file, kind, high, low, fine, length, value, other] = damage else { return Vec::new() };
    let mut all = Vec::new();
    files(path, &mut all);
    all.sort();
    let (file, other) = (&all[usize::from(file) % all.len()], &all[usize::from(other) % all.len()]);
    let mut content = fs::read(file).unwrap_or_default();
    let part = usize::from(u16::from_be_bytes([high, low]));
    let at = (content.len() * part / (1 << 16) + usize::from(fine)).min(content.len().saturating_sub(1));
    let to = (at + usize::from(length) + 1).min(content.len());
    match kind % 8 {
        0 => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
        1 => content[at.min(to)..to].fill(value),
        // A sector, or a page, that the disk lost.
        2 => content[at.min(to) & !511..to].fill(0),
        3 => content.iter_mut().skip(at & !4095).take(4096).for_each(|byte| *byte = 0),
        4 => content.truncate(at),
        5 => content.extend(std::iter::repeat_n(value, usize::from(length))),
        6 => {
            // Written to another place than it was meant for.
            let piece: Vec<u8> = content[at.min(to)..to].to_vec();
            let elsewhere = at / 2;
            content[elsewhere..elsewhere + piece.len()].copy_from_slice(&piece);
        }
        _ => return take_away(file, other, value),
    }
    if fs::write(file, content).is_err() {
        return Vec::new();
    }
    vec![file.clone()]
}

/// A file is gone, or has changed places with another one.
fn take_away(file: &Path, other: &Path, value: u8) -> Vec<PathBuf> {
    if value & 1 == 0 || file == other {
        let _ = fs::remove_file(file);
        return vec![file.to_owned()];
    }
    let (one, two) = (fs::read(file).unwrap_or_default(), fs::read(other).unwrap_or_default());
    let _ = (fs::write(file, two), fs::write(other, one));
    vec![file.to_owned(), other.to_owned()]
}
