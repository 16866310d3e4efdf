//! Changes of names since they were made durable, oldest first.
//!
//! A sync of a directory makes its changes durable, and with them all that came before, as a
//! journal of metadata does. A cut keeps some first ones of the rest and takes back the others.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One change, with all that it takes to take it back. Paths are those of that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameChange {
    Created(PathBuf),
    DirectoryCreated(PathBuf),
    /// The file itself waits elsewhere.
    Removed {
        was: PathBuf,
        waits: PathBuf,
    },
    DirectoryRemoved(PathBuf),
    /// What was replaced waits elsewhere.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<PathBuf>,
    },
}

impl NameChange {
    /// Whether a sync of `directory` makes it durable.
    fn concerns(&self, directory: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Created(path) | Self::DirectoryCreated(path) | Self::DirectoryRemoved(path) => within(path),
            Self::Removed { was, .. } => within(was),
            Self::Renamed { from, to, .. } => within(from) || within(to),
        }
    }

    /// A file that nothing needs once the change is durable.
    fn waiting(&self) -> Option<&Path> {
        match self {
            Self::Removed { waits, .. } => Some(waits),
            Self::Renamed { replaced, .. } => replaced.as_deref(),
            _ => None,
        }
    }

    fn undo(&self) -> io::Result<()> {
        match self {
            Self::Created(path) => fs::remove_file(path),
            Self::DirectoryCreated(path) => fs::remove_dir(path),
            Self::Removed { was, waits } => fs::rename(waits, was),
            Self::DirectoryRemoved(path) => fs::create_dir(path),
            Self::Renamed { from, to, replaced } => {
                fs::rename(to, from)?;
                replaced.as_ref().map_or(Ok(()), |waits| fs::rename(waits, to))
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct NameChanges(VecDeque<NameChange>);

impl NameChanges {
    pub(crate) fn push(&mut self, change: NameChange) {
        self.0.push_back(change);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `directory` was synced: how many of the first changes are durable now. The removed files
    /// that nothing needs any more are named.
    pub(crate) fn sync(&mut self, directory: &Path) -> Vec<PathBuf> {
        match self.0.iter().rposition(|change| change.concerns(directory)) {
            Some(last) => self.commit(last + 1),
            None => Vec::new(),
        }
    }

    /// All are durable.
    pub(crate) fn sync_all(&mut self) -> Vec<PathBuf> {
        self.commit(self.0.len())
    }

    fn commit(&mut self, count: usize) -> Vec<PathBuf> {
        self.0.drain(..count).filter_map(|change| change.waiting().map(Path::to_owned)).collect()
    }

    /// Takes back all but the first `kept` changes, the newest first.
    pub(crate) fn cut(&mut self, kept: usize) -> io::Result<()> {
        for change in self.0.drain(kept..).rev() {
            change.undo()?;
        }
        self.0.clear();
        Ok(())
    }
}
