//! A disk without room: a small tmpfs, a broker on it in a process of its own where that
//! process may end.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_broker::config::BrokerConfig;
use baton_client::admin::TopicSpec;
use baton_core::ErrorCode;
use baton_core::batch::Codec;
use baton_registry::testing::process::bound_to_parent;

use crate::directories::{Mounted, mount};
use crate::harness::{Cluster, Ledger, Options, PATIENCE, wait};
use crate::{raw, watch};

/// Where the child finds its tmpfs.
const CHILD: &str = "BAD_INPUT_CHILD";
const MIB: u64 = 1 << 20;

/// One broker's directory on a file system of its own.
fn small_disk(dir: &Path, mib: u64) -> Option<Mounted> {
    fs::create_dir_all(dir).unwrap();
    mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"], dir)
}

/// Something else on the disk that takes everything but `leave` bytes. Dropped, it is gone.
struct Ballast(PathBuf);

impl Ballast {
    fn new(dir: &Path, leave: u64) -> Self {
        let path = dir.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        let block = vec![7; 64 << 10];
        while free(dir) > leave + 2 * block.len() as u64 {
            file.write_all(&block).unwrap();
        }
        if leave == 0 {
            while file.write(&block[..4096]).is_ok_and(|n| n > 0) {}
        }
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn free(dir: &Path) -> u64 {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).expect("df prints a number").trim().parse().unwrap()
}

fn one_broker() -> Options {
    let tune = |config: &mut BrokerConfig| config.log.reserve_bytes = 16 * MIB;
    Options { brokers: 1, tune }
}

/// Below the reserve produce is refused, reading goes on, and with room it is taken again.
#[test]
fn full_disk_refuses_and_recovers() {
    let cluster = Cluster::start(one_broker());
    cluster.stop(1);
    let dir = cluster.broker_dir(1);
    // The broker's first directory lies below: it begins again on the small disk.
    fs::remove_dir_all(&dir).unwrap();
    let Some(_mounted) = small_disk(&dir, 96) else { return };
    cluster.start_broker(1);
    cluster.wait_ready();
    let mut ledger = Ledger::open_with(&cluster, TopicSpec::new("full").partitions(1).replication(1));
    let address = cluster.leader_address("full");
    let ballast = Ballast::new(&dir, 8 * MIB);
    let batch = raw::batch(b"no room", 1_000, Codec::None);
    wait(|| {
        let error = cluster.run(raw::produce(&address, "full", 0, batch.clone())).error;
        let error = error.expect("nothing is taken below the reserve");
        // The leader that finds out lays its role down first: somebody else may have room.
        let elsewhere = [ErrorCode::NotLeader.number(), ErrorCode::NoLeader.number()].contains(&error.code);
        if !elsewhere {
            raw::check(Some(&error), ErrorCode::DiskFull, ("full", Some(0)));
        }
        assert!(error.retriable, "{error:?}");
        !elsewhere
    });
    ledger.read(&cluster);
    // A stop is clean even so, and a start is possible.
    cluster.stop(1);
    cluster.start_broker(1);
    ledger = ledger.resume(&cluster);
    ledger.read(&cluster);
    drop(ballast);
    ledger.settle(&cluster);
}

/// The disk fills up behind the reserve's back: the process ends rather than believe a write
/// that may be half there. With room again nothing acknowledged is missing.
#[test]
fn full_disk_in_the_middle_of_a_write() {
    if let Some(home) = std::env::var_os(CHILD) {
        return produce_for_ever(Path::new(&home));
    }
    watch::begin();
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("broker-1");
    let Some(_mounted) = small_disk(&disk, 128) else { return };
    let mut first = Process::start(home.path());
    wait(|| acknowledged(home.path()).len() >= 50);
    let ballast = Ballast::new(&disk, 0);
    first.ended();
    let before = acknowledged(home.path());
    drop(ballast);
    // It reads everything that was acknowledged by its predecessor before it goes on.
    let mut second = Process::start(home.path());
    wait(|| acknowledged(home.path()).len() > before.len() + 5);
    second.kill();
}

/// The child: a cluster of one broker on the small disk, and a producer that notes every
/// acknowledgement elsewhere.
fn produce_for_ever(home: &Path) {
    let tune = |config: &mut BrokerConfig| config.log.reserve_bytes = 0;
    let cluster = Cluster::start_in(Options { brokers: 1, tune }, home);
    let notes = home.join("acknowledged");
    let mut ledger = if notes.exists() {
        let noted = acknowledged(home);
        // What was under way when the process ended may be there or not.
        let ledger = Ledger::take_over(&cluster, "taken-over", noted);
        ledger.read_at_least(&cluster)
    } else {
        let spec = TopicSpec::new("taken-over").partitions(1).replication(1);
        let ledger = Ledger::open_with(&cluster, spec);
        let mut file = fs::File::create(&notes).unwrap();
        for n in 0..5 {
            writeln!(file, "record {n}").unwrap();
        }
        ledger
    };
    let mut file = fs::OpenOptions::new().append(true).open(&notes).unwrap();
    loop {
        ledger.produce(&cluster);
        writeln!(file, "{}", ledger.last()).unwrap();
    }
}

fn acknowledged(home: &Path) -> Vec<String> {
    let text = fs::read_to_string(home.join("acknowledged")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// This test in a process of its own.
struct Process(Child);

impl Process {
    fn start(home: &Path) -> Self {
        let child = bound_to_parent(std::env::current_exe().unwrap())
            .args(["--exact", "disk::full_disk_in_the_middle_of_a_write", "--nocapture"])
            .env(CHILD, home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits for its end, which is no success.
    fn ended(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return assert!(!status.success(), "{status}");
            }
            assert!(Instant::now() < deadline, "the process goes on without a disk");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
