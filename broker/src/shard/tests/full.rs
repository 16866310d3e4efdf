//! A disk without room for a moment.

use super::*;
use crate::log::contract::id;

/// What is on its way when an append is refused does not continue the log any more, even if
/// there is room again by then: that contradicts nothing, and the copy goes on.
#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_behind_a_refused_append_is_refused_as_well() {
    let disk = MemoryDisk::new(identity());
    let latency = Duration::from_millis(10);
    let mut bench = Bench::new(&disk, MemoryOptions { commit_latency: latency, ..MemoryOptions::default() });
    bench.open(id(0)).await;
    let flow = bench.announce(id(0), Epoch(1)).await;
    bench.accept(id(0), Epoch(1), flow, Offset::ZERO);
    bench.settle().await;
    bench.append(id(0), Epoch(1), flow, vec![batch(0, 1, 1, 1_000, 64)], Offset::ZERO);
    bench.settle().await;
    assert_eq!(bench.partition(id(0)).replica.durable_end(), Offset(1));
    disk.set_full(true);
    for base in 1..3 {
        bench.append(id(0), Epoch(1), flow, vec![batch(base, 1, 1, 1_000, 64)], Offset::ZERO);
        bench.shard.end_turn();
        // Each is a commit of its own.
        tokio::time::sleep(latency / 2).await;
    }
    assert!(bench.complete_one().await);
    assert_ne!(bench.partition(id(0)).replica.role(), RoleView::Halted);
    disk.set_full(false);
    bench.settle().await;
    assert_ne!(bench.partition(id(0)).replica.role(), RoleView::Halted);
    let flow = bench.announce(id(0), Epoch(2)).await;
    bench.accept(id(0), Epoch(2), flow, Offset(1));
    bench.settle().await;
    bench.append(id(0), Epoch(2), flow, vec![batch(1, 1, 2, 1_000, 64)], Offset::ZERO);
    bench.settle().await;
    assert_eq!(bench.partition(id(0)).replica.durable_end(), Offset(2));
}
