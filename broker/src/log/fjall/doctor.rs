//! Makes journals readable again after a crash or damage.
//!
//! The store refuses to open a journal whose last batch is torn in certain ways, although
//! nothing acknowledged is in that batch; and it trusts the lengths in it. So before the store
//! is opened, every journal is cut after its last whole batch.
//!
//! Only the newest journal can be torn by a crash: the store syncs a journal before it begins
//! the next. Damage inside the synced part of the newest one takes everything behind it along,
//! which the witness notices. Damage in an older one leaves holes, for later journals are read
//! all the same; so then every batch is checked.
//!
//! ```text
//! batch  = start item… end
//! start  = 1 ‖ items u32 ‖ sequence number u64
//! item   = 2 ‖ kind u8 ‖ compression u8 ‖ keyspace u64 ‖ key length u16 ‖ value length u32
//!            ‖ stored length u32 ‖ key ‖ value           or   4 ‖ keyspace u64
//! end    = 3 ‖ XXH3 of the items u64 ‖ "FJL" 3
//! ```
//! All numbers are little-endian.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::SyncFile;
use super::directory::{DataDirectory, sync_directory};

const MAGIC: [u8; 4] = *b"FJL\x03";
/// The store reserves this much in a new journal; the rest of it is zeros.
const CHUNK: usize = 64 << 10;

/// What was cut off a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub journal: PathBuf,
    /// No crash explains a cut in a journal that is not the newest.
    pub newest: bool,
    /// Bytes of whole batches, which stay.
    pub kept: u64,
    /// Bytes behind them that were not zero-filled reserve.
    pub cut: u64,
    pub why: &'static str,
}

/// The newest journal of a store; None if there is none yet.
pub(super) fn newest_journal(store: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    Ok(journals(store)?.pop_last())
}

fn journals(store: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut journals = BTreeMap::new();
    let entries = match fs::read_dir(store) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(journals),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        if let Some(number) = name.and_then(|n| n.strip_suffix(".jnl")?.parse().ok()) {
            journals.insert(number, path);
        }
    }
    Ok(journals)
}

/// Cuts every journal after its last whole batch; says where something was cut off.
///
/// Once an older journal is cut nothing shows any more that there are holes. So the directory
/// is tainted before: should this process die, the next one checks every batch as well.
pub(super) fn repair(store: &Path) -> io::Result<Vec<Repair>> {
    let journals = journals(store)?;
    let newest = journals.keys().next_back().copied();
    let mut found = Vec::new();
    for (number, journal) in journals {
        let (kept, why) = last_whole_batch(&journal)?;
        let cut = used_behind(&journal, kept)?;
        found.push(Repair { journal, newest: Some(number) == newest, kept, cut, why });
    }
    if let Some(hole) = found.iter().find(|repair| !repair.newest && repair.cut > 0)
        && let Some(directory) = store.parent()
    {
        DataDirectory::taint(directory, &format!("{} was damaged: {}", hole.journal.display(), hole.why))?;
    }
    for Repair { journal, kept, .. } in &found {
        let file = OpenOptions::new().write(true).open(journal)?;
        if file.metadata()?.len() != *kept {
            file.set_len(*kept)?;
            file.sync_all()?;
        }
    }
    found.retain(|repair| repair.cut > 0);
    Ok(found)
}

