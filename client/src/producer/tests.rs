use std::time::Duration;

use baton_core::ErrorCode;
use tokio::time::{Instant, timeout};

use crate::{
    Client, ClientConfig, ClientError, Delivery, FailoverEvent, Producer, ProducerConfig, Record,
    fake::{Cluster, ProduceFault},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn client(cluster: &Cluster) -> Client {
    let config = ClientConfig { bootstrap: cluster.bootstrap(), seed: Some(7), ..ClientConfig::default() };
    Client::connect(config).await.unwrap()
}

async fn cluster(brokers: u32, partitions: u32) -> (Cluster, Client) {
    let cluster = Cluster::start(brokers).await.unwrap();
    cluster.create_topic("t", partitions);
    let client = client(&cluster).await;
    (cluster, client)
}

async fn send(producer: &Producer, partition: u32, value: impl ToString) -> Delivery {
    let record = Record::new(value.to_string()).partition(partition);
    timeout(PATIENCE, producer.send("t", record)).await.expect("no room").unwrap()
}

async fn delivered(delivery: Delivery) -> Result<u64, ClientError> {
    timeout(PATIENCE, delivery).await.expect("neither acknowledged nor failed").map(|stored| stored.offset.0)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// A producer whose batches hold a few records, so that several are under way.
fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_bytes: 120, linger: Duration::ZERO, ..ProducerConfig::default() }
}

#[tokio::test]
async fn every_record_is_acknowledged_with_its_offset_in_order() {
    let (cluster, client) = cluster(3, 2).await;
    let producer = client.producer(small_batches());
    let mut deliveries = Vec::new();
    for n in 0..200 {
        deliveries.push((n / 2, send(&producer, n % 2, n / 2).await));
    }
    for (offset, delivery) in deliveries {
        assert_eq!(delivered(delivery).await, Ok(u64::from(offset)));
    }
    assert_eq!(cluster.values("t", 0), numbers(100));
    assert_eq!(cluster.values("t", 1), numbers(100));
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_whatever_answers_are_lost() {
    use ProduceFault::{Cut, Refuse, StoreAndCut, StoreAndRefuse};
    let faults = [
        StoreAndCut,
        Cut,
        Refuse(ErrorCode::NotLeader),
        StoreAndRefuse(ErrorCode::RequestTimedOut),
        Refuse(ErrorCode::NotEnoughReplicas),
        StoreAndRefuse(ErrorCode::NotLeader),
        Refuse(ErrorCode::CorruptBatch),
    ];
    let (cluster, client) = cluster(3, 1).await;
    let producer = client.producer(small_batches());
    let mut deliveries = std::collections::VecDeque::new();
    for n in 0..1000_usize {
        if n % 20 == 0 {
            // Another pair each time. The groups overlap, so that batches of one are under way
            // while those of the next are refused.
            cluster.produce_faults([faults[(n / 20) % faults.len()], faults[(n / 7) % faults.len()]]);
        }
        deliveries.push_back((n as u64, send(&producer, 0, n).await));
        while deliveries.len() > 30 {
            let (offset, delivery) = deliveries.pop_front().unwrap();
            assert_eq!(delivered(delivery).await, Ok(offset));
        }
    }
    for (offset, delivery) in deliveries {
        assert_eq!(delivered(delivery).await, Ok(offset));
    }
    assert_eq!(cluster.values("t", 0), numbers(1000));
}

#[tokio::test]
async fn first_batches_keep_their_order_when_the_first_one_fails() {
    for fault in [ProduceFault::Refuse(ErrorCode::NotLeader), ProduceFault::Cut, ProduceFault::StoreAndCut] {
        let (cluster, client) = cluster(1, 1).await;
        cluster.produce_faults([fault]);
        let producer = client.producer(small_batches());
        let mut deliveries = Vec::new();
        for n in 0..50 {
            deliveries.push(send(&producer, 0, n).await);
        }
        for (n, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivered(delivery).await, Ok(n as u64), "{fault:?}");
        }
        assert_eq!(cluster.values("t", 0), numbers(50), "{fault:?}");
    }
}

