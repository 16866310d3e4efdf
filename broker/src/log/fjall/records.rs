//! The records of the metadata keyspace, each with a version byte and little-endian numbers.
//!
//! ```text
//! descriptor  1 ‖ topic u32 ‖ partition u32 ‖ generation u32 ‖ prefix u32 ‖ start u64
//! start       1 ‖ offset u64
//! number      1 ‖ u32
//! meta        1 ‖ highest epoch u32 ‖ high watermark u64 ‖ producers at u64
//!               ‖ epochs u32 ‖ (epoch u32 ‖ offset u64)… ‖ producers
//!             2, of a copy that was compacted: after 'producers at' also
//!               clean to u64 ‖ rewritten to u64 ‖ horizon i64
//! damage      1 ‖ kind u8 ‖ u64 ‖ u64 ‖ text
//! ```

use baton_core::{Epoch, Generation, Offset, TopicId, TopicPartition};
use bytes::{Buf, BufMut, Bytes};

use super::keys::Prefix;
use crate::log::{Compaction, Damage, PartitionMeta};

const VERSION: u8 = 1;

/// A meta record that says how far compaction has come.
const VERSION_COMPACTED: u8 = 2;

/// A record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("{0} ends too early or too late")]
    Length(&'static str),
    #[error("{0} has version {1}")]
    Version(&'static str, u8),
    #[error("{0} is of the unknown kind {1}")]
    Kind(&'static str, u8),
}

/// Which partition a local number stands for, and where its batches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) id: TopicPartition,
    pub(super) generation: Generation,
    pub(super) prefix: Prefix,
    /// Where the generation began; a start record overrides it.
    pub(super) start: Offset,
}

impl Descriptor {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u32_le(self.id.topic.0);
        out.put_u32_le(self.id.partition);
        out.put_u32_le(self.generation.0);
        out.put_u32_le(self.prefix.0);
        out.put_u64_le(self.start.0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        const WHAT: &str = "a descriptor";
        let mut rest = body(WHAT, bytes)?;
        let mut number = || rest.try_get_u32_le().map_err(|_| BadRecord::Length(WHAT));
        let id = TopicPartition { topic: TopicId(number()?), partition: number()? };
        let (generation, prefix) = (Generation(number()?), Prefix(number()?));
        let start = Offset(rest.try_get_u64_le().map_err(|_| BadRecord::Length(WHAT))?);
        ended(WHAT, rest)?;
        Ok(Self { id, generation, prefix, start })
    }
}

pub(super) fn encode_start(start: Offset) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u64_le(start.0);
    out
}

pub(super) fn decode_start(bytes: &[u8]) -> Result<Offset, BadRecord> {
    const WHAT: &str = "a log start";
    let mut rest = body(WHAT, bytes)?;
    let start = rest.try_get_u64_le().map_err(|_| BadRecord::Length(WHAT))?;
    ended(WHAT, rest)?;
    Ok(Offset(start))
}

pub(super) fn encode_number(number: u32) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u32_le(number);
    out
}

pub(super) fn decode_number(bytes: &[u8]) -> Result<u32, BadRecord> {
    const WHAT: &str = "the next number";
    let mut rest = body(WHAT, bytes)?;
    let number = rest.try_get_u32_le().map_err(|_| BadRecord::Length(WHAT))?;
    ended(WHAT, rest)?;
    Ok(number)
}

