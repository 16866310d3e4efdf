//! What the brokers of the fake cluster share: topics, logs, and what is to go wrong.

use std::collections::{BTreeMap, VecDeque};

use baton_core::{
    Epoch, Error, ErrorCode, Offset,
    batch::{self, ProduceLimits, Stamp},
};
use baton_proto::v1;
use bytes::Bytes;

/// What is to happen to the next produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceFault {
    /// Refused, not stored.
    Refuse(ErrorCode),
    /// Stored, and refused nevertheless.
    StoreAndRefuse(ErrorCode),
    /// Stored; the connection breaks before the answer.
    StoreAndCut,
    /// The connection breaks before anything is stored.
    Cut,
    /// Stored; the answer asks to wait for so many milliseconds.
    Throttle(u32),
    /// Stored; the answer never comes.
    StoreAndForget,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sequences {
    /// First and last sequence number, and base offset, of the last five batches.
    batches: VecDeque<(i32, i32, Offset)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub leader: Option<u32>,
    pub epoch: u32,
    pub start: Offset,
    pub end: Offset,
    pub batches: Vec<(Offset, Bytes)>,
    pub producers: BTreeMap<i64, Sequences>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Topic {
    pub id: u32,
    pub parts: Vec<Part>,
    pub config: BTreeMap<String, String>,
}

#[derive(Default)]
pub(super) struct State {
    /// Where the brokers are, whether they run or not.
    pub addresses: BTreeMap<u32, (String, u16)>,
    pub live: Vec<u32>,
    pub topics: BTreeMap<String, Topic>,
    pub next_topic: u32,
    pub next_producer: i64,
    pub produce_faults: VecDeque<ProduceFault>,
    pub admin_faults: VecDeque<ErrorCode>,
    pub events: Vec<v1::Event>,
    /// Largest request that was taken, in partitions.
    pub partitions_most: usize,
    pub produce_requests: u64,
    /// Whether NOT_LEADER names the leader.
    pub hints: bool,
    pub healthy: bool,
}

impl State {
    pub(super) fn endpoint(&self, broker: u32) -> String {
        self.addresses.get(&broker).map(|(host, port)| format!("{host}:{port}")).unwrap_or_default()
    }

    pub(super) fn part(&mut self, topic: &str, partition: u32) -> Result<&mut Part, Error> {
        let unknown = |code| Error::new(code, "there is none").topic(topic).partition(partition);
        let topic = self.topics.get_mut(topic).ok_or_else(|| unknown(ErrorCode::UnknownTopic))?;
        topic.parts.get_mut(partition as usize).ok_or_else(|| unknown(ErrorCode::UnknownPartition))
    }

    /// The partition, if this broker leads it.
    pub(super) fn led(&mut self, broker: u32, topic: &str, partition: u32) -> Result<&mut Part, Box<v1::Error>> {
        let (leader, epoch) = match self.part(topic, partition) {
            Ok(part) => (part.leader, part.epoch),
            Err(error) => return Err(Box::new(error.into())),
        };
        if leader == Some(broker) {
            return self.part(topic, partition).map_err(|error| Box::new(error.into()));
        }
        let error = Error::new(ErrorCode::NotLeader, format!("{leader:?} leads")).topic(topic).partition(partition);
        let mut wire = v1::Error::from(error.epoch(epoch));
        wire.leader =
            leader.filter(|_| self.hints).map(|broker| v1::Leader { broker, endpoint: self.endpoint(broker), epoch });
        Err(Box::new(wire))
    }

    pub(super) fn produce(&mut self, broker: u32, part: v1::ProducePartition) -> v1::ProduceResult {
        let v1::ProducePartition { topic, partition, payload } = part;
        let mut result = v1::ProduceResult { topic: topic.clone(), partition, ..Default::default() };
        let bytes = match payload {
            Some(v1::produce_partition::Payload::Batch(bytes)) => bytes,
            _ => Bytes::new(),
        };
        match self.led(broker, &topic, partition) {
            Ok(part) => {
                result.epoch = part.epoch;
                match part.append(bytes) {
                    Ok((base, duplicate)) => {
                        (result.base_offset, result.duplicate) = (base.to_wire(), duplicate);
                    }
                    Err(error) => result.error = Some(error.topic(topic).partition(partition).into()),
                }
            }
            Err(error) => result.error = Some(*error),
        }
        result
    }

    pub(super) fn metadata(&self, request: &v1::MetadataRequest) -> v1::MetadataResponse {
        let brokers = self.addresses.iter().map(|(id, (host, port))| v1::BrokerInfo {
            id: *id,
            endpoints: vec![v1::Endpoint {
                listener: "client".into(),
                protocol: "grpc".into(),
                host: host.clone(),
                port: (*port).into(),
            }],
            ..Default::default()
        });
        let names: Vec<&String> =
            if request.all_topics { self.topics.keys().collect() } else { request.topics.iter().collect() };
        let topics = names.into_iter().map(|name| self.topic_info(name));
        v1::MetadataResponse { cluster_id: "fake".into(), brokers: brokers.collect(), topics: topics.collect() }
    }

    fn topic_info(&self, name: &str) -> v1::TopicInfo {
        let Some(topic) = self.topics.get(name) else {
            let error = Error::new(ErrorCode::UnknownTopic, "there is none").topic(name);
            return v1::TopicInfo { name: name.to_owned(), error: Some(error.into()), ..Default::default() };
        };
        let all: Vec<u32> = self.addresses.keys().copied().collect();
        let partitions = topic.parts.iter().zip(0..).map(|(part, partition)| v1::PartitionInfo {
            partition,
            leader: part.leader,
            epoch: part.epoch,
            isr: self.live.clone(),
            replicas: all.clone(),
            ..Default::default()
        });
        v1::TopicInfo {
            name: name.to_owned(),
            id: format!("{:08x}", topic.id),
            partitions: partitions.collect(),
            config: topic.config.clone().into_iter().collect(),
            ..Default::default()
        }
    }

    pub(super) fn create(&mut self, name: &str, partitions: u32) {
        self.next_topic += 1;
        let parts = (0..partitions as usize).map(|n| Part {
            leader: (!self.live.is_empty()).then(|| self.live[n % self.live.len()]),
            epoch: 1,
            ..Part::default()
        });
        let topic = Topic { id: self.next_topic, parts: parts.collect(), config: BTreeMap::new() };
        self.topics.insert(name.to_owned(), topic);
    }
}

impl Part {
    /// Appends as a leader does: validated, without duplicates, without gaps.
    fn append(&mut self, bytes: Bytes) -> Result<(Offset, bool), Error> {
        let header = batch::validate_produce(&bytes, ProduceLimits { max_message_bytes: 1 << 20, keyed: false })?;
        if header.idempotent() {
            let first = header.base_sequence;
            let known = self.producers.entry(header.producer_id.0).or_default();
            if let Some((_, _, base)) = known.batches.iter().find(|b| (b.0, b.1) == (first, header.last_sequence())) {
                return Ok((*base, true));
            }
            // A producer that is not known may begin with any number: its state may have expired.
            let expected = known.batches.back().map_or(first, |(_, last, _)| last.wrapping_add(1) & i32::MAX);
            if first != expected {
                let cause = format!("{expected} was to follow, and {first} came");
                return Err(Error::new(ErrorCode::OutOfOrderSequence, cause));
            }
            known.batches.push_back((first, header.last_sequence(), self.end));
            if known.batches.len() > 5 {
                known.batches.pop_front();
            }
        }
        let stamp = Stamp { base_offset: self.end, leader_epoch: Epoch(self.epoch), append_time_ms: None };
        let (header, bytes) = batch::stamp(bytes, stamp)?;
        self.batches.push((header.last_offset(), bytes));
        self.end = header.next_offset();
        Ok((header.base_offset, false))
    }

    /// The batches from the one that contains this offset on, as many as fit, at least one.
    pub(super) fn read(&self, from: Offset, most: u32) -> Vec<Bytes> {
        let first = self.batches.partition_point(|(last, _)| *last < from);
        let mut left = most as usize;
        let fits = |(_, bytes): &&(Offset, Bytes)| {
            let fits = left > 0;
            left = left.saturating_sub(bytes.len());
            fits
        };
        self.batches[first..].iter().take_while(fits).map(|(_, bytes)| bytes.clone()).collect()
    }
}
