//! One block of the witness as bytes.

use baton_core::{Epoch, Generation, Offset, TopicId, TopicPartition};
use bytes::{Buf, BufMut};

use crate::log::LocalPartition;
use crate::log::fjall::keys::Prefix;

pub(super) const BLOCK_BYTES: usize = 4096;
const HEAD_BYTES: usize = 32;
const ENTRY_BYTES: usize = 36;
/// Entries in a block.
pub(super) const ENTRIES: usize = (BLOCK_BYTES - HEAD_BYTES) / ENTRY_BYTES;
const MAGIC: [u8; 4] = *b"BWIT";
const VERSION: u8 = 1;
const CRC_AT: usize = 20;

/// What was durable of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log::fjall) struct Seen {
    pub(in crate::log::fjall) prefix: Prefix,
    pub(in crate::log::fjall) id: TopicPartition,
    pub(in crate::log::fjall) generation: Generation,
    /// The epoch of the last batch.
    pub(in crate::log::fjall) tail_epoch: Epoch,
    pub(in crate::log::fjall) highest_epoch: Epoch,
    pub(in crate::log::fjall) end: Offset,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All zeros: never written.
    Empty,
    Bad,
    Block {
        sequence: u64,
        entries: Vec<(LocalPartition, Seen)>,
    },
}

impl Found {
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::Block { sequence, .. } => *sequence,
            Self::Empty | Self::Bad => 0,
        }
    }
}

pub(super) fn encode<'a>(sequence: u64, entries: impl Iterator<Item = &'a (LocalPartition, Seen)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK_BYTES);
    out.put_slice(&MAGIC);
    out.put_slice(&[VERSION, 0, 0, 0]);
    out.put_u64_le(sequence);
    out.resize(HEAD_BYTES, 0);
    let mut count = 0_u32;
    for (partition, seen) in entries {
        count += 1;
        out.put_u32_le(partition.0);
        out.put_u32_le(seen.prefix.0);
        out.put_u32_le(seen.id.topic.0);
        out.put_u32_le(seen.id.partition);
        out.put_u32_le(seen.generation.0);
        out.put_u32_le(seen.tail_epoch.0);
        out.put_u32_le(seen.highest_epoch.0);
        out.put_u64_le(seen.end.0);
    }
    out.resize(BLOCK_BYTES, 0);
    out[16..CRC_AT].copy_from_slice(&count.to_le_bytes());
    let crc = checksum(&out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Over everything but the checksum itself.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_AT]), &block[CRC_AT + 4..])
}

pub(super) fn decode(block: &[u8]) -> Found {
    if block.iter().all(|b| *b == 0) {
        return Found::Empty;
    }
    decode_block(block).unwrap_or(Found::Bad)
}

fn decode_block(block: &[u8]) -> Option<Found> {
    let mut rest = block.get(..BLOCK_BYTES)?.strip_prefix(&MAGIC)?;
    if rest.get_u8() != VERSION {
        return None;
    }
    rest.advance(3);
    let sequence = rest.get_u64_le();
    let count = rest.get_u32_le() as usize;
    if rest.get_u32_le() != checksum(block) || count > ENTRIES {
        return None;
    }
    rest.advance(HEAD_BYTES - CRC_AT - 4);
    let entries = (0..count).map(|_| entry(&mut rest)).collect();
    Some(Found::Block { sequence, entries })
}

/// For the fuzzer: what can be decoded is encoded to the same entries.
#[cfg(feature = "fuzzing")]
pub(in crate::log::fjall) fn decode_any(bytes: &[u8], repaired: bool) {
    let mut block = bytes.to_vec();
    if repaired && !block.is_empty() {
        block.resize(BLOCK_BYTES, 0);
        block[..5].copy_from_slice(b"BWIT\x01");
        let crc = checksum(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    if let Found::Block { sequence, entries } = decode(&block) {
        let again = decode(&encode(sequence, entries.iter()));
        assert_eq!(again, Found::Block { sequence, entries });
    }
}

/// For the fuzzer: a block with two entries.
#[cfg(feature = "fuzzing")]
pub(in crate::log::fjall) fn example() -> Vec<u8> {
    let seen = |n: u32| Seen {
        prefix: Prefix(n + 1),
        id: TopicPartition { topic: TopicId(7), partition: n },
        generation: Generation(n),
        tail_epoch: Epoch(4),
        highest_epoch: Epoch(5),
        end: Offset(100),
    };
    encode(9, [(LocalPartition(1), seen(1)), (LocalPartition(2), seen(2))].iter())
}

/// `count` entries fit into a block, as has been checked.
fn entry(rest: &mut &[u8]) -> (LocalPartition, Seen) {
    let partition = LocalPartition(rest.get_u32_le());
    let prefix = Prefix(rest.get_u32_le());
    let id = TopicPartition { topic: TopicId(rest.get_u32_le()), partition: rest.get_u32_le() };
    let seen = Seen {
        prefix,
        id,
        generation: Generation(rest.get_u32_le()),
        tail_epoch: Epoch(rest.get_u32_le()),
        highest_epoch: Epoch(rest.get_u32_le()),
        end: Offset(rest.get_u64_le()),
    };
    (partition, seen)
}
