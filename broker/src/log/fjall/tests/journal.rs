//! Torn and damaged journals: a torn tail costs nothing, and what damage costs is noticed.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;
use crate::log::Damage;
use crate::log::contract::{batch, id, one};

const PARTITIONS: u32 = 5;
/// Each of this many batches of ten records was acknowledged.
const BATCHES: u64 = 30;

/// A directory left by a process that was killed when it had nothing to do.
async fn left_behind(dir: &Path) -> Vec<LocalPartition> {
    // No rotation: everything is in the journal.
    let log = open(dir, FjallOptions { reserve_bytes: 0, ..FjallOptions::default() }).unwrap();
    let mut partitions = Vec::new();
    for n in 0..PARTITIONS {
        partitions.push(log.create(id(n), Generation(0), Offset(0)).await.unwrap());
    }
    for round in 0..BATCHES {
        for p in &partitions {
            let next = batch(round * 10, 10, 1, 1_000, 300 + 17 * round as usize);
            log.append(one(*p, &[next])).await.unwrap();
        }
    }
    partitions
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The newest journal, and how much of it is used.
fn journal(dir: &Path) -> (PathBuf, u64) {
    assert_eq!(doctor::repair(&dir.join("store")).unwrap(), [], "nothing is torn yet");
    let (_, path) = doctor::newest_journal(&dir.join("store")).unwrap().unwrap();
    let used = path.metadata().unwrap().len();
    (path, used)
}

/// Opens a damaged copy: nothing may be missing without being reported.
async fn check(dir: &Path, partitions: &[LocalPartition], what: &str) -> (u32, Opening) {
    let log = open(dir, small()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let recovered = log.recovered();
    let mut damaged = 0;
    for p in partitions {
        let found = recovered.get(p).unwrap_or_else(|| panic!("{what}: {p:?} is gone"));
        let whole = found.end == Offset(BATCHES * 10);
        assert_eq!(whole, found.damage.is_none(), "{what}: {found:?}");
        damaged += u32::from(!whole);
        if found.end > found.start {
            let read = log.read(*p, found.start, usize::MAX).await.unwrap();
            assert_eq!(read.batches.last().unwrap().end(), found.end, "{what}");
        }
        if !whole {
            let refused = log.append(one(*p, &[batch(found.end.0, 1, 1, 1, 1)])).await;
            assert!(matches!(refused, Err(LogError::DamagedCopy { .. })), "{what}: {refused:?}");
            log.reset(*p, found.generation.next(), Offset(7), bytes::Bytes::new()).await.unwrap();
            log.append(one(*p, &[batch(7, 1, 2, 1, 1)])).await.unwrap();
        }
    }
    let opening = log.opening().clone();
    drop(log);
    let again = open(dir, small()).unwrap();
    assert!(again.recovered().values().all(|r| r.damage.is_none()), "{what}: not repaired");
    (damaged, opening)
}

#[tokio::test]
async fn a_torn_tail_costs_nothing() {
    let base = tempfile::tempdir().unwrap();
    let partitions = left_behind(base.path()).await;
    let (path, used) = journal(base.path());
    let whole = std::fs::read(&path).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    for case in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let mut tail = vec![0; random.random_range(1..20_000)];
        match case % 4 {
            0 => random.fill_bytes(&mut tail),
            // Part of a batch that was being written.
            1 => tail = whole[..random.random_range(1..whole.len() / 2)].to_vec(),
            // The same, with a hole where a page did not reach the disk.
            2 => {
                tail = whole.clone();
                let at = random.random_range(0..tail.len() - 1_000);
                tail[at..at + 500].fill(0);
            }
            _ => {}
        }
        let file = OpenOptions::new().write(true).open(dir.path().join(path.strip_prefix(base.path()).unwrap()));
        file.unwrap().write_all_at(&tail, used).unwrap();
        let (damaged, opening) = check(dir.path(), &partitions, &format!("case {case}")).await;
        assert_eq!(damaged, 0, "case {case}");
        let [repair] = &opening.repairs[..] else {
            assert_eq!((case % 4, &opening.repairs[..]), (3, &[][..]), "zeros are not worth a word");
            continue;
        };
        assert!(repair.newest && repair.kept >= used && repair.cut > 0, "case {case}: {repair:?}");
    }
}

#[tokio::test]
async fn damage_in_the_synced_part_is_noticed() {
    let base = tempfile::tempdir().unwrap();
    let partitions = left_behind(base.path()).await;
    let (path, used) = journal(base.path());
    let mut random = StdRng::seed_from_u64(2);
    let mut damaged = 0;
    for case in 0..36 {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let path = dir.path().join(path.strip_prefix(base.path()).unwrap());
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let at = random.random_range(0..used);
        let what = format!("case {case} at {at} of {used}");
        match case % 3 {
            0 => file.set_len(at).unwrap(),
            1 => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << (case % 8)], at).unwrap();
            }
            _ => {
                let zeros = vec![0; 4096.min((used - at) as usize)];
                file.write_all_at(&zeros, at).unwrap();
            }
        }
        let (lost, _) = check(dir.path(), &partitions, &what).await;
        assert!(lost > 0 || case % 3 != 0, "{what}: nothing was noticed");
        damaged += lost;
    }
    println!("{damaged} of {} copies were reported as damaged", 36 * PARTITIONS);
}

