//! What was started in an earlier turn is done: appends, truncations, reads.

use std::time::Duration;

use baton_core::producer::ProducerTable;
use baton_core::replica::{Flow, Input, LogTerm, StoredBatch};
use baton_core::{BrokerId, Epoch, Error, ErrorCode, Generation, Offset, TopicPartition};
use tokio::time::Instant;

use crate::log::{LocalPartition, LogError};
use crate::mutation::Mutation;
use crate::shard::compact::Step;
use crate::shard::fetch::Window;
use crate::shard::input::FetchCall;
use crate::shard::partition::unknown;
use crate::shard::run::Shard;
use crate::shard::turn::Mark;

/// What the log had no room for is asked for again after this. Nothing is served meanwhile
/// that depends on it, and the queues of the log are shorter than a second.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A copy in this process: one that was closed and opened again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyId {
    pub(super) id: TopicPartition,
    pub(super) local: LocalPartition,
}

/// A change of the log that is not an append.
#[derive(Clone, Debug)]
pub(super) enum LogChange {
    Truncate { to: Offset },
    Restart { generation: Generation, start: Offset, producers: ProducerTable },
    Trim { start: Offset },
}

/// Something that was started in an earlier turn is done.
pub(super) enum Completion {
    Appended {
        marks: Vec<Mark>,
        started: Instant,
        bytes: u64,
        result: Result<(), LogError>,
    },
    EpochSaved {
        copy: CopyId,
        epoch: Epoch,
        result: Result<(), LogError>,
    },
    Snapshot {
        result: Result<(), LogError>,
    },
    LogChanged {
        copy: CopyId,
        term: LogTerm,
        change: LogChange,
        result: Result<ProducerTable, LogError>,
    },
    /// There may be room again.
    SaveEpochAgain {
        copy: CopyId,
        epoch: Epoch,
    },
    ChangeAgain {
        copy: CopyId,
        term: LogTerm,
        change: LogChange,
    },
    Trimmed {
        copy: CopyId,
        term: LogTerm,
        start: Offset,
        /// The first offset of the batch that contains `start`.
        result: Result<Offset, LogError>,
    },
    CompactionStep {
        copy: CopyId,
        result: Result<Step, LogError>,
    },
    CompactionWritten {
        copy: CopyId,
        result: Result<Step, LogError>,
        /// Nothing follows in this round.
        last: bool,
    },
    /// Up to where retention lets the log go.
    Retained {
        copy: CopyId,
        result: Result<Offset, LogError>,
    },
    ReadForFollower {
        copy: CopyId,
        to: BrokerId,
        flow: Flow,
        result: Result<Vec<StoredBatch>, LogError>,
    },
    Fetched {
        call: FetchCall,
        local: LocalPartition,
        window: Window,
        result: Result<Vec<StoredBatch>, LogError>,
    },
    Scrubbed {
        copy: CopyId,
        result: Result<Vec<StoredBatch>, LogError>,
    },
    Answered,
}

impl Shard {
    pub(super) fn complete(&mut self, done: Completion) {
        match done {
            Completion::Appended { marks, started, bytes, result } => self.appended(marks, started, bytes, result),
            Completion::EpochSaved { copy, epoch, result } => self.epoch_saved(copy, epoch, result),
            Completion::Snapshot { result } => {
                if let Err(error) = result {
                    tracing::warn!(%error, "a snapshot was not saved; recovery will read more");
                }
            }
            Completion::LogChanged { copy, term, change, result } => self.log_changed(copy, term, change, result),
            Completion::SaveEpochAgain { copy, epoch } => {
                if self.is_open(copy) {
                    self.save_epoch(copy.id, epoch);
                }
            }
            Completion::ChangeAgain { copy, term, change } => self.change_again(copy, term, change),
            Completion::Trimmed { copy, term, start, result } => self.trimmed(copy, term, start, result),
            Completion::CompactionStep { copy, result } => self.compaction_step(copy, result),
            Completion::CompactionWritten { copy, result, last } => self.compaction_written(copy, result, last),
            Completion::Retained { copy, result } => self.retained(copy, result),
            Completion::ReadForFollower { copy, to, flow, result } => {
                self.catch_up_read_done();
                self.read_done(copy, to, flow, result);
            }
            Completion::Fetched { call, local, window, result } => self.fetched(call, local, window, result),
            Completion::Scrubbed { copy, result } => {
                let open = self.is_open(copy);
                self.scrubbed(copy.id, if open { result } else { Err(LogError::UnknownPartition(copy.local)) });
            }
            Completion::Answered => {}
        }
    }

    /// Whether this is still the copy that the partition has here.
    pub(super) fn is_open(&self, copy: CopyId) -> bool {
        self.partitions.get(&copy.id).is_some_and(|partition| partition.local == copy.local)
    }

