use std::fs;

use baton_core::{Epoch, Generation, Offset, TopicId, TopicPartition};

use super::*;
use crate::log::fjall::keys::Prefix;

fn seen(n: u32, end: u64) -> (LocalPartition, Seen) {
    let seen = Seen {
        prefix: Prefix(n + 1),
        id: TopicPartition { topic: TopicId(7), partition: n },
        generation: Generation(n % 3),
        tail_epoch: Epoch(4),
        highest_epoch: Epoch(5),
        end: Offset(end),
    };
    (LocalPartition(n), seen)
}

fn sync() -> SyncFile {
    Arc::new(|file: &File| file.sync_data())
}

fn read(path: &Path) -> Testimony {
    Testimony::read(path, true).unwrap()
}

#[test]
fn what_was_waited_for_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness");
    assert_eq!(Testimony::read(&path, false).unwrap(), Testimony::default());
    assert!(read(&path).unreadable, "one was expected");
    let witness = Witness::create(&path, BTreeMap::new(), sync()).unwrap();
    let mut expected = BTreeMap::new();
    for round in 0..20 {
        let some: Vec<_> = (0..500).filter(|n| n % 7 == round % 7).map(|n| seen(n, u64::from(round))).collect();
        expected.extend(some.iter().copied());
        witness.wait(witness.update(some)).unwrap();
        assert_eq!(read(&path), Testimony { seen: expected.clone(), unreadable: false });
    }
    for n in 100..400 {
        expected.remove(&LocalPartition(n));
        witness.remove(LocalPartition(n));
    }
    let size = fs::metadata(&path).unwrap().len();
    let added: Vec<_> = (1_000..1_300).map(|n| seen(n, 1)).collect();
    expected.extend(added.iter().copied());
    witness.wait(witness.update(added)).unwrap();
    assert_eq!(read(&path).seen, expected);
    assert_eq!(fs::metadata(&path).unwrap().len(), size, "slots are used again");
    drop(witness);
    let _witness = Witness::create(&path, expected.clone(), sync()).unwrap();
    assert_eq!(read(&path).seen, expected);
}

#[test]
fn a_torn_block_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness");
    let witness = Witness::create(&path, BTreeMap::new(), sync()).unwrap();
    witness.wait(witness.update([seen(1, 10)])).unwrap();
    let before = fs::read(&path).unwrap();
    witness.wait(witness.update([seen(1, 20)])).unwrap();
    drop(witness);
    let after = fs::read(&path).unwrap();
    let written: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    assert!(written.iter().all(|at| at / BLOCK_BYTES == written[0] / BLOCK_BYTES));
    let block = written[0] / BLOCK_BYTES * BLOCK_BYTES;
    for cut in (0..BLOCK_BYTES).step_by(97) {
        let mut torn = after.clone();
        torn[block + cut..block + BLOCK_BYTES].fill(0xa5);
        fs::write(&path, &torn).unwrap();
        let testimony = read(&path);
        assert!(!testimony.unreadable);
        assert_eq!(testimony.seen[&LocalPartition(1)].end, Offset(10), "torn at {cut}");
    }
    let mut both = after;
    both[..2 * BLOCK_BYTES].fill(0xa5);
    fs::write(&path, &both).unwrap();
    assert!(read(&path).unreadable);
}

#[test]
fn a_failing_sync_reaches_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness");
    let failing: SyncFile = Arc::new(|_: &File| Err(io::Error::other("no such luck")));
    let witness = Witness::create(&path, BTreeMap::new(), failing).unwrap();
    let failed = witness.wait(witness.update([seen(1, 10)])).unwrap_err();
    assert!(failed.contains("no such luck"), "{failed}");
}
