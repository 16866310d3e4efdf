//! What fails on demand, and below which path.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// One way in which a disk fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `fsync` and `fdatasync` of a file fail with EIO, so many times or until healed. As on
    /// Linux the dirty pages are given up: some of them were written, the others have their old
    /// content again, and the next `fsync` succeeds.
    FailFsync { times: Option<u32> },
    /// Reading fails with EIO.
    FailRead { times: Option<u32> },
    /// Writing fails with EIO.
    FailWrite { times: Option<u32> },
    /// Files can grow by so many bytes; then writing fails with ENOSPC. If it is announced,
    /// `statfs` says so.
    FullAfter { bytes: u64, announced: bool },
    /// Each sync takes so long.
    SlowFsync(Duration),
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<(PathBuf, Fault)>);

impl Faults {
    /// Paths are relative to the root; the empty one is everything.
    pub(crate) fn inject(&mut self, below: &Path, fault: Fault) {
        self.0.push((below.to_owned(), fault));
    }

    pub(crate) fn heal(&mut self) {
        self.0.clear();
    }

    /// Whether this sync fails.
    pub(crate) fn fsync_fails(&mut self, path: &Path) -> bool {
        self.fails(path, |fault| match fault {
            Fault::FailFsync { times } => Some(times),
            _ => None,
        })
    }

    pub(crate) fn read_fails(&mut self, path: &Path) -> bool {
        self.fails(path, |fault| match fault {
            Fault::FailRead { times } => Some(times),
            _ => None,
        })
    }

    pub(crate) fn write_fails(&mut self, path: &Path) -> bool {
        self.fails(path, |fault| match fault {
            Fault::FailWrite { times } => Some(times),
            _ => None,
        })
    }

    pub(crate) fn sync_takes(&self, path: &Path) -> Option<Duration> {
        self.of(path).find_map(|fault| match fault {
            Fault::SlowFsync(duration) => Some(*duration),
            _ => None,
        })
    }

    /// Whether the disk gets full.
    pub(crate) fn is_filling(&self) -> bool {
        self.0.iter().any(|(_, fault)| matches!(fault, Fault::FullAfter { .. }))
    }

    /// How many of `bytes` can still be added; they are counted.
    pub(crate) fn grow(&mut self, path: &Path, bytes: u64) -> u64 {
        let mut granted = bytes;
        for (below, fault) in &mut self.0 {
            if let Fault::FullAfter { bytes: left, .. } = fault
                && path.starts_with(below)
            {
                granted = granted.min(*left);
                *left -= granted;
            }
        }
        granted
    }

    /// What `statfs` says at most.
    pub(crate) fn free_max(&self) -> Option<u64> {
        let announced = self.0.iter().filter_map(|(_, fault)| match fault {
            Fault::FullAfter { bytes, announced: true } => Some(*bytes),
            _ => None,
        });
        announced.min()
    }

    fn of(&self, path: &Path) -> impl Iterator<Item = &Fault> {
        self.0.iter().filter(move |(below, _)| path.starts_with(below)).map(|(_, fault)| fault)
    }

    /// Counts down the first fault of its kind.
    fn fails(&mut self, path: &Path, kind: impl Fn(&mut Fault) -> Option<&mut Option<u32>>) -> bool {
        let found = self.0.iter_mut().enumerate().filter(|(_, (below, _))| path.starts_with(below));
        let Some((at, times)) = found.filter_map(|(at, (_, fault))| Some((at, kind(fault)?))).next() else {
            return false;
        };
        if let Some(left) = times {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.0.remove(at);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_below_a_path_and_counted() {
        let mut faults = Faults::default();
        faults.inject(Path::new("store"), Fault::FailFsync { times: Some(2) });
        assert!(!faults.fsync_fails(Path::new("witness")));
        assert!(faults.fsync_fails(Path::new("store/1.jnl")));
        assert!(!faults.read_fails(Path::new("store/1.jnl")));
        assert!(faults.fsync_fails(Path::new("store/1.jnl")));
        assert!(!faults.fsync_fails(Path::new("store/1.jnl")));
        faults.inject(Path::new(""), Fault::FailRead { times: None });
        assert!((0..3).all(|_| faults.read_fails(Path::new("x"))));
        faults.heal();
        assert!(!faults.read_fails(Path::new("x")));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let mut faults = Faults::default();
        assert_eq!((faults.grow(Path::new("a"), 100), faults.free_max()), (100, None));
        faults.inject(Path::new(""), Fault::FullAfter { bytes: 150, announced: true });
        assert_eq!(faults.grow(Path::new("a"), 100), 100);
        assert_eq!(faults.free_max(), Some(50));
        assert_eq!(faults.grow(Path::new("a"), 100), 50);
        assert_eq!(faults.grow(Path::new("a"), 100), 0);
    }
}