    fn epoch_saved(&mut self, copy: CopyId, epoch: Epoch, result: Result<(), LogError>) {
        match result {
            _ if !self.is_open(copy) => {}
            Ok(()) => self.step(copy.id, Input::EpochSaved(epoch)),
            Err(LogError::Overloaded { .. }) => self.running.push(Box::pin(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                Completion::SaveEpochAgain { copy, epoch }
            })),
            Err(error) => self.log_failed(copy.id, &error),
        }
    }

    fn log_changed(&mut self, copy: CopyId, term: LogTerm, change: LogChange, result: Result<ProducerTable, LogError>) {
        let Some(partition) = self.partitions.get_mut(&copy.id).filter(|p| p.local == copy.local) else { return };
        match result {
            Ok(producers) => {
                partition.changing = partition.changing.filter(|latest| *latest != term);
                self.step(copy.id, Input::LogChanged { term, producers });
            }
            Err(LogError::Overloaded { .. }) => self.running.push(Box::pin(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                Completion::ChangeAgain { copy, term, change }
            })),
            Err(error) => self.log_failed(copy.id, &error),
        }
    }

    /// A change that a later one has overtaken is done by that one.
    fn change_again(&mut self, copy: CopyId, term: LogTerm, change: LogChange) {
        let Some(partition) = self.partitions.get(&copy.id).filter(|p| p.local == copy.local) else { return };
        let latest = match change {
            LogChange::Trim { start } => partition.replica.awaits_trim(term, start),
            _ => partition.changing == Some(term),
        };
        if !latest {
            return;
        }
        match change {
            LogChange::Truncate { to } => self.truncate(copy.id, term, to),
            LogChange::Restart { generation, start, producers } => {
                self.restart(copy.id, term, generation, start, producers);
            }
            LogChange::Trim { start } => self.trim(copy.id, term, start),
        }
    }

    fn read_done(&mut self, copy: CopyId, to: BrokerId, flow: Flow, result: Result<Vec<StoredBatch>, LogError>) {
        match result {
            _ if !self.is_open(copy) => {}
            Ok(batches) => self.step(copy.id, Input::ReadForFollower { to, flow, batches }),
            Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) => self.log_failed(copy.id, &error),
            Err(_) => self.step(copy.id, Input::ReadForFollower { to, flow, batches: Vec::new() }),
        }
    }

    fn appended(&mut self, marks: Vec<Mark>, started: Instant, bytes: u64, result: Result<(), LogError>) {
        let ignored = match &result {
            Err(LogError::Full { .. }) => self.parts.mutations.lacks(Mutation::IgnoreFullDisk),
            Err(LogError::Failed(_)) => self.parts.mutations.lacks(Mutation::IgnoreFsyncError),
            _ => false,
        };
        let result = if ignored { Ok(()) } else { result };
        if result.is_ok() {
            self.parts.metrics.committed(marks.len() as u64, bytes, started.elapsed());
        }
        for mark in marks {
            if self.is_open(CopyId { id: mark.id, local: mark.local }) {
                self.append_done(mark, &result);
            }
        }
    }

    fn append_done(&mut self, Mark { id, local, term, end }: Mark, result: &Result<(), LogError>) {
        match result {
            Ok(()) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.refused = false;
                }
                self.step(id, Input::Durable { term, end });
            }
            Err(LogError::DamagedCopy { partition, damage }) if *partition == local => {
                self.log_failed(id, &LogError::Damaged(damage.clone()));
            }
            // Nothing was written, of none of the partitions that the call named. What was
            // appended behind a refused append does not continue the log: its term is over,
            // and of the others that stood in the same call only this append is given up.
            Err(
                error @ (LogError::Full { .. }
                | LogError::Overloaded { .. }
                | LogError::NotContiguous { .. }
                | LogError::DamagedCopy { .. }
                | LogError::UnknownPartition(_)),
            ) => {
                self.refused(id, term, error);
            }
            Err(error) => self.log_failed(id, error),
        }
    }

    /// The log wrote nothing of an append, and will write the like when there is room again.
    fn refused(&mut self, id: TopicPartition, term: LogTerm, error: &LogError) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            // Told once: it is tried again and again while the disk is full.
            if !std::mem::replace(&mut partition.refused, true) {
                tracing::warn!(partition = %id, %error, "this copy stops taking records");
            }
            self.cache.truncate(partition.local, partition.replica.durable_end());
        }
        self.step(id, Input::AppendFailed { term });
    }

    fn fetched(
        &mut self,
        call: FetchCall,
        local: LocalPartition,
        window: Window,
        result: Result<Vec<StoredBatch>, LogError>,
    ) {
        let answer = match result {
            Ok(batches) => {
                let fetched = window.cut(batches);
                match self.partitions.get(&call.id).filter(|partition| partition.local == local) {
                    Some(partition) => Ok(partition.with_aborted(fetched, call.from, call.isolation)),
                    None => Err(window.fail(unknown(call.id))),
                }
            }
            Err(LogError::BelowStart { at, start }) => {
                let error = Error::new(ErrorCode::OffsetOutOfRange, format!("offset {at} is below the start {start}"));
                Err(window.fail(error))
            }
            Err(error) => {
                let told = Error::new(ErrorCode::Storage, error.to_string()).partition(call.id.partition);
                if matches!(error, LogError::Damaged(_)) && self.is_open(CopyId { id: call.id, local }) {
                    self.log_failed(call.id, &error);
                }
                Err(window.fail(told))
            }
        };
        // The reader may have gone away.
        let _ = call.reply.send(answer);
    }

    /// A copy that cannot be trusted any more stops leading and acknowledging at once. One that
    /// is damaged is refilled by the others; a log that failed ends the process.
    pub(super) fn log_failed(&mut self, id: TopicPartition, error: &LogError) {
        if let LogError::Damaged(damage) = error {
            if self.partitions.get(&id).is_some_and(|partition| !partition.replica.is_damaged()) {
                tracing::error!(partition = %id, ?damage,
                    "this copy is damaged: it leaves the in-sync replicas and is refilled by the others");
                self.parts.metrics.found_damaged();
            }
            return self.step(id, Input::Damaged(error.to_string()));
        }
        self.step(id, Input::StorageFailed(error.to_string()));
        if matches!(error, LogError::Failed(_)) {
            // Nobody listens any more only if the broker is stopping already.
            let _ = self.parts.fatal.send(error.to_string());
        }
    }
}
