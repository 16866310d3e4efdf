//! What was started in an earlier turn is done: appends, truncations, reads.

use baton_core::producer::ProducerTable;
use baton_core::replica::{Flow, Input, LogTerm, StoredBatch};
use baton_core::{BrokerId, Epoch, Error, ErrorCode, TopicPartition};
use tokio::time::Instant;

use crate::log::LogError;
use crate::mutation::Mutation;
use crate::shard::fetch::Window;
use crate::shard::input::FetchCall;
use crate::shard::run::Shard;
use crate::shard::turn::Mark;

/// Something that was started in an earlier turn is done.
pub(super) enum Completion {
    Appended { marks: Vec<Mark>, started: Instant, bytes: u64, result: Result<(), LogError> },
    EpochSaved { id: TopicPartition, epoch: Epoch, result: Result<(), LogError> },
    Snapshot { result: Result<(), LogError> },
    LogChanged { id: TopicPartition, term: LogTerm, result: Result<ProducerTable, LogError> },
    ReadForFollower { id: TopicPartition, to: BrokerId, flow: Flow, result: Result<Vec<StoredBatch>, LogError> },
    Fetched { call: FetchCall, window: Window, result: Result<Vec<StoredBatch>, LogError> },
    Scrubbed { id: TopicPartition, result: Result<Vec<StoredBatch>, LogError> },
    Answered,
}

impl Shard {
    pub(super) fn complete(&mut self, done: Completion) {
        match done {
            Completion::Appended { marks, started, bytes, result } => self.appended(marks, started, bytes, result),
            Completion::EpochSaved { id, epoch, result } => match result {
                Ok(()) => self.step(id, Input::EpochSaved(epoch)),
                Err(error) => self.log_failed(id, &error),
            },
            Completion::Snapshot { result } => {
                if let Err(error) = result {
                    tracing::warn!(%error, "a snapshot was not saved; recovery will read more");
                }
            }
            Completion::LogChanged { id, term, result } => self.log_changed(id, term, result),
            Completion::ReadForFollower { id, to, flow, result } => {
                self.catch_up_read_done();
                match result {
                    Ok(batches) => self.step(id, Input::ReadForFollower { to, flow, batches }),
                    Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) => self.log_failed(id, &error),
                    Err(_) => self.step(id, Input::ReadForFollower { to, flow, batches: Vec::new() }),
                }
            }
            Completion::Fetched { call, window, result } => self.fetched(call, window, result),
            Completion::Scrubbed { id, result } => self.scrubbed(id, result),
            Completion::Answered => {}
        }
    }

    fn log_changed(&mut self, id: TopicPartition, term: LogTerm, result: Result<ProducerTable, LogError>) {
        match result {
            Ok(producers) => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.changing = partition.changing.filter(|latest| *latest != term);
                }
                self.step(id, Input::LogChanged { term, producers });
            }
            Err(error) => self.log_failed(id, &error),
        }
    }

    fn appended(&mut self, marks: Vec<Mark>, started: Instant, bytes: u64, result: Result<(), LogError>) {
        let ignored = match &result {
            Err(LogError::Full { .. }) => self.parts.mutations.lacks(Mutation::IgnoreFullDisk),
            Err(LogError::Failed(_)) => self.parts.mutations.lacks(Mutation::IgnoreFsyncError),
            _ => false,
        };
        let result = if ignored { Ok(()) } else { result };
        match result {
            Ok(()) => {
                self.parts.metrics.committed(marks.len() as u64, bytes, started.elapsed());
                for Mark { id, term, end } in marks {
                    if let Some(partition) = self.partitions.get_mut(&id) {
                        partition.refused = false;
                    }
                    self.step(id, Input::Durable { term, end });
                }
            }
            Err(error) if nothing_written(&error) => {
                for Mark { id, term, .. } in marks {
                    self.refused(id, term, &error);
                }
            }
            Err(error) => {
                for Mark { id, .. } in marks {
                    self.log_failed(id, &error);
                }
            }
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

    fn fetched(&mut self, call: FetchCall, window: Window, result: Result<Vec<StoredBatch>, LogError>) {
        let answer = match result {
            Ok(batches) => Ok(window.cut(batches)),
            Err(LogError::BelowStart { at, start }) => {
                let error = Error::new(ErrorCode::OffsetOutOfRange, format!("offset {at} is below the start {start}"));
                Err(window.fail(error))
            }
            Err(error) => {
                let told = Error::new(ErrorCode::Storage, error.to_string()).partition(call.id.partition);
                if matches!(error, LogError::Damaged(_)) {
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

/// Whether an append was refused and the log is as good as before. A batch that begins beyond the
/// log's end was on its way when the one before it was refused.
fn nothing_written(error: &LogError) -> bool {
    match error {
        LogError::Full { .. } | LogError::Overloaded { .. } => true,
        LogError::NotContiguous { expected, found, .. } => found > expected,
        _ => false,
    }
}
