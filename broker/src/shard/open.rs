//! Brings a partition from disk into its shard.

use baton_core::batch::BatchHeader;
use baton_core::lineage::Lineage;
use baton_core::producer::{PRODUCERS_MAX, ProducerTable};
use baton_core::replica::RecoveredLog;
use baton_core::{Generation, Offset, TopicPartition};
use bytes::Bytes;

use crate::log::{LocalPartition, Log, LogError, PartitionMeta, Recovered};
use crate::mutation::{Mutation, Mutations};

/// Bytes of one read while headers are replayed.
const REPLAY_READ_BYTES: usize = 4 << 20;

/// A copy that is ready to be owned by a shard.
#[derive(Debug)]
pub struct Opened {
    pub local: LocalPartition,
    pub generation: Generation,
    pub recovered: RecoveredLog,
    pub meta: PartitionMeta,
}

/// Opens what the log recovered, or creates an empty copy.
///
/// # Errors
/// The log cannot create the copy. A copy that cannot be read is opened as damaged.
pub async fn open(
    log: &dyn Log,
    id: TopicPartition,
    found: Option<Recovered>,
    mutations: Mutations,
) -> Result<Opened, LogError> {
    let Some(found) = found else {
        let local = log.create(id, Generation(0), Offset::ZERO).await?;
        let meta = PartitionMeta::default();
        return Ok(Opened { local, generation: Generation(0), recovered: RecoveredLog::default(), meta });
    };
    if let Some(damage) = &found.damage
        && !mutations.lacks(Mutation::BelieveDamage)
    {
        tracing::error!(partition = %id, ?damage, "this copy is damaged: it leaves the in-sync replicas and is refilled");
        return Ok(damaged(found));
    }
    let mut found = found;
    let producers = saved_producers(&mut found);
    match replay(log, &found, producers).await {
        Ok(mut recovered) => {
            if mutations.lacks(Mutation::ProducersLostAtRestart) {
                recovered.producers = ProducerTable::new(PRODUCERS_MAX);
            }
            Ok(Opened { local: found.partition, generation: found.generation, recovered, meta: found.meta })
        }
        Err(LogError::Damaged(damage)) => {
            tracing::error!(partition = %id, ?damage, "this copy cannot be read to its end: it is refilled");
            Ok(damaged(found))
        }
        Err(other) => Err(other),
    }
}

/// Another member from now on ★: the generation rises, and nothing of the copy is believed
/// until a leader refills it. The bytes stay on disk until then, for an operator to look at
/// if this was the only copy.
fn damaged(found: Recovered) -> Opened {
    let recovered = RecoveredLog {
        start: found.start,
        floor: found.start,
        compacted: Offset::ZERO,
        end: found.end.max(found.start),
        highest_epoch: found.meta.highest_epoch,
        lineage: Lineage::default(),
        high_watermark: found.start,
        producers: ProducerTable::new(PRODUCERS_MAX),
        damaged: true,
    };
    Opened { local: found.partition, generation: found.generation.next(), recovered, meta: found.meta }
}

/// The producers as of `producers_at`. A snapshot that does not fit the log is forgotten for
/// good: once the log has grown it would seem to fit.
fn saved_producers(found: &mut Recovered) -> ProducerTable {
    let meta = &mut found.meta;
    let saved = ProducerTable::decode(&meta.producers, PRODUCERS_MAX).ok();
    let fits = meta.producers_at >= found.start && meta.producers_at <= found.end;
    saved.filter(|_| fits).unwrap_or_else(|| {
        (meta.producers, meta.producers_at) = (Bytes::new(), found.start);
        ProducerTable::new(PRODUCERS_MAX)
    })
}

/// Reads the headers since the last snapshot: epochs and producers are functions of them.
async fn replay(log: &dyn Log, found: &Recovered, mut producers: ProducerTable) -> Result<RecoveredLog, LogError> {
    let meta = &found.meta;
    let from = meta.producers_at;
    let mut lineage = Lineage::from_entries(meta.lineage.clone()).unwrap_or_default();
    lineage.truncate(from);
    let mut at = from;
    while at < found.end {
        let read = log.read(found.partition, at, REPLAY_READ_BYTES).await?;
        let Some(last) = read.batches.last() else { break };
        let end = last.end();
        for batch in &read.batches {
            if let Ok(header) = BatchHeader::parse(&batch.bytes) {
                producers.applied_batch(&header, batch.base, &batch.bytes);
            }
            if lineage.last_epoch().is_none_or(|known| known <= batch.epoch) {
                lineage.record(batch.epoch, batch.base);
            }
        }
        at = end;
    }
    Ok(RecoveredLog {
        start: found.start,
        floor: floor(log, found.partition, found.start).await?,
        compacted: meta.compaction.rewritten_to,
        end: found.end,
        highest_epoch: meta.highest_epoch,
        lineage,
        high_watermark: meta.high_watermark,
        producers,
        damaged: false,
    })
}

/// The first offset of the batch that contains `start`, which need not be where a batch begins.
///
/// # Errors
/// The log cannot be read there.
pub(super) async fn floor(log: &dyn Log, local: LocalPartition, start: Offset) -> Result<Offset, LogError> {
    if start == Offset::ZERO {
        return Ok(start);
    }
    let first = log.read(local, start, 1).await?.batches.first().map(|batch| batch.base);
    Ok(first.map_or(start, |base| base.min(start)))
}
