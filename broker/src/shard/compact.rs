//! Compacts the copies of topics whose `cleanup.policy` says so: one at a time, at a bounded
//! rate, and away from the shard's own task, so that the hot path never waits for it.
//!
//! ```text
//! survey ─▶ index the dirty part, piece by piece ─▶ clean all of it, piece by piece ─▶ done
//!  what is dirty?   keys ▶ map (bounded)               log.rewrite: one commit a piece
//! ```
//! Every copy compacts itself, below its own high watermark. A piece is read and looked at in
//! a task of its own; what is to be written comes back here, and is written only if nothing was
//! cut off meanwhile. A crash between two pieces loses nothing: the next round begins where the
//! saved `clean_to` says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::compaction::{Cleaned, OffsetMap, Rules, clean, index};
use baton_core::replica::{Input, LogTerm, RoleView};
use baton_core::topic::TopicConfig;
use baton_core::transaction::partition::AbortedTransaction;
use baton_core::{Epoch, Offset, TopicPartition};
use tokio::time::Instant;

use crate::log::{Compaction, LocalPartition, Log, LogError, StoredBatch};
use crate::shard::completion::{Completion, CopyId};
use crate::shard::partition::Partition;
use crate::shard::run::Shard;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// How closely it is measured what is dirty.
const PIECE_BYTES: u64 = 64 << 10;

/// How much is read at once after a pause, in time at the full rate.
const BURST: Duration = Duration::from_millis(200);

/// How often, how fast, and with how much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// From one look at a copy to the next; zero: never.
    pub interval: Duration,
    /// Bytes read per second by one shard.
    pub bytes_per_s: u64,
    /// Memory for the keys of one round.
    pub map_bytes: usize,
    /// Keeps outsiders from choosing keys that are taken for one another.
    pub seed: u64,
}

/// Where one shard is with its copies.
pub(super) struct Compact {
    config: CompactionConfig,
    /// When each copy is looked at next.
    due: BTreeSet<(Instant, TopicPartition)>,
    /// The copy that is being compacted, or looked at.
    current: Option<Pass>,
    running: bool,
    /// Bytes that may be read now; below zero after a large piece.
    allowance: i64,
    counted: Instant,
}

/// One round over one copy.
#[derive(Debug)]
pub(super) struct Pass {
    copy: CopyId,
    /// Of the log when the round began: one that was cut since is another.
    term: LogTerm,
    stage: Stage,
    rewritten: bool,
    saved: u64,
    horizon_ms: i64,
}

#[derive(Debug)]
enum Stage {
    Survey,
    /// The map is away while a task fills it.
    Index {
        map: Option<OffsetMap>,
        at: Offset,
        end: Offset,
    },
    Clean {
        rules: Arc<Rules>,
        at: Offset,
    },
}

/// What a survey found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// Up to where records are old enough, and committed.
    end: Offset,
    clean_bytes: u64,
    dirty_bytes: u64,
    /// The max timestamp of the first dirty batch.
    first_dirty_ms: Option<i64>,
}

/// What a task of a pass brings back.
#[derive(Debug)]
pub(super) enum Step {
    Surveyed(Survey),
    Indexed { map: OffsetMap, complete: Offset, more: bool, bytes: u64 },
    Cleaned { cleaned: Cleaned, bytes: u64 },
    Written,
}

impl Compact {
    pub(super) fn new(config: CompactionConfig) -> Self {
        let counted = Instant::now();
        Self { config, due: BTreeSet::new(), current: None, running: false, allowance: 0, counted }
    }

    pub(super) fn opened(&mut self, id: TopicPartition) {
        if !self.config.interval.is_zero() {
            self.due.insert((Instant::now() + self.config.interval, id));
        }
    }

