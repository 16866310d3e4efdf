//! Gives up old records: by time, by size, and when a client asks for it.
//!
//! Only a leader decides, and the core moves the start; followers do as they are told. Each
//! copy is looked at in its turn, so that an idle broker gives space back too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::replica::{Input, LogTerm, RoleView};
use baton_core::retention::Sizes;
use baton_core::{Error, ErrorCode, Offset, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::log::LogError;
use crate::shard::completion::{AGAIN_AFTER, Completion, CopyId, LogChange};
use crate::shard::open::floor;
use crate::shard::partition::{Partition, unknown};
use crate::shard::run::Shard;

/// Sizes are told apart by no less than this.
const PIECE_BYTES: u64 = 1 << 20;

/// Clients that wait for one partition's records to be deleted.
const DELETIONS_MAX: usize = 128;

/// Copies looked at in one turn.
const LOOKS_MAX: usize = 64;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// From one look at a partition to the next; zero: never.
    pub interval: Duration,
}

/// When each partition is looked at next.
pub(super) struct Retain {
    config: RetentionConfig,
    due: BTreeSet<(Instant, TopicPartition)>,
}

/// What retention knows of one partition.
#[derive(Debug, Default)]
pub(super) struct Retention {
    looking: bool,
    deletions: Vec<Deletion>,
}

/// A client that waits.
#[derive(Debug)]
struct Deletion {
    to: Offset,
    reply: oneshot::Sender<Result<Offset, Error>>,
}

impl Retain {
    pub(super) fn new(config: RetentionConfig) -> Self {
        Self { config, due: BTreeSet::new() }
    }

    pub(super) fn opened(&mut self, id: TopicPartition) {
        if !self.config.interval.is_zero() {
            self.due.insert((Instant::now() + self.config.interval, id));
        }
    }

    fn next(&mut self, now: Instant) -> Option<TopicPartition> {
        let (at, id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(id)
    }
}

impl Shard {
    /// With every tick: partitions that are due, and deletions that go on.
    pub(super) fn retain(&mut self) {
        let now = Instant::now();
        for _ in 0..LOOKS_MAX {
            let Some(id) = self.retain.next(now) else { break };
            // One that was closed is forgotten.
            if self.partitions.contains_key(&id) {
                self.retain.due.insert((now + self.retain.config.interval, id));
                self.look_at(id);
            }
        }
        let waiting = |(id, p): (&TopicPartition, &mut Partition)| {
            p.retention.deletions.retain(|deletion| !deletion.reply.is_closed());
            p.retention.deletions.iter().map(|deletion| deletion.to).max().map(|to| (*id, to))
        };
        let waiting: Vec<_> = self.partitions.iter_mut().filter_map(waiting).collect();
        for (id, to) in waiting {
            self.step(id, Input::Trim { to });
        }
    }

    /// Asks the log how much of a partition is too old or too much.
    fn look_at(&mut self, id: TopicPartition) {
        let wall_ms = self.parts.clock.now_ms();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let leads = matches!(partition.replica.role(), RoleView::Leader { .. });
        let policy = partition.settings.retention();
        if !leads || partition.retention.looking || policy.is_unlimited() {
            return;
        }
        partition.retention.looking = true;
        let (log, local) = (Arc::clone(&self.parts.log), partition.local);
        let start = partition.replica.log_start();
        self.running.push(Box::pin(async move {
            let mut to = start;
            let result = async {
                if let Some(age_ms) = policy.age_ms {
                    let before_ms = wall_ms.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
                    to = to.max(log.expired(local, before_ms).await?);
                }
                if let Some(bytes) = policy.bytes {
                    let pieces = log.measure(local, start, PIECE_BYTES.min(bytes / 8 + 1)).await?;
                    let measured = Sizes::new(pieces.into_iter().map(|piece| (piece.end, piece.bytes)));
                    to = to.max(measured.start_for(start, bytes));
                }
                Ok(to)
            };
            Completion::Retained { copy: CopyId { id, local }, result: result.await }
        }));
    }

    pub(super) fn retained(&mut self, copy: CopyId, result: Result<Offset, LogError>) {
        if !self.is_open(copy) {
            return;
        }
        let Some(partition) = self.partitions.get_mut(&copy.id) else { return };
        partition.retention.looking = false;
        match result {
            Ok(to) => {
                let to = to.min(partition.replica.high_watermark());
                if to > partition.replica.log_start() {
                    tracing::info!(partition = %copy.id, %to, "records below are given up: they are too old or too many");
                }
                self.step(copy.id, Input::Trim { to });
            }
            Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) => self.log_failed(copy.id, &error),
            // Another time.
            Err(error) => tracing::debug!(partition = %copy.id, %error, "retention did not look"),
        }
    }

