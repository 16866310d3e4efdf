//! Batches and records that are not what they were.

use baton_core::Epoch;
use bytes::Bytes;

use super::*;
use crate::log::Damage;
use crate::log::contract::{batch, id, one};
use crate::log::fjall::keys::Prefix;
use crate::log::fjall::store::Writes;

/// A closed directory with ten batches of ten records in one partition.
async fn ten_batches(dir: &Path) -> LocalPartition {
    let log = open(dir, small()).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    for n in 0..10 {
        log.append(one(p, &[batch(n * 10, 10, n as u32 + 1, 5, 400)])).await.unwrap();
    }
    let meta = PartitionMeta { highest_epoch: Epoch(10), ..Default::default() };
    log.save(p, meta).await.unwrap();
    log.close().await.unwrap();
    p
}

/// Changes the store behind the log's back.
fn tamper(dir: &Path, change: impl FnOnce(&mut Writes)) {
    let floors = Arc::new(Floors::default());
    let mut store = Store::open(&dir.join("store"), &small(), &floors).unwrap();
    let mut writes = store.writes();
    change(&mut writes);
    store.write(writes).unwrap();
    store.sync().unwrap();
}

fn flipped(n: u64) -> crate::log::StoredBatch {
    let mut batch = batch(n * 10, 10, n as u32 + 1, 5, 400);
    let mut bytes = batch.bytes.to_vec();
    bytes[100] ^= 4;
    batch.bytes = Bytes::from(bytes);
    batch
}

#[tokio::test]
async fn a_bad_batch_is_reported_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.batch(Prefix(p.0), &flipped(5)));
    let log = open(dir.path(), small()).unwrap();
    // Opening looks at both ends only, unless the directory is tainted.
    assert_eq!(log.recovered()[&p].damage, None);
    let before = log.read(p, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(before.batches.len(), 5);
    let damage = Damage::BadChecksum { at: Offset(50) };
    let read = log.read(p, Offset(50), usize::MAX).await;
    assert_eq!(read, Err(LogError::Damaged(damage.clone())));
    log.close().await.unwrap();
    drop(log);

    DataDirectory::taint(dir.path(), "a test").unwrap();
    for _ in 0..2 {
        let log = open(dir.path(), small()).unwrap();
        assert_eq!(log.recovered()[&p].damage, Some(damage.clone()), "it is remembered");
        let refused = log.append(one(p, &[batch(100, 1, 11, 5, 5)])).await;
        assert_eq!(refused, Err(LogError::DamagedCopy { partition: p, damage: damage.clone() }));
        log.close().await.unwrap();
    }
    let log = open(dir.path(), small()).unwrap();
    log.truncate(p, Offset(60), None).await.unwrap();
    let still = log.append(one(p, &[batch(60, 1, 11, 5, 5)])).await;
    assert_eq!(still, Err(LogError::DamagedCopy { partition: p, damage }), "the bad batch is still there");
    log.truncate(p, Offset(50), None).await.unwrap();
    log.append(one(p, &[batch(50, 1, 11, 5, 5)])).await.unwrap();
    drop(log);
    let log = open(dir.path(), FjallOptions { check_all: true, ..small() }).unwrap();
    let found = &log.recovered()[&p];
    assert_eq!((found.end, &found.damage), (Offset(51), &None));
}

#[tokio::test]
async fn a_bad_last_batch_is_noticed_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.batch(Prefix(p.0), &flipped(9)));
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.recovered()[&p].damage, Some(Damage::BadChecksum { at: Offset(90) }));
}

#[tokio::test]
async fn a_hole_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.remove_batch(Prefix(p.0), Offset(39)));
    let gap = Damage::Gap { expected: Offset(30), found: Offset(40) };
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.read(p, Offset(0), usize::MAX).await.unwrap().batches.len(), 3);
    assert_eq!(log.read(p, Offset(30), 1).await, Err(LogError::Damaged(gap.clone())));
    drop(log);
    let log = open(dir.path(), FjallOptions { check_all: true, ..small() }).unwrap();
    assert_eq!(log.recovered()[&p].damage, Some(gap));
}

