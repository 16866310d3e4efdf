//! Opens the store, and sets one aside that cannot be opened.
//!
//! A store whose own files are damaged holds nothing that can be believed, but the witness
//! beside it still says what it held. So the broker does not wait for an operator: an empty
//! store takes its place, every copy counts as damaged, and the other replicas refill them. Of
//! a copy that was the only one nothing is served; its bytes are in what was set aside.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::doctor::{self, Repair};
use super::recovery::{self, Recovery};
use super::retention::Floors;
use super::store::{Store, StoreError};
use super::witness::Testimony;
use super::FjallOptions;

/// So many stores are kept; then somebody has to look at them.
const SET_ASIDE_MAX: u32 = 3;

/// An open store and what is in it.
pub(super) struct Found {
    pub(super) store: Store,
    pub(super) recovery: Recovery,
    pub(super) floors: Arc<Floors>,
    pub(super) repairs: Vec<Repair>,
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
