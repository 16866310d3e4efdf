//! A record of transactions as a batch.

use baton_core::batch::{BatchBuilder, BuildOptions, Pushed, validate_produce};
use baton_core::topic::TopicConfig;
use baton_core::transaction::record::TransactionRecord;
use baton_core::{Error, ErrorCode};

use crate::coordination::append::Encoded;

/// One record as a batch.
pub(super) fn encode(now_ms: i64, record: &TransactionRecord, settings: &TopicConfig) -> Encoded {
    let limits = settings.produce_limits();
    let mut builder = BatchBuilder::new(limits.max_message_bytes);
    let (key, value) = (record.key(), record.value());
    match builder.push(now_ms, Some(&key), value.as_deref(), &[]) {
        Ok(Pushed::Added) => {}
        Ok(Pushed::Full) | Err(_) => {
            let cause = format!("the record of {:?} does not fit into {} bytes", record.id, limits.max_message_bytes);
            return Err(Error::new(ErrorCode::BatchTooLarge, cause));
        }
    }
    let bytes = builder.build(&BuildOptions::default())?;
    let header = validate_produce(&bytes, limits)?;
    Ok((header, bytes))
}
