//! What replicas say to each other, on the wire. Everything that comes in is checked here:
//! behind this seam there are only well-formed messages of the core.

use baton_core::batch::validate_replica;
use baton_core::ids::{CandidateSeq, DiskId, Epoch, Generation, Incarnation, Member, Offset, TopicId};
use baton_core::lineage::Lineage;
use baton_core::partition::LeaderId;
use baton_core::producer::{PRODUCERS_MAX, ProducerTable};
use baton_core::replica::{Ack, Announce, Append, Flow, Hello, HelloReply, HelloVerdict, Message, StoredBatch};
use baton_core::{BrokerId, TopicPartition};
use bytes::Bytes;

use crate::v1;

/// A lineage longer than this is not believed: one entry stands for one election that wrote.
const LINEAGE_MAX: usize = 1 << 20;

/// A frame that does not follow the protocol; the link it came on is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed peer frame: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

type Read<T> = Result<T, Malformed>;

#[must_use]
pub fn disk_to_wire(disk: DiskId) -> Bytes {
    Bytes::copy_from_slice(&disk.0.to_be_bytes())
}

/// # Errors
/// The identifier does not have 16 bytes.
pub fn disk_from_wire(bytes: &[u8]) -> Read<DiskId> {
    let array = <[u8; 16]>::try_from(bytes).map_err(|_| Malformed("a disk id has 16 bytes"))?;
    Ok(DiskId(u128::from_be_bytes(array)))
}

fn member_to_wire(member: &Member) -> v1::MemberId {
    v1::MemberId { broker: member.broker.0, disk: disk_to_wire(member.disk), generation: member.generation.0 }
}

fn member_from_wire(wire: Option<&v1::MemberId>) -> Read<Member> {
    let wire = wire.ok_or(Malformed("no member"))?;
    Ok(Member {
        broker: BrokerId(wire.broker),
        disk: disk_from_wire(&wire.disk)?,
        generation: Generation(wire.generation),
    })
}

#[must_use]
pub fn key_to_wire(id: TopicPartition) -> v1::PartitionKey {
    v1::PartitionKey { topic: id.topic.0, partition: id.partition }
}

/// # Errors
/// There is no key.
pub fn key_from_wire(wire: Option<&v1::PartitionKey>) -> Read<TopicPartition> {
    let wire = wire.ok_or(Malformed("no partition"))?;
    Ok(TopicPartition { topic: TopicId(wire.topic), partition: wire.partition })
}

/// Adds one message to the frame that carries everything that is ready.
pub fn add_to_frame(frame: &mut v1::PeerFrame, id: TopicPartition, message: Message) {
    let key = Some(key_to_wire(id));
    match message {
        Message::Announce(m) => frame.announces.push(announce_to_wire(key, &m)),
        Message::Hello(m) => frame.hellos.push(hello_to_wire(key, &m)),
        Message::HelloReply(m) => frame.hello_replies.push(reply_to_wire(key, &m)),
        Message::Append(m) => frame.appends.push(append_to_wire(key, m)),
        Message::Ack(m) => frame.acks.push(ack_to_wire(key, &m)),
    }
}

/// What a message counts for besides its batches.
const MESSAGE_BYTES: usize = 64;

/// What one message adds to [`frame_bytes`].
#[must_use]
pub fn message_bytes(message: &Message) -> usize {
    match message {
        Message::Append(append) => MESSAGE_BYTES + append.batches.iter().map(|batch| batch.len()).sum::<usize>(),
        Message::HelloReply(HelloReply { verdict: HelloVerdict::RestartAt { producers, .. }, .. }) => {
            MESSAGE_BYTES + producers.encoded_bytes_max()
        }
        _ => MESSAGE_BYTES,
    }
}

