//! What the corpora began with: good bytes of every kind, made by the encoders themselves.

use baton_broker::config::{BrokerConfig, to_toml};
use baton_broker::log::fjall::decoders;
use baton_core::batch::{
    BatchBuilder, BatchHeader, BuildOptions, Codec, ProducerStamp, RecordHeader, Stamp, compress, stamp,
};
use baton_core::lineage::Lineage;
use baton_core::partition::LeaderId;
use baton_core::producer::ProducerTable;
use baton_core::replica::{Ack, Announce, Append, Flow, Hello, HelloReply, HelloVerdict, Message};
use baton_core::{
    BrokerId, CandidateSeq, DiskId, Epoch, Generation, Incarnation, Member, Offset, ProducerEpoch, ProducerId, TopicId,
    TopicPartition,
};
use baton_history::record::Writer;
use baton_history::synthetic::{Shape, generate};
use baton_proto::peer;
use baton_proto::v1::{self, produce_partition::Payload};
use bytes::Bytes;
use prost::Message as _;

/// The inputs of one target, with names.
type Seeds = Vec<(String, Vec<u8>)>;

/// All of them, with the names of their targets.
///
/// # Panics
/// An encoder refuses what is right.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Seeds)> {
    vec![
        ("batch", batches()),
        ("decompress", packed()),
        ("peer", frames()),
        ("produce", produce()),
        ("requests", requests()),
        ("kafka_frames", kafka_frames()),
        ("kafka_requests", kafka_requests()),
        ("znodes", znodes()),
        ("producers", producers()),
        ("records", records()),
        ("witness", vec![("two".to_owned(), [&[1], &decoders::witness_example()[..]].concat())]),
        ("lineage", vec![("two".to_owned(), vec![1, 0, 0, 2, 0, 9, 3, 0, 20, 1, 0, 0, 3, 0, 9, 4, 0, 30])]),
        ("config", configs()),
        ("history", histories()),
        ("recovery", damages()),
    ]
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn built(codec: Codec, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 16);
    let headers = [RecordHeader { key: Bytes::from_static(b"h"), value: None }];
    let _ = builder.push(1_000, Some(b"key"), Some(b"value value value"), &headers).expect("it fits");
    let _ = builder.push(1_001, None, None, &[]).expect("it fits");
    builder.build(&BuildOptions { codec, producer, ..BuildOptions::default() }).expect("it has records")
}

fn stamped(base: u64) -> (BatchHeader, Bytes) {
    let place = Stamp { base_offset: Offset(base), leader_epoch: Epoch(2), append_time_ms: None };
    stamp(built(Codec::None, Some(idempotent())), place).expect("it is a whole batch")
}

fn idempotent() -> ProducerStamp {
    ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(1), base_sequence: 0 }
}

fn batches() -> Seeds {
    let mut seeds: Seeds =
        CODECS.iter().map(|codec| (codec.name().to_owned(), [&[1], &built(*codec, None)[..]].concat())).collect();
    seeds.push(("two".to_owned(), [&[0], &stamped(0).1[..], &stamped(2).1[..]].concat()));
    seeds
}

fn packed() -> Seeds {
    let pack = |codec: &Codec| {
        let packed = compress(*codec, &b"again and again and again".repeat(10)).expect("it can be packed");
        (codec.name().to_owned(), [&[codec.id()], &packed[..]].concat())
    };
    CODECS.iter().map(pack).collect()
}

