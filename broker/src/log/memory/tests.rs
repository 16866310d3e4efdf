use super::*;
use crate::log::Damage;
use crate::log::contract::{Harness, batch, contract_tests, id, identity, one};

struct Memory(MemoryDisk);

impl Harness for Memory {
    fn open(&mut self) -> Arc<dyn Log> {
        Arc::new(MemoryLog::open(&self.0, fast()))
    }

    fn set_full(&mut self, full: bool) {
        self.0.set_full(full);
    }
}

fn fast() -> MemoryOptions {
    MemoryOptions { commit_latency: Duration::ZERO, ..MemoryOptions::default() }
}

fn slow() -> MemoryOptions {
    MemoryOptions { commit_latency: Duration::from_millis(5), ..MemoryOptions::default() }
}

contract_tests!(Memory(MemoryDisk::new(identity())));

async fn with_one_batch(disk: &MemoryDisk) -> (MemoryLog, LocalPartition) {
    let log = MemoryLog::open(disk, slow());
    let partition = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    log.append(one(partition, &[batch(0, 10, 1, 5, 40)])).await.unwrap();
    (log, partition)
}

#[tokio::test]
async fn power_off_loses_what_was_not_acknowledged() {
    for kept in 0..4 {
        let disk = MemoryDisk::new(identity());
        let (log, p) = with_one_batch(&disk).await;
        let calls: Vec<_> = (1..4).map(|n| log.append(one(p, &[batch(n * 10, 10, 1, 5, 40)]))).collect();
        // The group is on its way to the disk, but not yet synced.
        tokio::time::sleep(Duration::from_millis(1)).await;
        disk.power_off_keeping(kept);
        for call in calls {
            assert_eq!(call.await, Err(LogError::Closed));
        }
        let log = MemoryLog::open(&disk, slow());
        assert_eq!(log.recovered()[&p].end, Offset(10 * (kept as u64 + 1)));
        assert_eq!(log.recovered()[&p].damage, None);
    }
}

#[tokio::test]
async fn an_older_handle_is_fenced_off() {
    let disk = MemoryDisk::new(identity());
    let (old, p) = with_one_batch(&disk).await;
    let late = old.append(one(p, &[batch(10, 10, 1, 5, 40)]));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let new = MemoryLog::open(&disk, slow());
    assert_eq!(late.await, Err(LogError::Closed));
    assert_eq!(old.read(p, Offset(0), 1).await, Err(LogError::Closed));
    new.append(one(p, &[batch(10, 10, 2, 5, 40)])).await.unwrap();
    let read = new.read(p, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(read.batches.len(), 2);
}

#[tokio::test]
async fn a_failed_sync_fails_all_that_follows() {
    let disk = MemoryDisk::new(identity());
    let (log, p) = with_one_batch(&disk).await;
    disk.fail_next_sync();
    let failed = log.append(one(p, &[batch(10, 10, 1, 5, 40)])).await;
    assert!(matches!(failed, Err(LogError::Failed(_))), "{failed:?}");
    let later = log.append(one(p, &[batch(10, 10, 1, 5, 40)])).await;
    assert!(matches!(later, Err(LogError::Failed(_) | LogError::Closed)), "{later:?}");
    let log = MemoryLog::open(&disk, slow());
    assert_eq!(log.recovered()[&p].end, Offset(10));
}

#[tokio::test]
async fn damage_is_reported_refuses_appends_and_is_repaired() {
    let disk = MemoryDisk::new(identity());
    let (log, p) = with_one_batch(&disk).await;
    log.append(one(p, &[batch(10, 10, 1, 5, 40)])).await.unwrap();
    assert!(disk.corrupt(p, Offset(15)));
    let first = log.read(p, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(first.batches.len(), 1);
    let damaged = LogError::Damaged(Damage::BadChecksum { at: Offset(10) });
    assert_eq!(log.read(p, Offset(10), usize::MAX).await, Err(damaged.clone()));
    let log = MemoryLog::open(&disk, slow());
    assert_eq!(log.recovered()[&p].damage, Some(Damage::BadChecksum { at: Offset(10) }));
    let damaged = LogError::DamagedCopy { partition: p, damage: Damage::BadChecksum { at: Offset(10) } };
    assert_eq!(log.append(one(p, &[batch(20, 1, 1, 5, 40)])).await, Err(damaged));
    log.truncate(p, Offset(10), None).await.unwrap();
    log.append(one(p, &[batch(10, 1, 1, 5, 40)])).await.unwrap();

    disk.lose_tail(p, 1);
    let log = MemoryLog::open(&disk, slow());
    let lost = Damage::EndBelowWitness { end: Offset(10), witness: Offset(11) };
    assert_eq!(log.recovered()[&p].damage, Some(lost));
    log.reset(p, Generation(1), Offset(0), bytes::Bytes::new()).await.unwrap();
    let log = MemoryLog::open(&disk, slow());
    assert_eq!((log.recovered()[&p].end, &log.recovered()[&p].damage), (Offset(0), &None));
}

#[tokio::test]
async fn a_slow_disk_bounds_what_waits() {
    let disk = MemoryDisk::new(identity());
    let options = MemoryOptions { queued_bytes_max: 10_000, ..slow() };
    let log = MemoryLog::open(&disk, options);
    let p = log.create(id(0), Generation(0), Offset(0)).await.unwrap();
    let calls: Vec<_> = (0..10).map(|n| log.append(one(p, &[batch(n, 1, 1, 5, 4_000)]))).collect();
    let answers = futures::future::join_all(calls).await;
    let written = answers.iter().filter(|a| a.is_ok()).count();
    assert!((2..=4).contains(&written), "{written} written");
    let refused = answers.iter().filter(|a| matches!(a, Err(LogError::Overloaded { .. }))).count();
    assert_eq!(written + refused, 10);
}
