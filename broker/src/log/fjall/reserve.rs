//! Keeps some of the disk free, so that what has to go on can go on.
//!
//! Below the reserve appends are refused before anything is written; truncations, deletions,
//! meta records and the store's own compactions use what is left.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::LogError;

/// Says how many bytes are free for the disk of a path.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// A batch is written to the journal and later to a blob file.
const WRITES_PER_BYTE: u64 = 2;

pub(super) struct Reserve {
    probe: FreeSpace,
    reserve: u64,
    free: u64,
    /// What the last append would have taken, if it was refused.
    refused: u64,
    sampled: Option<Instant>,
}

impl Reserve {
    pub(super) fn new(probe: FreeSpace, reserve: u64) -> Self {
        Self { probe, reserve, free: u64::MAX, refused: 0, sampled: None }
    }

    /// Whether `bytes` may be appended; counts them if so.
    pub(super) fn admit(&mut self, directory: &Path, bytes: u64) -> Result<(), LogError> {
        self.sample(directory);
        let takes = bytes.saturating_mul(WRITES_PER_BYTE);
        let left = self.free.saturating_sub(takes);
        if left < self.reserve {
            self.refused = takes;
            return Err(LogError::Full { free: self.free, reserve: self.reserve });
        }
        (self.free, self.refused) = (left, 0);
        Ok(())
    }

    pub(super) fn sample(&mut self, directory: &Path) {
        if self.sampled.is_some_and(|at| at.elapsed() < SAMPLE_EVERY) {
            return;
        }
        match (self.probe)(directory) {
            Ok(free) => self.free = free,
            // The estimate goes on falling with what is written.
            Err(e) => tracing::warn!("cannot ask how much of the disk is free: {e}"),
        }
        self.sampled = Some(Instant::now());
    }

    pub(super) fn free(&self) -> u64 {
        self.free
    }

    /// What has to be free before another append is tried: the reserve, and the room that the
    /// last one did not find. Whoever asks beforehand is not told that there is room, to be
    /// refused afterwards, again and again.
    pub(super) fn floor(&self) -> u64 {
        self.reserve.saturating_add(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_admitted_counts_until_the_next_sample() {
        let mut reserve = Reserve::new(Arc::new(|_: &Path| Ok(1_000)), 400);
        let path = Path::new("/");
        assert_eq!(reserve.admit(path, 200), Ok(()));
        assert_eq!(reserve.admit(path, 101), Err(LogError::Full { free: 600, reserve: 400 }));
        assert_eq!((reserve.free(), reserve.floor()), (600, 602), "what was refused would be refused again");
        assert_eq!(reserve.admit(path, 100), Ok(()));
        assert_eq!((reserve.free(), reserve.floor()), (400, 400));
    }
}