fn frames() -> Seeds {
    let member = Member { broker: BrokerId(2), disk: DiskId(77), generation: Generation(3) };
    let lineage = Lineage::from_entries(vec![(Epoch(1), Offset(0)), (Epoch(4), Offset(9))]).expect("it rises");
    let (epoch, flow, incarnation) = (Epoch(4), Flow(2), Incarnation(9));
    let leader = LeaderId { broker: BrokerId(2), disk: DiskId(77), incarnation, candidate: CandidateSeq(11) };
    let verdict = HelloVerdict::Accepted { truncate_to: Offset(4), high_watermark: Offset(3), log_start: Offset(1) };
    let (header, bytes) = stamped(12);
    let batch = baton_core::replica::StoredBatch {
        base: header.base_offset,
        last: header.last_offset(),
        epoch: Epoch(2),
        max_timestamp_ms: header.max_timestamp_ms,
        bytes,
    };
    let messages = [
        Message::Hello(Hello { epoch, member, incarnation, flow, lineage, end: Offset(12) }),
        Message::HelloReply(HelloReply { epoch, flow, verdict }),
        Message::Ack(Ack { epoch, flow, member, incarnation, durable_end: Offset(12), log_start: Offset(1) }),
        Message::Announce(Announce { epoch, leader }),
        Message::Append(Append {
            epoch,
            flow,
            base: Offset(12),
            previous_epoch: epoch,
            batches: vec![batch],
            high_watermark: Offset(3),
            log_start: Offset(1),
        }),
    ];
    let mut frame = v1::PeerFrame::default();
    for message in messages {
        peer::add_to_frame(&mut frame, TopicPartition { topic: TopicId(5), partition: 6 }, message);
    }
    vec![("all".to_owned(), frame.encode_to_vec())]
}

fn produce() -> Seeds {
    let request = |payload| {
        let partition = v1::ProducePartition { topic: "orders".to_owned(), partition: 1, payload: Some(payload) };
        v1::ProduceRequest { correlation: 3, partitions: vec![partition], ..v1::ProduceRequest::default() }
    };
    let record = v1::Record {
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"v")),
        headers: vec![v1::Header { key: Bytes::from_static(b"h"), value: None }],
        timestamp_ms: Some(5),
    };
    let records = Payload::Records(v1::Records { records: vec![record] });
    vec![
        ("batch".to_owned(), request(Payload::Batch(built(Codec::Lz4, None))).encode_to_vec()),
        ("records".to_owned(), request(records).encode_to_vec()),
    ]
}

fn requests() -> Seeds {
    let partition = v1::FetchPartition { topic: "orders".to_owned(), partition: 1, offset: 7, ..Default::default() };
    let fetch = v1::FetchRequest { partitions: vec![partition], max_bytes: 9, ..Default::default() };
    let create = v1::CreateTopicRequest { name: "orders".to_owned(), ..Default::default() };
    vec![
        ("fetch".to_owned(), [&[0], &fetch.encode_to_vec()[..]].concat()),
        ("create".to_owned(), [&[5], &create.encode_to_vec()[..]].concat()),
    ]
}

