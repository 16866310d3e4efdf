//! Requests as no client of ours would send them.

use std::time::Duration;

use baton_core::ErrorCode;
use baton_core::batch::{BatchBuilder, BuildOptions, Codec, Pushed};
use baton_proto::v1::admin_client::AdminClient;
use baton_proto::v1::broker_client::BrokerClient;
use baton_proto::v1::{self, produce_partition::Payload};
use bytes::{Bytes, BytesMut};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::harness::PATIENCE;

pub async fn channel(address: &str) -> Channel {
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.expect("it listens")
}

pub async fn broker(address: &str) -> BrokerClient<Channel> {
    BrokerClient::new(channel(address).await)
}

pub async fn admin(address: &str) -> AdminClient<Channel> {
    AdminClient::new(channel(address).await)
}

pub async fn metadata(address: &str, topic: &str) -> v1::TopicInfo {
    let request = v1::MetadataRequest { topics: vec![topic.to_owned()], ..Default::default() };
    let answer = broker(address).await.metadata(request).await.expect("metadata").into_inner();
    answer.topics.into_iter().next().expect("one topic was asked for")
}

pub fn produce_request(topic: &str, partition: u32, batch: Bytes) -> v1::ProduceRequest {
    let partition = v1::ProducePartition { topic: topic.to_owned(), partition, payload: Some(Payload::Batch(batch)) };
    v1::ProduceRequest { correlation: 1, timeout_ms: 10_000, partitions: vec![partition], ..Default::default() }
}

/// The first answer to one request on a stream of its own.
pub async fn produce_as_is(address: &str, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, Status> {
    let mut answers = broker(address).await.produce(tokio_stream::iter([request])).await?.into_inner();
    let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("an answer");
    Ok(answer?.expect("an answer before the end"))
}

pub async fn produce(address: &str, topic: &str, partition: u32, batch: Bytes) -> v1::ProduceResult {
    let answer = produce_as_is(address, produce_request(topic, partition, batch)).await.expect("no status");
    answer.results.into_iter().next().expect("one result")
}

pub fn fetch_request(topic: &str, partition: u32, offset: i64) -> v1::FetchRequest {
    let partition = v1::FetchPartition { topic: topic.to_owned(), partition, offset, max_bytes: 1 << 20, epoch: None };
    v1::FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 8 << 20,
        partitions: vec![partition],
        ..Default::default()
    }
}

pub async fn fetch(address: &str, topic: &str, partition: u32, offset: i64) -> v1::FetchResult {
    let answer = broker(address).await.fetch(fetch_request(topic, partition, offset)).await.expect("no status");
    answer.into_inner().results.into_iter().next().expect("one result")
}

pub async fn list_offsets(
    address: &str,
    topic: &str,
    partition: u32,
    at: v1::list_offsets_partition::At,
) -> v1::ListOffsetsResult {
    let partition = v1::ListOffsetsPartition { topic: topic.to_owned(), partition, at: Some(at) };
    let request = v1::ListOffsetsRequest { partitions: vec![partition] };
    let answer = broker(address).await.list_offsets(request).await.expect("no status").into_inner();
    answer.results.into_iter().next().expect("one result")
}

pub async fn create_topic(address: &str, request: v1::CreateTopicRequest) -> Option<v1::Error> {
    admin(address).await.create_topic(request).await.expect("no status").into_inner().error
}

/// A batch of one record.
pub fn batch(value: &[u8], time_ms: i64, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(usize::MAX);
    assert_eq!(builder.push(time_ms, None, Some(value), &[]), Ok(Pushed::Added));
    builder.build(&BuildOptions { codec, ..BuildOptions::default() }).unwrap()
}

/// `batch` with other bytes at `at`, and a CRC that agrees with them.
pub fn patched(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.freeze()
}

/// Everything that an error has to say: a stable code, its cause, the place, whether a retry
/// helps, and the next step.
#[track_caller]
pub fn check(error: Option<&v1::Error>, code: ErrorCode, place: (&str, Option<u32>)) {
    let error = error.unwrap_or_else(|| panic!("{code} was to be answered, and there is no error"));
    assert_eq!((error.code, error.name.as_str()), (code.number(), code.name()), "{error:?}");
    assert!(!error.cause.is_empty(), "{error:?}");
    assert_eq!((error.topic.as_str(), error.partition), place, "{error:?}");
    assert_eq!((error.retriable, error.next_step.as_str()), (code.retriable(), code.next_step()), "{error:?}");
}

/// Reads until the other side ends the connection; None if it does not within `within`.
pub async fn ended(stream: &mut tokio::net::TcpStream, within: Duration) -> Option<usize> {
    use tokio::io::AsyncReadExt;
    let (mut read, mut buffer) = (0, [0; 4096]);
    let reading = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return read,
                Ok(n) => read += n,
            }
        }
    };
    tokio::time::timeout(within, reading).await.ok()
}
