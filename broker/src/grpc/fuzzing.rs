//! What a request goes through before anything of the broker is needed, for the fuzzer.

use baton_core::Error;
use baton_core::batch::{BatchHeader, ProduceLimits};
use baton_proto::v1::produce_partition::Payload;
use bytes::Bytes;

/// The batch that a leader would append.
///
/// # Errors
/// It is refused.
pub fn checked_batch(payload: Option<Payload>, bytes_max: usize, now_ms: i64) -> Result<(BatchHeader, Bytes), Error> {
    super::produce::checked_batch(payload, ProduceLimits { max_message_bytes: bytes_max, keyed: false }, now_ms)
}
