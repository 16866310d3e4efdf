//! The data directory: its lock, whose it is, how it was left, and small notes in it.
//!
//! ```text
//! lock       held while a process uses the directory
//! identity   cluster, broker, disk; the format version comes first
//! identity.copy   the same once more: without it nobody knows whose the data are
//! running    the boot id; there while the directory is in use or was not cleanly closed
//! tainted    why the last process gave up on the storage
//! witness    see the witness module
//! notes/     small files of other parts of the broker, kept whole
//! store/     the LSM store
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use baton_core::{BrokerId, DiskId};
use uuid::Uuid;

use crate::log::Identity;

/// Version 1 is the first. A directory of a newer version is refused.
const FORMAT: u32 = 1;
/// The copy first: a directory without `identity` is new.
const IDENTITIES: [&str; 2] = ["identity.copy", "identity"];
const NOTE_BYTES_MAX: usize = 64 << 10;

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} is already in use by another process; stop that one, or give this broker a data directory of its own"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} belongs to cluster {found}, not to {expected}; check the ZooKeeper connection string, or give this broker an empty data directory"
    )]
    AnotherCluster { path: PathBuf, found: Uuid, expected: Uuid },
    #[error("{path} belongs to broker {found}, not to broker {expected}; check broker.id and the data directory")]
    AnotherBroker { path: PathBuf, found: BrokerId, expected: BrokerId },
    #[error("{path} has format version {found}, this program knows versions up to {FORMAT}; start a newer one")]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{path} cannot be written ({cause}); check the mount options and the owner of the directory")]
    ReadOnly { path: PathBuf, cause: io::Error },
    #[error(
        "{path} is damaged: {what}; move the data directory away, and the broker refills an empty one from its peers"
    )]
    BadIdentity { path: PathBuf, what: String },
    #[error(
        "the disk of {path} is too full for this broker to start ({cause}): the two newest journals are copied first; free as much as they take"
    )]
    NoRoom { path: PathBuf, cause: io::Error },
    #[error("{what} in {path} failed: {cause}")]
    Io { path: PathBuf, what: &'static str, cause: io::Error },
    #[error(
        "the store in {path} cannot be opened: {cause}; move the data directory away, and the broker refills an empty one from its peers"
    )]
    Store { path: PathBuf, cause: String },
}

/// How the previous process left the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nobody has used it yet.
    New,
    Closed,
    /// Not closed. Within the same boot the page cache has survived, and with it every write.
    Unclean {
        same_boot: bool,
    },
    /// The storage failed under the last process, for this reason.
    Tainted(String),
}

/// A locked data directory. The lock goes with the last clone of its `Arc`.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    left: Left,
    identity: Option<Identity>,
    _lock: Lock,
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

