//! A layer over a directory that goes away with the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;

use baton_faultdisk::Mount;
use tempfile::TempDir;

pub struct Bench {
    // Dropped in this order.
    pub mount: Mount,
    _directory: TempDir,
}

impl Bench {
    /// With these directories in it. A test without a layer tests nothing: it fails, and says
    /// what is missing.
    pub fn new(directories: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backing = directory.path().join("backing");
        fs::create_dir(&backing).unwrap();
        directories.iter().for_each(|name| fs::create_dir(backing.join(name)).unwrap());
        let mount = Mount::new(&backing, &directory.path().join("disk")).unwrap();
        Self { mount, _directory: directory }
    }
}
