//! Answers readers: from memory if they keep up, else from the log.

use baton_core::replica::{Replica, RoleView, StoredBatch};
use baton_core::{Epoch, Error, ErrorCode, Offset, TopicPartition};
use tokio::sync::oneshot;

use crate::mutation::{Mutation, Mutations};
use crate::shard::completion::Completion;
use crate::shard::input::{EpochEnd, FetchCall, FetchFailure, Fetched, Isolation};
use crate::shard::partition::{Partition, unknown};
use crate::shard::run::Shard;
use crate::shard::status::Copies;

/// What a reader may see now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) high_watermark: Offset,
    latest: Option<Offset>,
    last_stable: Offset,
    /// Where the log of a copy that follows ends; none of a leader's.
    follows_to: Option<Offset>,
    isolation: Isolation,
    pub(super) log_start: Offset,
    pub(super) epoch: Epoch,
    mutations: Mutations,
}

impl Window {
    pub(super) fn of(replica: &Replica, mutations: Mutations) -> Self {
        Self {
            high_watermark: replica.high_watermark(),
            latest: latest(replica),
            last_stable: replica.last_stable(),
            follows_to: replica.follows_in_sync().then(|| replica.log_end()),
            isolation: Isolation::Uncommitted,
            log_start: replica.log_start(),
            epoch: replica.epoch(),
            mutations,
        }
    }

    /// Of a partition that is not here.
    pub(super) fn nothing() -> Self {
        Self {
            high_watermark: Offset::ZERO,
            latest: None,
            last_stable: Offset::ZERO,
            follows_to: None,
            isolation: Isolation::Uncommitted,
            log_start: Offset::ZERO,
            epoch: Epoch::NONE,
            mutations: Mutations::default(),
        }
    }

    /// The same for a reader who stands here and wants this.
    ///
    /// A copy that follows hears a little later what is committed. Whoever has read all that it
    /// may show is not told that this is the end while more is here: everything acknowledged is
    /// on every in-sync copy, so the end that a reader is told was the end when it asked.
    pub(super) fn seen_from(self, from: Offset, isolation: Isolation) -> Self {
        let readable = match isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.high_watermark.min(self.last_stable),
        };
        let more_to_come = self.follows_to.is_some_and(|end| from >= readable && self.high_watermark < end);
        Self { isolation, latest: self.latest.filter(|_| !more_to_come), ..self }
    }

    /// Nothing at or above the high watermark is shown: it could still go. Nor is anything that
    /// is not decided, to a reader who wants what is committed.
    pub(super) fn cut(self, mut batches: Vec<StoredBatch>) -> Fetched {
        let one_more = u64::from(self.mutations.lacks(Mutation::FetchOffByOne));
        let all = self.mutations.lacks(Mutation::ReadAboveHighWatermark);
        batches.retain(|batch| batch.last < self.high_watermark.plus(one_more) || all);
        if self.isolation == Isolation::Committed {
            batches.retain(|batch| batch.last < self.last_stable);
        }
        let Self { high_watermark, latest, last_stable, log_start, epoch, .. } = self;
        Fetched { batches, high_watermark, latest, last_stable, aborted: Vec::new(), log_start, epoch }
    }

    pub(super) fn fail(self, error: Error) -> FetchFailure {
        FetchFailure { error, latest: self.latest, log_start: self.log_start }
    }
}

/// Where a reader may be told that the end is. One whom a follower serves sees no more.
fn latest(replica: &Replica) -> Option<Offset> {
    replica.latest().or_else(|| replica.follows_in_sync().then(|| replica.high_watermark()))
}

impl Shard {
    pub(super) fn fetch(&mut self, call: FetchCall) {
        let Some(partition) = self.partitions.get(&call.id) else {
            let window = Window::nothing();
            let failure = window.fail(unknown(call.id));
            let _ = call.reply.send(Err(failure));
            return;
        };
        let window = Window::of(&partition.replica, self.parts.mutations);
        let window = window.seen_from(call.from, call.isolation);
        match partition.judge_fetch(&call, self.parts.mutations) {
            Err(error) => drop(call.reply.send(Err(window.fail(error)))),
            Ok(false) => drop(call.reply.send(Ok(window.cut(Vec::new())))),
            Ok(true) => self.read_for_reader(call, window),
        }
    }

    fn read_for_reader(&mut self, call: FetchCall, window: Window) {
        let Some(partition) = self.partitions.get(&call.id) else { return };
        let cached = self.cache.read(partition.local, call.from, call.max_bytes);
        self.parts.metrics.tail_cache_read(cached.is_some());
        if let Some(batches) = cached {
            let fetched = partition.with_aborted(window.cut(batches), call.from, call.isolation);
            drop(call.reply.send(Ok(fetched)));
            return;
        }
        let local = partition.local;
        let read = self.parts.log.read(local, call.from, call.max_bytes);
        self.running.push(Box::pin(async move {
            let result = read.await.map(|found| found.batches);
            Completion::Fetched { call, local, window, result }
        }));
    }

