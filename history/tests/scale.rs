//! What ten million operations cost.
//!
//! `cargo test --release -p baton-history --test scale -- --ignored --nocapture ten_million`
#![allow(clippy::unwrap_used, reason = "a test")]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton_history::record::Writer;
use baton_history::synthetic::{Shape, generate};
use baton_history::{Options, check_files};

const FILE: &str = "HISTORY_FILE";

/// What this process, or another one, had resident at most.
fn resident_kib(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// User and system time of this process: what does not depend on who else is at work.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may hold spaces: the fields from the third on.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
}

/// The other process: checks what it is told to.
#[test]
#[ignore = "a measurement"]
fn checks_one_file() {
    let Some(path) = env::var_os(FILE) else { return };
    let report = check_files(&[PathBuf::from(path)], Options::default()).unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(report.counts.operations, 10_000_000);
    assert_eq!(report.counts.verified, report.counts.acknowledged);
    println!("{:?}", report.counts);
    println!("{:.1} s of CPU, VmHWM {} KiB", cpu_seconds(), resident_kib("self").unwrap());
}

/// Each operation acknowledged or not, each record read by a consumer, in a process of its own.
#[test]
#[ignore = "a measurement"]
fn ten_million_operations_take_less_than_a_gigabyte() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("history.jsonl");
    let mut writer = Writer::create(&path, "synthetic").unwrap();
    let shape = Shape {
        seed: 1,
        operations: 10_000_000,
        partitions: 30,
        producers: 20,
        consumers: 1,
        poll_records_max: 500,
        replicas: false,
    };
    generate(shape, |event| writer.write(&event).unwrap());
    writer.flush().unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    let began = Instant::now();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["checks_one_file", "--exact", "--ignored", "--nocapture"]).env(FILE, &path).stdout(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let (process, mut most_kib) = (child.id().to_string(), 0);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        most_kib = most_kib.max(resident_kib(&process).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success());
    let seconds = began.elapsed().as_secs_f64();
    println!("{seconds:.1} s, {} MiB resident at most, a file of {} MiB", most_kib >> 10, bytes >> 20);
    assert!(most_kib * 1024 < 1_000_000_000, "{most_kib} KiB");
}