impl DataDirectory {
    /// Creates the directory if need be, and locks it.
    ///
    /// # Errors
    /// Another process holds it, it cannot be written, or its format is newer or unreadable.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        let refused = |cause| refused(path, cause);
        fs::create_dir_all(path.join("notes")).map_err(refused)?;
        // A directory whose name is lost takes everything in it along, synced or not.
        sync_directory(path).map_err(refused)?;
        if let Some(parent) = path.parent() {
            // It may belong to somebody else, who does not let us read it.
            let _ = sync_directory(parent);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(path.join("lock")).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.into() }),
            Err(TryLockError::Error(cause)) => return Err(refused(cause)),
        }
        let lock = Lock(file);
        let identity = read_identity(path)?;
        let left = read_left(path, identity.is_none())?;
        Ok(Self { path: path.to_owned(), left, identity, _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn left(&self) -> &Left {
        &self.left
    }

    /// Whose the directory is; None before it was first used.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Keeps `bytes` (at most 64 KiB) under `name`, wholly or, after a crash, not at all.
    ///
    /// # Errors
    /// A name that is not of lower-case letters, digits and dashes; too many bytes; I/O.
    pub fn remember(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        check_note(name, bytes.len())?;
        let mut content = bytes.to_vec();
        content.extend(crc32c::crc32c(bytes).to_le_bytes());
        write_whole(&self.path.join("notes"), name, &content)
    }

    /// What was last kept under `name`; None if nothing was, or if it is damaged.
    ///
    /// # Errors
    /// A bad name; I/O.
    pub fn recall(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        check_note(name, 0)?;
        let content = match fs::read(self.path.join("notes").join(name)) {
            Ok(content) => content,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let whole = content.split_last_chunk::<4>();
        let good = whole.filter(|(b, crc)| crc32c::crc32c(b).to_le_bytes() == **crc);
        Ok(good.map(|(bytes, _)| bytes.to_vec()))
    }

    /// Checks whose the directory is, formats it if it is new, and marks it as in use.
    pub(super) fn claim(&self, cluster: Uuid, broker: BrokerId) -> Result<Identity, OpenError> {
        let path = self.path.clone();
        let identity = match &self.identity {
            Some(found) if found.cluster != cluster => {
                let (found, expected) = (found.cluster, cluster);
                return Err(OpenError::AnotherCluster { path, found, expected });
            }
            Some(found) if found.broker != broker => {
                let (found, expected) = (found.broker, broker);
                return Err(OpenError::AnotherBroker { path, found, expected });
            }
            Some(found) => found.clone(),
            None => {
                let disk = DiskId(Uuid::new_v4().as_u128());
                Identity { cluster, broker, disk }
            }
        };
        let content = encode_identity(&identity);
        for name in IDENTITIES {
            let known = fs::read(path.join(name)).is_ok_and(|found| found == content.as_bytes());
            if !known {
                if self.identity.is_some() && path.join(name).exists() {
                    tracing::warn!(file = name, "the identity of the data directory was damaged; it is written again");
                }
                write_whole(&path, name, content.as_bytes()).map_err(|e| refused(&path, e))?;
            }
        }
        write_whole(&path, "running", boot_id().as_bytes()).map_err(|e| refused(&path, e))?;
        Ok(identity)
    }

    /// All that the directory held is lost, what was known of it as well: it is another disk
    /// from now on, or its empty copies would count for those that others remember.
    pub(super) fn begin_anew(&self, lost: Identity) -> Result<Identity, OpenError> {
        let identity = Identity { disk: DiskId(Uuid::new_v4().as_u128()), ..lost };
        let content = encode_identity(&identity);
        for name in IDENTITIES {
            write_whole(&self.path, name, content.as_bytes()).map_err(|e| refused(&self.path, e))?;
        }
        Ok(identity)
    }

    /// Everything is durable and nothing more will be written.
    pub(super) fn mark_closed(&self) -> io::Result<()> {
        fs::remove_file(self.path.join("running"))?;
        sync_directory(&self.path)
    }

    /// The storage cannot be trusted from here on. The mark is there for the next process
    /// before anything is synced: the disk whose fsync failed may fail this one, too.
    pub(super) fn taint(path: &Path, why: &str) -> io::Result<()> {
        let temporary = path.join("tainted.new");
        let mut file = File::create(&temporary)?;
        // On a full disk it is there, and empty.
        let written = file.write_all(why.as_bytes());
        fs::rename(&temporary, path.join("tainted"))?;
        written?;
        file.sync_all()?;
        sync_directory(path)
    }

    /// What the mark says has been looked into.
    pub(super) fn clear_taint(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join("tainted")) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => sync_directory(&self.path),
        }
    }
}

fn refused(path: &Path, cause: io::Error) -> OpenError {
    let path = path.to_owned();
    match cause.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => OpenError::ReadOnly { path, cause },
        _ => OpenError::Io { path, what: "preparing the directory", cause },
    }
}

/// Replaces a file by rename, durably.
fn write_whole(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn check_note(name: &str, bytes: usize) -> io::Result<()> {
    let letters = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !letters || name.is_empty() || name.len() > 64 || bytes > NOTE_BYTES_MAX {
        let what = format!("a note called {name:?} with {bytes} bytes");
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// Changes with every start of the kernel; empty where the kernel does not say.
fn boot_id() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    read.trim().to_owned()
}

fn read_left(path: &Path, new: bool) -> Result<Left, OpenError> {
    let read = |name| match fs::read(path.join(name)) {
        // Whatever it says, it is there.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(refused(path, e)),
    };
    Ok(match (read("tainted")?, read("running")?) {
        (Some(why), _) => Left::Tainted(why),
        (None, Some(boot)) => Left::Unclean { same_boot: !boot.is_empty() && boot == boot_id() },
        (None, None) if new => Left::New,
        (None, None) => Left::Closed,
    })
}

fn encode_identity(identity: &Identity) -> String {
    let Identity { cluster, broker, disk } = identity;
    let body = format!("version={FORMAT}\ncluster={cluster}\nbroker={broker}\ndisk={disk}\n");
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body}crc={crc:08x}\n")
}

/// Either of the two will do; [`DataDirectory::claim`] writes the other one again.
fn read_identity(path: &Path) -> Result<Option<Identity>, OpenError> {
    let [copy, first] = IDENTITIES.map(|name| read_one_identity(path, name));
    match (first, copy) {
        (Ok(None), _) => Ok(None),
        (Ok(Some(identity)), _) | (Err(OpenError::BadIdentity { .. }), Ok(Some(identity))) => Ok(Some(identity)),
        (Err(error), copy) => {
            // A newer format is not damage, but a damaged version may look like one.
            let older = matches!((&error, &copy), (OpenError::NewerFormat { .. }, Ok(Some(_))));
            if older { copy } else { Err(error) }
        }
    }
}

fn read_one_identity(path: &Path, name: &str) -> Result<Option<Identity>, OpenError> {
    let text = match fs::read(path.join(name)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refused(path, e)),
    };
    let bad = |what: &str| OpenError::BadIdentity { path: path.into(), what: what.to_owned() };
    // Only the version is read of a format that may be any other.
    let version = text.lines().next().and_then(|l| l.strip_prefix("version="));
    match version.and_then(|v| v.parse().ok()) {
        None | Some(0) => return Err(bad("the identity file has no version")),
        Some(found) if found > FORMAT => {
            return Err(OpenError::NewerFormat { path: path.into(), found });
        }
        Some(_) => {}
    }
    decode_identity(&text).map(Some).ok_or_else(|| bad("the identity file cannot be read"))
}

