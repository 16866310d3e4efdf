//! What is in the log.

use bytes::Bytes;
use proptest::prelude::*;

use crate::group::message::Protocol;
use crate::group::offsets::Committed;
use crate::group::record::{GroupMetadata, GroupRecord, MemberMetadata, RecordError};
use crate::ids::{Offset, TopicId, TopicPartition};

fn member(id: usize) -> impl Strategy<Value = MemberMetadata> {
    let protocol = (any::<String>(), any::<Vec<u8>>())
        .prop_map(|(name, metadata)| Protocol { name, metadata: Bytes::from(metadata) });
    let protocols = prop::collection::vec(protocol, 0..3);
    (any::<Option<String>>(), any::<[String; 2]>(), any::<[u32; 2]>(), any::<Vec<u8>>(), protocols).prop_map(
        move |(instance, [client_id, client_host], [session_ms, rebalance_ms], assignment, protocols)| MemberMetadata {
            id: format!("m{id}"),
            instance: instance.map(|instance| format!("{instance}{id}")),
            client_id,
            client_host,
            session_ms,
            rebalance_ms,
            assignment: Bytes::from(assignment),
            protocols,
        },
    )
}

fn metadata() -> impl Strategy<Value = GroupMetadata> {
    let members = (0_usize..4).prop_flat_map(|count| (0..count).map(member).collect::<Vec<_>>());
    (0..i32::MAX, any::<bool>(), any::<i64>(), any::<[String; 2]>(), members).prop_map(
        |(generation, assigned, since_ms, [protocol_type, protocol], members)| GroupMetadata {
            generation,
            assigned,
            since_ms,
            protocol_type,
            protocol: Some(protocol),
            leader: members.first().map(|member| member.id.clone()),
            members,
        },
    )
}

fn record() -> impl Strategy<Value = GroupRecord> {
    let offset = (any::<u64>(), 0..i32::MAX, any::<Option<()>>(), any::<String>(), any::<i64>()).prop_map(
        |(offset, epoch, said, metadata, committed_ms)| Committed {
            offset: Offset(offset),
            leader_epoch: said.map(|()| epoch),
            metadata,
            committed_ms,
        },
    );
    let at = any::<[u32; 2]>().prop_map(|[topic, partition]| TopicPartition { topic: TopicId(topic), partition });
    prop_oneof![
        (any::<String>(), prop::option::of(metadata()))
            .prop_map(|(group, metadata)| GroupRecord::Group { group, metadata }),
        (any::<String>(), at, prop::option::of(offset)).prop_map(|(group, at, committed)| GroupRecord::Offset {
            group,
            at,
            committed
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back(record in record()) {
        let (key, value) = (record.key(), record.value());
        prop_assert_eq!(GroupRecord::decode(&key, value.as_deref()), Ok(record));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_told(record in record(), cut in any::<prop::sample::Index>()) {
        let (key, value) = (record.key(), record.value());
        prop_assert!(GroupRecord::decode(&key[..cut.index(key.len())], value.as_deref()).is_err());
        if let Some(value) = value {
            prop_assert!(GroupRecord::decode(&key, Some(&value[..cut.index(value.len())])).is_err());
            let longer = [&value[..], b"x"].concat();
            prop_assert_eq!(GroupRecord::decode(&key, Some(&longer)), Err(RecordError::LeftOver(1)));
        }
    }

    #[test]
    fn other_bytes_harm_nobody(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
        let _ = GroupRecord::decode(&key, Some(&value));
        let _ = GroupRecord::decode(&[1, 0, 0, 0, 0], Some(&value));
        let _ = GroupRecord::decode(&GroupRecord::Offset {
            group: String::new(), at: TopicPartition { topic: TopicId(0), partition: 0 }, committed: None,
        }.key(), Some(&value));
    }
}

#[test]
fn a_newer_version_is_named() {
    let record = GroupRecord::Group { group: "g".to_owned(), metadata: None };
    assert_eq!(GroupRecord::decode(&record.key(), Some(&[9])), Err(RecordError::Version(9)));
    assert_eq!(GroupRecord::decode(&[7], None), Err(RecordError::Kind(7)));
}