pub(super) fn encode_meta(meta: &PartitionMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(53 + 12 * meta.lineage.len() + meta.producers.len());
    let compacted = meta.compaction != Compaction::default();
    out.put_u8(if compacted { VERSION_COMPACTED } else { VERSION });
    out.put_u32_le(meta.highest_epoch.0);
    out.put_u64_le(meta.high_watermark.0);
    out.put_u64_le(meta.producers_at.0);
    if compacted {
        out.put_u64_le(meta.compaction.clean_to.0);
        out.put_u64_le(meta.compaction.rewritten_to.0);
        out.put_i64_le(meta.compaction.horizon_ms);
    }
    out.put_u32_le(meta.lineage.len() as u32);
    for (epoch, offset) in &meta.lineage {
        out.put_u32_le(epoch.0);
        out.put_u64_le(offset.0);
    }
    out.put_slice(&meta.producers);
    out
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<PartitionMeta, BadRecord> {
    const WHAT: &str = "a meta record";
    let short = |_| BadRecord::Length(WHAT);
    let compacted = bytes.first() == Some(&VERSION_COMPACTED);
    let mut rest = if compacted { &bytes[1..] } else { body(WHAT, bytes)? };
    let highest_epoch = Epoch(rest.try_get_u32_le().map_err(short)?);
    let high_watermark = Offset(rest.try_get_u64_le().map_err(short)?);
    let producers_at = Offset(rest.try_get_u64_le().map_err(short)?);
    let mut compaction = Compaction::default();
    if compacted {
        compaction.clean_to = Offset(rest.try_get_u64_le().map_err(short)?);
        compaction.rewritten_to = Offset(rest.try_get_u64_le().map_err(short)?);
        compaction.horizon_ms = rest.try_get_i64_le().map_err(short)?;
    }
    let epochs = rest.try_get_u32_le().map_err(short)? as usize;
    let mut lineage = Vec::with_capacity(epochs.min(rest.len() / 12));
    for _ in 0..epochs {
        let epoch = Epoch(rest.try_get_u32_le().map_err(short)?);
        lineage.push((epoch, Offset(rest.try_get_u64_le().map_err(short)?)));
    }
    let producers = Bytes::copy_from_slice(rest);
    Ok(PartitionMeta { highest_epoch, lineage, high_watermark, producers, producers_at, compaction })
}

pub(super) fn encode_damage(damage: &Damage) -> Vec<u8> {
    let (kind, a, b, text) = match damage {
        Damage::EndBelowWitness { end, witness } => (1, end.0, witness.0, ""),
        Damage::EpochBelowWitness { epoch, witness } => (2, u64::from(epoch.0), u64::from(witness.0), ""),
        Damage::BadChecksum { at } => (3, at.0, 0, ""),
        Damage::Gap { expected, found } => (4, expected.0, found.0, ""),
        Damage::Unreadable { what } => (5, 0, 0, what.as_str()),
    };
    let mut out = vec![VERSION, kind];
    out.put_u64_le(a);
    out.put_u64_le(b);
    out.put_slice(text.as_bytes());
    out
}

pub(super) fn decode_damage(bytes: &[u8]) -> Result<Damage, BadRecord> {
    const WHAT: &str = "a damage record";
    let short = |_| BadRecord::Length(WHAT);
    let mut rest = body(WHAT, bytes)?;
    let kind = rest.try_get_u8().map_err(short)?;
    let a = rest.try_get_u64_le().map_err(short)?;
    let b = rest.try_get_u64_le().map_err(short)?;
    let epoch = |n| u32::try_from(n).map(Epoch).map_err(|_| BadRecord::Length(WHAT));
    Ok(match kind {
        1 => Damage::EndBelowWitness { end: Offset(a), witness: Offset(b) },
        2 => Damage::EpochBelowWitness { epoch: epoch(a)?, witness: epoch(b)? },
        3 => Damage::BadChecksum { at: Offset(a) },
        4 => Damage::Gap { expected: Offset(a), found: Offset(b) },
        5 => Damage::Unreadable { what: String::from_utf8_lossy(rest).into_owned() },
        _ => return Err(BadRecord::Kind(WHAT, kind)),
    })
}

fn body<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], BadRecord> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(BadRecord::Version(what, *version)),
        None => Err(BadRecord::Length(what)),
    }
}

fn ended(what: &'static str, rest: &[u8]) -> Result<(), BadRecord> {
    if rest.is_empty() { Ok(()) } else { Err(BadRecord::Length(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn metas() -> impl Strategy<Value = PartitionMeta> {
        let lineage = vec((any::<u32>(), any::<u64>()), 0..20);
        let compaction = prop_oneof![Just((0, 0, 0)), any::<(u64, u64, i64)>()];
        (any::<(u32, u64, u64)>(), lineage, vec(any::<u8>(), 0..200), compaction).prop_map(
            |((epoch, watermark, at), lineage, producers, (clean, rewritten, horizon_ms))| PartitionMeta {
                highest_epoch: Epoch(epoch),
                lineage: lineage.into_iter().map(|(e, o)| (Epoch(e), Offset(o))).collect(),
                high_watermark: Offset(watermark),
                producers: producers.into(),
                producers_at: Offset(at),
                compaction: Compaction { clean_to: Offset(clean), rewritten_to: Offset(rewritten), horizon_ms },
            },
        )
    }

    fn damages() -> impl Strategy<Value = Damage> {
        let offset = any::<u64>().prop_map(Offset);
        let epoch = any::<u32>().prop_map(Epoch);
        prop_oneof![
            (offset.clone(), offset.clone()).prop_map(|(end, witness)| Damage::EndBelowWitness { end, witness }),
            (epoch.clone(), epoch).prop_map(|(epoch, witness)| Damage::EpochBelowWitness { epoch, witness }),
            offset.clone().prop_map(|at| Damage::BadChecksum { at }),
            (offset.clone(), offset).prop_map(|(expected, found)| Damage::Gap { expected, found }),
            ".*".prop_map(|what| Damage::Unreadable { what }),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip(meta in metas(), damage in damages(), n: (u32, u32, u32, u32, u64)) {
            prop_assert_eq!(decode_meta(&encode_meta(&meta)), Ok(meta));
            prop_assert_eq!(decode_damage(&encode_damage(&damage)), Ok(damage));
            let id = TopicPartition { topic: TopicId(n.0), partition: n.1 };
            let (generation, prefix, start) = (Generation(n.2), Prefix(n.3), Offset(n.4));
            let descriptor = Descriptor { id, generation, prefix, start };
            prop_assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor));
            prop_assert_eq!(decode_start(&encode_start(start)), Ok(start));
            prop_assert_eq!(decode_number(&encode_number(n.0)), Ok(n.0));
        }

        #[test]
        fn other_bytes_are_errors_not_panics(bytes in vec(any::<u8>(), 0..80)) {
            let _ = (decode_meta(&bytes), decode_damage(&bytes), Descriptor::decode(&bytes));
            let mut versioned = vec![VERSION];
            versioned.extend(&bytes);
            let _ = (decode_meta(&versioned), decode_damage(&versioned));
            prop_assert_eq!(Descriptor::decode(&versioned).is_ok(), bytes.len() == 24);
        }
    }
}
