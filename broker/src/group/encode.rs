//! The records of groups as a batch.

use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, ProducerStamp, Pushed, validate_produce};
use baton_core::group::record::GroupRecord;
use baton_core::topic::TopicConfig;
use baton_core::transaction::Producer;
use baton_core::{Error, ErrorCode};

use crate::coordination::append::Encoded;

const NO_SEQUENCE: i32 = -1;

/// The records as one batch, as large as the topic allows.
pub(super) fn encode(
    now_ms: i64,
    records: &[GroupRecord],
    producer: Option<Producer>,
    settings: &TopicConfig,
) -> Encoded {
    let limits = settings.produce_limits();
    let too_large = || {
        let cause = format!("{} records do not fit into {} bytes", records.len(), limits.max_message_bytes);
        Error::new(ErrorCode::BatchTooLarge, cause)
    };
    let mut builder = BatchBuilder::new(limits.max_message_bytes);
    for record in records {
        let (key, value) = (record.key(), record.value());
        match builder.push(now_ms, Some(&key), value.as_deref(), &[]) {
            Ok(Pushed::Added) => {}
            Ok(Pushed::Full) | Err(_) => return Err(too_large()),
        }
    }
    let Some(Producer { id, epoch }) = producer else {
        let bytes = builder.build(&BuildOptions::default())?;
        return Ok((validate_produce(&bytes, limits)?, bytes));
    };
    // The coordinator writes in the producer's name, but knows nothing of its sequence numbers.
    let producer = Some(ProducerStamp { id, epoch, base_sequence: NO_SEQUENCE });
    let bytes = builder.build(&BuildOptions { producer, transactional: true, ..BuildOptions::default() })?;
    Ok((BatchHeader::parse(&bytes)?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::batch::decode_records;

    #[test]
    fn a_batch_has_every_record_with_its_key_or_is_refused() {
        let gone = |group: &str| GroupRecord::Group { group: group.to_owned(), metadata: None };
        let records = [gone("a"), gone("b")];
        let (header, bytes) = encode(7, &records, None, &TopicConfig::default()).unwrap();
        assert_eq!(header.record_count, 2);
        let decoded = decode_records(&bytes, 1 << 20).unwrap();
        let read = decoded.iter().map(|r| GroupRecord::decode(r.key.as_deref().unwrap(), r.value.as_deref()).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), records);
        let many: Vec<_> = (0..200_000).map(|n| gone(&n.to_string())).collect();
        assert_eq!(encode(7, &many, None, &TopicConfig::default()).unwrap_err().code, ErrorCode::BatchTooLarge);
    }
}
