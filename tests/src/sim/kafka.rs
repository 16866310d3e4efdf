//! A client of Kafka's protocol, as small as one can be: what a transactional producer and a
//! reader of what is committed say, each question with a deadline. Whoever answers wrongly or not
//! at all is asked for again.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_client::net::{Connector, Io};
use baton_core::batch::{BatchBuilder, BuildOptions, ProducerStamp};
use baton_core::{ProducerEpoch, ProducerId};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::broker_name;
use crate::net::SimulatedNetwork;

/// Where every broker listens to clients of this kind.
pub(super) const PORT: u16 = 7420;

/// One question.
const CALL: Duration = Duration::from_secs(3);

/// Between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(60);

/// A longer answer is none of these brokers'.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A transaction that is open for longer is aborted.
const TRANSACTION: Duration = Duration::from_secs(10);

/// A topic and the number of a partition.
pub(super) type Part = (&'static str, i32);

/// A producer's id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// How transactions are spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Partitions are added by name; the epoch stays.
    First,
    /// The first batch adds its partition, and every end raises the epoch (KIP-890).
    Second,
}

/// Why something was not done.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// It was refused for good: asking again leads nowhere.
    pub(super) refused: bool,
    /// An attempt may have had its effect.
    pub(super) doubt: bool,
}

/// What came of one question.
enum Told<T> {
    Done(T),
    Code(i16),
    /// Nobody was asked.
    Nobody,
    Unknown(String),
}

/// Connections of one client, and whom it believes to lead and to coordinate.
pub(super) struct Kafka {
    brokers: u32,
    wires: BTreeMap<String, Wire>,
    leaders: BTreeMap<Part, String>,
    coordinator: Option<String>,
    rng: SmallRng,
}

struct Wire {
    stream: Box<dyn Io>,
    correlation: i32,
}

impl Wire {
    async fn connect(address: &str) -> Result<Self, String> {
        let stream = Connector::connect(&SimulatedNetwork, address.to_owned()).await;
        Ok(Self { stream: stream.map_err(|error| error.to_string())?, correlation: 0 })
    }

    async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, String> {
        self.correlation += 1;
        let header = m::RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(text("simulated")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        let told = |error: &dyn std::fmt::Display| error.to_string();
        header.encode(&mut frame, R::header_version(version)).map_err(|error| told(&error))?;
        request.encode(&mut frame, version).map_err(|error| told(&error))?;
        let length = u32::try_from(frame.len() - 4).map_err(|error| told(&error))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.map_err(|error| told(&error))?;
        let length = self.stream.read_u32().await.map_err(|error| told(&error))? as usize;
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return Err(format!("an answer of {length} bytes"));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await.map_err(|error| told(&error))?;
        let mut answer = Bytes::from(answer);
        let header = m::ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        let header = header.map_err(|error| told(&error))?;
        if header.correlation_id != self.correlation {
            return Err(format!("answers come in order: {} after {}", header.correlation_id, self.correlation));
        }
        let response = R::Response::decode(&mut answer, version).map_err(|error| told(&error))?;
        if answer.has_remaining() { Err("bytes are left of an answer".to_owned()) } else { Ok(response) }
    }
}

impl Kafka {
    pub(super) fn new(brokers: u32, rng: SmallRng) -> Self {
        Self { brokers, wires: BTreeMap::new(), leaders: BTreeMap::new(), coordinator: None, rng }
    }

    /// A connection that fails is not used again.
    async fn ask<R: Request>(&mut self, address: &str, version: i16, request: &R) -> Result<R::Response, String> {
        let wire = self.wires.remove(address);
        let asking = async {
            let mut wire = match wire {
                Some(wire) => wire,
                None => Wire::connect(address).await?,
            };
            let response = wire.ask(version, request).await?;
            Ok::<_, String>((wire, response))
        };
        let (wire, response) = tokio::time::timeout(CALL, asking).await.map_err(|_| "no answer".to_owned())??;
        self.wires.insert(address.to_owned(), wire);
        Ok(response)
    }

    fn any(&mut self) -> String {
        format!("{}:{PORT}", broker_name(self.rng.random_range(1..=self.brokers)))
    }

    async fn coordinator(&mut self, id: &str) -> Option<String> {
        if self.coordinator.is_none() {
            let (any, find) = (self.any(), m::FindCoordinatorRequest::default().with_key(text(id)).with_key_type(1));
            let found = self.ask(&any, 3, &find).await.ok().filter(|found| found.error_code == 0)?;
            self.coordinator = Some(format!("{}:{}", found.host.as_str(), found.port));
        }
        self.coordinator.clone()
    }