pub(super) fn decode_identity(text: &str) -> Option<Identity> {
    let (body, crc) = text.split_at_checked(text.find("crc=")?)?;
    let crc = u32::from_str_radix(crc.trim().strip_prefix("crc=")?, 16).ok()?;
    if crc32c::crc32c(body.as_bytes()) != crc {
        return None;
    }
    let field = |name: &str| body.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    Some(Identity {
        cluster: field("cluster")?.parse().ok()?,
        broker: BrokerId(field("broker")?.parse().ok()?),
        disk: DiskId(u128::from_str_radix(field("disk")?, 16).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(path: &Path) -> Identity {
        let directory = DataDirectory::lock(path).unwrap();
        directory.claim(Uuid::from_u128(1), BrokerId(7)).unwrap()
    }

    #[test]
    fn a_directory_is_of_one_cluster_and_one_broker() {
        let dir = tempfile::tempdir().unwrap();
        let identity = claimed(dir.path());
        assert_eq!(claimed(dir.path()), identity);
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.identity(), Some(&identity));
        let other = directory.claim(Uuid::from_u128(2), BrokerId(7)).unwrap_err();
        assert!(matches!(other, OpenError::AnotherCluster { .. }), "{other}");
        let other = directory.claim(Uuid::from_u128(1), BrokerId(8)).unwrap_err();
        assert!(matches!(other, OpenError::AnotherBroker { .. }), "{other}");
    }

    #[test]
    fn a_second_process_is_told_that_it_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirectory::lock(dir.path()).unwrap();
        let second = DataDirectory::lock(dir.path()).unwrap_err();
        assert!(matches!(second, OpenError::InUse { .. }), "{second}");
        assert!(second.to_string().contains("already in use"), "{second}");
        drop(first);
        DataDirectory::lock(dir.path()).unwrap();
    }

    #[test]
    fn the_lock_is_given_back_although_a_child_has_a_copy_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::lock(dir.path()).unwrap();
        let copy = directory._lock.0.try_clone().unwrap();
        drop(directory);
        DataDirectory::lock(dir.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_says() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity"), "version=2\nanything\n").unwrap();
        let newer = DataDirectory::lock(dir.path()).unwrap_err();
        assert!(matches!(newer, OpenError::NewerFormat { found: 2, .. }), "{newer}");
    }

    #[test]
    fn every_change_of_the_identity_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        claimed(dir.path());
        let file = dir.path().join("identity");
        let good = fs::read(&file).unwrap();
        fs::remove_file(dir.path().join("identity.copy")).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).unwrap();
            assert!(DataDirectory::lock(dir.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn one_of_two_identities_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let identity = claimed(dir.path());
        for name in ["identity", "identity.copy"] {
            let file = dir.path().join(name);
            let good = fs::read(&file).unwrap();
            for at in 0..good.len() - 1 {
                let mut bad = good.clone();
                bad[at] ^= 0x80;
                fs::write(&file, &bad).unwrap();
                assert_eq!(claimed(dir.path()), identity, "byte {at} of {name}");
                assert_eq!(fs::read(&file).unwrap(), good, "it is written again");
            }
            fs::write(&file, [0; 10]).unwrap();
            assert_eq!(claimed(dir.path()), identity);
        }
    }

    #[test]
    fn how_it_was_left_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.left(), &Left::New);
        directory.claim(Uuid::from_u128(1), BrokerId(7)).unwrap();
        drop(directory);
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.left(), &Left::Unclean { same_boot: true });
        directory.mark_closed().unwrap();
        drop(directory);
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.left(), &Left::Closed);
        fs::write(dir.path().join("running"), "another boot").unwrap();
        drop(directory);
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.left(), &Left::Unclean { same_boot: false });
        DataDirectory::taint(dir.path(), "fsync").unwrap();
        drop(directory);
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.left(), &Left::Tainted("fsync".to_owned()));
        directory.clear_taint().unwrap();
    }

    #[test]
    fn notes_are_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::lock(dir.path()).unwrap();
        assert_eq!(directory.recall("session").unwrap(), None);
        directory.remember("session", b"one").unwrap();
        directory.remember("session", b"two").unwrap();
        assert_eq!(directory.recall("session").unwrap().as_deref(), Some(&b"two"[..]));
        for bad in ["", "../identity", "A", "a/b", &"a".repeat(65)] {
            assert!(directory.remember(bad, b"").is_err(), "{bad}");
        }
        assert!(directory.remember("large", &vec![0; NOTE_BYTES_MAX + 1]).is_err());
        fs::write(dir.path().join("notes/session"), b"two").unwrap();
        assert_eq!(directory.recall("session").unwrap(), None);
    }
}
