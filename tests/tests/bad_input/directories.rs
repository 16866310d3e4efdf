//! Data directories that are not this broker's, or not what they were.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use baton_broker::launch::{LaunchError, RegistrySource, launch};
use baton_broker::log::fjall::OpenError;
use baton_registry::memory::MemoryEnsemble;
use baton_registry::recipes::cluster::ClusterError;

use crate::harness::{Cluster, Ledger, Options, complete, config, wait};
use crate::watch;

/// What the error says is one sentence with the next step, and names the directory.
#[track_caller]
fn says(error: &LaunchError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// What a start with `dir` in another cluster fails with.
fn in_another_cluster(cluster: &Cluster, ensemble: MemoryEnsemble) -> LaunchError {
    let config = complete(config(3, cluster.broker_dir(3)));
    let launched = cluster.run(launch(config, RegistrySource::Embedded(ensemble)));
    launched.err().expect("it does not start")
}

#[test]
fn directory_of_another_cluster() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "another-cluster");
    cluster.stop(3);
    let other = Cluster::start(Options { brokers: 1, ..Options::default() });
    let error = in_another_cluster(&cluster, other.ensemble.clone());
    assert!(matches!(error, LaunchError::Cluster(ClusterError::Other { .. })), "{error}");
    says(&error, &["belongs to", "point the broker at its own cluster"]);
    // An ensemble that was emptied, or the wrong path, is not taken for a new cluster.
    let error = in_another_cluster(&cluster, MemoryEnsemble::new());
    assert!(matches!(error, LaunchError::Cluster(ClusterError::Missing { .. })), "{error}");
    cluster.start_broker(3);
    cluster.wait_in_sync(&ledger.topic, 3);
    ledger.settle(&cluster);
}

#[test]
fn directory_of_another_broker() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "another-broker");
    cluster.stop(3);
    let error = cluster.try_launch(complete(config(4, cluster.broker_dir(3)))).err().expect("it does not start");
    assert!(matches!(error, LaunchError::Log(OpenError::AnotherBroker { .. })), "{error}");
    says(&error, &["broker-3", "3", "4"]);
    cluster.start_broker(3);
    cluster.wait_in_sync(&ledger.topic, 3);
    ledger.settle(&cluster);
}

#[test]
fn directory_in_use() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "in-use");
    let error = cluster.try_launch(complete(config(3, cluster.broker_dir(3)))).err().expect("it does not start");
    assert!(matches!(error, LaunchError::Log(OpenError::InUse { .. })), "{error}");
    says(&error, &["broker-3", "in use"]);
    assert_eq!(cluster.leader(&ledger.topic).1.isr.len(), 3);
    ledger.settle(&cluster);
}

/// Mounted by this process, and no longer.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// None, after saying so, where mounting is not allowed.
pub fn mount(arguments: &[&str], at: &Path) -> Option<Mounted> {
    let done = Command::new("mount").args(arguments).arg(at).output();
    match done {
        Ok(output) if output.status.success() => Some(Mounted(at.to_owned())),
        other => {
            eprintln!("SKIPPED: cannot mount {arguments:?}: {other:?}");
            None
        }
    }
}

#[test]
fn directory_read_only() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "read-only");
    cluster.stop(3);
    let dir = cluster.broker_dir(3);
    if let Some(mounted) = mount(&["--bind", dir.to_str().unwrap()], &dir) {
        assert!(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&dir).status().unwrap().success());
        let error = cluster.try_launch(cluster.config(3)).err().expect("it does not start");
        assert!(matches!(error, LaunchError::Log(OpenError::ReadOnly { .. })), "{error}");
        says(&error, &["broker-3"]);
        drop(mounted);
    }
    cluster.start_broker(3);
    cluster.wait_in_sync(&ledger.topic, 3);
    ledger.settle(&cluster);
}

#[test]
fn directory_of_a_newer_version() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "newer-version");
    cluster.stop(3);
    // The identity is kept twice: one that is damaged is written again from the other.
    let files = ["identity", "identity.copy"].map(|name| cluster.broker_dir(3).join(name));
    let good = files.clone().map(|file| fs::read(file).unwrap());
    let write = |text: &str| files.iter().for_each(|file| fs::write(file, text).unwrap());
    write("version=99\nsomething=else\n");
    let error = cluster.try_launch(cluster.config(3)).err().expect("it does not start");
    assert!(matches!(error, LaunchError::Log(OpenError::NewerFormat { found: 99, .. })), "{error}");
    says(&error, &["broker-3", "99"]);
    write("no identity at all");
    let error = cluster.try_launch(cluster.config(3)).err().expect("it does not start");
    assert!(matches!(error, LaunchError::Log(OpenError::BadIdentity { .. })), "{error}");
    files.iter().zip(good).for_each(|(file, good)| fs::write(file, good).unwrap());
    fs::write(&files[0], "no identity at all").unwrap();
    cluster.start_broker(3);
    cluster.wait_in_sync(&ledger.topic, 3);
    ledger.settle(&cluster);
}

/// The leader's disk loses bits under acknowledged records: it comes back as another member,
/// which is refilled by the others before it counts.
#[test]
fn journal_damaged_in_the_middle() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "damaged");
    for _ in 0..20 {
        ledger.produce(&cluster);
    }
    let (leader, _, _) = cluster.leader(&ledger.topic);
    cluster.kill(leader);
    let mark = watch::mark();
    let journal = journal(&cluster.broker_dir(leader));
    let place = find(&journal, b"record 7").expect("the record is in the journal");
    flip(&journal, place);
    ledger.produce(&cluster);
    cluster.start_broker(leader);
    let (_, _, id) = cluster.leader(&ledger.topic);
    watch::logged(mark, &["this copy is damaged", &format!("{id}/0")]);
    cluster.wait_in_sync(&ledger.topic, 3);
    ledger.produce(&cluster);
    // The refilled copy has everything: the others go.
    wait(|| cluster.leader(&ledger.topic).0 != leader || cluster.leader(&ledger.topic).1.isr.len() == 3);
    cluster.stop((leader % 3) + 1);
    ledger.settle(&cluster);
}

fn journal(dir: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("store")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    found.sort();
    found.pop().expect("a journal")
}

fn find(path: &Path, bytes: &[u8]) -> Option<u64> {
    let mut content = Vec::new();
    fs::File::open(path).unwrap().read_to_end(&mut content).unwrap();
    content.windows(bytes.len()).position(|window| window == bytes).map(|at| at as u64)
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0xff;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
    file.sync_all().unwrap();
}