    async fn leader(&mut self, part: Part) -> Option<String> {
        if !self.leaders.contains_key(&part) {
            let topic = MetadataRequestTopic::default().with_name(Some(name(part)));
            let request =
                m::MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
            let any = self.any();
            let known = self.ask(&any, 9, &request).await.ok()?;
            let partitions = &known.topics.first()?.partitions;
            let leader = partitions.iter().find(|found| found.partition_index == part.1)?.leader_id;
            let node = known.brokers.iter().find(|broker| broker.node_id == leader)?;
            self.leaders.insert(part, format!("{}:{}", node.host.as_str(), node.port));
        }
        self.leaders.get(&part).cloned()
    }

    async fn ask_coordinator<R: Request, T>(
        &mut self,
        id: &str,
        version: i16,
        request: &R,
        read: impl Fn(R::Response) -> Result<T, i16>,
    ) -> Told<T> {
        let Some(address) = self.coordinator(id).await else { return Told::Nobody };
        let told = told(self.ask(&address, version, request).await, read);
        if !matches!(told, Told::Done(_) | Told::Code(CONCURRENT)) {
            self.coordinator = None;
        }
        told
    }

    async fn ask_leader<R: Request, T>(
        &mut self,
        part: Part,
        version: i16,
        request: &R,
        read: impl Fn(R::Response) -> Result<T, i16>,
    ) -> Told<T> {
        let Some(address) = self.leader(part).await else { return Told::Nobody };
        let told = told(self.ask(&address, version, request).await, read);
        if !matches!(told, Told::Done(_) | Told::Code(CONCURRENT)) {
            self.leaders.remove(&part);
        }
        told
    }

    /// Takes the transactional id; whatever was open with it is aborted.
    pub(super) async fn init(&mut self, id: &str, patience: Duration) -> Result<Holder, Failed> {
        let request = m::InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional(id)))
            .with_transaction_timeout_ms(i32::try_from(TRANSACTION.as_millis()).unwrap_or(i32::MAX))
            .with_producer_id(m::ProducerId(-1))
            .with_producer_epoch(-1);
        let mut attempts = Attempts::new("InitProducerId", patience);
        loop {
            let read = |answer: m::InitProducerIdResponse| {
                accepted(answer.error_code, Holder { id: answer.producer_id.0, epoch: answer.producer_epoch })
            };
            if let Some(done) = attempts.judge(self.ask_coordinator(id, 4, &request, read).await).await {
                return done;
            }
        }
    }

    /// Says that the transaction will write to a partition, which only the first protocol does.
    pub(super) async fn add(&mut self, id: &str, holder: Holder, part: Part, patience: Duration) -> Result<(), Failed> {
        let topic = AddPartitionsToTxnTopic::default().with_name(name(part)).with_partitions(vec![part.1]);
        let request = m::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional(id))
            .with_v3_and_below_producer_id(m::ProducerId(holder.id))
            .with_v3_and_below_producer_epoch(holder.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let mut attempts = Attempts::new("AddPartitionsToTxn", patience);
        loop {
            let read = |answer: m::AddPartitionsToTxnResponse| {
                let topic = answer.results_by_topic_v3_and_below.first();
                let result = topic.and_then(|topic| topic.results_by_partition.first());
                accepted(result.map_or(UNKNOWN_SERVER_ERROR, |result| result.partition_error_code), ())
            };
            if let Some(done) = attempts.judge(self.ask_coordinator(id, 3, &request, read).await).await {
                return done;
            }
        }
    }

    /// Writes one batch, the same one until it is answered; returns the offset of its first record.
    pub(super) async fn produce(
        &mut self,
        (id, protocol): (&str, Protocol),
        part: Part,
        records: Bytes,
        patience: Duration,
    ) -> Result<i64, Failed> {
        let data = PartitionProduceData::default().with_index(part.1).with_records(Some(records));
        let topic = TopicProduceData::default().with_name(name(part)).with_partition_data(vec![data]);
        let request = m::ProduceRequest::default()
            .with_transactional_id(Some(transactional(id)))
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(CALL.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic]);
        let version = if protocol == Protocol::Second { 12 } else { 11 };
        let mut attempts = Attempts::new("Produce", patience);
        loop {
            let read = |answer: m::ProduceResponse| {
                let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
                let Some(partition) = partition else { return Err(UNKNOWN_SERVER_ERROR) };
                accepted(partition.error_code, partition.base_offset)
            };
            if let Some(done) = attempts.judge(self.ask_leader(part, version, &request, read).await).await {
                return done;
            }
        }
    }

    /// Ends the transaction; returns the producer of the next one.
    pub(super) async fn end(
        &mut self,
        (id, protocol): (&str, Protocol),
        holder: Holder,
        commit: bool,
        patience: Duration,
    ) -> Result<Holder, Failed> {
        let request = m::EndTxnRequest::default()
            .with_transactional_id(transactional(id))
            .with_producer_id(m::ProducerId(holder.id))
            .with_producer_epoch(holder.epoch)
            .with_committed(commit);
        let version = if protocol == Protocol::Second { 5 } else { 4 };
        let mut attempts = Attempts::new("EndTxn", patience);
        loop {
            let read = |answer: m::EndTxnResponse| {
                let next = Holder { id: answer.producer_id.0, epoch: answer.producer_epoch };
                accepted(answer.error_code, if protocol == Protocol::Second { next } else { holder })
            };
            if let Some(done) = attempts.judge(self.ask_coordinator(id, version, &request, read).await).await {
                return done;
            }
        }
    }

    /// What is committed from an offset on, as far as one answer goes.
    pub(super) async fn fetch(&mut self, part: Part, from: i64) -> Option<PartitionData> {
        let partition =
            FetchPartition::default().with_partition(part.1).with_fetch_offset(from).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(name(part)).with_partitions(vec![partition]);
        let request = m::FetchRequest::default()
            .with_isolation_level(1)
            .with_max_wait_ms(200)
            .with_min_bytes(1)
            .with_topics(vec![topic]);
        let read = |mut answer: m::FetchResponse| {
            let partition = answer.responses.first_mut().and_then(|topic| topic.partitions.pop());
            let Some(partition) = partition else { return Err(UNKNOWN_SERVER_ERROR) };
            accepted(partition.error_code, partition)
        };
        match self.ask_leader(part, 12, &request, read).await {
            Told::Done(partition) => Some(partition),
            _ => None,
        }
    }
}