#[tokio::test]
async fn a_lost_tail_is_noticed_and_may_be_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| {
        for last in [79, 89, 99] {
            writes.remove_batch(Prefix(p.0), Offset(last));
        }
    });
    let lost = Damage::EndBelowWitness { end: Offset(70), witness: Offset(100) };
    for _ in 0..2 {
        let log = open(dir.path(), small()).unwrap();
        assert_eq!(log.recovered()[&p].damage, Some(lost.clone()));
        assert_eq!(log.read(p, Offset(0), usize::MAX).await.unwrap().batches.len(), 7);
    }
    let log = open(dir.path(), small()).unwrap();
    log.truncate(p, Offset(70), None).await.unwrap();
    log.append(one(p, &[batch(70, 1, 11, 5, 5)])).await.unwrap();
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(71), &None));
}

#[tokio::test]
async fn an_older_tail_that_comes_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.batch(Prefix(p.0), &batch(90, 10, 3, 5, 400)));
    let log = open(dir.path(), small()).unwrap();
    let older = Damage::EpochBelowWitness { epoch: Epoch(3), witness: Epoch(10) };
    assert_eq!(log.recovered()[&p].damage, Some(older));
    drop(log);

    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.remove(&keys::record(keys::META, p)));
    let log = open(dir.path(), small()).unwrap();
    let forgotten = Damage::EpochBelowWitness { epoch: Epoch(0), witness: Epoch(10) };
    let found = &log.recovered()[&p];
    assert_eq!(found.damage, Some(forgotten), "a promise was forgotten");
    assert_eq!(found.meta.highest_epoch, Epoch(10), "and is kept all the same");
}

#[tokio::test]
async fn a_reset_that_was_lost_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    let log = open(dir.path(), small()).unwrap();
    log.reset(p, Generation(1), Offset(0), bytes::Bytes::new()).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    tamper(dir.path(), |writes| {
        let (generation, prefix, start) = (Generation(0), Prefix(p.0), Offset(0));
        let old = records::Descriptor { id: id(0), generation, prefix, start };
        writes.put(&keys::record(keys::DESCRIPTOR, p), old.encode());
    });
    let log = open(dir.path(), small()).unwrap();
    let found = &log.recovered()[&p];
    assert!(matches!(found.damage, Some(Damage::Unreadable { .. })), "{found:?}");
    assert_eq!(found.generation, Generation(1), "the next one has never been seen");
}

#[tokio::test]
async fn a_number_is_not_given_out_again_when_older_metadata_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    let log = open(dir.path(), small()).unwrap();
    log.reset(p, Generation(1), Offset(0), bytes::Bytes::new()).await.unwrap();
    log.append(one(p, &[batch(0, 10, 11, 5, 400), batch(10, 10, 11, 5, 400)])).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    tamper(dir.path(), |writes| {
        let old = records::Descriptor { id: id(0), generation: Generation(0), prefix: Prefix(p.0), start: Offset(0) };
        writes.put(&keys::record(keys::DESCRIPTOR, p), old.encode());
        writes.put(keys::NEXT_NUMBER, records::encode_number(1));
    });
    let log = open(dir.path(), small()).unwrap();
    log.reset(p, Generation(2), Offset(0), bytes::Bytes::new()).await.unwrap();
    let new = batch(0, 5, 12, 5, 50);
    log.append(one(p, std::slice::from_ref(&new))).await.unwrap();
    assert_eq!(log.read(p, Offset(0), usize::MAX).await.unwrap().batches, [new]);
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(5), &None));
}

#[tokio::test]
async fn a_witness_that_cannot_be_read_makes_all_doubtful() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    std::fs::remove_file(dir.path().join("witness")).unwrap();
    let log = open(dir.path(), small()).unwrap();
    assert!(matches!(log.recovered()[&p].damage, Some(Damage::Unreadable { .. })));
}