#[tokio::test]
async fn a_killed_leader_is_followed_by_the_next_at_once() {
    let (cluster, client) = cluster(3, 3).await;
    let mut failovers = client.failovers();
    let producer = client.producer(ProducerConfig::default());
    for partition in 0..3 {
        delivered(send(&producer, partition, "0").await).await.unwrap();
    }
    cluster.kill(1);
    let waiting = send(&producer, 0, "1").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.take_over(1, 2);
    let elected = Instant::now();
    assert_eq!(delivered(waiting).await, Ok(1));
    let found = elected.elapsed();
    assert!(found < Duration::from_millis(150), "the new leader was found only after {found:?}");
    let event = timeout(PATIENCE, failovers.next()).await.unwrap().unwrap();
    let FailoverEvent::Failover(event) = event else { panic!("{event:?}") };
    assert_eq!((event.partition, event.old_leader.map(|b| b.0), event.new_leader.0, event.epoch.0), (0, Some(1), 2, 2));
    assert!(event.outage.is_some_and(|outage| outage >= Duration::from_millis(150)), "{event:?}");
    assert_eq!(cluster.values("t", 0), ["0", "1"]);
}

#[tokio::test]
async fn a_frozen_leader_is_left_when_another_is_elected() {
    let (cluster, client) = cluster(3, 3).await;
    let producer = client.producer(ProducerConfig::default());
    for partition in 0..3 {
        delivered(send(&producer, partition, "0").await).await.unwrap();
    }
    cluster.freeze(1);
    let frozen = Instant::now();
    let waiting = send(&producer, 0, "1").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    cluster.take_over(1, 3);
    assert_eq!(delivered(waiting).await, Ok(1));
    assert!(frozen.elapsed() < Duration::from_millis(1400), "{:?}", frozen.elapsed());
    cluster.thaw(1);
    for n in 2..20 {
        assert_eq!(delivered(send(&producer, 0, n).await).await, Ok(n));
    }
    assert_eq!(cluster.values("t", 0), numbers(20));
}

#[tokio::test]
async fn a_leader_that_does_not_name_its_successor_is_left_too() {
    let (cluster, client) = cluster(3, 1).await;
    cluster.set_hints(false);
    let producer = client.producer(ProducerConfig::default());
    delivered(send(&producer, 0, "0").await).await.unwrap();
    cluster.lead("t", 0, None);
    let waiting = send(&producer, 0, "1").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.lead("t", 0, Some(3));
    assert_eq!(delivered(waiting).await, Ok(1));
}

#[tokio::test]
async fn a_broker_that_restarts_is_used_again() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(ProducerConfig::default());
    delivered(send(&producer, 0, "0").await).await.unwrap();
    cluster.kill(1);
    let waiting = send(&producer, 0, "1").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.restart(1).await.unwrap();
    assert_eq!(delivered(waiting).await, Ok(1));
    assert_eq!(cluster.values("t", 0), ["0", "1"]);
}

#[tokio::test]
async fn a_record_that_misses_its_deadline_says_whether_it_may_be_stored() {
    let (cluster, client) = cluster(1, 2).await;
    let delivery_timeout = Duration::from_millis(400);
    let producer = client.producer(ProducerConfig { delivery_timeout, ..ProducerConfig::default() });
    cluster.lead("t", 0, None);
    cluster.produce_faults([ProduceFault::StoreAndForget]);
    let (nobody, silent) = (send(&producer, 0, "a").await, send(&producer, 1, "b").await);
    let error = delivered(nobody).await.unwrap_err();
    assert!(matches!(error, ClientError::DeliveryTimeout { maybe_stored: false, .. }), "{error}");
    let error = delivered(silent).await.unwrap_err();
    assert!(matches!(error, ClientError::DeliveryTimeout { maybe_stored: true, .. }), "{error}");
    // What was given up gives its room back, and the next records go their way.
    assert_eq!(producer.room(), ProducerConfig::default().buffer_bytes);
    cluster.lead("t", 0, Some(1));
    assert_eq!(delivered(send(&producer, 0, "c").await).await, Ok(0));
    assert_eq!(cluster.values("t", 0), ["c"]);
}