/// The attempts of one operation.
struct Attempts {
    what: &'static str,
    deadline: Instant,
    doubt: bool,
}

impl Attempts {
    fn new(what: &'static str, patience: Duration) -> Self {
        Self { what, deadline: Instant::now() + patience, doubt: false }
    }

    /// None: once more, after a while.
    async fn judge<T>(&mut self, told: Told<T>) -> Option<Result<T, Failed>> {
        let (why, refused) = match told {
            Told::Done(done) => return Some(Ok(done)),
            Told::Code(code) => (format!("{} was answered {code}", self.what), REFUSALS.contains(&code)),
            Told::Nobody => (format!("{} found nobody to ask", self.what), false),
            Told::Unknown(why) => (format!("{}: {why}", self.what), false),
        };
        // Who is no coordinator any more may have stored it all the same.
        self.doubt |= !refused && !why.ends_with("nobody to ask");
        if refused || Instant::now() >= self.deadline {
            return Some(Err(Failed { why, refused, doubt: self.doubt }));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        None
    }
}

/// Another transaction of the same id is still being ended.
const CONCURRENT: i16 = 51;

const UNKNOWN_SERVER_ERROR: i16 = -1;

/// `OUT_OF_ORDER_SEQUENCE_NUMBER`, `INVALID_PRODUCER_EPOCH`, `INVALID_TXN_STATE`,
/// `INVALID_PRODUCER_ID_MAPPING`, `UNKNOWN_PRODUCER_ID`, `PRODUCER_FENCED`, `TRANSACTION_ABORTABLE`.
const REFUSALS: [i16; 7] = [45, 47, 48, 49, 59, 90, 120];

fn told<R, T>(answer: Result<R, String>, read: impl Fn(R) -> Result<T, i16>) -> Told<T> {
    match answer.map(read) {
        Ok(Ok(done)) => Told::Done(done),
        Ok(Err(code)) => Told::Code(code),
        Err(why) => Told::Unknown(why),
    }
}

fn accepted<T>(code: i16, value: T) -> Result<T, i16> {
    if code == 0 { Ok(value) } else { Err(code) }
}

/// A batch of a transaction; `sequence` is the number of its first record.
pub(super) fn batch(holder: Holder, sequence: i32, values: &[String]) -> Option<Bytes> {
    let mut builder = BatchBuilder::new(1 << 20);
    for value in values {
        let _ = builder.push(1_704_067_200_000, None, Some(value.as_bytes()), &[]).ok()?;
    }
    let (id, epoch) = (ProducerId(holder.id), ProducerEpoch(holder.epoch));
    let producer = Some(ProducerStamp { id, epoch, base_sequence: sequence });
    builder.build(&BuildOptions { producer, transactional: true, ..BuildOptions::default() }).ok()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(part: Part) -> m::TopicName {
    m::TopicName(text(part.0))
}

fn transactional(id: &str) -> m::TransactionalId {
    m::TransactionalId(text(id))
}
