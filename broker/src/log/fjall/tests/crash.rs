//! Processes killed under load: what they had acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use baton_core::Epoch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::log::contract::{batch, id, one};
use crate::log::{LogError, StoredBatch};

const ROUNDS: u64 = 10;
const PARTITIONS: u32 = 8;

/// What a child has been told is durable.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    end: u64,
    start: u64,
    epoch: u32,
}

/// Any batch can be made again from its base and epoch.
fn nth(base: u64, epoch: u32) -> StoredBatch {
    let mut random = StdRng::seed_from_u64(base << 20 | u64::from(epoch));
    let records = random.random_range(1..30);
    let payload = if random.random_ratio(1, 20) { 60_000 } else { random.random_range(0..3_000) };
    batch(base, records, epoch, random.random_range(0..1_000_000), payload)
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // The parent may have stopped listening.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = as_child() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.unwrap().block_on(work(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut promises = [Promise::default(); PARTITIONS as usize];
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let name = "log::fjall::tests::crash::what_was_acknowledged_survives_kill_9";
        let mut child = child(name, dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let patience = Duration::from_millis(150 + round * 37 % 200);
        let mut working_since = None;
        for line in lines.lines().map_while(Result::ok) {
            acknowledged += u64::from(note(&line, &mut promises));
            let began = *working_since.get_or_insert_with(Instant::now);
            // On a busy machine it takes longer until there is something to lose.
            if began.elapsed() > patience && acknowledged > 20 * (round + 1) {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(verify(dir.path(), &mut promises));
    }
    println!("{acknowledged} acknowledgements in {ROUNDS} rounds");
}

/// Takes note of one line of the child; says whether it was an acknowledgement.
fn note(line: &str, promises: &mut [Promise]) -> bool {
    // The first line of a test that runs has the name of the test before it.
    let line = line.rsplit("... ").next().unwrap_or(line);
    let words: Vec<_> = line.split(' ').collect();
    let [what, partition, number, "."] = words[..] else { return false };
    let promise = &mut promises[partition.parse::<usize>().unwrap()];
    let number: u64 = number.parse().unwrap();
    match what {
        "ack" => promise.end = number,
        "cutting" => promise.end = promise.end.min(number),
        "start" => promise.start = number,
        "epoch" => promise.epoch = number as u32,
        _ => panic!("{line}"),
    }
    what == "ack"
}

/// The child: appends, truncates, expires, until it is killed.
async fn work(dir: &Path) {
    let log = Arc::new(open(dir, small()).unwrap());
    let recovered = log.recovered();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..PARTITIONS {
        let known = recovered.values().find(|r| r.id == id(n)).cloned();
        tasks.spawn(work_on(Arc::clone(&log), n, known));
    }
    tasks.join_all().await;
}

async fn work_on(log: Arc<FjallLog>, n: u32, known: Option<Recovered>) {
    let (p, mut start, mut end, mut epoch) = match known {
        Some(r) => (r.partition, r.start.0, r.end.0, r.meta.highest_epoch.0 + 1),
        None => (log.create(id(n), Generation(0), Offset(0)).await.unwrap(), 0, 0, 1),
    };
    if end > start {
        // No log goes back to an older epoch.
        let tail = log.read(p, Offset(end - 1), 1).await.unwrap();
        epoch = epoch.max(tail.batches[0].epoch.0 + 1);
    }
    let mut random = StdRng::seed_from_u64(end);
    loop {
        match random.random_range(0..20) {
            0 => {
                let inside = Offset(start + (end - start) / 10 * 9);
                let there = log.read(p, inside, 1).await.unwrap();
                end = there.batches.first().map_or(end, |b| b.base.0.max(start));
                say(format_args!("cutting {n} {end} ."));
                log.truncate(p, Offset(end), None).await.unwrap();
                epoch += 1;
            }
            1 => {
                start = (start + (end - start) / 3).min(end);
                log.set_start(p, Offset(start), None).await.unwrap();
                say(format_args!("start {n} {start} ."));
            }
            2 => {
                let meta = PartitionMeta { highest_epoch: Epoch(epoch), ..Default::default() };
                log.save(p, meta).await.unwrap();
                say(format_args!("epoch {n} {epoch} ."));
            }
            _ => {
                let mut batches = Vec::new();
                for _ in 0..random.random_range(1..6) {
                    let next = nth(end, epoch);
                    end = next.last.0 + 1;
                    batches.push(next);
                }
                log.append(one(p, &batches)).await.unwrap();
                say(format_args!("ack {n} {end} ."));
            }
        }
    }
}

async fn verify(dir: &Path, promises: &mut [Promise]) {
    let log = open(dir, FjallOptions { check_all: true, ..small() }).unwrap();
    assert!(log.opening().took < Duration::from_secs(5), "{:?}", log.opening());
    for (n, promise) in promises.iter_mut().enumerate() {
        let recovered = log.recovered();
        let found = recovered.values().find(|r| r.id == id(n as u32));
        let Some(found) = found else {
            assert_eq!(promise.end, 0, "partition {n} is gone");
            continue;
        };
        assert_eq!(found.damage, None, "{found:?}, promised {promise:?}");
        assert!(found.end.0 >= promise.end, "{found:?}, promised {promise:?}");
        assert!(found.start.0 >= promise.start, "{found:?}, promised {promise:?}");
        assert!(found.meta.highest_epoch.0 >= promise.epoch, "{found:?}, promised {promise:?}");
        let mut at = found.start;
        while at < found.end {
            let read = log.read(found.partition, at, 1 << 20).await.unwrap();
            for batch in &read.batches {
                assert_eq!(*batch, nth(batch.base.0, batch.epoch.0));
            }
            at = read.batches.last().unwrap().end();
        }
        *promise = Promise { end: found.end.0, start: found.start.0, ..*promise };
    }
}

#[tokio::test]
async fn a_failed_fsync_taints_the_directory_and_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let reasons = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (fails, heard) = (Arc::clone(&failing), Arc::clone(&reasons));
    let sync = move |file: &File| match fails.load(Ordering::Relaxed) {
        true => Err(io::Error::other("the disk is gone")),
        false => file.sync_data(),
    };
    let options = FjallOptions {
        sync: Arc::new(sync),
        on_fatal: Arc::new(move |why| heard.lock().unwrap().push(why.to_owned())),
        ..small()
    };
    let log = open(dir.path(), options).unwrap();
    let disk = log.identity().disk;
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.append(one(p, &[batch(0, 10, 1, 5, 100)])).await.unwrap();
    failing.store(true, Ordering::Relaxed);
    for n in 1..4 {
        let failed = log.append(one(p, &[batch(n * 10, 10, 1, 5, 100)])).await;
        assert!(matches!(failed, Err(LogError::Failed(_))), "{failed:?}");
        assert!(matches!(log.read(p, Offset(0), 1).await, Err(LogError::Failed(_))));
    }
    drop(log);
    let reasons = reasons.lock().unwrap().clone();
    assert!(matches!(&reasons[..], [one] if one.contains("the disk is gone")), "{reasons:?}");

    let log = open(dir.path(), small()).unwrap();
    assert!(matches!(&log.opening().left, Left::Tainted(why) if why.contains("the disk is gone")));
    assert_eq!(log.identity().disk, disk, "nothing is missing, so it is still that disk");
    assert!(log.recovered()[&p].end >= Offset(10));
    assert_eq!(log.recovered()[&p].damage, None);
    log.close().await.unwrap();
    drop(log);
    assert_eq!(open(dir.path(), small()).unwrap().opening().left, Left::Closed);
}

#[tokio::test]
async fn nobody_is_answered_and_nothing_is_read_before_the_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let sync = move |file: &File| {
        while hold.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        file.sync_data()
    };
    let log = open(dir.path(), FjallOptions { sync: Arc::new(sync), ..small() }).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.append(one(p, &[batch(0, 10, 1, 5, 100)])).await.unwrap();
    held.store(true, Ordering::Relaxed);
    let mut append = log.append(one(p, &[batch(10, 10, 1, 5, 100)]));
    let mut save = log.save(p, PartitionMeta { highest_epoch: Epoch(7), ..Default::default() });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut append).await;
    assert!(early.is_err(), "answered before the fsync");
    let early = tokio::time::timeout(Duration::from_millis(1), &mut save).await;
    assert!(early.is_err(), "answered before the fsync");
    let read = log.read(p, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(read.batches.len(), 1, "only what is durable is read");
    held.store(false, Ordering::Relaxed);
    append.await.unwrap();
    save.await.unwrap();
    assert_eq!(log.read(p, Offset(0), usize::MAX).await.unwrap().batches.len(), 2);
}