    fn may_read(&mut self) -> bool {
        let now = Instant::now();
        let rate = i64::try_from(self.config.bytes_per_s).unwrap_or(i64::MAX);
        let share =
            |time: Duration| rate.saturating_mul(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)) / 1_000_000;
        let elapsed = now.duration_since(self.counted).min(BURST * 5);
        self.allowance = self.allowance.saturating_add(share(elapsed)).min(share(BURST));
        self.counted = now;
        self.allowance > 0
    }

    fn paid(&mut self, bytes: u64) {
        self.allowance = self.allowance.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The next copy to look at, if it is time.
    fn next(&mut self) -> Option<TopicPartition> {
        let (at, id) = *self.due.first()?;
        if at > Instant::now() {
            return None;
        }
        self.due.pop_first();
        Some(id)
    }

    /// This copy is done with, for now.
    fn finished(&mut self, id: TopicPartition) {
        self.current = None;
        self.due.insert((Instant::now() + self.config.interval, id));
    }
}

impl Shard {
    /// With every tick, and when a step is done.
    pub(super) fn compact(&mut self) {
        while !self.compact.running && self.compact.may_read() {
            if self.compact.current.is_none() && !self.begin_pass() {
                return;
            }
            self.next_step();
        }
    }

    /// Takes the next copy that is due and compacted at all.
    fn begin_pass(&mut self) -> bool {
        while let Some(id) = self.compact.next() {
            // One that was closed is forgotten.
            let Some(partition) = self.partitions.get(&id) else { continue };
            if !partition.settings.cleanup.compact || !partition.may_be_compacted() {
                self.compact.finished(id);
                continue;
            }
            let copy = CopyId { id, local: partition.local };
            let term = partition.replica.log_term();
            let (stage, rewritten, saved, horizon_ms) = (Stage::Survey, false, 0, 0);
            self.compact.current = Some(Pass { copy, term, stage, rewritten, saved, horizon_ms });
            return true;
        }
        false
    }

    /// Starts the task of the next piece.
    fn next_step(&mut self) {
        let Some(mut pass) = self.compact.current.take() else { return };
        let Some(partition) = self.partitions.get(&pass.copy.id).filter(|p| pass.goes_on(p)) else {
            return self.compact.finished(pass.copy.id);
        };
        let (log, local, copy) = (Arc::clone(&self.parts.log), pass.copy.local, pass.copy);
        let start = partition.replica.start_under_way();
        let task = match pass.stage {
            Stage::Survey => {
                let (from, wall_ms) = (partition.meta.compaction.clean_to.max(start), self.parts.clock.now_ms());
                // Of what is not decided nobody knows whether it replaces anything.
                let high = partition.replica.last_stable().min(partition.replica.durable_end());
                let settings = partition.settings.clone();
                tokio::spawn(async move { survey(&*log, local, (start, from, high), &settings, wall_ms).await })
            }
            Stage::Index { ref mut map, at, end } => {
                let Some(mut map) = map.take() else { return self.compact.finished(copy.id) };
                let aborted = partition.aborted_below(end);
                tokio::spawn(async move {
                    let batches = read(&*log, local, at.max(start), end).await?;
                    let bytes = size(&batches);
                    let last = batches.last().map_or(end, StoredBatch::end);
                    let complete = index(&batches, at, end, &aborted, &mut map);
                    let more = complete >= last && complete < end && !batches.is_empty();
                    Ok(Step::Indexed { map, complete, more, bytes })
                })
            }
            Stage::Clean { ref rules, at } => {
                let rules = Arc::clone(rules);
                tokio::spawn(async move {
                    let batches = read(&*log, local, at.max(start), rules.end).await?;
                    let bytes = size(&batches);
                    Ok(Step::Cleaned { cleaned: clean(&batches, &rules), bytes })
                })
            }
        };
        self.compact.current = Some(pass);
        self.compact.running = true;
        self.await_step(copy, task);
    }

    fn await_step(&mut self, copy: CopyId, task: tokio::task::JoinHandle<Result<Step, LogError>>) {
        self.running.push(Box::pin(async move {
            let stopped = |_| Err(LogError::Closed);
            Completion::CompactionStep { copy, result: task.await.unwrap_or_else(stopped) }
        }));
    }