    pub(super) fn find_time(
        &mut self,
        id: TopicPartition,
        timestamp_ms: i64,
        reply: oneshot::Sender<Result<Option<Offset>, Error>>,
    ) {
        let Some(partition) = self.partitions.get(&id) else {
            let _ = reply.send(Err(unknown(id)));
            return;
        };
        let found = self.parts.log.find_time(partition.local, timestamp_ms);
        self.running.push(Box::pin(async move {
            let answer = found.await.map_err(|error| Error::new(ErrorCode::Storage, error.to_string()));
            // Whoever asked may be gone.
            let _ = reply.send(answer);
            Completion::Answered
        }));
    }
}

impl Partition {
    /// With the transactions of what was read that were aborted, if the reader has to leave
    /// them out.
    pub(super) fn with_aborted(&self, fetched: Fetched, from: Offset, isolation: Isolation) -> Fetched {
        let Some(last) = fetched.batches.last().filter(|_| isolation == Isolation::Committed) else {
            return fetched;
        };
        let table = self.replica.producers().transactions();
        let aborted = table.aborted().within(from, last.end()).copied().collect();
        Fetched { aborted, ..fetched }
    }

    /// Where `epoch` ended in this leader's log. Of a later epoch than its own a leader knows
    /// nothing; one from before everything that is left ended where that begins.
    pub(super) fn end_of_epoch(&self, epoch: Epoch) -> Result<Option<EpochEnd>, Error> {
        if !matches!(self.replica.role(), RoleView::Leader { .. }) {
            return Err(self.error(ErrorCode::NotLeader, "this broker does not lead the partition"));
        }
        let (own, end) = (self.replica.epoch(), self.replica.log_end());
        if epoch >= own {
            return Ok((epoch == own).then_some(EpochEnd { epoch, end }));
        }
        let lineage = self.replica.lineage();
        let last = lineage.entries().iter().rev().find(|(known, _)| *known <= epoch);
        Ok(match (last, lineage.entries().first()) {
            (Some((known, _)), _) => Some(EpochEnd { epoch: *known, end: lineage.end_of(epoch, end) }),
            (None, Some((_, start))) => Some(EpochEnd { epoch, end: *start }),
            (None, None) => None,
        })
    }

    /// Whether the call may be answered, and with something to read.
    pub(super) fn judge_fetch(&self, call: &FetchCall, mutations: Mutations) -> Result<bool, Error> {
        let leads = matches!(self.replica.role(), RoleView::Leader { .. });
        let may_follow = call.copies == Copies::InSync;
        if !(leads || may_follow && self.replica.follows_in_sync()) {
            let cause = match self.leader_hint() {
                Some(leader) => format!("broker {leader} leads"),
                None => "this broker does not lead the partition".to_owned(),
            };
            return Err(self.error(ErrorCode::NotLeader, cause));
        }
        match call.epoch {
            Some(known) if known > self.replica.epoch() => {
                let cause = format!("the reader knows epoch {known}");
                return Err(self.error(ErrorCode::UnknownEpoch, cause));
            }
            Some(known) if known < self.replica.epoch() => {
                let cause = format!("the reader knows epoch {known} only");
                return Err(self.error(ErrorCode::FencedEpoch, cause));
            }
            _ => {}
        }
        let (start, end) = (self.replica.log_start(), self.replica.high_watermark());
        let any_offset = mutations.lacks(Mutation::ReadAboveHighWatermark) || mutations.lacks(Mutation::FetchOffByOne);
        // A follower hears a little later how far it may show what it has.
        if call.from < start
            || (call.from > end && leads && self.replica.latest().is_some() && !any_offset)
            || call.from > self.replica.log_end()
        {
            let cause = format!("offset {} is outside {start} to {end}", call.from);
            return Err(self.error(ErrorCode::OffsetOutOfRange, cause));
        }
        Ok(call.from < end || (any_offset && call.from < self.replica.log_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy with records up to 10, of which it may show those below 6.
    fn follower() -> Window {
        let high_watermark = Offset(6);
        Window {
            high_watermark,
            latest: Some(high_watermark),
            last_stable: Offset(4),
            follows_to: Some(Offset(10)),
            ..Window::nothing()
        }
    }

    fn end(window: Window, from: u64, isolation: Isolation) -> Option<Offset> {
        window.seen_from(Offset(from), isolation).cut(Vec::new()).latest
    }

    #[test]
    fn a_copy_that_has_more_than_it_may_show_tells_nobody_of_an_end() {
        let behind = follower();
        assert_eq!(end(behind, 5, Isolation::Uncommitted), Some(Offset(6)));
        assert_eq!(end(behind, 6, Isolation::Uncommitted), None);
        assert_eq!(end(behind, 3, Isolation::Committed), Some(Offset(6)));
        assert_eq!(end(behind, 4, Isolation::Committed), None);
        // All is shown, but for a transaction that is open.
        let whole = Window { follows_to: Some(Offset(6)), ..behind };
        assert_eq!(end(whole, 6, Isolation::Uncommitted), Some(Offset(6)));
        assert_eq!(end(whole, 4, Isolation::Committed), Some(Offset(6)));
        // A leader knows.
        assert_eq!(end(Window { follows_to: None, ..behind }, 6, Isolation::Uncommitted), Some(Offset(6)));
    }
}
