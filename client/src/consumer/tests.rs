use std::time::Duration;

use baton_core::{ErrorCode, Offset};
use futures::StreamExt;
use tokio::time::{Instant, timeout};

use crate::{
    Client, ClientConfig, Compression, Consumer, ConsumerConfig, OutOfRange, Producer, ProducerConfig, Record, Start,
    fake::Cluster,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn cluster(brokers: u32, partitions: u32) -> (Cluster, Client, Producer) {
    let cluster = Cluster::start(brokers).await.unwrap();
    cluster.create_topic("t", partitions);
    let config = ClientConfig { bootstrap: cluster.bootstrap(), seed: Some(7), ..ClientConfig::default() };
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer(ProducerConfig { batch_bytes: 200, ..ProducerConfig::default() });
    (cluster, client, producer)
}

async fn produce(producer: &Producer, partition: u32, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let record = Record::new(n.to_string()).partition(partition);
        let record = Record { timestamp_ms: Some(1_000 + i64::try_from(n).unwrap()), ..record };
        let _ = producer.send("t", record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// The next records of all partitions, as (partition, offset), checked against their values.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<(u32, u64)> {
    let mut read = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while read.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", read.len());
        for record in consumer.poll(Duration::from_millis(500)).await.unwrap() {
            assert_eq!(record.value.unwrap(), record.offset.to_string());
            read.push((record.partition, record.offset.0));
        }
    }
    read
}

fn of(partition: u32, read: &[(u32, u64)]) -> Vec<u64> {
    read.iter().filter(|(from, _)| *from == partition).map(|(_, offset)| *offset).collect()
}

#[tokio::test]
async fn every_partition_is_read_in_order_from_the_first_record() {
    let (_cluster, client, producer) = cluster(3, 4).await;
    for partition in 0..4 {
        produce(&producer, partition, 0..100).await;
    }
    let mut consumer = client.consumer(ConsumerConfig { poll_records_max: 7, ..ConsumerConfig::default() });
    consumer.assign_all("t", Start::First).await.unwrap();
    let read = read(&mut consumer, 400).await;
    for partition in 0..4 {
        assert_eq!(of(partition, &read), (0..100).collect::<Vec<_>>());
        assert_eq!(consumer.position("t", partition), Some(Offset(100)));
        assert_eq!(consumer.high_watermark("t", partition), Some(Offset(100)));
    }
    assert!(consumer.poll(Duration::from_millis(50)).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_offset_inside_a_batch_a_time_and_the_end_are_found() {
    let (_cluster, client, producer) = cluster(1, 1).await;
    produce(&producer, 0, 0..100).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    for (start, first) in [(Start::Offset(Offset(37)), 37), (Start::Time(1_063), 63), (Start::First, 0)] {
        consumer.assign("t", &[(0, start)]).await.unwrap();
        let count = usize::try_from(100 - first).unwrap();
        assert_eq!(of(0, &read(&mut consumer, count).await), (first..100).collect::<Vec<_>>(), "{start:?}");
    }
    for start in [Start::End, Start::Time(999_999)] {
        consumer.seek("t", 0, start).unwrap();
        assert!(consumer.poll(Duration::from_millis(100)).await.unwrap().is_empty(), "{start:?}");
    }
    produce(&producer, 0, 100..101).await;
    assert_eq!(read(&mut consumer, 1).await, [(0, 100)]);
}

#[tokio::test]
async fn a_reader_at_the_end_gets_a_record_when_it_is_written() {
    let (_cluster, client, producer) = cluster(1, 1).await;
    let mut consumer =
        client.consumer(ConsumerConfig { fetch_wait: Duration::from_secs(5), ..ConsumerConfig::default() });
    consumer.assign("t", &[(0, Start::First)]).await.unwrap();
    assert!(consumer.poll(Duration::from_millis(200)).await.unwrap().is_empty());
    let written = Instant::now();
    produce(&producer, 0, 0..1).await;
    read(&mut consumer, 1).await;
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
}

#[tokio::test]
async fn leaders_may_change_fall_and_freeze_without_a_gap_or_a_repetition() {
    let (cluster, client, producer) = cluster(3, 3).await;
    let mut consumer = client.consumer(ConsumerConfig { poll_records_max: 10, ..ConsumerConfig::default() });
    consumer.assign_all("t", Start::First).await.unwrap();
    let mut all = Vec::new();
    for round in 0..6_u64 {
        match round {
            1 => cluster.lead("t", 0, Some(2)),
            2 => {
                cluster.kill(1);
                cluster.take_over(1, 2);
            }
            3 => {
                cluster.freeze(3);
                cluster.take_over(3, 2);
            }
            4 => {
                cluster.thaw(3);
                cluster.restart(1).await.unwrap();
                cluster.take_over(2, 1);
            }
            _ => {}
        }
        for partition in 0..3 {
            produce(&producer, partition, round * 20..(round + 1) * 20).await;
        }
        all.extend(read(&mut consumer, 60).await);
    }
    for partition in 0..3 {
        assert_eq!(of(partition, &all), (0..120).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[tokio::test]
async fn a_frozen_leader_of_an_idle_partition_is_noticed() {
    let (cluster, client, producer) = cluster(2, 1).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign("t", &[(0, Start::First)]).await.unwrap();
    produce(&producer, 0, 0..1).await;
    read(&mut consumer, 1).await;
    cluster.freeze(1);
    let frozen = Instant::now();
    cluster.take_over(1, 2);
    produce(&producer, 0, 1..2).await;
    read(&mut consumer, 1).await;
    assert!(frozen.elapsed() < Duration::from_secs(3), "{:?}", frozen.elapsed());
}

#[tokio::test]
async fn a_position_below_the_log_follows_the_policy() {
    let (cluster, client, producer) = cluster(1, 1).await;
    for n in 0..10 {
        produce(&producer, 0, n..n + 1).await;
    }
    cluster.truncate_start("t", 0, Offset(6));
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign("t", &[(0, Start::Offset(Offset(2)))]).await.unwrap();
    let error = loop {
        match timeout(PATIENCE, consumer.poll(PATIENCE)).await.unwrap() {
            Ok(records) => assert!(records.is_empty()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    consumer.seek("t", 0, Start::First).unwrap();
    assert_eq!(of(0, &read(&mut consumer, 4).await), [6, 7, 8, 9]);

    let mut consumer = client.consumer(ConsumerConfig { out_of_range: OutOfRange::Start, ..ConsumerConfig::default() });
    consumer.assign("t", &[(0, Start::Offset(Offset(2)))]).await.unwrap();
    assert_eq!(of(0, &read(&mut consumer, 4).await), [6, 7, 8, 9]);
}

#[tokio::test]
async fn fetching_ahead_is_bounded() {
    let (_cluster, client, producer) = cluster(1, 2).await;
    let value = "x".repeat(100_000);
    for _ in 0..50 {
        let _ = producer.send("t", Record::new(value.clone())).await.unwrap();
    }
    producer.flush().await.unwrap();
    let buffer_bytes = 400_000;
    let consumer = client.consumer(ConsumerConfig { buffer_bytes, ..ConsumerConfig::default() });
    consumer.assign_all("t", Start::First).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(700);
    let mut most = 0;
    while Instant::now() < deadline {
        most = most.max(consumer.inner.state().buffered);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Each of two calls may carry one batch of each partition beyond its share.
    assert!((100_000..=800_000).contains(&most), "{most} bytes were fetched ahead");
    let mut consumer = consumer;
    let mut count = 0;
    while count < 50 {
        count += timeout(PATIENCE, consumer.poll(PATIENCE)).await.unwrap().unwrap().len();
    }
    let state = consumer.inner.state();
    assert_eq!(state.buffered, state.slots.values().map(|slot| slot.held()).sum::<usize>());
}

#[tokio::test]
async fn a_stream_yields_records_one_by_one() {
    let (_cluster, client, producer) = cluster(1, 1).await;
    produce(&producer, 0, 0..30).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign("t", &[(0, Start::First)]).await.unwrap();
    let offsets: Vec<u64> =
        timeout(PATIENCE, consumer.stream().take(30).map(|record| record.unwrap().offset.0).collect()).await.unwrap();
    assert_eq!(offsets, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn unknown_partitions_are_refused() {
    let (_cluster, client, _producer) = cluster(1, 1).await;
    let consumer = client.consumer(ConsumerConfig::default());
    let error = consumer.assign("t", &[(1, Start::First)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownPartition);
    let error = consumer.assign_all("nothing", Start::First).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTopic);
    assert!(consumer.seek("t", 0, Start::First).is_err());
}

/// The member that divides the partitions of a group may know of more than the others.
#[tokio::test]
async fn a_partition_that_others_know_already_is_waited_for() {
    let (cluster, client, _producer) = cluster(1, 1).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign_all("t", Start::First).await.unwrap();
    consumer.take(("t".into(), 1), Start::First);
    assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    let config = ClientConfig { bootstrap: cluster.bootstrap(), seed: Some(8), ..ClientConfig::default() };
    let other = Client::connect(config).await.unwrap();
    let _ = other.admin().add_partitions("t", 2, true).await.unwrap();
    produce(&other.producer(ProducerConfig::default()), 1, 0..3).await;
    assert_eq!(read(&mut consumer, 3).await, [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_partition_that_nobody_knows_is_told_of_in_the_end() {
    let (_cluster, client, _producer) = cluster(1, 1).await;
    let mut consumer = client.consumer(ConsumerConfig::default());
    consumer.assign_all("t", Start::First).await.unwrap();
    consumer.take(("t".into(), 1), Start::First);
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        match consumer.poll(Duration::from_millis(200)).await {
            Err(error) => break error,
            Ok(records) => assert!(records.is_empty() && Instant::now() < deadline, "it is waited for without end"),
        }
    };
    assert_eq!(told.code(), ErrorCode::UnknownPartition);
}

/// A producer that compresses `bytes` zeros into one small batch.
async fn produce_bomb(client: &Client, bytes: usize) {
    let config = ProducerConfig { compression: Compression::Zstd, batch_bytes: 2 * bytes, ..ProducerConfig::default() };
    let producer = client.producer(config);
    let _ = producer.send("t", Record::new(vec![0; bytes]).partition(0)).await.unwrap();
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn a_bomb_stops_its_partition_only_and_nothing_is_skipped_unasked() {
    let (_cluster, client, producer) = cluster(1, 2).await;
    produce(&producer, 0, 0..3).await;
    produce_bomb(&client, 300_000).await;
    produce(&producer, 0, 4..6).await;
    produce(&producer, 1, 0..3).await;
    let mut consumer =
        client.consumer(ConsumerConfig { batch_inflated_bytes_max: 100_000, ..ConsumerConfig::default() });
    consumer.assign_all("t", Start::First).await.unwrap();
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while (seen.len() < 6 || told.is_empty()) && Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(records) => seen.extend(records.into_iter().map(|r| (r.partition, r.offset.0))),
            Err(error) => told.push(error),
        }
    }
    assert_eq!((of(0, &seen), of(1, &seen)), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].code(), ErrorCode::InvalidBatch);
    let text = told[0].to_string();
    assert!(text.contains("offsets 3 to 3") && text.contains("partition 0"), "{text}");
    // It rests: neither the bomb nor what follows it is handed out, and nothing more is said.
    assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    assert_eq!(consumer.position("t", 0), Some(Offset(3)));
    assert_eq!(consumer.inner.state().buffered, 0, "the buffer counts bytes that nobody holds");
    consumer.seek("t", 0, Start::Offset(Offset(4))).unwrap();
    assert_eq!(of(0, &read(&mut consumer, 2).await), [4, 5]);
}
