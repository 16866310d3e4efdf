//! One partition in its shard: the replica and what surrounds it.

use std::sync::Arc;

use baton_core::batch::BatchHeader;
use baton_core::producer::{PRODUCERS_MAX, ProducerTable};
use baton_core::replica::{Env, LogTerm, Replica, RoleView};
use baton_core::topic::TopicConfig;
use baton_core::{BrokerId, Epoch, Error, ErrorCode, Offset, TopicPartition};
use bytes::Bytes;
use tokio::sync::watch;

use crate::log::{LocalPartition, Log, LogError, PartitionMeta};
use crate::shard::retention::Retention;
use crate::shard::status::PartitionStatus;

/// How much may be appended before what recovery would have to read again is saved.
const SNAPSHOT_EVERY_BYTES: u64 = 64 << 20;

/// Bytes of one read while the producers' state is rebuilt.
const REPLAY_READ_BYTES: usize = 4 << 20;

pub(super) struct Partition {
    pub(super) replica: Replica,
    pub(super) local: LocalPartition,
    pub(super) topic: Arc<str>,
    pub(super) settings: TopicConfig,
    /// What was last handed to the log to be saved.
    pub(super) meta: PartitionMeta,
    pub(super) status: watch::Sender<PartitionStatus>,
    pub(super) unsaved_bytes: u64,
    /// The log is being cut or emptied: until that is done, the producers' state is that of
    /// before.
    pub(super) changing: Option<LogTerm>,
    /// The log refused the last append: its disk is full.
    pub(super) refused: bool,
    /// Its status has to be shown at the end of the turn.
    pub(super) changed: bool,
    pub(super) retention: Retention,
}

impl Partition {
    /// What to save now: the replica's state with a lower bound of the high watermark.
    pub(super) fn snapshot(&mut self, epoch: Epoch) -> PartitionMeta {
        self.meta.highest_epoch = self.meta.highest_epoch.max(epoch);
        self.meta.lineage = self.replica.lineage().entries().to_vec();
        self.meta.high_watermark = self.replica.high_watermark();
        self.meta.clone()
    }

    /// The same with the producers as of the end of the log, once enough was appended since
    /// the last time. Only what is durable may be described: the caller saves it when
    /// everything appended has reached the disk.
    pub(super) fn full_snapshot(&mut self) -> PartitionMeta {
        self.unsaved_bytes = 0;
        self.meta.producers = self.replica.producers().encode();
        self.meta.producers_at = self.replica.log_end();
        self.snapshot(self.replica.saved_epoch())
    }

    /// What to save with a new log start: what is known of producers must not rest on batches
    /// that go. It describes what is durable and committed, up to the high watermark.
    pub(super) fn snapshot_from(&mut self, start: Offset) -> PartitionMeta {
        if self.meta.producers_at < start {
            let at = self.replica.high_watermark().min(self.replica.durable_end());
            self.meta.producers = self.replica.producers().before(at).encode();
            self.meta.producers_at = at;
        }
        self.snapshot(Epoch::NONE)
    }

    /// What to save with a truncation to `to`: nothing of it describes what is cut off. Of the
    /// producers only what lies below the log's start is kept; the rest is read again.
    pub(super) fn snapshot_below(&mut self, to: Offset) -> PartitionMeta {
        if self.meta.producers_at > to {
            let start = self.replica.start_under_way();
            self.meta.producers = self.replica.producers().before(start).encode();
            self.meta.producers_at = start;
            // All of the log would have to be read again: another one is due soon.
            self.unsaved_bytes = SNAPSHOT_EVERY_BYTES;
        }
        self.meta.compaction.clean_to = self.meta.compaction.clean_to.min(to);
        self.snapshot(Epoch::NONE)
    }

    /// The log is emptied, and its meta record with it, but for the highest epoch and the
    /// producers from below its start.
    pub(super) fn forget_saved(&mut self, start: Offset, producers: Bytes) {
        self.unsaved_bytes = 0;
        self.meta = PartitionMeta::beginning(self.meta.highest_epoch, start, producers);
    }

    pub(super) fn wants_snapshot(&self) -> bool {
        self.unsaved_bytes >= SNAPSHOT_EVERY_BYTES && self.may_save_producers()
    }

    /// Whether the producers' state is that of the end of the log on stable storage.
    pub(super) fn may_save_producers(&self) -> bool {
        let durable = self.replica.durable_end() == self.replica.log_end();
        durable && self.changing.is_none() && !self.replica.is_damaged()
    }

    /// Returns whether elections should look at it.
    pub(super) fn show(&mut self, now_ms: u64) -> bool {
        self.changed = false;
        let status = status_of(&self.replica, now_ms);
        let mut elections = false;
        self.status.send_if_modified(|shown| {
            let news = *shown != status;
            elections = status.concerns_elections(shown);
            *shown = status;
            news
        });
        elections
    }

    /// The error for a request that only a leader may answer.
    pub(super) fn error(&self, code: ErrorCode, cause: impl Into<String>) -> Error {
        Error::new(code, cause).topic(&*self.topic).partition(self.replica.id().partition).epoch(self.replica.epoch().0)
    }

    pub(super) fn leader_hint(&self) -> Option<BrokerId> {
        match self.replica.role() {
            RoleView::Follower { leader, .. } => Some(leader),
            _ => None,
        }
    }
}

/// What is shown of a replica.
pub(super) fn status_of(replica: &Replica, now_ms: u64) -> PartitionStatus {
    let version = replica.known().map_or(-1, |known| known.version);
    let known = replica.known().map(|known| &known.state);
    PartitionStatus {
        role: replica.role(),
        member: replica.member(),
        epoch: replica.epoch(),
        version,
        log_start: replica.log_start(),
        log_end: replica.log_end(),
        high_watermark: replica.high_watermark(),
        latest: replica.latest(),
        last_stable: replica.last_stable(),
        in_sync: known.map_or(0, |state| state.isr.len()),
        assigned: known.map_or(0, |state| state.assignment.replicas.len()),
        damaged: replica.is_damaged(),
        follows_in_sync: replica.follows_in_sync(),
        yields: replica.yields(now_ms),
    }
}

/// Rebuilds the producers' state as of `to`: the saved snapshot, if it is not newer, and the
/// batches since then.
pub(super) async fn rebuild_producers(
    log: &dyn Log,
    local: LocalPartition,
    meta: &PartitionMeta,
    start: Offset,
    to: Offset,
) -> Result<ProducerTable, LogError> {
    let saved = ProducerTable::decode(&meta.producers, PRODUCERS_MAX).ok();
    let (mut table, mut at) = match saved {
        Some(table) if meta.producers_at <= to && meta.producers_at >= start => (table, meta.producers_at),
        _ => (ProducerTable::new(PRODUCERS_MAX), start),
    };
    while at < to {
        let read = log.read(local, at, REPLAY_READ_BYTES).await?;
        let Some(last) = read.batches.last() else { break };
        let end = last.end();
        for batch in read.batches.iter().take_while(|batch| batch.end() <= to) {
            if let Ok(header) = BatchHeader::parse(&batch.bytes) {
                table.applied_batch(&header, batch.base, &batch.bytes);
            }
        }
        at = end;
    }
    Ok(table)
}

/// The environment of a shard: what the detector publishes, at this shard's time.
pub(super) fn env_at(shared: &Env, now_ms: u64) -> Env {
    Env { now_ms, ..shared.clone() }
}

/// Why a partition cannot be named by its topic.
pub(super) fn unknown(id: TopicPartition) -> Error {
    Error::new(ErrorCode::NotLeader, format!("this broker has no copy of partition {id}")).partition(id.partition)
}