#[tokio::test]
async fn journals_that_may_be_in_memory_only_are_written_anew() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("store/0.jnl");
    let inode = || journal.metadata().unwrap().ino();
    let log = open(dir.path(), small()).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.append(one(p, &[batch(0, 10, 1, 5, 100)])).await.unwrap();
    drop(log);
    for (taint, close) in [(false, false), (true, false), (false, true)] {
        let before = inode();
        if taint {
            DataDirectory::taint(dir.path(), "fsync").unwrap();
        }
        let log = open(dir.path(), small()).unwrap();
        assert_ne!(inode(), before, "it is read from the page cache, and may be nowhere else");
        assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(10), &None));
        if close {
            log.close().await.unwrap();
        }
    }
    let before = inode();
    drop(open(dir.path(), small()).unwrap());
    assert_eq!(inode(), before, "it was closed after its last sync");

    let failing: SyncFile = Arc::new(|_| Err(io::Error::other("the disk is gone")));
    let refused = open(dir.path(), FjallOptions { sync: failing, ..small() }).err().unwrap();
    assert!(matches!(&refused, OpenError::Io { cause, .. } if cause.to_string() == "the disk is gone"), "{refused}");
}

/// A broker that was killed starts on a full disk once there is room.
#[tokio::test]
async fn a_start_without_room_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.append(one(p, &[batch(0, 10, 1, 5, 100)])).await.unwrap();
    drop(log);
    let full: SyncFile = Arc::new(|_| Err(io::ErrorKind::StorageFull.into()));
    let refused = open(dir.path(), FjallOptions { sync: full, ..small() }).err().unwrap();
    assert!(matches!(refused, OpenError::NoRoom { .. }), "{refused}");
    let left = std::fs::read_dir(dir.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
    assert!(left.into_iter().all(|path| path.extension().is_none_or(|end| end != "new")), "a copy takes room");
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.recovered()[&p].end, Offset(10));
}