/// Writes the newest journals anew, and syncs them.
///
/// After a failed fsync the kernel counts pages as clean that never reached the disk. A process
/// that starts then reads them, finds all in order, and a later sync of the same file succeeds
/// without writing them; a loss of power takes them away, and everything behind them. Only a
/// copy is on stable storage for certain. The journal before the newest one is copied as well:
/// whether its last sync had succeeded nobody can say who was killed meanwhile.
pub(super) fn write_anew(store: &Path, sync: &SyncFile) -> io::Result<()> {
    for (_, journal) in journals(store)?.into_iter().rev().take(2) {
        let (kept, _) = last_whole_batch(&journal)?;
        let used = kept + used_behind(&journal, kept)?;
        let temporary = journal.with_extension("jnl.new");
        if let Err(error) = write_copy(&journal, used, &temporary, sync) {
            // What there is of it would only take the room that is missing.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &journal)?;
        sync_directory(store)?;
    }
    Ok(())
}

fn write_copy(journal: &Path, used: u64, to: &Path, sync: &SyncFile) -> io::Result<()> {
    let mut copy = File::create(to)?;
    io::copy(&mut File::open(journal)?.take(used), &mut copy)?;
    sync(&copy)
}

/// Removes a store whose very first opening was cut short: the store would take it for one
/// that is to be created, and fail because parts of it are there.
pub(super) fn remove_unborn(store: &Path) -> io::Result<()> {
    let version = match fs::read(store.join("version")) {
        Ok(version) => version,
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    if version.iter().any(|byte| *byte != 0) || !store.try_exists()? {
        return Ok(());
    }
    let keyspaces = match fs::read_dir(store.join("keyspaces")) {
        Ok(mut entries) => entries.next().transpose()?.is_some(),
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    let mut written = keyspaces;
    for journal in journals(store)?.values() {
        written |= last_whole_batch(journal)?.0 > 0;
    }
    if !written {
        tracing::warn!("{} was never finished, and is begun again", store.display());
        fs::remove_dir_all(store)?;
        store.parent().map_or(Ok(()), sync_directory)?;
    }
    Ok(())
}

/// Where the last whole batch ends, and what is wrong with what follows.
fn last_whole_batch(journal: &Path) -> io::Result<(u64, &'static str)> {
    let file = File::open(journal)?;
    let mut scan = Scan { reader: BufReader::with_capacity(CHUNK, file), at: 0 };
    let mut kept = 0;
    loop {
        match scan.batch() {
            Ok(None) => kept = scan.at,
            Ok(Some(why)) => return Ok((kept, why)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok((kept, "it ends there")),
            Err(e) => return Err(e),
        }
    }
}

/// How many bytes behind `from` belong to something: up to the last that is not zero.
fn used_behind(journal: &Path, from: u64) -> io::Result<u64> {
    use std::io::Seek;
    let mut file = File::open(journal)?;
    file.seek(io::SeekFrom::Start(from))?;
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut used) = (0, 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(used);
        }
        if let Some(last) = buffer[..read].iter().rposition(|b| *b != 0) {
            used = at + last as u64 + 1;
        }
        at += read as u64;
    }
}

struct Scan {
    reader: BufReader<File>,
    at: u64,
}

impl Scan {
    /// Reads one batch; Some(why) if it is not a whole one.
    fn batch(&mut self) -> io::Result<Option<&'static str>> {
        let [tag] = self.take()?;
        if tag != 1 {
            return Ok(Some("no batch starts there"));
        }
        let items = u32::from_le_bytes(self.take()?);
        let _sequence: [u8; 8] = self.take()?;
        let mut hash = Xxh3::default();
        for _ in 0..items {
            if !self.item(&mut hash)? {
                return Ok(Some("an item of the batch is damaged"));
            }
        }
        let [tag] = self.take()?;
        let sum = u64::from_le_bytes(self.take()?);
        let magic: [u8; 4] = self.take()?;
        if tag != 3 || magic != MAGIC {
            return Ok(Some("the batch has no end"));
        }
        Ok((sum != hash.digest()).then_some("the checksum of the batch is wrong"))
    }

    /// Reads one item into the hash; false if it is none.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let tag: [u8; 1] = self.take()?;
        hash.update(&tag);
        match tag {
            [2] => {
                let head: [u8; 20] = self.take()?;
                hash.update(&head);
                let key = u16::from_le_bytes([head[10], head[11]]);
                let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                self.hash_bytes(hash, u64::from(key) + u64::from(stored))?;
                Ok(true)
            }
            [4] => {
                let keyspace: [u8; 8] = self.take()?;
                hash.update(&keyspace);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// In pieces, so that a damaged length allocates nothing.
    fn hash_bytes(&mut self, hash: &mut Xxh3, mut count: u64) -> io::Result<()> {
        let mut buffer = [0; 8 << 10];
        while count > 0 {
            let piece = count.min(buffer.len() as u64) as usize;
            self.reader.read_exact(&mut buffer[..piece])?;
            hash.update(&buffer[..piece]);
            self.at += piece as u64;
            count -= piece as u64;
        }
        Ok(())
    }
}