/// Bytes of batches in a frame: what windows and limits count.
#[must_use]
pub fn frame_bytes(frame: &v1::PeerFrame) -> usize {
    let batches = frame.appends.iter().flat_map(|append| &append.batches);
    let small =
        frame.announces.len() + frame.hellos.len() + frame.hello_replies.len() + frame.appends.len() + frame.acks.len();
    let producers = frame.hello_replies.iter().map(|reply| reply.producers.len());
    small * MESSAGE_BYTES + producers.sum::<usize>() + batches.map(Bytes::len).sum::<usize>()
}

/// Every message of a frame. Batches are checked by their CRC here.
///
/// # Errors
/// [`Malformed`]: nothing of the frame may be used.
pub fn messages(frame: v1::PeerFrame) -> Read<Vec<(TopicPartition, Message)>> {
    let mut all = Vec::with_capacity(
        frame.announces.len() + frame.hellos.len() + frame.hello_replies.len() + frame.appends.len() + frame.acks.len(),
    );
    for wire in &frame.announces {
        all.push((key_from_wire(wire.key.as_ref())?, Message::Announce(announce_from_wire(wire)?)));
    }
    for wire in &frame.hellos {
        all.push((key_from_wire(wire.key.as_ref())?, Message::Hello(hello_from_wire(wire)?)));
    }
    for wire in &frame.hello_replies {
        all.push((key_from_wire(wire.key.as_ref())?, Message::HelloReply(reply_from_wire(wire)?)));
    }
    for wire in frame.appends {
        all.push((key_from_wire(wire.key.as_ref())?, Message::Append(append_from_wire(wire)?)));
    }
    for wire in &frame.acks {
        all.push((key_from_wire(wire.key.as_ref())?, Message::Ack(ack_from_wire(wire)?)));
    }
    Ok(all)
}

fn announce_to_wire(key: Option<v1::PartitionKey>, m: &Announce) -> v1::Announce {
    let leader = Member { broker: m.leader.broker, disk: m.leader.disk, generation: Generation(0) };
    v1::Announce {
        key,
        epoch: m.epoch.0,
        leader: Some(member_to_wire(&leader)),
        incarnation: m.leader.incarnation.0,
        candidate: m.leader.candidate.0,
    }
}

fn announce_from_wire(wire: &v1::Announce) -> Read<Announce> {
    let member = member_from_wire(wire.leader.as_ref())?;
    Ok(Announce {
        epoch: Epoch(wire.epoch),
        leader: LeaderId {
            broker: member.broker,
            disk: member.disk,
            incarnation: Incarnation(wire.incarnation),
            candidate: CandidateSeq(wire.candidate),
        },
    })
}

fn hello_to_wire(key: Option<v1::PartitionKey>, m: &Hello) -> v1::Hello {
    let lineage = m.lineage.entries().iter();
    v1::Hello {
        key,
        epoch: m.epoch.0,
        member: Some(member_to_wire(&m.member)),
        incarnation: m.incarnation.0,
        flow: m.flow.0,
        lineage: lineage.map(|(epoch, start)| v1::LineageEntry { epoch: epoch.0, start: start.0 }).collect(),
        end_offset: m.end.0,
    }
}

fn hello_from_wire(wire: &v1::Hello) -> Read<Hello> {
    if wire.lineage.len() > LINEAGE_MAX {
        return Err(Malformed("the lineage is too long"));
    }
    let entries = wire.lineage.iter().map(|e| (Epoch(e.epoch), Offset(e.start))).collect();
    Ok(Hello {
        epoch: Epoch(wire.epoch),
        member: member_from_wire(wire.member.as_ref())?,
        incarnation: Incarnation(wire.incarnation),
        flow: Flow(wire.flow),
        lineage: Lineage::from_entries(entries).map_err(|_| Malformed("the lineage does not rise"))?,
        end: Offset(wire.end_offset),
    })
}

