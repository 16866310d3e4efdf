//! What must outlive the process: persistent nodes, and how far numbers were handed out.
//!
//! ```text
//! registry-<generation, 16 hex digits>.log
//!   0  "BATONREG"         8 bytes
//!   8  format version     u16, big-endian like every number here
//!  10  frames, one per transaction:
//!        0  0xB7F3        u16
//!        2  length        u32, of the payload
//!        6  CRC-32C       u32, of the payload
//!       10  payload: records
//!             1  put      path, data (each u32 length + bytes), version i32, czxid i64, mzxid i64
//!             2  delete   path
//!             3  bounds   zxid i64, sequence i32, session i64
//! ```
//!
//! A transaction is one write and one fsync before its answer. When the file has grown to
//! several times what lives in it, the living nodes are written to the file of the next
//! generation, which replaces this one by a rename. A file whose last frame is incomplete loses
//! it (nobody was told); a bad frame with good ones behind it is damage, and refused.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::tree::{Node, Tree};
use crate::limits::REQUEST_BYTES_MAX;

const FILE_MAGIC: &[u8; 8] = b"BATONREG";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 10;
const FRAME_MAGIC: u16 = 0xB7F3;
const FRAME_HEADER_BYTES: usize = 10;
/// A transaction holds at most one request, plus paths.
const FRAME_BYTES_MAX: usize = 4 * REQUEST_BYTES_MAX;
/// Below this size a file is not worth rewriting.
const COMPACT_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// The embedded registry's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("{0} is not a registry journal of Baton")]
    NotOurs(PathBuf),
    #[error("{path} has format {found}; this program understands up to {FORMAT}")]
    Newer { path: PathBuf, found: u16 },
    #[error("{path} is damaged at byte {offset}: good transactions follow a bad one")]
    Damaged { path: PathBuf, offset: usize },
}

/// No number above these was handed out by an earlier process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub zxid: i64,
    pub sequence: i32,
    pub session: i64,
}

/// A lock on a file, given back when it is dropped: not with the last descriptor, for a child
/// that another thread is just starting holds a copy of it until its program runs.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where it fails, closing the file does it.
        let _ = self.0.unlock();
    }
}

#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Held for the life of the process.
    _lock: Lock,
    file: File,
    generation: u64,
    bytes: u64,
    bytes_when_compacted: u64,
    bounds: Bounds,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub struct Restored {
    pub nodes: BTreeMap<String, Node>,
    pub bounds: Bounds,
}

impl Journal {
    pub fn open(dir: &Path) -> Result<(Self, Restored), JournalError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let lock = lock(dir)?;
        let generation = newest_generation(dir).map_err(at(dir))?;
        let mut restored = Restored::default();
        let mut good = 0;
        if let Some(generation) = generation {
            let path = file_path(dir, generation);
            let bytes = std::fs::read(&path).map_err(at(&path))?;
            good = read_file(&path, &bytes, &mut restored)?;
            if good < bytes.len() {
                tracing::warn!(?path, good, size = bytes.len(), "dropping an unfinished transaction");
                let file = OpenOptions::new().write(true).open(&path).map_err(at(&path))?;
                file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(at(&path))?;
            }
        }
        let generation = generation.unwrap_or(0);
        let path = file_path(dir, generation);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let mut journal = Self {
            dir: dir.to_owned(),
            _lock: lock,
            file,
            generation,
            bytes: good as u64,
            bytes_when_compacted: good as u64,
            bounds: restored.bounds,
        };
        if good == 0 {
            journal.start_file().map_err(at(&path))?;
        }
        Ok((journal, restored))
    }

    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn start_file(&mut self) -> io::Result<()> {
        self.file.write_all(&file_header())?;
        self.file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        self.bytes = HEADER_BYTES as u64;
        Ok(())
    }

    /// Makes the state of these paths durable, as one transaction, and raises the bounds.
    pub fn append(&mut self, tree: &Tree, paths: &[String], bounds: Bounds) -> io::Result<()> {
        let mut payload = Vec::new();
        if bounds != self.bounds {
            put_bounds(&mut payload, bounds);
        }
        for path in paths {
            match tree.get(path) {
                Some(node) => put_node(&mut payload, path, node),
                None => put_deletion(&mut payload, path),
            }
        }
        if payload.is_empty() {
            return Ok(());
        }
        let frame = frame(&payload);
        self.file.write_all(&frame)?;
        self.file.sync_data()?;
        self.bytes += frame.len() as u64;
        self.bounds = bounds;
        Ok(())
    }

    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.bytes > COMPACT_BYTES_MIN.max(self.bytes_when_compacted.saturating_mul(4))
    }

    /// Writes what lives into the next generation's file and goes on there.
    pub fn compact(&mut self, tree: &Tree) -> io::Result<()> {
        let mut contents = file_header();
        let mut payload = Vec::new();
        put_bounds(&mut payload, self.bounds);
        for (path, node) in tree.persistent() {
            put_node(&mut payload, path, node);
            if payload.len() > REQUEST_BYTES_MAX {
                contents.extend(frame(&payload));
                payload.clear();
            }
        }
        contents.extend(frame(&payload));
        let unfinished = self.dir.join("registry.tmp");
        let path = file_path(&self.dir, self.generation + 1);
        let mut file = File::create(&unfinished)?;
        file.write_all(&contents)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(&self.dir)?.sync_all()?;
        std::fs::remove_file(file_path(&self.dir, self.generation))?;
        self.file = OpenOptions::new().append(true).open(&path)?;
        self.generation += 1;
        self.bytes = contents.len() as u64;
        self.bytes_when_compacted = self.bytes;
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<Lock, JournalError> {
    let path = dir.join("lock");
    let io = |source| JournalError::Io { path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn file_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("registry-{generation:016x}.log"))
}

/// The newest complete file. An older one beside it was about to be removed.
fn newest_generation(dir: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let generation = name
            .to_str()
            .and_then(|name| name.strip_prefix("registry-")?.strip_suffix(".log"))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        newest = newest.max(generation);
    }
    Ok(newest)
}