    /// The core asked for it: durable first, with what is known of the producers.
    pub(super) fn trim(&mut self, id: TopicPartition, term: LogTerm, start: Offset) {
        self.flush_appends();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let meta = partition.snapshot_from(start);
        let (log, local) = (Arc::clone(&self.parts.log), partition.local);
        let trimmed = log.set_start(local, start, Some(meta));
        self.running.push(Box::pin(async move {
            let result = match trimmed.await {
                Ok(()) => floor(&*log, local, start).await,
                Err(error) => Err(error),
            };
            Completion::Trimmed { copy: CopyId { id, local }, term, start, result }
        }));
    }

    pub(super) fn trimmed(&mut self, copy: CopyId, term: LogTerm, start: Offset, result: Result<Offset, LogError>) {
        if !self.is_open(copy) {
            return;
        }
        match result {
            Ok(floor) => {
                self.cache.set_start(copy.local, start);
                self.step(copy.id, Input::Trimmed { term, start, floor });
            }
            Err(LogError::Overloaded { .. }) => self.running.push(Box::pin(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                Completion::ChangeAgain { copy, term, change: LogChange::Trim { start } }
            })),
            // A later trim has gone by.
            Err(LogError::BelowStart { .. }) => {}
            Err(error) => self.log_failed(copy.id, &error),
        }
    }

    /// How large a copy is. The log is looked through for it, so nothing depends on the answer.
    pub(super) fn measure(&mut self, id: TopicPartition, reply: oneshot::Sender<Result<u64, Error>>) {
        let Some(partition) = self.partitions.get(&id) else {
            return drop(reply.send(Err(unknown(id))));
        };
        let pieces = self.parts.log.measure(partition.local, partition.replica.log_start(), u64::MAX);
        self.running.push(Box::pin(async move {
            let bytes = pieces.await.map(|pieces| pieces.iter().map(|piece| piece.bytes).sum());
            // Whoever asked may be gone.
            drop(reply.send(bytes.map_err(|error| Error::new(ErrorCode::Storage, error.to_string()))));
            Completion::Answered
        }));
    }

    /// A client deletes what lies below `before`.
    pub(super) fn delete_records(
        &mut self,
        id: TopicPartition,
        before: Option<Offset>,
        reply: oneshot::Sender<Result<Offset, Error>>,
    ) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return drop(reply.send(Err(unknown(id))));
        };
        match partition.deletes_to(before) {
            Ok(to) => {
                partition.retention.deletions.push(Deletion { to, reply });
                self.step(id, Input::Trim { to });
            }
            // Whoever asked may be gone.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Tells those who wait what every in-sync replica has given up.
    pub(super) fn answer_deletions(&mut self) {
        for partition in self.partitions.values_mut().filter(|p| p.changed && !p.retention.deletions.is_empty()) {
            partition.answer_deletions();
        }
    }
}

impl Partition {
    /// Where the log is to begin.
    fn deletes_to(&self, before: Option<Offset>) -> Result<Offset, Error> {
        if !matches!(self.replica.role(), RoleView::Leader { .. }) {
            return Err(self.error(ErrorCode::NotLeader, "this broker does not lead the partition"));
        }
        if !self.settings.cleanup.delete {
            let cause = "the topic's cleanup.policy is compact: records go when their key is written again; \
                         set it to `compact,delete` to cut off the log's beginning as well";
            return Err(self.error(ErrorCode::PolicyViolation, cause));
        }
        let Some(high) = self.replica.latest() else {
            return Err(
                self.error(ErrorCode::OffsetNotAvailable, "the new leader does not know its high watermark yet")
            );
        };
        let to = before.unwrap_or(high);
        if to > high {
            let cause = format!("offset {to} is beyond the high watermark {high}");
            return Err(self.error(ErrorCode::OffsetOutOfRange, cause));
        }
        if self.retention.deletions.len() >= DELETIONS_MAX {
            return Err(self.error(ErrorCode::Throttled, "too many deletions wait for this partition"));
        }
        Ok(to)
    }

    fn answer_deletions(&mut self) {
        let everywhere = self.replica.start_everywhere();
        for deletion in std::mem::take(&mut self.retention.deletions) {
            let answer = match everywhere {
                Some(start) if start >= deletion.to => Ok(start),
                Some(_) => {
                    self.retention.deletions.push(deletion);
                    continue;
                }
                None => {
                    Err(self.error(ErrorCode::NotLeader, "this broker leads no more; some replicas may have deleted"))
                }
            };
            // The client may have gone away.
            let _ = deletion.reply.send(answer);
        }
    }
}