#[tokio::test]
async fn records_behind_one_that_was_given_up_are_stored_once_and_in_order() {
    let (cluster, client) = cluster(1, 1).await;
    let delivery_timeout = Duration::from_millis(500);
    let producer = client.producer(ProducerConfig { delivery_timeout, ..small_batches() });
    delivered(send(&producer, 0, "0").await).await.unwrap();
    // Never stored, and refused until its time is over.
    cluster.produce_faults([ProduceFault::Refuse(ErrorCode::NotEnoughReplicas); 200]);
    let lost = send(&producer, 0, "lost").await;
    assert!(delivered(lost).await.is_err());
    cluster.clear_faults();
    let mut later = Vec::new();
    for n in 1..200 {
        later.push((n, send(&producer, 0, n).await));
    }
    let mut stored = vec!["0".to_owned()];
    for (n, delivery) in later {
        if delivered(delivery).await.is_ok() {
            stored.push(n.to_string());
        }
    }
    assert!(stored.len() > 1, "nothing came through after the failure");
    assert_eq!(cluster.values("t", 0), stored);
}

#[tokio::test]
async fn a_gap_in_the_sequence_is_cured_by_a_new_producer_id() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(small_batches());
    delivered(send(&producer, 0, "0").await).await.unwrap();
    cluster.produce_faults([ProduceFault::Refuse(ErrorCode::OutOfOrderSequence)]);
    delivered(send(&producer, 0, "1").await).await.unwrap();
    let mut deliveries = Vec::new();
    for n in 2..100 {
        deliveries.push((n, send(&producer, 0, n).await));
    }
    for (n, delivery) in deliveries {
        assert_eq!(delivered(delivery).await, Ok(n));
    }
    assert_eq!(cluster.values("t", 0), numbers(100));
    let ids: std::collections::BTreeSet<i64> = cluster
        .batches("t", 0)
        .iter()
        .map(|batch| baton_core::batch::BatchHeader::parse(batch).unwrap().producer_id.0)
        .collect();
    assert_eq!(ids.len(), 2);
}

fn maybe_stored(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { maybe_stored, .. } | ClientError::DeliveryTimeout { maybe_stored, .. } => *maybe_stored,
        other => panic!("{other}"),
    }
}

