//! Readers that say where they stand (KIP-392). Each broker of the cluster has a rack of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};

use crate::wire::{PATIENCE, Wire, batch, cluster, text, topic_name};

const NOT_LEADER: i16 = 6;
const OUT_OF_RANGE: i16 = 1;

fn fetch(wire: &mut Wire, topic: &str, from: i64, rack: &str, wait: Duration) -> PartitionData {
    let partition = FetchPartition::default().with_fetch_offset(from).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap())
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_rack_id(text(rack))
        .with_topics(vec![topic]);
    wire.ask(11, &request).responses.remove(0).partitions.remove(0)
}

fn has_records(partition: &PartitionData) -> bool {
    partition.records.as_ref().is_some_and(|records| !records.is_empty())
}

/// Where a broker listens.
fn address(topic: &str, broker: i32) -> String {
    let brokers = cluster().connect().metadata(topic).brokers;
    let node = brokers.iter().find(|node| node.node_id.0 == broker).unwrap();
    format!("{}:{}", node.host.as_str(), node.port)
}

#[test]
fn readers_are_sent_to_a_copy_in_their_rack() {
    cluster().create("nearest", 1);
    let (mut leader, _) = cluster().leader("nearest", 0);
    assert_eq!(leader.produce(9, "nearest", batch(&["a", "b"])).0, 0);
    let leads = leader.metadata("nearest").topics[0].partitions[0].leader_id.0;
    let other = leads % 3 + 1;
    let rack = format!("rack-{other}");

    let began = Instant::now();
    let sent = loop {
        let sent = fetch(&mut leader, "nearest", 0, &rack, Duration::ZERO);
        // Until the copy is in sync, the leader answers by itself.
        if sent.preferred_read_replica.0 >= 0 {
            break sent;
        }
        assert!(has_records(&sent) && began.elapsed() < PATIENCE, "{sent:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((sent.error_code, sent.preferred_read_replica.0, has_records(&sent)), (0, other, false));
    for rack in ["", "nowhere", &format!("rack-{leads}")] {
        let own = fetch(&mut leader, "nearest", 0, rack, Duration::ZERO);
        assert!(own.preferred_read_replica.0 == -1 && has_records(&own), "{rack}: {own:?}");
    }
    // What is wrong is told by the leader, which knows.
    assert_eq!(fetch(&mut leader, "nearest", 9, &rack, Duration::ZERO).error_code, OUT_OF_RANGE);

    let mut near = Wire::connect(&address("nearest", other));
    assert_eq!(fetch(&mut near, "nearest", 0, "", Duration::ZERO).error_code, NOT_LEADER);
    let read = fetch(&mut near, "nearest", 0, &rack, Duration::from_secs(30));
    assert!(read.error_code == 0 && has_records(&read), "{read:?}");
    // A long poll there ends when the copy hears that there is more.
    let producing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(leader.produce(9, "nearest", batch(&["c"])).0, 0);
    });
    let next = fetch(&mut near, "nearest", 2, &rack, Duration::from_secs(30));
    assert!(next.error_code == 0 && has_records(&next) && next.high_watermark == 3, "{next:?}");
    producing.join().unwrap();
}

#[test]
fn a_client_reads_all_from_the_copy_in_its_rack() {
    cluster().create("near_client", 3);
    for partition in 0..3 {
        let (mut leader, _) = cluster().leader("near_client", partition);
        let _ = leader.metadata("near_client");
    }
    let bootstrap = cluster().bootstrap();
    let kcat = |args: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("60").arg("kcat").args(["-b", &bootstrap, "-t", "near_client"]).args(args);
        command
    };
    let values: Vec<String> = (0..300).map(|n| format!("value {n}")).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("values");
    std::fs::write(&file, values.join("\n") + "\n").unwrap();
    let produced = kcat(&["-P", "-X", "partitioner=random", "-X", "sticky.partitioning.linger.ms=0", "-l"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    for rack in ["rack-1", "rack-2", "rack-3"] {
        let read = kcat(&["-C", "-e", "-q", "-o", "beginning", "-X", &format!("client.rack={rack}")]).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let text = String::from_utf8(read.stdout).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut all: Vec<&str> = values.iter().map(String::as_str).collect();
        all.sort_unstable();
        assert_eq!(lines, all, "{rack}: {}", String::from_utf8_lossy(&read.stderr));
    }
}
