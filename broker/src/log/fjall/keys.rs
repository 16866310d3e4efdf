//! The keys of both keyspaces. Big-endian, so that they sort as the numbers do.
//!
//! ```text
//! log       prefix u32 ‖ last offset u64             → one batch, byte for byte
//! metadata  'D' ‖ local u32                          → descriptor
//!           'S' ‖ local u32                          → log start
//!           'P' ‖ local u32                          → meta record
//!           'X' ‖ local u32                          → damage
//!           'T' ‖ prefix u32 ‖ time u64 ‖ offset u64 → empty: all below offset is ≤ time
//!           'N'                                      → the next unused number
//! ```
//!
//! A batch is found under its *last* offset, so that a range from any offset begins with the
//! batch that contains it. A prefix belongs to one generation of one partition and is never
//! reused; a reset takes a new one, which empties the copy at once.

use std::ops::RangeInclusive;

use baton_core::Offset;

use crate::log::LocalPartition;

/// The number under which the batches of one generation of a partition are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix(pub(super) u32);

pub(super) const NEXT_NUMBER: &[u8] = b"N";
pub(super) const DESCRIPTOR: u8 = b'D';
pub(super) const START: u8 = b'S';
pub(super) const META: u8 = b'P';
pub(super) const DAMAGE: u8 = b'X';
const TIME: u8 = b'T';

pub(super) type BatchKey = [u8; 12];
pub(super) type TimeKey = [u8; 21];

pub(super) fn batch(prefix: Prefix, last: Offset) -> BatchKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&prefix.0.to_be_bytes());
    key[4..].copy_from_slice(&last.0.to_be_bytes());
    key
}

/// From the batch that contains `from` to the end of the prefix.
pub(super) fn batches_from(prefix: Prefix, from: Offset) -> RangeInclusive<BatchKey> {
    batch(prefix, from)..=batch(prefix, Offset(u64::MAX))
}

/// The opposite of [`batch`]; None for bytes that are no such key.
pub(super) fn parse_batch(key: &[u8]) -> Option<(Prefix, Offset)> {
    let (prefix, last) = key.split_first_chunk::<4>()?;
    let last = u64::from_be_bytes(last.try_into().ok()?);
    Some((Prefix(u32::from_be_bytes(*prefix)), Offset(last)))
}

/// A record of one partition; `kind` is one of the tags above.
pub(super) fn record(kind: u8, partition: LocalPartition) -> [u8; 5] {
    let [a, b, c, d] = partition.0.to_be_bytes();
    [kind, a, b, c, d]
}

pub(super) fn parse_record(key: &[u8]) -> Option<LocalPartition> {
    let (_, number) = key.split_first()?;
    Some(LocalPartition(u32::from_be_bytes(number.try_into().ok()?)))
}

pub(super) fn time(prefix: Prefix, timestamp_ms: i64, offset: Offset) -> TimeKey {
    let mut key = [TIME; 21];
    key[1..5].copy_from_slice(&prefix.0.to_be_bytes());
    key[5..13].copy_from_slice(&sortable(timestamp_ms).to_be_bytes());
    key[13..].copy_from_slice(&offset.0.to_be_bytes());
    key
}

/// Every entry of the time index of a prefix.
pub(super) fn times(prefix: Prefix) -> RangeInclusive<TimeKey> {
    time(prefix, i64::MIN, Offset::ZERO)..=time(prefix, i64::MAX, Offset(u64::MAX))
}

/// Entries of the time index with a time before `timestamp_ms`.
pub(super) fn times_before(prefix: Prefix, timestamp_ms: i64) -> std::ops::Range<TimeKey> {
    time(prefix, i64::MIN, Offset::ZERO)..time(prefix, timestamp_ms, Offset::ZERO)
}

pub(super) fn parse_time(key: &[u8]) -> Option<(Prefix, i64, Offset)> {
    let (prefix, rest) = key.strip_prefix(&[TIME])?.split_first_chunk::<4>()?;
    let (time, offset) = rest.split_first_chunk::<8>()?;
    let time = u64::from_be_bytes(*time) ^ (1 << 63);
    let offset = u64::from_be_bytes(offset.try_into().ok()?);
    Some((Prefix(u32::from_be_bytes(*prefix)), time.cast_signed(), Offset(offset)))
}

/// Timestamps may be negative; with the sign bit turned they sort as unsigned numbers.
fn sortable(timestamp_ms: i64) -> u64 {
    timestamp_ms.cast_unsigned() ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort(a: (u32, i64, u64), b: (u32, i64, u64)) {
            let key = |(p, t, o): (u32, i64, u64)| time(Prefix(p), t, Offset(o));
            prop_assert_eq!(parse_time(&key(a)), Some((Prefix(a.0), a.1, Offset(a.2))));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            let key = |(p, _, o): (u32, i64, u64)| batch(Prefix(p), Offset(o));
            prop_assert_eq!(parse_batch(&key(a)), Some((Prefix(a.0), Offset(a.2))));
            prop_assert_eq!(key(a).cmp(&key(b)), (a.0, a.2).cmp(&(b.0, b.2)));
        }

        #[test]
        fn other_bytes_are_no_keys(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            prop_assert_eq!(parse_batch(&bytes).is_some(), bytes.len() == 12);
            prop_assert_eq!(parse_record(&bytes).is_some(), bytes.len() == 5);
            let time = bytes.len() == 21 && bytes[0] == b'T';
            prop_assert_eq!(parse_time(&bytes).is_some(), time);
        }
    }
}
