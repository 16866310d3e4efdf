//! The layer over a directory: mounted, switched off, and mounted again as the cut left it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use crate::disk::{Disk, Lost, Names};
use crate::faults::Fault;
use crate::layer::Layer;

/// A process that was killed may hold its files for a moment longer.
const BUSY_FOR: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// A slow sync holds one of them up.
const THREADS: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{0}")]
    Unavailable(String),
    #[error("{what} {path}: {cause}")]
    Io { what: &'static str, path: PathBuf, cause: io::Error },
}

/// What is missing for a layer to be mounted; Ok if nothing is.
///
/// # Errors
/// A sentence for people.
pub fn available() -> Result<(), MountError> {
    let missing = |what: &str| Err(MountError::Unavailable(what.to_owned()));
    if !cfg!(target_os = "linux") {
        return missing("the layer needs Linux");
    }
    if !rustix::process::geteuid().is_root() {
        return missing("the layer needs root, to mount");
    }
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(cause) => missing(&format!("the layer needs /dev/fuse, which cannot be opened: {cause}")),
    }
}

/// Takes away the dead mounts of layers whose process was killed, below `directory`.
pub fn sweep(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some("faultdisk"), Some(at)) = (words.next(), words.next()) else { continue };
        let at = Path::new(at);
        let dead = || fs::metadata(at).is_err_and(|error| error.kind() == io::ErrorKind::NotConnected);
        if at.starts_with(directory) && dead() {
            // What cannot be taken away stays in nobody's way.
            let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A mounted layer. Unmounted when it is dropped; what was written stays then.
pub struct Mount {
    backing: PathBuf,
    at: PathBuf,
    names: Names,
    disk: Arc<Disk>,
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Shows `backing` at `at`; both are created if need be. What `backing` holds is taken for
    /// durable. A directory beside it, with `.removed` added to its name, belongs to the layer.
    ///
    /// # Errors
    /// See [`available`]; or the directories cannot be used.
    pub fn new(backing: &Path, at: &Path) -> Result<Self, MountError> {
        Self::with_names(backing, at, Names::default())
    }

    /// The same with another rule for names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_names(backing: &Path, at: &Path, names: Names) -> Result<Self, MountError> {
        available()?;
        for path in [backing, at] {
            fs::create_dir_all(path).map_err(io_error("creating", path))?;
        }
        let (disk, session) = mount(backing, at, names)?;
        Ok(Self { backing: backing.to_owned(), at: at.to_owned(), names, disk, session: Some(session) })
    }

    /// Where processes find the disk.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Where its content is; to be changed only while the layer is not mounted.
    #[must_use]
    pub fn backing(&self) -> &Path {
        &self.backing
    }

    /// Something fails from now on, below a path (relative; the empty one is everything).
    pub fn inject(&self, below: impl AsRef<Path>, fault: Fault) {
        self.disk.faults(|faults| faults.inject(below.as_ref(), fault));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.disk.faults(crate::faults::Faults::heal);
    }

    /// From now on every operation fails with EIO. Takes no time, so that many disks can be
    /// switched off at once.
    pub fn power_off(&self) {
        self.disk.power_off();
    }

    /// Puts the backing directory into the state that `seed` chooses, and mounts it again
    /// without faults. The processes that used the disk have to be dead.
    ///
    /// # Errors
    /// Somebody still uses the disk, or the backing directory cannot be written.
    pub fn power_on(&mut self, seed: u64) -> Result<Lost, MountError> {
        self.disk.power_off();
        self.unmount()?;
        let lost = self.disk.cut(seed).map_err(io_error("cutting", &self.backing))?;
        let (disk, session) = mount(&self.backing, &self.at, self.names)?;
        self.disk = disk;
        self.session = Some(session);
        Ok(lost)
    }

    /// Unmounts; everything that was written stays.
    ///
    /// # Errors
    /// Somebody still uses the disk.
    pub fn close(mut self) -> Result<(), MountError> {
        self.unmount()?;
        self.disk.finish().map_err(io_error("finishing", &self.backing))
    }

    fn unmount(&mut self) -> Result<(), MountError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let deadline = Instant::now() + BUSY_FOR;
        loop {
            match rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()) {
                Ok(()) => break,
                Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(POLL),
                Err(cause) => {
                    self.session = Some(session);
                    return Err(io_error("unmounting", &self.at)(cause.into()));
                }
            }
        }
        // Its threads are not waited for: they end with the file system, and that lives on for as
        // long as another mount namespace has a copy of the mount. Nothing comes through any more.
        self.disk.power_off();
        drop(session);
        Ok(())
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("backing", &self.backing).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.session.is_none() {
            return;
        }
        if self.unmount().is_ok() {
            // Nobody is told of a failure: what waits there is of no use any more.
            let _ = self.disk.finish();
        } else {
            self.disk.power_off();
            // The kernel lets go of it when its last user is gone.
            let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn mount(backing: &Path, at: &Path, names: Names) -> Result<(Arc<Disk>, BackgroundSession), MountError> {
    // A layer that was killed leaves a dead mount behind.
    if fs::metadata(at).is_err_and(|error| error.kind() == io::ErrorKind::NotConnected) {
        rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH)
            .map_err(|cause| io_error("unmounting", at)(cause.into()))?;
    }
    let disk = Arc::new(Disk::new(backing, names, 0).map_err(io_error("using", backing))?);
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("faultdisk".to_owned()), MountOption::NoAtime];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let session =
        fuser::spawn_mount(Layer::new(Arc::clone(&disk)), at, &config).map_err(io_error("mounting at", at))?;
    Ok((disk, session))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let path = path.to_owned();
    move |cause| MountError::Io { what, path, cause }
}
