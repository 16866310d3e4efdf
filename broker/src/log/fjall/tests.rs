//! The contract on a real directory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::log::contract::{Harness, contract_tests, identity};

/// A directory of its own, and small sizes, so that tables and blob files are used as well.
struct OnDisk {
    dir: tempfile::TempDir,
    full: Arc<AtomicBool>,
}

impl OnDisk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), full: Arc::default() }
    }
}

fn small() -> FjallOptions {
    FjallOptions { rotate_bytes: 64 << 10, reserve_bytes: 0, time_index_bytes: 8 << 10, ..FjallOptions::default() }
}

fn open(path: &Path, options: FjallOptions) -> Result<FjallLog, OpenError> {
    let directory = Arc::new(DataDirectory::lock(path)?);
    let Identity { cluster, broker, .. } = identity();
    FjallLog::open(directory, cluster, broker, options)
}

impl Harness for OnDisk {
    fn open(&mut self) -> Arc<dyn Log> {
        let full = Arc::clone(&self.full);
        let free = move |_: &Path| Ok(if full.load(Ordering::Relaxed) { 1 } else { 1 << 40 });
        let options = FjallOptions { free_space: Arc::new(free), reserve_bytes: 1 << 30, ..small() };
        Arc::new(open(self.dir.path(), options).unwrap())
    }

    fn set_full(&mut self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
        // The committer has to take a new sample.
        std::thread::sleep(Duration::from_millis(800));
    }
}

contract_tests!(OnDisk::new());
