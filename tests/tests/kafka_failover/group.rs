//! Six members read twelve partitions while brokers are killed one after another: nothing that
//! was acknowledged is missed, nothing that was committed comes again, and nobody who is alive
//! loses its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::member::{self, GROUP, Seen};
use crate::producer::Sending;
use crate::stage::{Stage, eventually};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 12;
const MEMBERS: u32 = 6;

/// What the group has committed, as anybody may ask.
fn committed(observer: &BaseConsumer) -> Option<BTreeMap<i32, i64>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let found = observer.committed_offsets(asked, Duration::from_secs(10)).ok()?;
    let offset =
        |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Some((e.partition(), e.offset().to_raw()?));
    Some(found.elements().iter().filter_map(offset).collect())
}

/// Kills each broker in turn, for as long; between, looks at what is committed.
fn kill_in_turn(stage: &Stage, observer: &BaseConsumer, within: Duration) -> u32 {
    let (started, mut kills, mut highest) = (Instant::now(), 0, BTreeMap::<i32, i64>::new());
    let mut look = |until: Instant| {
        while Instant::now() < until {
            for (partition, offset) in committed(observer).unwrap_or_default() {
                let known = highest.entry(partition).or_insert(offset);
                assert!(*known <= offset, "partition {partition}: {known} was committed, and now it is {offset}");
                *known = offset;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    while started.elapsed() < within {
        let broker = kills % 3 + 1;
        stage.kill(broker);
        look(Instant::now() + Duration::from_secs(3));
        stage.restart(broker);
        look(Instant::now() + Duration::from_secs(3));
        kills += 1;
    }
    kills
}

fn run(within: Duration) {
    let Some(stage) = Stage::start() else { return };
    stage.create(TOPIC, PARTITIONS);
    let seen = Arc::<Seen>::default();
    let observer: BaseConsumer = stage.config().set("group.id", GROUP).create().unwrap();
    let members: Vec<_> = (1..=MEMBERS).map(|n| member::start(stage.config(), TOPIC, n, &seen)).collect();
    eventually("each member has two partitions", || {
        let assigned = seen.assigned.lock().unwrap();
        assigned.len() == MEMBERS as usize && assigned.values().all(|count| *count == 2)
    });
    let sending = Sending::start(stage.config(), TOPIC, PARTITIONS, Duration::from_millis(50));
    eventually("something is committed everywhere", || seen.committed().len() == PARTITIONS as usize);
    let settled = seen.rebalances.load(Ordering::Relaxed);
    let kills = kill_in_turn(&stage, &observer, within);
    let told = sending.finish();
    eventually("everything is read", || {
        let read = seen.read.lock().unwrap();
        told.iter().all(|told| read.contains_key(&(told.partition, told.offset)))
    });
    let rebalances = seen.rebalances.load(Ordering::Relaxed) - settled;
    seen.stop.store(true, Ordering::Relaxed);
    members.into_iter().for_each(|member| member.join().unwrap());
    let violations = seen.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:?}");
    let read = seen.read.lock().unwrap();
    for told in &told {
        assert_eq!(read[&(told.partition, told.offset)].0, told.sequence, "another record is there");
    }
    let stored: BTreeSet<u64> = read.values().map(|(sequence, _)| *sequence).collect();
    assert_eq!(stored.len(), read.len(), "a record is stored twice");
    let again = read.values().filter(|(_, times)| *times > 1).count();
    println!(
        "{kills} kills, {} records acknowledged and read, {again} of them more than once; {rebalances} assignments changed",
        told.len()
    );
    assert_eq!(rebalances, 0, "members that are alive keep what they have");
}

#[test]
fn six_members_read_on_while_brokers_are_killed() {
    run(Duration::from_secs(60));
}

#[test]
#[ignore = "a measurement"]
fn six_members_read_on_for_ten_minutes() {
    run(Duration::from_secs(600));
}
