//! Opens the store, and sets one aside that cannot be opened.
//!
//! A store whose own files are damaged holds nothing that can be believed, but the witness
//! beside it still says what it held. So the broker does not wait for an operator: an empty
//! store takes its place, every copy counts as damaged, and the other replicas refill them. Of
//! a copy that was the only one nothing is served; its bytes are in what was set aside.

use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FjallOptions;
use super::directory::Left;
use super::doctor::{self, Repair};
use super::mend;
use super::recovery::{self, Recovery};
use super::retention::Floors;
use super::store::{Store, StoreError};
use super::witness::Testimony;
use crate::log::{Damage, Recovered};

/// So many stores are kept; then somebody has to look at them.
const SET_ASIDE_MAX: u32 = 3;
/// How the store says that its own threads have stopped it.
const POISON: &str = "Poisoned";
/// As much as a memtable: a disk with less room is a full one.
const PROBE_BYTES: usize = 64 << 20;

/// An open store and what is in it.
pub(super) struct Found {
    pub(super) store: Store,
    pub(super) recovery: Recovery,
    pub(super) floors: Arc<Floors>,
    pub(super) repairs: Vec<Repair>,
}

impl Found {
    /// A store that its own threads have stopped before, and in which damage is found: they
    /// would meet it again whatever becomes of the copies, for it stays in the tables.
    pub(super) fn refuse_rot(self, directory: &Path, left: &Left) -> Result<Self, StoreError> {
        let stopped = matches!(left, Left::Tainted(why) if why.contains(POISON));
        let rotten = |found: &Recovered| {
            matches!(found.damage, Some(Damage::BadChecksum { .. } | Damage::Gap { .. } | Damage::Unreadable { .. }))
        };
        if stopped && self.recovery.recovered.values().any(rotten) && disk_works(directory).is_ok() {
            return Err(StoreError::Record("damage has stopped the store before".to_owned()));
        }
        Ok(self)
    }
}

/// Opens the store in a data directory; `thorough` checks every batch.
///
/// # Errors
/// See [`StoreError::is_damage`].
pub(super) fn open(
    directory: &Path,
    options: &FjallOptions,
    testimony: &Testimony,
    thorough: bool,
) -> Result<Found, StoreError> {
    let path = directory.join("store");
    let repairs = doctor::repair(&path).map_err(|cause| StoreError::Io { what: "repairing the journals", cause })?;
    let holes = repairs.iter().any(|repair| !repair.newest);
    let floors = Arc::new(Floors::default());
    let open = || {
        if (thorough || holes) && mend::mend(&path)? > 0 {
            tracing::error!("damaged batches were found in {}", path.display());
        }
        let store = Store::open(&path, options, &floors)?;
        let recovery = recovery::recover(&store.reading(), testimony, thorough || holes)?;
        Ok((store, recovery))
    };
    // Where the store trusts its files too much, it panics on what it reads there.
    let opened = catch_unwind(AssertUnwindSafe(open));
    let (store, recovery) =
        opened.unwrap_or_else(|_| Err(StoreError::Record("the store panicked while it was opened".to_owned())))?;
    Ok(Found { store, recovery, floors, repairs })
}

/// Whether a store that fails while it is opened holds damage, and is to be set aside.
///
/// Its own threads rewrite tables as soon as it is open, and stop it when they meet damage
/// there: after every start again. That looks the same as a full disk or one that fails; so
/// only where the last process ended like this too, and the disk takes and gives back what is
/// written to it, it is damage.
pub(super) fn is_beyond_repair(error: &StoreError, directory: &Path, left: &Left) -> bool {
    error.is_damage() || (error.is_poison() && matches!(left, Left::Tainted(_)) && disk_works(directory).is_ok())
}

fn disk_works(directory: &Path) -> io::Result<()> {
    let path = directory.join("probe.new");
    let content: Vec<u8> = (0..PROBE_BYTES).map(|n| (n % 251) as u8).collect();
    let mut file = File::create(&path)?;
    let written = file.write_all(&content).and_then(|()| file.sync_all());
    let read = written.and_then(|()| fs::read(&path));
    fs::remove_file(&path)?;
    if read? == content { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Moves the store to another name in the same directory.
pub(super) fn set_aside(directory: &Path, why: &StoreError) -> io::Result<PathBuf> {
    let path = |n: u32| directory.join(format!("store.damaged.{n}"));
    let free = (1..=SET_ASIDE_MAX).map(path).find(|path| !path.exists()).ok_or_else(|| {
        let what = format!("{SET_ASIDE_MAX} damaged stores are kept already ({why}); move them away");
        io::Error::new(io::ErrorKind::AlreadyExists, what)
    })?;
    fs::rename(directory.join("store"), &free)?;
    File::open(directory)?.sync_all()?;
    tracing::error!(
        why = %why,
        aside = %free.display(),
        "the store is damaged and was set aside: every copy is refilled by the other replicas, and what had no other stays offline"
    );
    Ok(free)
}
