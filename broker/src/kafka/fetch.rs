//! Fetch: long polls. There are no fetch sessions (KIP-227): every request names what it
//! reads, which clients do when they are given the session 0.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::{BrokerId, Epoch, Error, ErrorCode, Offset};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId as WireBroker, FetchRequest, ProducerId, TopicName};

use super::address::wire_id;
use super::errors;
use super::list_offsets::{leader_of, partition_number};
use super::names::topic_name;
use super::nearest::Reader;
use super::service::{Answer, Call, Hangup, decode};
use crate::authorizer::{Resource, Verb};
use crate::serving::PARTITIONS_MAX;
use crate::serving::answers::Room;
use crate::serving::poll::{PollLimits, Read, Wanted, poll};
use crate::shard::{FetchFailure, Fetched, Isolation};

/// The first version that names topics by id.
const BY_ID: i16 = 13;
/// The first version that tells the leader with an error.
const TELLS_LEADER: i16 = 12;
/// The first version that tells its address as well (KIP-951).
const TELLS_ADDRESS: i16 = 16;

const READ_COMMITTED: i8 = 1;

/// One partition of the request: found and waiting, or answered.
struct Slot {
    topic: usize,
    response: PartitionData,
    waits: bool,
}

/// The answer has room until it is written.
pub(super) async fn begin(call: Call, body: Bytes) -> Result<Answer, Hangup> {
    let request = decode(call.api, call.version, body)?;
    let (response, room) = serve(&call, request).await;
    let frame = call.encode(&response)?;
    Ok(Answer::Now(match room {
        Some(room) => Bytes::from_owner(Roomy { frame, _room: room }),
        None => frame,
    }))
}

/// A frame together with the room that it has.
struct Roomy {
    frame: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

async fn serve(call: &Call, request: FetchRequest) -> (FetchResponse, Option<Room>) {
    call.parts().metrics.fetch_received();
    if request.session_id != 0 {
        let refused = FetchResponse::default().with_error_code(errors::FETCH_SESSION_ID_NOT_FOUND);
        return (refused, None);
    }
    let isolation = isolation(request.isolation_level);
    let reader = Reader::new(call.version, &request.rack_id);
    let mut topics = Vec::with_capacity(request.topics.len());
    let (mut slots, mut wanted) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let (name, known) = named(call, topic);
        let response = FetchableTopicResponse::default().with_topic(topic_name(&name)).with_topic_id(topic.topic_id);
        for partition in &topic.partitions {
            let response = empty(partition.partition, isolation);
            let found = match known {
                _ if slots.len() >= PARTITIONS_MAX => {
                    Err(Error::new(ErrorCode::InvalidRequest, "a request has at most 10,000 partitions").into())
                }
                false => Err(Refusal { code: errors::UNKNOWN_TOPIC_ID, error: unknown_id() }),
                true => find(call, &name, partition, reader, isolation).map_err(Refusal::from),
            };
            let (response, waits) = match found {
                Ok(Found::Here(found)) => {
                    wanted.push(found);
                    (response, true)
                }
                Ok(Found::Elsewhere(broker)) => {
                    call.parts().metrics.fetch_redirected();
                    (response.with_preferred_read_replica(WireBroker(broker)), false)
                }
                Err(refusal) => {
                    call.parts().metrics.fetch_failed(refusal.error.code);
                    (response.with_error_code(refusal.code), false)
                }
            };
            slots.push(Slot { topic: topics.len(), response, waits });
        }
        topics.push(response);
    }
    let told = wanted.len() < slots.len();
    let (shards, answers) = (&call.parts().shards, &call.parts().answers);
    let (reads, room) = poll(shards, answers, wanted, limits(call, &request, told)).await;
    let mut reads = reads.into_iter();
    for slot in slots.iter_mut().filter(|slot| slot.waits) {
        let response = std::mem::take(&mut slot.response);
        slot.response = fill(call, response, reads.next().flatten());
    }
    (respond(call, topics, slots), Some(room))
}

/// What stops a partition before it is read.
struct Refusal {
    code: i16,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: error.code.kafka(), error }
    }
}

fn unknown_id() -> Error {
    Error::new(ErrorCode::UnknownTopic, "no topic has this id")
}

/// The topic's name, and whether there is such a topic as far as its id says.
fn named(call: &Call, topic: &kafka_protocol::messages::fetch_request::FetchTopic) -> (String, bool) {
    if call.version < BY_ID {
        return (topic.topic.to_string(), true);
    }
    match call.service.topic_by_uuid(topic.topic_id) {
        Some(named) => (named.name, true),
        None => (String::new(), false),
    }
}

/// A partition of which there is something to tell makes the answer leave at once.
fn limits(call: &Call, request: &FetchRequest, told: bool) -> PollLimits {
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let most = usize::try_from(call.parts().limits.fetch_bytes_max).unwrap_or(usize::MAX);
    let longest = Duration::from_millis(call.parts().timing.request_ms_max);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(longest);
    PollLimits {
        max_bytes: size(request.max_bytes).min(most),
        min_bytes: size(request.min_bytes),
        wait: if told { Duration::ZERO } else { wait },
    }
}

pub(super) fn isolation(level: i8) -> Isolation {
    if level == READ_COMMITTED { Isolation::Committed } else { Isolation::Uncommitted }
}