    pub(super) fn compaction_step(&mut self, copy: CopyId, result: Result<Step, LogError>) {
        self.compact.running = false;
        let Some(pass) = self.compact.current.take() else { return };
        let goes_on = self.partitions.get(&copy.id).is_some_and(|p| pass.goes_on(p));
        match result {
            _ if !goes_on => self.compact.finished(copy.id),
            Ok(Step::Surveyed(survey)) => self.surveyed(pass, survey),
            Ok(Step::Indexed { map, complete, more, bytes }) => {
                self.compact.paid(bytes);
                self.indexed(pass, map, complete, more);
            }
            Ok(Step::Cleaned { cleaned, bytes }) => {
                self.compact.paid(bytes);
                self.cleaned(pass, cleaned);
            }
            Ok(Step::Written) => self.compact.current = Some(pass),
            Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) => {
                self.compact.finished(copy.id);
                self.log_failed(copy.id, &error);
            }
            // Retention went by, or the log is busy: another time.
            Err(error) => {
                tracing::debug!(partition = %copy.id, %error, "compaction was put off");
                self.compact.finished(copy.id);
            }
        }
        self.compact();
    }

    /// Is it worth while?
    fn surveyed(&mut self, pass: Pass, survey: Survey) {
        let id = pass.copy.id;
        let wall_ms = self.parts.clock.now_ms();
        let Some(partition) = self.partitions.get(&id) else { return };
        if !survey.asks_for_a_round(&partition.settings, partition.meta.compaction, wall_ms) {
            return self.compact.finished(id);
        }
        let at = partition.meta.compaction.clean_to.max(partition.replica.start_under_way());
        let map = OffsetMap::new(self.compact.config.map_bytes, self.compact.config.seed);
        let end = survey.end.max(at);
        self.compact.current = Some(Pass { stage: Stage::Index { map: Some(map), at, end }, ..pass });
    }

    fn indexed(&mut self, pass: Pass, map: OffsetMap, complete: Offset, more: bool) {
        let Some(partition) = self.partitions.get(&pass.copy.id) else { return };
        let Stage::Index { end, .. } = pass.stage else { return };
        let stage = if more {
            Stage::Index { map: Some(map), at: complete, end }
        } else {
            let rules = Rules {
                map,
                end: complete,
                now_ms: self.parts.clock.now_ms(),
                delete_retention_ms: partition.settings.delete_retention_ms,
                remembered: partition.replica.producers().remembered().collect(),
                aborted: partition.aborted_below(complete),
            };
            Stage::Clean { rules: Arc::new(rules), at: partition.replica.log_floor() }
        };
        self.compact.current = Some(Pass { stage, ..pass });
    }

    /// Writes what a piece has become, and goes on with the next.
    fn cleaned(&mut self, mut pass: Pass, cleaned: Cleaned) {
        let Stage::Clean { rules, at } = &mut pass.stage else { return };
        let Cleaned { batches, next, horizon_ms, saved } = cleaned;
        let ended = next >= rules.end || (next <= *at && batches.is_empty());
        let end = rules.end;
        *at = next;
        pass.saved += saved;
        pass.rewritten |= !batches.is_empty();
        pass.horizon_ms =
            [Some(pass.horizon_ms).filter(|at| *at > 0), horizon_ms].into_iter().flatten().min().unwrap_or(0);
        let (copy, horizon_ms, bytes) = (pass.copy, pass.horizon_ms, pass.saved);
        let Some(partition) = self.partitions.get_mut(&copy.id) else { return };
        let compaction = &mut partition.meta.compaction;
        if let Some(last) = batches.last() {
            compaction.rewritten_to = compaction.rewritten_to.max(last.end());
        }
        let rewritten_to = compaction.rewritten_to;
        if ended {
            *compaction = Compaction { clean_to: compaction.clean_to.max(end), rewritten_to, horizon_ms };
            self.parts.metrics.compacted(bytes);
            tracing::debug!(partition = %copy.id, %end, bytes, "compacted");
        }
        let meta = partition.snapshot(Epoch::NONE);
        self.step(copy.id, Input::Compacted { to: rewritten_to });
        match ended {
            true => self.compact.finished(copy.id),
            false => self.compact.current = Some(pass),
        }
        if batches.is_empty() && !ended {
            return;
        }
        self.compact.running = !ended;
        let written = self.parts.log.rewrite(copy.local, batches, meta);
        self.running.push(Box::pin(async move {
            let result = written.await.map(|()| Step::Written);
            Completion::CompactionWritten { copy, result, last: ended }
        }));
    }

    pub(super) fn compaction_written(&mut self, copy: CopyId, result: Result<Step, LogError>, last: bool) {
        if !last {
            return self.compaction_step(copy, result);
        }
        if let Err(error @ (LogError::Damaged(_) | LogError::Failed(_))) = result
            && self.is_open(copy)
        {
            self.log_failed(copy.id, &error);
        }
    }
}