fn reply_to_wire(key: Option<v1::PartitionKey>, m: &HelloReply) -> v1::HelloReply {
    use v1::hello_reply::Verdict;
    let mut known = Bytes::new();
    let verdict = match &m.verdict {
        HelloVerdict::Accepted { truncate_to, high_watermark, log_start } => Verdict::Accepted(v1::Accepted {
            truncate_to: truncate_to.0,
            high_watermark: high_watermark.0,
            log_start: log_start.0,
        }),
        HelloVerdict::RestartAt { start, producers } => {
            if !producers.is_empty() {
                known = producers.encode();
            }
            Verdict::RestartAt(start.0)
        }
        HelloVerdict::Damaged => Verdict::Damaged(true),
        HelloVerdict::NotYet => Verdict::NotYet(true),
        HelloVerdict::Fenced => Verdict::Fenced(true),
    };
    v1::HelloReply { key, epoch: m.epoch.0, flow: m.flow.0, verdict: Some(verdict), producers: known }
}

fn reply_from_wire(wire: &v1::HelloReply) -> Read<HelloReply> {
    use v1::hello_reply::Verdict;
    let verdict = match wire.verdict.as_ref().ok_or(Malformed("no verdict"))? {
        Verdict::Accepted(a) => HelloVerdict::Accepted {
            truncate_to: Offset(a.truncate_to),
            high_watermark: Offset(a.high_watermark),
            log_start: Offset(a.log_start),
        },
        Verdict::RestartAt(start) => {
            HelloVerdict::RestartAt { start: Offset(*start), producers: producers_from_wire(&wire.producers)? }
        }
        Verdict::Damaged(_) => HelloVerdict::Damaged,
        Verdict::NotYet(_) => HelloVerdict::NotYet,
        Verdict::Fenced(_) => HelloVerdict::Fenced,
    };
    Ok(HelloReply { epoch: Epoch(wire.epoch), flow: Flow(wire.flow), verdict })
}

fn producers_from_wire(bytes: &[u8]) -> Read<ProducerTable> {
    if bytes.is_empty() {
        return Ok(ProducerTable::default());
    }
    ProducerTable::decode(bytes, PRODUCERS_MAX).map_err(|_| Malformed("the producers cannot be read"))
}

fn append_to_wire(key: Option<v1::PartitionKey>, m: Append) -> v1::Append {
    v1::Append {
        key,
        epoch: m.epoch.0,
        flow: m.flow.0,
        base: m.base.0,
        previous_epoch: m.previous_epoch.0,
        batches: m.batches.into_iter().map(|batch| batch.bytes).collect(),
        high_watermark: m.high_watermark.0,
        log_start: m.log_start.0,
    }
}

fn append_from_wire(wire: v1::Append) -> Read<Append> {
    let mut batches = Vec::with_capacity(wire.batches.len());
    for bytes in wire.batches {
        batches.extend(stored_batches(bytes)?);
    }
    Ok(Append {
        epoch: Epoch(wire.epoch),
        flow: Flow(wire.flow),
        base: Offset(wire.base),
        previous_epoch: Epoch(wire.previous_epoch),
        batches,
        high_watermark: Offset(wire.high_watermark),
        log_start: Offset(wire.log_start),
    })
}

/// The batches in one piece of bytes, each checked and none copied.
///
/// # Errors
/// A CRC, a length or a magic byte is wrong.
pub fn stored_batches(bytes: Bytes) -> Read<Vec<StoredBatch>> {
    let batches = validate_replica(&bytes).map_err(|_| Malformed("a batch is damaged"))?;
    batches
        .into_iter()
        .map(|(header, bytes)| {
            Ok(StoredBatch {
                base: header.base_offset,
                last: header.last_offset(),
                epoch: header.leader_epoch.ok_or(Malformed("a batch without an epoch"))?,
                max_timestamp_ms: header.max_timestamp_ms,
                bytes,
            })
        })
        .collect()
}

fn ack_to_wire(key: Option<v1::PartitionKey>, m: &Ack) -> v1::Ack {
    v1::Ack {
        key,
        epoch: m.epoch.0,
        flow: m.flow.0,
        member: Some(member_to_wire(&m.member)),
        incarnation: m.incarnation.0,
        durable_end: m.durable_end.0,
        log_start: m.log_start.0,
    }
}

