//! Members come, go well, and fall silent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_tests::sim::SimCluster;

use crate::stage::{Seen, TOPIC, member, member_config, observe, produce, run, with_topic};

const RECORDS: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn after_a_clean_rebalance_nothing_is_read_twice() {
    let (cluster, seen) = (SimCluster::new(3, 5), Arc::<Seen>::default());
    let mut sim = cluster.start();
    let pause = Duration::from_millis(40);
    sim.client("producer", produce(cluster.clone(), Arc::clone(&seen), RECORDS, pause));
    for n in 1..=4 {
        let (cluster, seen) = (cluster.clone(), Arc::clone(&seen));
        sim.client(format!("member-{n}"), async move {
            // They come one after the other; the second goes again.
            tokio::time::sleep(Duration::from_secs(n * 6)).await;
            let stays = (n == 2).then_some(Duration::from_secs(15));
            member(cluster, seen, n + 10, stays).await
        });
    }
    sim.client("observer", observe(cluster.clone(), Arc::clone(&seen), RECORDS));
    run(&cluster, sim, LIMIT, |_| {});
    assert_eq!(seen.read_count(), RECORDS as usize);
    assert_eq!(seen.repeated(), []);
    assert_eq!(seen.lost.load(Ordering::Relaxed), 0);
    assert!(seen.last_generation() >= Some(4), "everybody who comes or goes begins a generation");
}

#[test]
fn who_falls_silent_is_replaced_when_its_session_ends() {
    let (cluster, seen) = (SimCluster::new(3, 6), Arc::<Seen>::default());
    let mut sim = cluster.start();
    let pause = Duration::from_millis(40);
    sim.client("producer", produce(cluster.clone(), Arc::clone(&seen), RECORDS, pause));
    for n in 1..=2 {
        sim.client(format!("member-{n}"), member(cluster.clone(), Arc::clone(&seen), n + 10, None));
    }
    let (place, told) = (cluster.clone(), Arc::clone(&seen));
    sim.client("silent", async move {
        let client = with_topic(&place, 77).await;
        let mut consumer = client.group_consumer(member_config(&told));
        while consumer.assignment().is_empty() {
            // What it reads and never commits is read again by another one.
            consumer.poll(Duration::from_millis(100)).await?;
        }
        drop(consumer);
        Ok(())
    });
    sim.client("observer", observe(cluster.clone(), Arc::clone(&seen), RECORDS));
    run(&cluster, sim, LIMIT, |_| {});
    assert_eq!(seen.read_count(), RECORDS as usize, "others read its part of {TOPIC}");
}

#[test]
fn the_leader_divides_partitions_that_are_added() {
    let (cluster, seen) = (SimCluster::new(3, 7), Arc::<Seen>::default());
    let mut sim = cluster.start();
    let place = cluster.clone();
    sim.client("member", async move {
        let client = with_topic(&place, 1).await;
        let config = baton_client::GroupConfig { look_every: Duration::from_secs(2), ..member_config(&seen) };
        let mut consumer = client.group_consumer(config);
        while consumer.assignment().len() < 6 {
            consumer.poll(Duration::from_millis(100)).await?;
        }
        client.admin().add_partitions(TOPIC, 9, true).await?;
        while consumer.assignment().len() < 9 {
            consumer.poll(Duration::from_millis(100)).await?;
        }
        consumer.close().await?;
        Ok(())
    });
    run(&cluster, sim, LIMIT, |_| {});
}