/// A request of each sort of header, one behind the other, and what other protocols begin with.
fn kafka_frames() -> Seeds {
    const FRAMES: [(&str, &[u8]); 3] = [
        ("two", b"\0\0\0\x0c\0\x12\0\x00\0\0\0\x01\0\x02me\0\0\0\x12\0\x12\0\x03\0\0\0\x02\xff\xff\0\x02x\x02y\0\0\0"),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("http", b"GET / HTTP/1.1\r\n\r\n"),
    ];
    FRAMES.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

/// Key, version above the lowest, body.
fn kafka_requests() -> Seeds {
    let batch = built(Codec::Lz4, Some(idempotent()));
    let length = i32::try_from(batch.len()).expect("it is small").to_be_bytes();
    let before = b"\0\x00\xff\xff\xff\xff\0\0\x75\x30\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0";
    let produce = [&before[..], &length[..], &batch[..]].concat();
    const OTHERS: [(&str, &[u8]); 7] = [
        ("metadata-1", b"\x03\x01\0\0\0\x01\0\x01t"),
        ("metadata-12", b"\x03\x0c\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02t\0\x01\0\0"),
        ("api-versions-3", b"\x12\x03\x02x\x02y\0"),
        (
            "list-offsets-1",
            b"\x02\x00\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("delete-groups-2", b"\x2a\x02\x02\x02g\0"),
        ("delete-records-2", b"\x15\x02\x02\x02t\x02\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\x75\x30\0"),
        ("describe-log-dirs-1", b"\x23\x00\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0"),
    ];
    let mut seeds: Seeds = OTHERS.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    seeds.push(("produce-3".to_owned(), produce));
    seeds
}

/// The golden bytes of the registry's own tests.
fn znodes() -> Seeds {
    const GOLDEN: [(u8, &str, &str); 9] = [
        (0, "absence", "01ba41 0000000000000102"),
        (1, "claim", "01ba49 0000000000000000000000000000d15c 0000000000000007"),
        (
            2,
            "broker",
            "01ba42 00000000000000000000000000000001 0000000000000002 0001 0003 01 010172 01 02696e 0467727063 0168 1ce8",
        ),
        (3, "candidate", "01ba51 00000001 00000000000000000000000000000002 00000003 0000000000000004 0000000000000005"),
        (4, "cluster", "01ba43 0000000000000000000000000000abcd 0002"),
        (5, "coordinator", "01ba63 0000000000000009 0161 0168 1d42"),
        (6, "term", "01ba45 00000004 000000000000000c"),
        (
            7,
            "partition",
            "01ba50 03 00000003 00000002 00000001 000000000000000000000000000000d1 0000000000000007 000000000000000c \
             00000002 01 00000001 000000000000000000000000000000d1 00000001 02 00000001 00000002 01 00000002 00",
        ),
        (9, "tombstone", "01ba44 0000000000000005 0174 02 00000001 00000003"),
    ];
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> =
            text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d.to_le_bytes()[0]).collect();
        digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    let mut seeds: Seeds =
        GOLDEN.iter().map(|(kind, name, text)| ((*name).to_owned(), [&[*kind], &hex(text)[..]].concat())).collect();
    seeds.push(("path".to_owned(), [&[13], &b"/p/0000002a/7/c-0000000003"[..]].concat()));
    seeds
}

fn producers() -> Seeds {
    let mut table = ProducerTable::new(10);
    table.applied(&stamped(0).0, Offset(0));
    vec![("one".to_owned(), [&[1], &table.encode()[..]].concat())]
}

fn records() -> Seeds {
    let mut seeds: Seeds = decoders::examples()
        .into_iter()
        .map(|(kind, bytes)| (format!("kind-{kind}"), [&[kind], &bytes[..]].concat()))
        .collect();
    seeds.push(("batch".to_owned(), [&[7], &stamped(3).1[..]].concat()));
    let identity = b"version=1\ncluster=00000000-0000-0000-0000-0000000000c1\nbroker=3\ndisk=d15c\ncrc=00000000\n";
    seeds.push(("identity".to_owned(), [&[8], &identity[..]].concat()));
    seeds
}

fn configs() -> Seeds {
    let small = b"broker_id = 3\n[log]\ndir = \"/tmp/x\"\n[[listeners]]\nname = \"in\"\nbind = \"0:1\"\n\n%\nBATON_BROKER_ID=4\n";
    vec![("all".to_owned(), to_toml(&BrokerConfig::default()).into_bytes()), ("some".to_owned(), small.to_vec())]
}

fn histories() -> Seeds {
    let mut writer = Writer::new(Vec::new(), "seed").expect("memory can be written");
    let shape = Shape { operations: 12, consumers: 1, ..Shape::small(3) };
    generate(shape, |event| writer.write(&event).expect("memory can be written"));
    vec![("clean".to_owned(), writer.into_inner())]
}

/// Every kind of damage in some files, each where it may hurt.
fn damages() -> Seeds {
    let mut seeds = vec![("closed".to_owned(), vec![0]), ("unclosed".to_owned(), vec![1])];
    for kind in 0..8_u8 {
        for file in [0, 5, 9] {
            let place = [kind.wrapping_mul(31).wrapping_add(file), 17];
            let damage = [file, kind, place[0], place[1], 3, 200, kind, file + 1];
            seeds.push((format!("kind-{kind}-{file}"), [&[file & 1], &damage[..]].concat()));
        }
    }
    seeds
}