fn empty(partition: i32, isolation: Isolation) -> PartitionData {
    // Whoever reads committed records only is told which transactions were aborted.
    let aborted = (isolation == Isolation::Committed).then(Vec::new);
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(aborted)
        // Empty, not null: not every client takes null.
        .with_records(Some(Bytes::new()))
}

/// Where a partition is read.
enum Found {
    Here(Wanted),
    /// At this broker, which is nearer to the reader.
    Elsewhere(i32),
}

fn find(
    call: &Call,
    topic: &str,
    partition: &FetchPartition,
    reader: Reader<'_>,
    isolation: Isolation,
) -> Result<Found, Error> {
    call.authorize(Verb::Fetch, Resource::Topic(topic))?;
    let (_, id) = call.parts().locate(topic, partition_number(partition.partition)?)?;
    let copies = reader.copies();
    let handle = call.parts().readable(topic, id, copies)?;
    let Some(from) = Offset::from_wire(partition.fetch_offset) else {
        let cause = format!("offset {} is negative", partition.fetch_offset);
        return Err(Error::new(ErrorCode::OffsetOutOfRange, cause));
    };
    let max_bytes = usize::try_from(partition.partition_max_bytes).unwrap_or(0).max(1);
    let epoch = u32::try_from(partition.current_leader_epoch).ok().map(Epoch);
    let status = handle.status.now();
    let led = status.latest.filter(|_| status.leads());
    // What is refused, is refused by the leader: it knows the offsets and the epoch.
    let in_order = led.is_some_and(|end| from <= end) && epoch.is_none_or(|epoch| status.epoch == epoch);
    if in_order && let Some(broker) = reader.elsewhere(call, id) {
        return Ok(Found::Elsewhere(broker));
    }
    Ok(Found::Here(Wanted::new(handle, from, max_bytes, epoch).isolated(isolation).of(copies)))
}

fn fill(call: &Call, response: PartitionData, read: Read) -> PartitionData {
    match read {
        // No room was left: the client asks again for this partition.
        None => response,
        Some(Ok(fetched)) => {
            let bytes: usize = fetched.batches.iter().map(|batch| batch.bytes.len()).sum();
            call.parts().metrics.fetch_answered(fetched.batches.len() as u64, bytes as u64);
            let end = fetched.latest.map_or(-1, Offset::to_wire);
            let stable = fetched.latest.map_or(-1, |latest| latest.min(fetched.last_stable).to_wire());
            let aborted = fetched.aborted.iter().map(|aborted| {
                AbortedTransaction::default()
                    .with_producer_id(ProducerId(aborted.producer.0))
                    .with_first_offset(aborted.first.to_wire())
            });
            let aborted = response.aborted_transactions.is_some().then(|| aborted.collect());
            response
                .with_high_watermark(end)
                .with_last_stable_offset(stable)
                .with_aborted_transactions(aborted)
                .with_log_start_offset(fetched.log_start.to_wire())
                .with_records(Some(joined(fetched, bytes)))
        }
        Some(Err(FetchFailure { error, latest, log_start })) => {
            call.parts().metrics.fetch_failed(error.code);
            let end = latest.map_or(-1, Offset::to_wire);
            response
                .with_error_code(error.code.kafka())
                .with_high_watermark(end)
                .with_last_stable_offset(end)
                .with_log_start_offset(log_start.to_wire())
        }
    }
}

/// The batches one behind the other.
fn joined(fetched: Fetched, bytes: usize) -> Bytes {
    let mut batches = fetched.batches;
    if batches.len() == 1 {
        return batches.pop().map(|batch| batch.bytes).unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(bytes);
    for batch in batches {
        all.extend_from_slice(&batch.bytes);
    }
    all.freeze()
}

fn respond(call: &Call, mut topics: Vec<FetchableTopicResponse>, slots: Vec<Slot>) -> FetchResponse {
    let mut leaders: BTreeMap<BrokerId, _> = BTreeMap::new();
    for Slot { topic, mut response, .. } in slots {
        let Some(topic) = topics.get_mut(topic) else { continue };
        let moved = [ErrorCode::NotLeader.kafka(), ErrorCode::FencedEpoch.kafka()].contains(&response.error_code);
        if moved
            && call.version >= TELLS_LEADER
            && let Some((leader, epoch)) = leader_of(call, &topic.topic, response.partition_index)
        {
            response.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(wire_id(leader)).with_leader_epoch(epoch);
            leaders.insert(leader, call.service.node(leader));
        }
        topic.partitions.push(response);
    }
    for topic in &mut topics {
        // The encoder takes one or the other.
        if call.version >= BY_ID {
            topic.topic = TopicName::default();
        } else {
            topic.topic_id = uuid::Uuid::nil();
        }
    }
    let endpoint = |node: super::address::Node| {
        NodeEndpoint::default().with_node_id(node.id).with_host(node.host).with_port(node.port).with_rack(node.rack)
    };
    let endpoints = match call.version >= TELLS_ADDRESS {
        true => leaders.into_values().flatten().map(endpoint).collect(),
        false => Vec::new(),
    };
    FetchResponse::default().with_responses(topics).with_node_endpoints(endpoints)
}