/// Files that hold batches.
fn blob_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(blob_files(&entry.path()));
        } else if dir.ends_with("blobs") {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn a_damaged_file_of_the_store_damages_a_partition_not_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = || FjallOptions { idle_rotation: Duration::ZERO, ..small() };
    let log = open(dir.path(), options()).unwrap();
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    for n in 0..10 {
        log.append(one(p, &[batch(n, 1, 1, 5, 20_000)])).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while blob_files(dir.path()).is_empty() {
        assert!(Instant::now() < deadline, "nothing was flushed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    log.close().await.unwrap();
    drop(log);
    let files = blob_files(dir.path());
    for file in &files {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let on_fatal: OnFatal = Arc::new(|why| panic!("{why}"));
    let log = open(dir.path(), FjallOptions { on_fatal, ..options() }).unwrap();
    let mut at = Offset(0);
    let damage = loop {
        match log.read(p, at, usize::MAX).await {
            Ok(read) => at = read.batches.last().expect("it ends before the damage").end(),
            Err(error) => break error,
        }
    };
    assert!(matches!(damage, LogError::Damaged(_)), "{damage}");
    log.reset(p, Generation(1), Offset(3), bytes::Bytes::new()).await.unwrap();
    log.append(one(p, &[batch(3, 1, 2, 5, 5)])).await.unwrap();
}

/// What a reader met is known to the next opening, which does not look there itself.
#[tokio::test]
async fn damage_that_a_reader_met_is_remembered_until_the_copy_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.batch(Prefix(p.0), &flipped(5)));
    let damage = Damage::BadChecksum { at: Offset(50) };
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.read(p, Offset(50), 1).await, Err(LogError::Damaged(damage.clone())));
    // Noted before anything that is called later.
    let refused = log.append(one(p, &[batch(100, 1, 11, 5, 5)])).await;
    assert_eq!(refused, Err(LogError::DamagedCopy { partition: p, damage: damage.clone() }));
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.recovered()[&p].damage, Some(damage));
    log.reset(p, Generation(1), Offset(0), bytes::Bytes::new()).await.unwrap();
    log.append(one(p, &[batch(0, 10, 12, 5, 400)])).await.unwrap();
    assert_eq!(log.read(p, Offset(0), usize::MAX).await.unwrap().batches.len(), 1);
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(10), &None));
}

/// A store that cannot be opened gives way to an empty one: no copy is taken for what it was,
/// and the bytes are kept.
#[tokio::test]
async fn a_store_beyond_repair_is_set_aside_and_every_copy_counts_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    let disk = open(dir.path(), small()).unwrap().identity().disk;
    std::fs::write(dir.path().join("store/version"), b"FJL?").unwrap();
    let log = open(dir.path(), small()).unwrap();
    let aside = log.opening().set_aside.clone().expect("it was set aside");
    assert!(aside.join("keyspaces").exists() && aside.starts_with(dir.path()));
    assert_eq!(log.identity().disk, disk);
    let found = &log.recovered()[&p];
    assert_eq!(found.damage, Some(Damage::EndBelowWitness { end: Offset(0), witness: Offset(100) }));
    assert_eq!(found.meta.highest_epoch, Epoch(10), "a promise outlives the data");
    log.reset(p, found.generation.next(), Offset(0), bytes::Bytes::new()).await.unwrap();
    log.append(one(p, &[batch(0, 10, 12, 5, 400)])).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!((log.opening().set_aside.clone(), log.recovered()[&p].end), (None, Offset(10)));
}

