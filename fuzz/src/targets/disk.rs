//! What the log keeps beside its batches.

use baton_broker::log::fjall::decoders;
use baton_core::lineage::Lineage;
use baton_core::producer::ProducerTable;
use baton_core::{Epoch, Offset};

/// Producers that a partition remembers.
const PRODUCERS_MAX: usize = 100;

/// A snapshot of producers. If its first byte is odd, the checksum at its end is made right.
pub fn producers(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode & 1 == 1
        && let Some((body, crc)) = bytes.split_last_chunk_mut::<4>()
    {
        *crc = crc32c::crc32c(body).to_be_bytes();
    }
    let Ok(table) = ProducerTable::decode(&bytes, PRODUCERS_MAX) else { return };
    assert!(table.len() <= PRODUCERS_MAX);
    let again = ProducerTable::decode(&table.encode(), PRODUCERS_MAX);
    assert_eq!(again.map(|again| again.encode()), Ok(table.encode()));
}

/// Keys and values of the store. The first byte says which.
pub fn records(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    decoders::record(*kind, bytes);
}

/// A block of the witness; if the first byte is odd, its checksum is made right.
pub fn witness(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    decoders::witness(bytes, mode & 1 == 1);
}

/// Two lineages, as a follower and its leader would compare them: where they part is the same
/// from both sides, and not beyond either.
pub fn lineage(input: &[u8]) {
    let (mut lineages, mut ends) = (Vec::new(), Vec::new());
    for half in input.chunks(input.len().div_ceil(2).max(1)).take(2) {
        let entry = |bytes: &[u8]| match bytes {
            [epoch, high, low] => {
                Some((Epoch(u32::from(*epoch)), Offset(u64::from(u16::from_be_bytes([*high, *low])))))
            }
            _ => None,
        };
        let entries: Vec<_> = half.chunks(3).filter_map(entry).collect();
        let end = entries.last().map_or(Offset::ZERO, |(_, start)| start.plus(1));
        let Ok(lineage) = Lineage::from_entries(entries) else { return };
        lineages.push(lineage);
        ends.push(end);
    }
    let ([one, other], [end, other_end]) = (&lineages[..], &ends[..]) else { return };
    let common = one.common_end(*end, other, *other_end);
    assert!(common <= *end && common <= *other_end, "{common} of {end} and {other_end}");
    let mut cut = one.clone();
    cut.truncate(common);
    assert_eq!(cut.common_end(common, other, *other_end), common, "{one:?} {other:?}");
    let mut later = one.clone();
    later.set_start(common);
    assert_eq!(later.last_epoch(), one.last_epoch());
}