#[tokio::test]
async fn a_lost_journal_is_noticed_for_every_partition() {
    let base = tempfile::tempdir().unwrap();
    let partitions = left_behind(base.path()).await;
    let (path, _) = journal(base.path());
    OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    let log = open(base.path(), small()).unwrap();
    for (n, p) in partitions.iter().enumerate() {
        let found = &log.recovered()[p];
        assert_eq!((found.id, found.generation), (id(n as u32), Generation(0)));
        let witness = Offset(BATCHES * 10);
        assert_eq!(found.damage, Some(Damage::EndBelowWitness { end: Offset(0), witness }));
    }
    let new = log.create(id(99), Generation(0), Offset(0)).await.unwrap();
    assert!(partitions.iter().all(|p| *p < new), "numbers are not used again");
}

/// Two journals, of which the older one is damaged in the middle.
async fn with_damaged_older_journal(dir: &Path) -> Vec<LocalPartition> {
    let partitions = left_behind(dir).await;
    let (path, used) = journal(dir);
    // A next journal, as if the first had been full.
    drop(open(dir, FjallOptions { reserve_bytes: 0, ..FjallOptions::default() }).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let (first, second) = whole.split_at(used as usize);
    let next = path.with_file_name("1.jnl");
    assert!(!next.exists() && !second.is_empty());
    std::fs::write(&next, second).unwrap();
    let mut first = first.to_vec();
    let at = first.len() / 2;
    first[at..at + 4_000].fill(0);
    std::fs::write(&path, first).unwrap();
    partitions
}

fn assert_holes_noticed(log: &FjallLog, partitions: &[LocalPartition]) {
    for p in partitions {
        let found = &log.recovered()[p];
        assert!(found.end == Offset(BATCHES * 10) || found.damage.is_some(), "{found:?}");
    }
    assert!(log.recovered().values().any(|r| r.damage.is_some()));
}

#[tokio::test]
async fn damage_in_an_older_journal_leaves_no_hole_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let partitions = with_damaged_older_journal(dir.path()).await;
    let log = open(dir.path(), small()).unwrap();
    let [repair] = &log.opening().repairs[..] else { panic!("{:?}", log.opening()) };
    assert!(!repair.newest, "{repair:?}");
    assert_holes_noticed(&log, &partitions);
}

#[tokio::test]
async fn holes_are_looked_for_again_if_the_process_died_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let partitions = with_damaged_older_journal(dir.path()).await;
    assert_eq!(doctor::repair(&dir.path().join("store")).unwrap().len(), 1);
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(log.opening().repairs, [], "nothing is left to be seen");
    assert!(matches!(log.opening().left, Left::Tainted(_)), "but for the mark");
    assert_holes_noticed(&log, &partitions);
}
