//! Namespaces that vanish with the campaign.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};

use crate::cluster::KEPT;

/// What has to be there, and Debian's packages that bring it.
const TOOLS: [(&str, &str); 8] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("mkfs.ext4", "e2fsprogs"),
    ("cc", "gcc libc6-dev"),
];

/// What a campaign needs and is not here; empty: it can run.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("root: namespaces and packet filters need it".to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    for (tool, package) in TOOLS {
        if !path.split(':').any(|dir| Path::new(dir).join(tool).exists()) {
            missing.push(format!("{tool} (Debian: {package})"));
        }
    }
    missing
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

const PREFIX: &str = "baton-campaign-";

/// A directory for this process's campaign, named after it.
///
/// # Errors
/// It cannot be made.
pub fn directory(parent: &Path) -> anyhow::Result<PathBuf> {
    let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    dir.canonicalize().context("its own directory")
}

/// Removes what campaigns left that were killed: their processes, mounts and namespaces went
/// with them, their files did not. What somebody wanted to look at stays.
pub fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX) else { continue };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        for cluster in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if !cluster.path().join(KEPT).exists() {
                let _ = std::fs::remove_dir_all(cluster.path());
            }
        }
        let _ = std::fs::remove_dir(entry.path());
    }
}

/// Runs this program again, with other arguments, in fresh namespaces of network, mounts and
/// processes, and waits for it. If this process is killed, everything inside is as well.
///
/// # Errors
/// Something is missing, or the namespaces cannot be made.
pub fn enter(arguments: &[String], dir: Option<&Path>) -> anyhow::Result<ExitStatus> {
    let missing = missing();
    ensure!(missing.is_empty(), "a campaign cannot run here: it needs {}", missing.join(", "));
    let program = std::env::current_exe().context("this program")?;
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    // ZooKeeper's files, too, go where they are swept up.
    let scratch = dir.map(|dir| ("TMPDIR", dir));
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    command.args(["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg("--").arg(program).args(arguments).env("PATH", path).envs(scratch).stdin(Stdio::null());
    command.status().context("unshare")
}

/// Prepares the fresh namespaces; call it first inside.
///
/// # Errors
/// This process is not alone in its namespaces, or a mount fails.
pub fn prepare() -> anyhow::Result<()> {
    // The first process of its namespace: nothing here belongs to anybody else.
    if std::process::id() != 1 {
        bail!("not inside namespaces of our own");
    }
    std::fs::create_dir_all("/run/netns").context("/run/netns")?;
    super::run(Command::new("mount").args(["-t", "tmpfs", "none", "/run/netns"]))?;
    // Frames between our hosts are no business of the filters of the bridge's own host.
    let filter = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if filter.exists() {
        let _ = std::fs::write(filter, "0");
    }
    Ok(())
}
