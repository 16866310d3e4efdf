//! Answers readers: from memory if they keep up, else from the log.

use baton_core::replica::{Replica, RoleView, StoredBatch};
use baton_core::{Epoch, Error, ErrorCode, Offset};

use crate::mutation::{Mutation, Mutations};
use crate::shard::input::{EpochEnd, FetchCall, FetchFailure, Fetched};
use crate::shard::partition::Partition;

/// What a reader may see now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) high_watermark: Offset,
    latest: Option<Offset>,
    pub(super) log_start: Offset,
    pub(super) epoch: Epoch,
    mutations: Mutations,
}

impl Window {
    pub(super) fn of(replica: &Replica, mutations: Mutations) -> Self {
        Self {
            high_watermark: replica.high_watermark(),
            latest: replica.latest(),
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
            log_start: Offset::ZERO,
            epoch: Epoch::NONE,
            mutations: Mutations::default(),
        }
    }

    /// Nothing at or above the high watermark is shown: it could still go.
    pub(super) fn cut(self, mut batches: Vec<StoredBatch>) -> Fetched {
        let one_more = u64::from(self.mutations.lacks(Mutation::FetchOffByOne));
        let all = self.mutations.lacks(Mutation::ReadAboveHighWatermark);
        batches.retain(|batch| batch.last < self.high_watermark.plus(one_more) || all);
        let Self { high_watermark, latest, log_start, epoch, .. } = self;
        Fetched { batches, high_watermark, latest, log_start, epoch }
    }

    pub(super) fn fail(self, error: Error) -> FetchFailure {
        FetchFailure { error, latest: self.latest, log_start: self.log_start }
    }
}

impl Partition {
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
        if !matches!(self.replica.role(), RoleView::Leader { .. }) {
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
        if call.from < start
            || (call.from > end && self.replica.latest().is_some() && !any_offset)
            || call.from > self.replica.log_end()
        {
            let cause = format!("offset {} is outside {start} to {end}", call.from);
            return Err(self.error(ErrorCode::OffsetOutOfRange, cause));
        }
        Ok(call.from < end || (any_offset && call.from < self.replica.log_end()))
    }
}