fn ack_from_wire(wire: &v1::Ack) -> Read<Ack> {
    Ok(Ack {
        epoch: Epoch(wire.epoch),
        flow: Flow(wire.flow),
        member: member_from_wire(wire.member.as_ref())?,
        incarnation: Incarnation(wire.incarnation),
        durable_end: Offset(wire.durable_end),
        log_start: Offset(wire.log_start),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, ProducerStamp, Pushed};
    use baton_core::ids::{ProducerEpoch, ProducerId};

    fn member() -> Member {
        Member { broker: BrokerId(2), disk: DiskId(77), generation: Generation(3) }
    }

    fn one_producer() -> ProducerTable {
        let mut builder = BatchBuilder::new(4096);
        let pushed = builder.push(0, None, Some(b"x"), &[]);
        assert_eq!(pushed, Ok(Pushed::Added));
        let producer = ProducerStamp { id: ProducerId(4), epoch: ProducerEpoch(1), base_sequence: 9 };
        let batch = builder.build(&BuildOptions { producer: Some(producer), ..BuildOptions::default() });
        let mut table = ProducerTable::default();
        table.applied(&BatchHeader::parse(&batch.unwrap_or_default()).expect("a batch"), Offset(3));
        table
    }

    fn round_trip(message: Message) {
        let id = TopicPartition { topic: TopicId(5), partition: 6 };
        let mut frame = v1::PeerFrame::default();
        add_to_frame(&mut frame, id, message.clone());
        assert_eq!(messages(frame), Ok(vec![(id, message)]));
    }

    #[test]
    fn every_message_survives_the_wire() {
        let lineage = Lineage::from_entries(vec![(Epoch(1), Offset(0)), (Epoch(4), Offset(9))]);
        round_trip(Message::Hello(Hello {
            epoch: Epoch(4),
            member: member(),
            incarnation: Incarnation(9),
            flow: Flow(2),
            lineage: lineage.unwrap_or_default(),
            end: Offset(12),
        }));
        for verdict in [
            HelloVerdict::Accepted { truncate_to: Offset(4), high_watermark: Offset(3), log_start: Offset(2) },
            HelloVerdict::RestartAt { start: Offset(8), producers: ProducerTable::default() },
            HelloVerdict::RestartAt { start: Offset(8), producers: one_producer() },
            HelloVerdict::Damaged,
            HelloVerdict::NotYet,
            HelloVerdict::Fenced,
        ] {
            round_trip(Message::HelloReply(HelloReply { epoch: Epoch(4), flow: Flow(2), verdict }));
        }
        round_trip(Message::Ack(Ack {
            epoch: Epoch(4),
            flow: Flow(2),
            member: member(),
            incarnation: Incarnation(9),
            durable_end: Offset(12),
            log_start: Offset(7),
        }));
        round_trip(Message::Announce(Announce {
            epoch: Epoch(4),
            leader: LeaderId {
                broker: BrokerId(2),
                disk: DiskId(77),
                incarnation: Incarnation(9),
                candidate: CandidateSeq(11),
            },
        }));
        round_trip(Message::Append(Append {
            epoch: Epoch(4),
            flow: Flow(2),
            base: Offset(12),
            previous_epoch: Epoch(4),
            batches: Vec::new(),
            high_watermark: Offset(3),
            log_start: Offset(2),
        }));
    }

    #[test]
    fn garbage_is_refused() {
        let key = Some(v1::PartitionKey { topic: 1, partition: 1 });
        let append = v1::Append { key, batches: vec![Bytes::from_static(b"not a batch")], ..Default::default() };
        let frame = v1::PeerFrame { appends: vec![append], ..Default::default() };
        assert!(messages(frame).is_err());
        let hello = v1::Hello { key, ..Default::default() };
        assert!(messages(v1::PeerFrame { hellos: vec![hello], ..Default::default() }).is_err());
        let acks = vec![v1::Ack::default()];
        assert!(messages(v1::PeerFrame { acks, ..Default::default() }).is_err());
    }
}