/// Whatever single byte of the store's small files goes bad, opening either finds nothing wrong
/// that matters or says so; it never fails, and never serves anything else.
#[tokio::test]
async fn any_bad_byte_of_the_stores_own_files_is_survived() {
    let template = tempfile::tempdir().unwrap();
    let p = ten_batches(template.path()).await;
    // Once more, so that there are tables.
    let log = open(template.path(), FjallOptions { rotate_bytes: 1, ..small() }).unwrap();
    log.append(one(p, &[batch(100, 10, 11, 5, 400)])).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let batches: Vec<_> = (0..11).map(|n| batch(n * 10, 10, n as u32 + 1, 5, 400)).collect();
    let small_files = files(&template.path().join("store"));
    for (n, file) in small_files.iter().enumerate() {
        let length = std::fs::metadata(file).unwrap().len();
        for step in 0..8 {
            let dir = tempfile::tempdir().unwrap();
            copy(template.path(), dir.path());
            let path = dir.path().join(file.strip_prefix(template.path()).unwrap());
            let mut bytes = std::fs::read(&path).unwrap();
            let at = (length * step / 8) as usize;
            bytes[at] ^= 1 << (n % 8);
            std::fs::write(&path, bytes).unwrap();
            let log = open(dir.path(), small()).unwrap_or_else(|e| panic!("{path:?} at {at}: {e}"));
            let mut from = Offset(0);
            while let Ok(read) = log.read(p, from, 1).await {
                let Some(found) = read.batches.first() else { break };
                assert!(batches.contains(found), "{path:?} at {at}: another batch at {from:?}");
                from = found.end();
            }
        }
    }
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if std::fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Where the bytes of a batch are in the blob files.
fn find_in(files: &[std::path::PathBuf], wanted: &[u8]) -> Option<(std::path::PathBuf, usize)> {
    files.iter().find_map(|file| {
        let bytes = std::fs::read(file).unwrap();
        let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
        Some((file.clone(), at))
    })
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_damaged_batch_that_nobody_refers_to_ends_the_process_once() {
    for damaged_byte in [500, 14] {
        let dir = tempfile::tempdir().unwrap();
        let ends = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&ends);
        let options = || FjallOptions {
            idle_rotation: Duration::ZERO,
            reclaim_interval: Duration::from_millis(300),
            on_fatal: {
                let counted = Arc::clone(&counted);
                Arc::new(move |_: &str| {
                    counted.fetch_add(1, Ordering::Relaxed);
                })
            },
            ..small()
        };
        let log = open(dir.path(), options()).unwrap();
        let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
        let q = log.create(id(1), Generation(0), Offset(0)).await.unwrap();
        let nth = |n| batch(n, 1, 1, 5, 20_000 + n as usize);
        let mut appends = Vec::new();
        for n in 0..8 {
            appends.extend(one(p, &[nth(n)]));
        }
        appends.extend(one(q, &[nth(0), nth(1)]));
        log.append(appends).await.unwrap();
        until("nothing was flushed", || find_in(&blob_files(dir.path()), &nth(4).bytes).is_some()).await;
        log.close().await.unwrap();
        drop(log);
        let (file, at) = find_in(&blob_files(dir.path()), &nth(4).bytes).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[at + damaged_byte] ^= 1;
        std::fs::write(&file, bytes).unwrap();

        let log = open(dir.path(), options()).unwrap();
        log.delete(p).await.unwrap();
        until("the file was never rewritten", || ends.load(Ordering::Relaxed) > 0).await;
        drop(log);
        let log = open(dir.path(), options()).unwrap();
        assert!(matches!(log.opening().left, Left::Tainted(_)));
        assert_eq!(log.recovered()[&q].damage, None, "it was in the same file");
        until("its space never came back", || !file.exists()).await;
        assert_eq!(log.read(q, Offset(0), usize::MAX).await.unwrap().batches, [nth(0), nth(1)]);
        log.close().await.unwrap();
        assert_eq!(ends.load(Ordering::Relaxed), 1, "damaged at {damaged_byte}");
    }
}

#[tokio::test]
async fn damage_in_a_batch_is_as_visible_after_the_file_was_mended() {
    for damaged_byte in [500, 14, 62] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), FjallOptions { idle_rotation: Duration::ZERO, ..small() }).unwrap();
        let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
        let nth = |n| batch(n, 1, 1, 5, 20_000 + n as usize);
        log.append(one(p, &[nth(0), nth(1), nth(2)])).await.unwrap();
        until("nothing was flushed", || find_in(&blob_files(dir.path()), &nth(1).bytes).is_some()).await;
        log.close().await.unwrap();
        drop(log);
        let (file, at) = find_in(&blob_files(dir.path()), &nth(1).bytes).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[at + damaged_byte] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(mend::mend(&dir.path().join("store")).unwrap(), 1);
        assert_eq!(mend::mend(&dir.path().join("store")).unwrap(), 0, "it is whole for the store");
        let log = open(dir.path(), FjallOptions { check_all: true, ..small() }).unwrap();
        assert_eq!(log.recovered()[&p].damage, Some(Damage::BadChecksum { at: Offset(1) }), "byte {damaged_byte}");
    }
}

/// A process that the store's own threads have ended because of damage would meet it again
/// after every start: tables are rewritten as soon as they are open.
#[tokio::test]
async fn a_store_that_damage_has_stopped_before_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    tamper(dir.path(), |writes| writes.batch(Prefix(p.0), &flipped(5)));
    DataDirectory::taint(dir.path(), "FjallError: Poisoned").unwrap();
    let log = open(dir.path(), small()).unwrap();
    assert!(log.opening().set_aside.is_some());
    let damage = Damage::EndBelowWitness { end: Offset(0), witness: Offset(100) };
    assert_eq!(log.recovered()[&p].damage, Some(damage));
    drop(log);
    // Without damage in it a full disk, say, is what stopped it: everything stays.
    let dir = tempfile::tempdir().unwrap();
    let p = ten_batches(dir.path()).await;
    DataDirectory::taint(dir.path(), "FjallError: Poisoned").unwrap();
    let log = open(dir.path(), small()).unwrap();
    assert_eq!((&log.opening().set_aside, &log.recovered()[&p].damage), (&None, &None));
}
