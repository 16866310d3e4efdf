//! A cluster, and a client that says what it is told to say.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use baton_coordinator::dev::{DevCluster, DevOptions};
use baton_core::batch::{BatchBuilder, BuildOptions};
use baton_tests::ports::free_block;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, ProduceRequest, RequestHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tempfile::TempDir;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Three brokers and a coordinator, for all tests of this program.
pub struct Cluster {
    _dev: Arc<DevCluster>,
    _dir: TempDir,
    kafka_port: u16,
}

/// The one cluster.
pub fn cluster() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let first_port = free_block();
        let kafka_port = first_port + 20;
        let options = DevOptions { dir: dir.path().to_owned(), first_port, kafka_port: Some(kafka_port) };
        let dev = DevCluster::start(options).unwrap();
        assert!(dev.wait_ready(PATIENCE), "the cluster is not ready");
        Cluster { _dev: dev, _dir: dir, kafka_port }
    });
    &SHARED
}

impl Cluster {
    /// Where a client begins.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(&self.bootstrap())
    }

    /// A topic of this name; its leaders are known afterwards.
    pub fn create(&self, name: &str, partitions: i32) {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let response = self.connect().ask(7, &request);
        assert!([0, 36].contains(&response.topics[0].error_code), "{response:?}");
    }

    /// A connection to the leader of a partition, and its epoch. It leads by now: others may
    /// hear of an election before the elected.
    pub fn leader(&self, topic: &str, partition: i32) -> (Wire, i32) {
        let started = Instant::now();
        loop {
            let metadata = self.connect().metadata(topic);
            let found = metadata.topics[0].partitions.iter().find(|p| p.partition_index == partition);
            if let Some(known) = found.filter(|known| known.leader_id.0 >= 0) {
                let node = metadata.brokers.iter().find(|b| b.node_id == known.leader_id).unwrap();
                let mut wire = Wire::connect(&format!("{}:{}", node.host.as_str(), node.port));
                if wire.end(topic, partition).is_some() {
                    return (wire, known.leader_epoch);
                }
            }
            assert!(started.elapsed() < PATIENCE, "{metadata:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    correlation: i32,
}

impl Wire {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation: 0 }
    }

    /// The broker that it goes to.
    pub fn address(&self) -> String {
        self.stream.peer_addr().unwrap().to_string()
    }

    /// The correlation id of the last request.
    pub fn sent(&self) -> i32 {
        self.correlation
    }

    /// Asks in this version, and reads the answer in the same.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request, &[]);
        self.answer::<R>(version)
    }

    /// Sends a request, with something behind it in the same frame.
    pub fn send<R: Request>(&mut self, version: i16, request: &R, trailing: &[u8]) {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(text("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        frame.extend_from_slice(trailing);
        self.raw(&frame);
    }

    pub fn answer<R: Request>(&mut self, version: i16) -> R::Response {
        let mut frame = self.frame().expect("an answer");
        assert_eq!(bytes::Buf::get_i32(&mut frame), self.correlation, "answers come in order");
        if R::Response::header_version(version) >= 1 {
            assert_eq!(bytes::Buf::get_u8(&mut frame), 0, "no tagged fields");
        }
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes are left of {} {version}", frame.len(), R::KEY);
        response
    }

    /// Sends a frame as it is.
    pub fn raw(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        self.bytes(&[&length.to_be_bytes()[..], frame].concat());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; none once the broker has closed the connection.
    pub fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        Some(Bytes::from(frame))
    }

    pub fn is_closed(&mut self) -> bool {
        self.frame().is_none()
    }

    pub fn metadata(&mut self, topic: &str) -> MetadataResponse {
        let topics = vec![MetadataRequestTopic::default().with_name(Some(topic_name(topic)))];
        let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
        self.ask(9, &request)
    }

    /// Where a partition ends; none if this broker does not know it.
    fn end(&mut self, topic: &str, partition: i32) -> Option<i64> {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
        let response = self.ask(5, &ListOffsetsRequest::default().with_topics(vec![topic]));
        let found = &response.topics[0].partitions[0];
        (found.error_code == 0).then_some(found.offset)
    }

    /// Produces in this version, with acknowledgement of all; the code and the offset.
    pub fn produce(&mut self, version: i16, topic: &str, records: impl Into<Option<Bytes>>) -> (i16, i64) {
        let response = self.ask(version, &produce(topic, records.into(), -1));
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }
}

/// A request for partition 0 of a topic.
pub fn produce(topic: &str, records: Option<Bytes>, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(0).with_records(records);
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// A batch of records with these values, a millisecond apart.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for (time, value) in (1_000..).zip(values) {
        let _ = builder.push(time, Some(b"k"), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build(&BuildOptions::default()).unwrap()
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
