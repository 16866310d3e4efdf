//! Makes blob files whole again that the store could not carry on with.
//!
//! A compaction that rewrites a blob file reads all of it, and fails at the first entry with a
//! wrong checksum, even if nothing refers to that entry any more. The store is poisoned, the
//! process ends, and the next one meets the same file. So after such an end, every blob file
//! is read before the store is opened, and a damaged entry gets a checksum that fits what is
//! there now. The damage stays visible: a batch has a checksum of its own, and where that one
//! happens to fit (it does not cover the leader epoch), it is spoiled.
//!
//! Only damage inside a batch can be treated like this. Where keys or lengths are damaged the
//! store cannot be used any more, and that is what the caller is told.
//!
//! ```text
//! file   entry… "META" … "SFA!" ‖ 34 bytes
//! entry  "BLOB" ‖ XXH3-128 of key and value u128 ‖ sequence number u64 ‖ key length u16
//!        ‖ length u32 ‖ stored length u32 ‖ key ‖ value
//! ```
//! All numbers are little-endian. A file without its end was being written by a process that
//! died; the store removes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::keys;
use super::store::StoreError;
use crate::log::frame;

const ENTRY: [u8; 4] = *b"BLOB";
const END: [u8; 4] = *b"META";
const TRAILER: [u8; 4] = *b"SFA!";
const TRAILER_BYTES: u64 = 38;
const HEAD_BYTES: usize = 34;
const CHECKSUM_AT: u64 = 4;
const CHUNK: usize = 64 << 10;
/// In a batch: a byte of the checksum that covers it.
const BATCH_CRC_AT: usize = 17;

/// Reads every blob file of the store; says how many entries were damaged.
///
/// # Errors
/// An entry is damaged where the store itself relies on it; reading or writing fails.
pub(super) fn mend(store: &Path) -> Result<u64, StoreError> {
    let mut mended = 0;
    for path in blob_files(store).map_err(failed)? {
        if !is_finished(&path).map_err(failed)? {
            continue;
        }
        match mend_file(&path).map_err(failed)? {
            Ok(entries) => mended += entries,
            Err(at) => return Err(StoreError::Record(format!("{} is damaged at byte {at}", path.display()))),
        }
    }
    Ok(mended)
}

fn failed(cause: io::Error) -> StoreError {
    StoreError::Io { what: "reading the blob files", cause }
}

fn blob_files(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for keyspace in entries(&store.join("keyspaces"))? {
        let blobs = entries(&keyspace.join("blobs"))?;
        found.extend(blobs.into_iter().filter(|path| path.is_file()));
    }
    found.sort();
    Ok(found)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn is_finished(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let Some(at) = file.metadata()?.len().checked_sub(TRAILER_BYTES) else { return Ok(false) };
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, at)?;
    Ok(magic == TRAILER)
}

/// The number of damaged entries, or where the file cannot be read on.
fn mend_file(path: &Path) -> io::Result<Result<u64, u64>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut scan = Scan { reader: BufReader::with_capacity(CHUNK, file), at: 0, length, key: Vec::new() };
    let mut wrong = Vec::new();
    loop {
        let at = scan.at;
        let before = std::mem::take(&mut scan.key);
        match scan.entry() {
            Ok(Some(Entry::End)) => break,
            Ok(Some(Entry::Whole)) => {}
            Ok(Some(Entry::Damaged { value_at, value_bytes })) => {
                wrong.push(Wrong { at, before, key: scan.key.clone(), value_at, value_bytes });
            }
            Ok(None) => return Ok(Err(at)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Err(at)),
            Err(e) => return Err(e),
        }
    }
    if wrong.is_empty() {
        return Ok(Ok(0));
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    for entry in &wrong {
        if !entry.mend(&file)? {
            return Ok(Err(entry.at));
        }
        tracing::error!("{}: the batch at byte {} is damaged", path.display(), entry.at);
    }
    file.sync_all()?;
    Ok(Ok(wrong.len() as u64))
}

enum Entry {
    End,
    Whole,
    Damaged { value_at: u64, value_bytes: usize },
}

struct Scan {
    reader: BufReader<File>,
    at: u64,
    length: u64,
    /// Of the entry that was read last.
    key: Vec<u8>,
}

impl Scan {
    /// None where no entry can be.
    fn entry(&mut self) -> io::Result<Option<Entry>> {
        let mut magic = [0; 4];
        self.take(&mut magic)?;
        if magic == END {
            return Ok(Some(Entry::End));
        }
        let mut head = [0; HEAD_BYTES];
        self.take(&mut head)?;
        let (checksum, rest) = head.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let key_bytes = usize::from(u16::from_le_bytes([rest[8], rest[9]]));
        let value_bytes = u32::from_le_bytes([rest[14], rest[15], rest[16], rest[17]]);
        let end = self.at + key_bytes as u64 + u64::from(value_bytes);
        if magic != ENTRY || key_bytes == 0 || end > self.length {
            return Ok(None);
        }
        self.key = vec![0; key_bytes];
        let mut key = std::mem::take(&mut self.key);
        self.take(&mut key)?;
        self.key = key;
        let value_at = self.at;
        let mut hash = Xxh3::default();
        hash.update(&self.key);
        self.hash_bytes(&mut hash, u64::from(value_bytes))?;
        let whole = hash.digest128() == u128::from_le_bytes(*checksum);
        let value_bytes = value_bytes as usize;
        Ok(Some(if whole { Entry::Whole } else { Entry::Damaged { value_at, value_bytes } }))
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn hash_bytes(&mut self, hash: &mut Xxh3, mut count: u64) -> io::Result<()> {
        let mut buffer = [0; 8 << 10];
        while count > 0 {
            let piece = count.min(buffer.len() as u64) as usize;
            self.take(&mut buffer[..piece])?;
            hash.update(&buffer[..piece]);
            count -= piece as u64;
        }
        Ok(())
    }
}

/// An entry whose checksum is wrong.
struct Wrong {
    at: u64,
    /// The key of the entry before.
    before: Vec<u8>,
    key: Vec<u8>,
    value_at: u64,
    value_bytes: usize,
}

impl Wrong {
    /// False if it is not a batch that is damaged inside.
    fn mend(&self, file: &File) -> io::Result<bool> {
        let mut value = vec![0; self.value_bytes];
        file.read_exact_at(&mut value, self.value_at)?;
        let Some((prefix, last)) = keys::parse_batch(&self.key) else { return Ok(false) };
        let Ok(batch) = frame::parse(Bytes::copy_from_slice(&value)) else { return Ok(false) };
        if batch.last != last || self.key < self.before {
            return Ok(false);
        }
        if frame::verify(Bytes::copy_from_slice(&value)).is_ok() {
            // What is damaged is not covered by the batch's checksum: the epoch, or the key.
            let neighbour = keys::parse_batch(&self.before).is_none_or(|(before, _)| before == prefix);
            if !neighbour {
                return Ok(false);
            }
            value[BATCH_CRC_AT] ^= 1;
            file.write_all_at(&value[BATCH_CRC_AT..=BATCH_CRC_AT], self.value_at + BATCH_CRC_AT as u64)?;
        }
        let mut hash = Xxh3::default();
        hash.update(&self.key);
        hash.update(&value);
        file.write_all_at(&hash.digest128().to_le_bytes(), self.at + CHECKSUM_AT)?;
        Ok(true)
    }
}
