//! A disk that fails on demand, for processes that do not know about it.
//!
//! [`Mount`] shows a backing directory at another path. What is written there reaches the
//! backing directory at once, and the layer remembers what has not been made durable. When the
//! power is cut, the backing directory is put into a state in which a real disk could be:
//!
//! - what was synced is there;
//! - of a file that was written since its last sync, each sector of 512 bytes (or each page of
//!   4 KiB) has the content of some moment since then, and the length is that of some moment:
//!   so writes are lost, torn, reordered, or only the length survives and the rest is zeros;
//! - of the changes of names (create, rename, remove) since the last sync of their directory
//!   some first ones survive, in their order, as in a file system with a journal. A file whose
//!   name did not survive is gone, synced or not.
//!
//! Which of these states it is follows from a seed.
//!
//! ```no_run
//! # use baton_faultdisk::{Mount, Fault};
//! let mut disk = Mount::new("/tmp/backing".as_ref(), "/tmp/disk".as_ref())?;
//! // … start a process on /tmp/disk …
//! disk.inject("", Fault::FailFsync { times: Some(1) });
//! disk.heal();
//! disk.power_off(); // from now on everything fails with EIO
//! // … kill the process …
//! let lost = disk.power_on(7)?; // the disk as the cut with seed 7 left it
//! # Ok::<(), baton_faultdisk::MountError>(())
//! ```
//!
//! Needed: Linux, `/dev/fuse`, and root. [`available`] says what is missing.
//!
//! Not modelled: shared memory maps (refused), links, extended attributes, `sync(2)` of the
//! whole file system, and the file system's own order between files: each file is on its own,
//! as POSIX has it. Syncs do not touch the disk below, so they cost less than real ones unless
//! [`Fault::SlowFsync`] is set.
//!
//! | module | what |
//! |---|---|
//! | `mount` | [`Mount`]: the layer over a directory, its switch and its faults |
//! | `layer` | the seam to FUSE |
//! | `disk`, `disk/files` | the operations: files and directories, and what of them is durable |
//! | `unsynced` | the changes of one file since its last sync, and what a cut leaves of them |
//! | `names` | the changes of names since the last sync of their directory |
//! | `faults` | what fails on demand, and where |
//! | `chance` | which of the possible states it is |
//! | [`control`] | commands for a layer that is a process of its own |
//! | [`damage`] | bits and blocks that rot at rest |

mod chance;
pub mod control;
pub mod damage;
mod disk;
mod faults;
mod layer;
mod mount;
mod names;
mod unsynced;

pub use disk::{Lost, Names};
pub use faults::Fault;
pub use mount::{Mount, MountError, available, sweep};
