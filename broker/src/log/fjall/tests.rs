//! The contract on a real directory; crashes, damage and bounds in files of their own.

mod bounds;
mod crash;
mod damage;
mod journal;

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

/// This test binary again, running only the test `name` with `dir` in its environment: a
/// process that can be killed, or measured.
fn child(name: &str, dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    command
}

const CHILD: &str = "BATON_LOG_CHILD";

/// The directory, if this process is such a child.
fn as_child() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    // Nobody can make directories there, not even root.
    let refused = open(Path::new("/sys/baton-test"), small()).err().unwrap();
    assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused}");
}

#[tokio::test]
async fn the_identity_stays_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let first = log.identity();
    let in_use = open(dir.path(), small()).err().unwrap();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    log.close().await.unwrap();
    drop(log);
    let directory = Arc::new(DataDirectory::lock(dir.path()).unwrap());
    let other = Uuid::from_u128(99);
    let refused = FjallLog::open(Arc::clone(&directory), other, first.broker, small());
    assert!(matches!(refused.err(), Some(OpenError::AnotherCluster { .. })));
    let refused = FjallLog::open(directory, first.cluster, BrokerId(99), small());
    assert!(matches!(refused.err(), Some(OpenError::AnotherBroker { .. })));
    let again = open(dir.path(), small()).unwrap();
    assert_eq!(again.identity(), first);
    assert_eq!(again.opening().left, Left::Closed, "a refused opening leaves no trace");
    drop(again);
    let again = open(dir.path(), small()).unwrap();
    assert_eq!(again.opening().left, Left::Unclean { same_boot: true });
    assert_eq!(again.opening().repairs, []);
}
