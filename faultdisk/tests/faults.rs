//! Faults on demand, seen through the system's own calls.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use baton_faultdisk::{Fault, Mount, Names, control};
use support::Bench;

const EIO: i32 = 5;

#[test]
fn a_failed_fsync_gives_the_pages_up_and_the_next_one_succeeds() {
    let (mut given_up, mut written) = (0, 0);
    for _ in 0..3 {
        let bench = Bench::new(&[]);
        let path = bench.mount.at().join("a");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        for n in 0..12_u64 {
            file.write_all_at(&[1; 4096], 4096 * n).unwrap();
            file.sync_all().unwrap();
            file.write_all_at(&[2; 4096], 4096 * n).unwrap();
            bench.mount.inject("", Fault::FailFsync { times: Some(1) });
            assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
            file.sync_data().unwrap();
            assert_eq!(file.metadata().unwrap().len(), 4096 * (n + 1));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        for page in content.chunks(4096) {
            written += u32::from(page == [2; 4096]);
            given_up += u32::from(page != [2; 4096]);
        }
    }
    assert!(given_up > 3 && written > 3, "{given_up} {written}");
}

#[test]
fn faults_are_below_a_path_until_healed() {
    let bench = Bench::new(&["bad"]);
    let (good, bad) = (bench.mount.at().join("good"), bench.mount.at().join("bad/file"));
    fs::write(&good, "1").unwrap();
    fs::write(&bad, "1").unwrap();
    bench.mount.inject("bad", Fault::FailRead { times: None });
    bench.mount.inject("bad", Fault::FailWrite { times: None });
    assert_eq!(fs::read(&bad).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(File::options().write(true).open(&bad).unwrap().write(b"2").unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(fs::read(&good).unwrap(), b"1");
    bench.mount.heal();
    assert_eq!(fs::read(&bad).unwrap(), b"1");
}

#[test]
fn a_disk_gets_full_and_can_say_so() {
    let bench = Bench::new(&[]);
    let mut file = File::create(bench.mount.at().join("a")).unwrap();
    bench.mount.inject("", Fault::FullAfter { bytes: 10_000, announced: true });
    assert!(rustix::fs::statvfs(bench.mount.at()).unwrap().f_bavail * 4096 <= 10_000);
    let error = file.write_all(&[1; 30_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    // What is there can be written again.
    file.write_all_at(&[2; 10_000], 0).unwrap();
    bench.mount.heal();
    file.write_all(&[1; 30_000]).unwrap();
}

#[test]
fn syncs_can_be_slow() {
    let bench = Bench::new(&[]);
    let mut file = File::create(bench.mount.at().join("a")).unwrap();
    bench.mount.inject("", Fault::SlowFsync(Duration::from_millis(80)));
    file.write_all(b"1").unwrap();
    let began = Instant::now();
    file.sync_data().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(80));
}

#[test]
fn a_sync_of_a_file_keeps_its_name_only_where_that_is_so() {
    let mut kept = 0;
    for seed in 0..40 {
        for names in [Names::WithDirectorySync, Names::WithAnySync] {
            let directory = tempfile::tempdir().unwrap();
            let (backing, at) = (directory.path().join("backing"), directory.path().join("disk"));
            let mut mount = Mount::with_names(&backing, &at, names).unwrap();
            let mut file = File::create(at.join("a")).unwrap();
            file.write_all(b"1").unwrap();
            file.sync_all().unwrap();
            drop(file);
            mount.power_on(seed).unwrap();
            let there = at.join("a").exists();
            assert!(there || names == Names::WithDirectorySync, "seed {seed}");
            kept += u32::from(there && names == Names::WithDirectorySync);
        }
    }
    assert!((5..35).contains(&kept), "{kept}");
}

#[test]
fn locks_listings_and_removed_files_work_as_elsewhere() {
    let bench = Bench::new(&[]);
    let root = bench.mount.at();
    let locked = File::create(root.join("lock")).unwrap();
    locked.try_lock().unwrap();
    assert!(File::open(root.join("lock")).unwrap().try_lock().is_err());
    fs::create_dir_all(root.join("x/y")).unwrap();
    for n in 0..300 {
        fs::write(root.join(format!("x/y/{n}")), format!("{n}")).unwrap();
    }
    assert_eq!(fs::read_dir(root.join("x/y")).unwrap().count(), 300);
    let mut open = File::open(root.join("x/y/7")).unwrap();
    fs::remove_dir_all(root.join("x")).unwrap();
    assert!(!root.join("x").exists());
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "7");
    assert_eq!(fs::create_dir(root.join("lock")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    // Names can be used again.
    fs::write(root.join("x"), "file").unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), b"file");
}

#[test]
fn a_process_of_its_own_takes_commands() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut layer = std::process::Command::new(env!("CARGO_BIN_EXE_faultdisk"))
        .args([&path("backing"), &path("disk")].into_iter().fold(vec!["mount".into()], |mut arguments, path| {
            arguments.push(path.clone().into_os_string());
            arguments
        }))
        .arg("--control")
        .arg(path("control"))
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !path("control").exists() {
        assert!(Instant::now() < deadline && layer.try_wait().unwrap().is_none(), "the layer does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let tell = |command: &str| control::send(&path("control"), command);
    fs::write(path("disk/a"), "1").unwrap();
    tell("inject . fail-read").unwrap();
    assert!(fs::read(path("disk/a")).is_err());
    tell("heal").unwrap();
    assert_eq!(fs::read(path("disk/a")).unwrap(), b"1");
    File::open(path("disk/a")).unwrap().sync_all().unwrap();
    File::open(path("disk")).unwrap().sync_all().unwrap();
    assert!(tell("nonsense").is_err());
    tell("power-off").unwrap();
    assert!(fs::read(path("disk/a")).is_err());
    tell("power-on 3").unwrap();
    assert_eq!(fs::read(path("disk/a")).unwrap(), b"1");
    tell("unmount").unwrap();
    assert!(layer.wait().unwrap().success());
    assert_eq!(fs::read(path("backing/a")).unwrap(), b"1");
}

/// A sync covers what was written before it began, and not what came while it waited.
#[test]
fn what_is_written_during_a_slow_sync_may_be_lost() {
    let (mut first_kept, mut second_lost) = (0, 0);
    for seed in 0..20 {
        let mut bench = Bench::new(&[]);
        let path = bench.mount.at().join("a");
        let file = File::create(&path).unwrap();
        File::open(bench.mount.at()).unwrap().sync_all().unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        bench.mount.inject("", Fault::SlowFsync(Duration::from_millis(60)));
        let syncing = file.try_clone().unwrap();
        let sync = std::thread::spawn(move || syncing.sync_data());
        std::thread::sleep(Duration::from_millis(20));
        file.write_all_at(&[2; 512], 512).unwrap();
        sync.join().unwrap().unwrap();
        drop(file);
        bench.mount.power_on(seed).unwrap();
        let left = fs::read(&path).unwrap();
        first_kept += u32::from(left.starts_with(&[1; 512]));
        second_lost += u32::from(left.len() == 512);
    }
    assert_eq!(first_kept, 20);
    assert!(second_lost > 3, "{second_lost}");
}

/// A mount namespace that was made meanwhile holds a copy of the mount: the old file system
/// lives on there, and everything on it fails.
#[test]
fn a_copy_of_the_mount_elsewhere_holds_nothing_up() {
    let mut bench = Bench::new(&[]);
    fs::write(bench.mount.at().join("a"), "1").unwrap();
    let script = format!("echo ready; read line; cat {}", bench.mount.at().join("a").display());
    let mut elsewhere = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    elsewhere.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    bench.mount.power_off();
    let began = Instant::now();
    bench.mount.power_on(1).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fs::write(bench.mount.at().join("b"), "2").unwrap();
    elsewhere.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(!elsewhere.wait().unwrap().success(), "the old disk is off");
}