/// Breaks every connection to broker 1; it is back as soon as its port is free.
async fn restart(cluster: &Cluster) {
    cluster.kill(1);
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = cluster.restart(1).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends two records whose answers are lost, with the second so much later.
async fn two_without_answers(cluster: &Cluster, producer: &Producer, between: Duration) -> [Delivery; 2] {
    delivered(send(producer, 0, "0").await).await.unwrap();
    cluster.produce_faults([ProduceFault::StoreAndForget, ProduceFault::StoreAndForget]);
    let first = send(producer, 0, "a").await;
    tokio::time::sleep(between).await;
    let second = send(producer, 0, "b").await;
    let deadline = Instant::now() + PATIENCE;
    while cluster.values("t", 0) != ["0", "a", "b"] {
        assert!(Instant::now() < deadline, "{:?}", cluster.values("t", 0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    [first, second]
}

/// Both are stored and neither answer came; the first is refused for good when it is sent
/// again. The second may not get another number.
#[tokio::test]
async fn what_may_be_stored_is_not_numbered_anew_behind_one_that_failed() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(small_batches());
    let both = two_without_answers(&cluster, &producer, Duration::ZERO).await;
    cluster.produce_faults([ProduceFault::Refuse(ErrorCode::Unauthorized)]);
    restart(&cluster).await;
    for delivery in both {
        assert!(maybe_stored(&delivered(delivery).await.unwrap_err()));
    }
    assert_eq!(delivered(send(&producer, 0, "c").await).await, Ok(3));
    assert_eq!(cluster.values("t", 0), ["0", "a", "b", "c"]);
}

/// The first was given up; "out of order" for the second proves nothing then: both attempts of
/// before may be on their way still.
#[tokio::test]
async fn what_may_be_stored_is_not_numbered_anew_behind_one_that_was_given_up() {
    let (cluster, client) = cluster(1, 1).await;
    let delivery_timeout = Duration::from_secs(2);
    let producer = client.producer(ProducerConfig { delivery_timeout, ..small_batches() });
    let [first, second] = two_without_answers(&cluster, &producer, delivery_timeout / 2).await;
    assert!(maybe_stored(&delivered(first).await.unwrap_err()));
    cluster.produce_faults([ProduceFault::Refuse(ErrorCode::OutOfOrderSequence)]);
    restart(&cluster).await;
    assert!(maybe_stored(&delivered(second).await.unwrap_err()));
    assert_eq!(delivered(send(&producer, 0, "c").await).await, Ok(3));
    assert_eq!(cluster.values("t", 0), ["0", "a", "b", "c"]);
}

/// Its offset is not known any more, and nothing behind it has to be doubted.
#[tokio::test]
async fn a_batch_that_was_stored_long_ago_leaves_those_behind_it_alone() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(small_batches());
    delivered(send(&producer, 0, "0").await).await.unwrap();
    cluster.produce_faults([ProduceFault::StoreAndRefuse(ErrorCode::DuplicateSequence)]);
    assert!(maybe_stored(&delivered(send(&producer, 0, "1").await).await.unwrap_err()));
    assert_eq!(delivered(send(&producer, 0, "2").await).await, Ok(2));
    assert_eq!(cluster.values("t", 0), numbers(3));
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_does_not_hold_up_the_next() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(ProducerConfig::default());
    let large = producer.send("t", Record::new(vec![0_u8; 2 << 20])).await.unwrap();
    let error = delivered(large).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { maybe_stored: false, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::BatchTooLarge);
    assert_eq!(delivered(send(&producer, 0, "a").await).await, Ok(0));
    assert_eq!(cluster.values("t", 0), ["a"]);
}

#[tokio::test]
async fn send_waits_while_the_buffer_is_full() {
    let (cluster, client) = cluster(1, 1).await;
    cluster.lead("t", 0, None);
    let buffer_bytes = 10_000;
    let producer = client.producer(ProducerConfig { buffer_bytes, ..ProducerConfig::default() });
    let value = || Record::new(vec![b'x'; 1000]);
    let mut taken = Vec::new();
    while let Ok(delivery) = timeout(Duration::from_millis(100), producer.send("t", value())).await {
        taken.push(delivery.unwrap());
        assert!(taken.len() <= 10, "more was taken than the buffer holds");
    }
    assert!(taken.len() >= 8, "{} records fill the buffer", taken.len());
    cluster.lead("t", 0, Some(1));
    let _ = timeout(PATIENCE, producer.send("t", value())).await.unwrap().unwrap();
    for delivery in taken {
        delivered(delivery).await.unwrap();
    }
    let error = producer.send("t", Record::new(vec![0; 20_000])).await.unwrap_err();
    assert!(matches!(error, ClientError::RecordTooLarge { limit: 10_000, .. }), "{error}");
}

#[tokio::test]
async fn a_throttled_producer_waits() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(ProducerConfig::default());
    cluster.produce_faults([ProduceFault::Throttle(400)]);
    delivered(send(&producer, 0, "0").await).await.unwrap();
    let throttled = Instant::now();
    delivered(send(&producer, 0, "1").await).await.unwrap();
    assert!(throttled.elapsed() >= Duration::from_millis(350), "{:?}", throttled.elapsed());
}

#[tokio::test]
async fn many_partitions_share_a_request() {
    let (cluster, client) = cluster(1, 20).await;
    let producer = client.producer(ProducerConfig { linger: Duration::from_millis(50), ..ProducerConfig::default() });
    let mut deliveries = Vec::new();
    for partition in 0..20 {
        deliveries.push(send(&producer, partition, "x").await);
    }
    for delivery in deliveries {
        delivered(delivery).await.unwrap();
    }
    let (requests, most) = cluster.requests();
    assert!(requests <= 3 && most >= 10, "{requests} requests, {most} partitions at most");
}

#[tokio::test]
async fn keys_go_where_kafka_puts_them_and_keyless_records_fill_batches() {
    let (cluster, client) = cluster(1, 12).await;
    let producer = client.producer(ProducerConfig::default());
    for n in 0..50 {
        let key = format!("key-{n}");
        let expected = baton_core::partitioner::partition_for_key(key.as_bytes(), 12.try_into().unwrap());
        let delivery = producer.send("t", Record::new("v").key(key)).await.unwrap();
        assert_eq!(delivery.partition(), expected);
    }
    producer.flush().await.unwrap();
    cluster.lead("t", 3, None);
    let producer = self::client(&cluster).await.producer(ProducerConfig::default());
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..50 {
        for _ in 0..10 {
            let _ =
                producer.send("t", Record::new("v")).await.map(|delivery| used.insert(delivery.partition())).unwrap();
        }
        producer.flush().await.unwrap();
    }
    assert!(used.len() > 3, "keyless records went to {used:?} only");
    assert!(!used.contains(&3), "keyless records went to a partition without a leader");
}

#[tokio::test]
async fn unknown_topics_and_partitions_are_told_at_once() {
    let (_cluster, client) = cluster(3, 1).await;
    let producer = client.producer(ProducerConfig::default());
    let error = producer.send("nothing", Record::new("v")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTopic);
    let error = producer.send("t", Record::new("v").partition(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownPartition);
    assert_eq!(producer.room(), ProducerConfig::default().buffer_bytes);
}

#[tokio::test]
async fn closing_sends_what_is_there_and_takes_no_more() {
    let (cluster, client) = cluster(1, 1).await;
    let producer = client.producer(ProducerConfig { linger: Duration::from_secs(60), ..ProducerConfig::default() });
    let delivery = send(&producer, 0, "a").await;
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(delivered(delivery).await, Ok(0));
    assert_eq!(cluster.values("t", 0), ["a"]);
    assert_eq!(producer.send("t", Record::new("b")).await.unwrap_err(), ClientError::Closed);
}

#[tokio::test]
async fn closing_gives_up_after_its_time() {
    let (cluster, client) = cluster(1, 1).await;
    cluster.lead("t", 0, None);
    let producer = client.producer(ProducerConfig::default());
    let delivery = send(&producer, 0, "a").await;
    assert!(producer.close(Duration::from_millis(100)).await.is_err());
    assert!(delivered(delivery).await.is_err());
}

#[tokio::test]
async fn compressed_batches_arrive() {
    for compression in crate::Compression::ALL {
        let (cluster, client) = cluster(1, 1).await;
        let producer = client.producer(ProducerConfig { compression, ..ProducerConfig::default() });
        for n in 0..50 {
            let _ = send(&producer, 0, n).await;
        }
        producer.flush().await.unwrap();
        assert_eq!(cluster.values("t", 0), numbers(50), "{compression}");
    }
}

#[tokio::test]
async fn one_address_that_answers_is_enough() {
    let cluster = Cluster::start(1).await.unwrap();
    let mut bootstrap = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    bootstrap.extend(cluster.bootstrap());
    let config = ClientConfig { bootstrap, ..ClientConfig::default() };
    Client::connect(config).await.unwrap();
}

#[tokio::test]
async fn when_nobody_answers_every_address_is_named_with_its_reason() {
    let frozen = Cluster::start(1).await.unwrap();
    frozen.freeze(1);
    let bootstrap = vec!["127.0.0.1:1".to_owned(), "nowhere.invalid:7400".to_owned(), frozen.address(1)];
    let connect_timeout = Duration::from_millis(300);
    let config = ClientConfig { bootstrap: bootstrap.clone(), connect_timeout, ..ClientConfig::default() };
    let error = Client::connect(config).await.err().unwrap();
    assert_eq!(error.code(), ErrorCode::Unreachable);
    let ClientError::Unreachable(attempts) = &error else { panic!("{error}") };
    let mut named: Vec<_> = attempts.iter().map(|attempt| attempt.address.clone()).collect();
    named.sort();
    let mut expected = bootstrap;
    expected.sort();
    assert_eq!(named, expected);
    assert!(error.to_string().contains("refused"), "{error}");
}

/// Prints what the client itself costs; not a check, for it depends on the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn throughput() {
    let (_cluster, client) = cluster(1, 12).await;
    let producer = client.producer(ProducerConfig { batch_bytes: 256 << 10, ..ProducerConfig::default() });
    let value = bytes::Bytes::from(vec![b'x'; 1024]);
    let (count, started) = (300_000, Instant::now());
    for _ in 0..count {
        let _ = producer.send("t", Record::new(value.clone())).await.unwrap();
    }
    producer.flush().await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} MB/s, {:.0} records/s", f64::from(count) * 1024.0 / seconds / 1e6, f64::from(count) / seconds);
}
