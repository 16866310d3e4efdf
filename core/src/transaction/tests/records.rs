//! What is in the log.

use proptest::prelude::*;

use super::bench::{at, producer};
use crate::ids::ProducerId;
use crate::transaction::message::Producer;
use crate::transaction::metadata::{TransactionMetadata, TransactionState as State};
use crate::transaction::record::{RecordError, TransactionRecord};

fn producers() -> impl Strategy<Value = Producer> {
    (0..i64::MAX, 0..=i16::MAX).prop_map(|(id, epoch)| producer(id, epoch))
}

fn metadata() -> impl Strategy<Value = TransactionMetadata> {
    let states = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
    ];
    let partitions = prop::collection::btree_set(any::<u32>().prop_map(at), 1..20);
    let identity = (producers(), prop::option::of(producers()), prop::option::of(0..i64::MAX), any::<bool>());
    let rest = (prop::sample::select(states.to_vec()), partitions, any::<u32>(), any::<i64>(), any::<i64>());
    (identity, rest).prop_map(
        |((producer, previous, next_id, raised), (state, partitions, timeout_ms, started, updated))| {
            let (open, deciding) = (!state.is_idle(), state.deciding().is_some());
            TransactionMetadata {
                producer,
                previous,
                next_id: next_id.filter(|_| deciding).map(ProducerId),
                raised: raised && deciding,
                timeout_ms,
                state,
                partitions: if open { partitions } else { Default::default() },
                started_ms: open.then_some(started),
                updated_ms: updated,
            }
        },
    )
}

fn record() -> impl Strategy<Value = TransactionRecord> {
    (any::<String>(), prop::option::of(metadata())).prop_map(|(id, metadata)| TransactionRecord { id, metadata })
}

proptest! {
    #[test]
    fn records_come_back(record in record()) {
        let (key, value) = (record.key(), record.value());
        prop_assert_eq!(TransactionRecord::decode(&key, value.as_deref()), Ok(record));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_told(record in record(), cut in any::<prop::sample::Index>()) {
        let (key, value) = (record.key(), record.value());
        if let Some(value) = value {
            prop_assert!(TransactionRecord::decode(&key, Some(&value[..cut.index(value.len())])).is_err());
            let longer = [&value[..], b"x"].concat();
            prop_assert_eq!(TransactionRecord::decode(&key, Some(&longer)), Err(RecordError::LeftOver(1)));
        }
    }

    #[test]
    fn other_bytes_harm_nobody(key in any::<Vec<u8>>(), mut value in any::<Vec<u8>>()) {
        let _ = TransactionRecord::decode(&key, Some(&value));
        value.insert(0, 1);
        let _ = TransactionRecord::decode(b"\x01t", Some(&value));
    }
}

#[test]
fn a_newer_version_is_named() {
    assert_eq!(TransactionRecord::decode(b"\x01t", Some(&[9])), Err(RecordError::Version(9)));
    assert_eq!(TransactionRecord::decode(&[7], None), Err(RecordError::Kind(7)));
    assert_eq!(TransactionRecord::decode(&[], None), Err(RecordError::Truncated));
    assert_eq!(TransactionRecord::decode(&[1, 0xff], None), Err(RecordError::NotText));
}
