//! Frames of peers and requests of clients, from their bytes to what the core takes.

use std::fmt::Debug;

use baton_broker::grpc::fuzzing::checked_batch;
use baton_core::topic::TopicName;
use baton_proto::{peer, v1};
use prost::Message;

const BATCH_BYTES_MAX: usize = 1 << 20;

/// What a broker sends to another one. What is taken is sent on in the same words.
pub fn peer(input: &[u8]) {
    let Ok(frame) = v1::PeerFrame::decode(input) else { return };
    let _ = peer::frame_bytes(&frame);
    let Ok(messages) = peer::messages(frame) else { return };
    let mut again = v1::PeerFrame::default();
    for (id, message) in messages.clone() {
        peer::add_to_frame(&mut again, id, message);
    }
    assert_eq!(peer::messages(again).as_ref().map(Vec::len), Ok(messages.len()));
}

/// What a producer sends, up to the batch that its leader would append.
pub fn produce(input: &[u8]) {
    let Ok(request) = v1::ProduceRequest::decode(input) else { return };
    for partition in request.partitions {
        let _ = partition.topic.parse::<TopicName>();
        if let Ok((header, bytes)) = checked_batch(partition.payload, BATCH_BYTES_MAX, 1) {
            assert_eq!(header.total_len(), bytes.len());
            assert!(bytes.len() <= BATCH_BYTES_MAX);
        }
    }
}

/// Every other request, up to its fields. The first byte says which one.
pub fn requests(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 16 {
        0 => decoded::<v1::FetchRequest>(bytes),
        1 => decoded::<v1::MetadataRequest>(bytes),
        2 => decoded::<v1::ListOffsetsRequest>(bytes),
        3 => decoded::<v1::InitProducerRequest>(bytes),
        4 => decoded::<v1::EventsRequest>(bytes),
        5 => decoded::<v1::CreateTopicRequest>(bytes),
        6 => decoded::<v1::AlterTopicRequest>(bytes),
        7 => decoded::<v1::AddPartitionsRequest>(bytes),
        8 => decoded::<v1::DeleteTopicRequest>(bytes),
        9 => decoded::<v1::ReassignRequest>(bytes),
        10 => decoded::<v1::ElectUncleanRequest>(bytes),
        11 => decoded::<v1::ElectPreferredRequest>(bytes),
        12 => decoded::<v1::SuspectRequest>(bytes),
        13 => decoded::<v1::AppendInternalRequest>(bytes),
        14 => decoded::<v1::FenceRequest>(bytes),
        _ => decoded::<v1::ResignRequest>(bytes),
    }
}

/// What was decoded is encoded and decoded to the same.
fn decoded<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message));
}