impl Partition {
    fn aborted_below(&self, end: Offset) -> Vec<AbortedTransaction> {
        let table = self.replica.producers().transactions();
        table.aborted().within(Offset::ZERO, end).copied().collect()
    }

    /// Nothing is in the way: what is read now is what is rewritten.
    fn may_be_compacted(&self) -> bool {
        self.changing.is_none() && !self.replica.is_damaged() && self.replica.role() != RoleView::Halted
    }
}

impl Pass {
    fn goes_on(&self, partition: &Partition) -> bool {
        partition.local == self.copy.local
            && partition.replica.log_term() == self.term
            && partition.settings.cleanup.compact
            && partition.may_be_compacted()
    }
}

impl Survey {
    fn asks_for_a_round(&self, settings: &TopicConfig, compaction: Compaction, wall_ms: i64) -> bool {
        let tombstones_over = compaction.horizon_ms > 0 && compaction.horizon_ms <= wall_ms;
        if self.dirty_bytes == 0 {
            return tombstones_over;
        }
        let all = self.clean_bytes.saturating_add(self.dirty_bytes);
        let millionths = u128::from(self.dirty_bytes) * 1_000_000 / u128::from(all);
        let dirty = millionths >= u128::from(settings.min_dirty_millionths);
        let lag_max_ms = i64::try_from(settings.max_compaction_lag_ms).unwrap_or(i64::MAX);
        let late = self.first_dirty_ms.is_some_and(|first| wall_ms.saturating_sub(first) >= lag_max_ms);
        dirty || late || tombstones_over
    }
}

/// What is dirty, and how much of it may be compacted now.
async fn survey(
    log: &dyn Log,
    local: LocalPartition,
    (start, clean_to, high): (Offset, Offset, Offset),
    settings: &TopicConfig,
    wall_ms: i64,
) -> Result<Step, LogError> {
    let lag_ms = i64::try_from(settings.min_compaction_lag_ms).unwrap_or(i64::MAX);
    let end = match lag_ms {
        0 => high,
        lag_ms => log.expired(local, wall_ms.saturating_sub(lag_ms).saturating_add(1)).await?.min(high),
    };
    let all = log.measure(local, start, u64::MAX).await?;
    let dirty = log.measure(local, clean_to, PIECE_BYTES).await?;
    let first_dirty_ms = match clean_to < end {
        true => log.read(local, clean_to, 1).await?.batches.first().map(|batch| batch.max_timestamp_ms),
        false => None,
    };
    let all_bytes: u64 = all.iter().map(|piece| piece.bytes).sum();
    let from_clean: u64 = dirty.iter().map(|piece| piece.bytes).sum();
    let begins = std::iter::once(clean_to).chain(dirty.iter().map(|piece| piece.end));
    let dirty_bytes = dirty.iter().zip(begins).filter(|(_, begin)| *begin < end).map(|(piece, _)| piece.bytes).sum();
    let clean_bytes = all_bytes.saturating_sub(from_clean);
    Ok(Step::Surveyed(Survey { end, clean_bytes, dirty_bytes, first_dirty_ms }))
}

/// Whole batches from the one that contains `from`, below `end`.
async fn read(log: &dyn Log, local: LocalPartition, from: Offset, end: Offset) -> Result<Vec<StoredBatch>, LogError> {
    if from >= end {
        return Ok(Vec::new());
    }
    let mut batches = log.read(local, from, READ_BYTES).await?.batches;
    batches.retain(|batch| batch.end() <= end);
    Ok(batches)
}

fn size(batches: &[StoredBatch]) -> u64 {
    batches.iter().map(|batch| batch.len() as u64).sum()
}
