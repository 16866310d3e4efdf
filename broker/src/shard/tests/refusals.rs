//! A log that has no room for the moment: a copy gives up what was not written, and goes on.

use super::*;
use crate::log::contract::id;

fn slow() -> MemoryOptions {
    MemoryOptions { commit_latency: Duration::from_millis(2), ..MemoryOptions::default() }
}

fn end(bench: &Bench, n: u32) -> u64 {
    bench.partition(id(n)).replica.log_end().0
}

fn one(base: u64, epoch: u32) -> Vec<StoredBatch> {
    vec![produced(base, 5, epoch, 1, base as i32)]
}

#[tokio::test(start_paused = true)]
async fn a_refused_append_halts_nobody() {
    let disk = MemoryDisk::new(identity());
    let mut bench = Bench::new(&disk, slow());
    let mut flows = Vec::new();
    for n in 0..2 {
        bench.open(id(n)).await;
        let flow = bench.announce(id(n), Epoch(1)).await;
        bench.accept(id(n), Epoch(1), flow, Offset(0));
        bench.append(id(n), Epoch(1), flow, one(0, 1), Offset(0));
        flows.push(flow);
    }
    bench.settle().await;
    disk.refuse_next_append();
    bench.append(id(0), Epoch(1), flows[0], one(5, 1), Offset(0));
    bench.shard.end_turn();
    // On its way before the first one is answered, and with another partition in the same call.
    bench.append(id(0), Epoch(1), flows[0], one(10, 1), Offset(0));
    bench.append(id(1), Epoch(1), flows[1], one(5, 1), Offset(0));
    bench.settle().await;
    for n in 0..2 {
        assert_ne!(bench.partition(id(n)).replica.role(), RoleView::Halted, "partition {n}");
        assert_eq!(end(&bench, n), 5);
        let flow = bench.announce(id(n), Epoch(2)).await;
        bench.accept(id(n), Epoch(2), flow, Offset(5));
        bench.append(id(n), Epoch(2), flow, one(5, 2), Offset(0));
        bench.settle().await;
        assert_eq!(bench.partition(id(n)).replica.durable_end(), Offset(10));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_asked_for_again() {
    let disk = MemoryDisk::new(identity());
    let mut bench = Bench::new(&disk, slow());
    bench.open(id(0)).await;
    let flow = bench.announce(id(0), Epoch(1)).await;
    bench.accept(id(0), Epoch(1), flow, Offset(0));
    bench.append(id(0), Epoch(1), flow, one(0, 1), Offset(0));
    bench.append(id(0), Epoch(1), flow, one(5, 1), Offset(0));
    let flow = bench.announce(id(0), Epoch(2)).await;
    bench.settle().await;

    disk.set_overloaded(true);
    bench.accept(id(0), Epoch(2), flow, Offset(5));
    for _ in 0..6 {
        bench.complete_one().await;
    }
    disk.set_overloaded(false);
    bench.settle().await;
    let follows = RoleView::Follower { leader: LEADER, greeted: true };
    assert_eq!(bench.partition(id(0)).replica.role(), follows);
    let copy = disk.copies().remove(0);
    assert_eq!(copy.end, Offset(5));
    assert_eq!(bench.partition(id(0)).replica.producers(), &from_scratch(&copy.batches).1);

    disk.set_overloaded(true);
    let announce =
        LeaderId { broker: LEADER, disk: DiskId(9), incarnation: Incarnation(1), candidate: CandidateSeq(0) };
    bench.message(id(0), Message::Announce(Announce { epoch: Epoch(3), leader: announce }));
    for _ in 0..6 {
        bench.complete_one().await;
    }
    assert_eq!(bench.partition(id(0)).replica.saved_epoch(), Epoch(2));
    disk.set_overloaded(false);
    bench.settle().await;
    assert_eq!(bench.partition(id(0)).replica.saved_epoch(), Epoch(3));
}

#[tokio::test(start_paused = true)]
async fn what_ends_late_is_not_taken_for_the_next_copys() {
    let disk = MemoryDisk::new(identity());
    let mut bench = Bench::new(&disk, slow());
    bench.open(id(0)).await;
    let flow = bench.announce(id(0), Epoch(1)).await;
    bench.accept(id(0), Epoch(1), flow, Offset(0));
    bench.append(id(0), Epoch(1), flow, one(0, 1), Offset(0));
    bench.append(id(0), Epoch(1), flow, one(5, 1), Offset(0));
    let flow = bench.announce(id(0), Epoch(2)).await;
    bench.settle().await;
    bench.accept(id(0), Epoch(2), flow, Offset(5));
    // The producers will be read from a copy that is gone by then.
    let (done, _) = tokio::sync::oneshot::channel();
    let local = bench.partition(id(0)).local;
    bench.input(ShardInput::Close { id: id(0), done });
    let deleted = bench.shard.parts.log.delete(local);
    deleted.await.unwrap();
    bench.reopen_new(id(0)).await;
    bench.settle().await;
    assert_eq!(bench.partition(id(0)).replica.role(), RoleView::Idle);
}
