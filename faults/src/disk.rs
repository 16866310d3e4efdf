//! What a broker keeps its data on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use baton_faultdisk::{Fault, Lost, Mount};
use serde::{Deserialize, Serialize};

use crate::network::run;

/// Which kind of disk every broker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskKind {
    /// A directory on the disk of the harness: it never fills up.
    Directory,
    /// A file system of its own (ext4 on a loop device) of so many bytes.
    Image { bytes: u64 },
    /// A layer that loses unsynced writes when its power is cut.
    Layer,
}

/// One broker's disk; taken away when it is dropped.
#[derive(Debug)]
pub struct Disk {
    /// Where the file system is.
    root: PathBuf,
    mounted: bool,
    layer: Option<Mount>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.root));
        }
    }
}

impl Disk {
    /// Makes an empty one at `root`.
    ///
    /// # Errors
    /// No file system can be made or mounted.
    pub fn make(kind: DiskKind, root: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&root)?;
        let bytes = match kind {
            DiskKind::Directory => return Ok(Self { root, mounted: false, layer: None }),
            DiskKind::Image { bytes } => bytes,
            DiskKind::Layer => {
                let layer = Mount::new(&root.with_extension("backing"), &root)?;
                return Ok(Self { root, mounted: false, layer: Some(layer) });
            }
        };
        let image = root.with_extension("img");
        std::fs::File::create(&image)?.set_len(bytes)?;
        // No room kept for root, so that full means full; lazily, so that the image stays sparse.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", "lazy_itable_init=1"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&root)).context("a loop device")?;
        Ok(Self { root, mounted: true, layer: None })
    }

    /// Cuts its power: from now on everything fails.
    pub fn power_off(&self) {
        if let Some(layer) = &self.layer {
            layer.power_off();
        }
    }

    /// Each sync takes so long, as on a real disk: what comes meanwhile is not synced yet.
    pub fn slow(&self, sync: Duration) {
        self.heal();
        self.fail(Fault::SlowFsync(sync));
    }

    /// Everything on it fails in this way, too, from now on.
    pub fn fail(&self, fault: Fault) {
        if let Some(layer) = &self.layer {
            layer.inject("", fault);
        }
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        if let Some(layer) = &self.layer {
            layer.heal();
        }
    }

    /// The disk as the cut left it; `seed` decides what has survived. Nobody may use it.
    ///
    /// # Errors
    /// It is no layer, or somebody uses it.
    pub fn power_on(&mut self, seed: u64) -> anyhow::Result<Lost> {
        let layer = self.layer.as_mut().context("no layer")?;
        Ok(layer.power_on(seed)?)
    }

    /// The data directory of the broker: not the root, so that it can be removed.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Removes all data. The broker must not run.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn wipe(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.data()).context("the data directory")
    }

    /// Leaves so many bytes free.
    ///
    /// # Errors
    /// It is no file system of its own, or cannot be filled.
    pub fn fill(&self, leave_bytes: u64) -> anyhow::Result<()> {
        if !self.mounted {
            bail!("{} is no file system of its own", self.root.display());
        }
        // A running broker takes and frees space meanwhile.
        for _ in 0..5 {
            let free = free_bytes(&self.root)?;
            if free <= leave_bytes {
                return Ok(());
            }
            let number = std::fs::read_dir(&self.root)?.count();
            let length = (free - leave_bytes).to_string();
            let _ = run(Command::new("fallocate").args(["-l", &length]).arg(self.root.join(format!("fill-{number}"))));
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn unfill(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("fill-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn free_bytes(path: &Path) -> anyhow::Result<u64> {
    let out = Command::new("df").args(["--output=avail", "-B1"]).arg(path).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df says something else")
}
