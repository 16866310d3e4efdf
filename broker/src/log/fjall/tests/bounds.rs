//! Memory and disk stay bounded, and opening is quick.

use std::process::Stdio;

use super::*;
use crate::log::contract::{batch, id, one};

/// How much is written; `BATON_LOG_MIB=2048` takes its time.
fn mebibytes() -> u64 {
    std::env::var("BATON_LOG_MIB").ok().and_then(|s| s.parse().ok()).unwrap_or(384)
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&entry.path()),
        // Files may go while we look.
        Ok(m) => m.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// In a process of its own, because its memory is measured.
#[test]
fn much_passes_through_little_memory_and_disk() {
    let name = "log::fjall::tests::bounds::much_passes_through_little_memory_and_disk";
    match as_child() {
        Some(dir) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(pass_through(&dir));
        }
        None => {
            let dir = tempfile::tempdir().unwrap();
            let mut child = child(name, dir.path()).stdout(Stdio::inherit()).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(30 + mebibytes());
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if Instant::now() > deadline {
                    child.kill().unwrap();
                    panic!("it is wedged");
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            assert!(status.success(), "{status}");
        }
    }
}

/// Rotates memtables some hundred times, while retention follows the writing.
async fn pass_through(dir: &Path) {
    const PARTITIONS: u32 = 32;
    let options = FjallOptions {
        rotate_bytes: 1 << 20,
        write_buffer_bytes_max: 8 << 20,
        cache_bytes: 8 << 20,
        reserve_bytes: 0,
        queued_bytes_max: 8 << 20,
        ..FjallOptions::default()
    };
    let log = open(dir, options).unwrap();
    let mut partitions = Vec::new();
    for n in 0..PARTITIONS {
        partitions.push(log.create(id(n), Generation(0), Offset(0)).await.unwrap());
    }
    let began = Instant::now();
    let (mut written, mut base, mut disk_max) = (0, 0, 0);
    while written < mebibytes() << 20 {
        let payload = if base % 4 == 0 { 700 } else { 40_000 };
        let next = batch(base, 1, 1, base as i64, payload);
        let calls = partitions.iter().map(|p| log.append(one(*p, std::slice::from_ref(&next))));
        for answer in futures::future::join_all(calls.collect::<Vec<_>>()).await {
            answer.unwrap();
        }
        written += next.bytes.len() as u64 * u64::from(PARTITIONS);
        base += 1;
        if base % 50 == 0 {
            // About 30 MiB are kept.
            for p in &partitions {
                log.set_start(*p, Offset(base.saturating_sub(30)), None).await.unwrap();
            }
            disk_max = disk_max.max(disk_bytes(dir));
        }
    }
    let (memory, took) = (memory_bytes(), began.elapsed());
    println!(
        "{} MiB in {took:?}, at most {} MiB of disk and {} MiB of memory",
        written >> 20,
        disk_max >> 20,
        memory >> 20
    );
    assert!(memory < 256 << 20, "{memory} bytes of memory");
    assert!(disk_max < written / 2 + (200 << 20), "{disk_max} bytes of disk");
    for p in &partitions {
        let read = log.read(*p, Offset(base - 1), usize::MAX).await.unwrap();
        assert_eq!(read.batches.len(), 1);
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn an_idle_log_gives_back_the_space_of_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let options = FjallOptions {
        rotate_bytes: 4 << 20,
        reserve_bytes: 0,
        reclaim_interval: Duration::from_millis(300),
        ..FjallOptions::default()
    };
    let log = open(dir.path(), options).unwrap();
    let kept = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    let gone = log.create(id(1), Generation(0), Offset(0)).await.unwrap();
    for n in 0..64 {
        log.append(one(gone, &[batch(n, 1, 1, 0, 1 << 20)])).await.unwrap();
        log.append(one(kept, &[batch(n, 1, 1, 0, 1 << 10)])).await.unwrap();
    }
    let before = disk_bytes(dir.path());
    assert!(before > 64 << 20, "{before} bytes");
    log.delete(gone).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while disk_bytes(dir.path()) > 32 << 20 {
        let left = disk_bytes(dir.path());
        assert!(Instant::now() < deadline, "{left} bytes are left of {before}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let read = log.read(kept, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(read.batches.len(), 64);
}

#[tokio::test]
async fn a_thousand_partitions_open_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let ids = (0..1_000).map(|n| log.create(id(n), Generation(0), Offset(0)));
    let created = futures::future::join_all(ids.collect::<Vec<_>>()).await;
    let partitions: Vec<_> = created.into_iter().map(Result::unwrap).collect();
    for base in 0..5 {
        let appends = partitions.iter().map(|p| Append { partition: *p, batches: vec![batch(base, 1, 1, 0, 2_000)] });
        log.append(appends.collect()).await.unwrap();
    }
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    println!("{:?}", log.opening());
    assert!(log.opening().took < Duration::from_secs(10), "{:?}", log.opening());
    assert_eq!(log.recovered().len(), 1_000);
    assert!(log.recovered().values().all(|r| r.end == Offset(5) && r.damage.is_none()));
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let slow = |file: &File| {
        std::thread::sleep(Duration::from_millis(20));
        file.sync_data()
    };
    let options = FjallOptions { queued_bytes_max: 20_000, reads_queued_max: 4, sync: Arc::new(slow), ..small() };
    let log = open(dir.path(), options).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    let calls: Vec<_> = (0..50).map(|n| log.append(one(p, &[batch(n, 1, 1, 0, 4_000)]))).collect();
    let answers = futures::future::join_all(calls).await;
    let refused = answers.iter().filter(|a| matches!(a, Err(LogError::Overloaded { .. }))).count();
    let written = answers.iter().take_while(|a| a.is_ok()).count();
    assert!(refused > 20 && written > 4, "{refused} refused, {written} written");
    let read = log.read(p, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(read.batches.len(), written);
}