/// What a process leaves that dies while it creates the store: nothing that stands in the way.
#[test]
fn a_store_that_was_never_finished_is_begun_again() {
    type Step = fn(&Path);
    let steps: [Step; 5] = [
        |store| std::fs::create_dir_all(store).unwrap(),
        |store| std::fs::write(store.join("lock"), []).unwrap(),
        |store| std::fs::create_dir(store.join("keyspaces")).unwrap(),
        |store| std::fs::write(store.join("0.jnl"), vec![0; 100_000]).unwrap(),
        |store| std::fs::write(store.join("version"), [0; 4]).unwrap(),
    ];
    for count in 1..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        steps[..count].iter().for_each(|step| step(&dir.path().join("store")));
        open(dir.path(), small()).unwrap_or_else(|e| panic!("after {count} steps: {e}"));
    }
}

#[tokio::test]
async fn a_store_with_something_in_it_is_never_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    drop(log);
    let store = dir.path().join("store");
    std::fs::remove_file(store.join("version")).unwrap();
    std::fs::remove_dir_all(store.join("keyspaces")).unwrap();
    doctor::remove_unborn(&store).unwrap();
    assert!(store.join("0.jnl").exists(), "its journal holds something");
}

#[tokio::test]
async fn a_directory_that_has_lost_everything_is_another_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let first = log.identity();
    log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    std::fs::remove_file(dir.path().join("witness")).unwrap();
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let second = open(dir.path(), small()).unwrap().identity();
    assert_ne!(second.disk, first.disk, "its empty copies are not those that others remember");
    assert_eq!(open(dir.path(), small()).unwrap().identity(), second);
}