fn file_header() -> Vec<u8> {
    let mut header = FILE_MAGIC.to_vec();
    header.extend(FORMAT.to_be_bytes());
    header
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    frame.extend(FRAME_MAGIC.to_be_bytes());
    put_length(&mut frame, payload.len());
    frame.extend(crc32c::crc32c(payload).to_be_bytes());
    frame.extend(payload);
    frame
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Requests are limited far below 4 GiB; a longer one would fail its CRC when read back.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend(bytes);
}

fn put_node(out: &mut Vec<u8>, path: &str, node: &Node) {
    out.push(1);
    put_bytes(out, path.as_bytes());
    put_bytes(out, &node.data);
    out.extend(node.version.to_be_bytes());
    out.extend(node.czxid.to_be_bytes());
    out.extend(node.mzxid.to_be_bytes());
}

fn put_deletion(out: &mut Vec<u8>, path: &str) {
    out.push(2);
    put_bytes(out, path.as_bytes());
}

fn put_bounds(out: &mut Vec<u8>, bounds: Bounds) {
    out.push(3);
    out.extend(bounds.zxid.to_be_bytes());
    out.extend(bounds.sequence.to_be_bytes());
    out.extend(bounds.session.to_be_bytes());
}

/// Applies every whole transaction; returns how many bytes of the file are good.
fn read_file(path: &Path, bytes: &[u8], restored: &mut Restored) -> Result<usize, JournalError> {
    let Some((header, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        // The process died while it made the file: nothing was ever answered from it.
        let ours = file_header().starts_with(bytes);
        return if ours { Ok(0) } else { Err(JournalError::NotOurs(path.to_owned())) };
    };
    let Some(version) = header.strip_prefix(FILE_MAGIC.as_slice()) else {
        return Err(JournalError::NotOurs(path.to_owned()));
    };
    let found = version.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
    if found > FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), found });
    }
    let mut offset = HEADER_BYTES;
    while let Some(payload) = frame_at(bytes, offset) {
        let damaged = || JournalError::Damaged { path: path.to_owned(), offset };
        apply(payload, restored).ok_or_else(damaged)?;
        offset += FRAME_HEADER_BYTES + payload.len();
    }
    if (offset + 1..bytes.len()).any(|later| frame_at(bytes, later).is_some()) {
        return Err(JournalError::Damaged { path: path.to_owned(), offset });
    }
    Ok(offset)
}

fn frame_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let mut input = Input(bytes.get(offset..)?);
    if u16::from_be_bytes(input.array()?) != FRAME_MAGIC {
        return None;
    }
    let length = usize::try_from(u32::from_be_bytes(input.array()?)).ok()?;
    let crc = u32::from_be_bytes(input.array()?);
    let payload = (length <= FRAME_BYTES_MAX).then(|| input.take(length)).flatten()?;
    (crc32c::crc32c(payload) == crc).then_some(payload)
}

fn apply(payload: &[u8], restored: &mut Restored) -> Option<()> {
    let mut input = Input(payload);
    while !input.0.is_empty() {
        match input.array::<1>()? {
            [1] => {
                let path = input.text()?;
                let data = Bytes::copy_from_slice(input.bytes()?);
                let version = i32::from_be_bytes(input.array()?);
                let czxid = i64::from_be_bytes(input.array()?);
                let mzxid = i64::from_be_bytes(input.array()?);
                let node = Node { data, version, czxid, mzxid, ..Node::default() };
                restored.nodes.insert(path, node);
            }
            [2] => drop(restored.nodes.remove(&input.text()?)),
            [3] => {
                restored.bounds = Bounds {
                    zxid: i64::from_be_bytes(input.array()?),
                    sequence: i32::from_be_bytes(input.array()?),
                    session: i64::from_be_bytes(input.array()?),
                };
            }
            _ => return None,
        }
    }
    Some(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}
