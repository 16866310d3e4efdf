//! RecordBatch v2, the unit that is produced, stored, replicated and served.
//!
//! ```text
//!  0 base offset i64 ·············· outside the CRC: the leader stamps it
//!  8 batch length i32 ············· bytes that follow this field
//! 12 leader epoch i32 ············· outside the CRC: the leader stamps it
//! 16 magic i8 = 2
//! 17 CRC-32C u32 ·················· over everything from byte 21 on
//! 21 attributes i16 ··············· 0–2 codec, 3 timestamp type, 4 transactional,
//!                                   5 control, 6 delete horizon
//! 23 last offset delta i32
//! 27 base timestamp i64     35 max timestamp i64
//! 43 producer id i64        51 producer epoch i16     53 base sequence i32
//! 57 record count i32       61 records, compressed as one block
//! ```
//! All numbers are big-endian. The format is Kafka's (KIP-98), so that what a Kafka client
//! sends is stored and served byte for byte.
//!
//! The hot path reads headers only ([`validate_produce`], [`stamp`], [`validate_replica`]);
//! records are decoded by consumers, and by the broker for questions about time.

mod builder;
mod compression;
mod control;
mod error;
mod header;
mod rebuild;
mod record;
mod stamp;
mod validate;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

/// The end of a transaction, as kafka-clients builds it.
#[cfg(test)]
pub(crate) fn golden_control() -> bytes::Bytes {
    fixtures::golden("control")
}

pub use builder::{BatchBuilder, BuildOptions, ProducerStamp, Pushed};
pub use compression::{Codec, NotACodec, compress, decompress};
pub use control::control_batch;
pub use error::BatchError;
pub use header::{Attributes, BatchHeader, TimestampType};
pub use rebuild::{empty, rebuild};
pub use record::{Record, RecordHeader, Records, decode_records, records};
pub use stamp::{Stamp, stamp, stamp_in_place};
pub use validate::{ProduceLimits, SplitBatches, check_crc, split_batches, validate_produce, validate_replica};

/// Bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;

/// Bytes of a batch that its length field does not count: base offset and the field itself.
pub const LENGTH_PREFIX: usize = 12;

/// The only message format that is taken; older ones are refused, never converted.
pub const MAGIC: i8 = 2;

/// Where the CRC starts to count.
const CRC_FROM: usize = 21;

/// Where the magic byte stands, in every version of the format.
const MAGIC_AT: usize = 16;
