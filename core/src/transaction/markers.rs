//! Every partition of a transaction hears how it ended.

use std::collections::BTreeSet;

use super::TransactionCoordinator;
use super::entry::{Purpose, Transaction};
use super::message::{Effect, MarkerOutcome, MarkerRound};
use super::out::Out;
use super::partition::EndMarker;
use crate::ids::TopicPartition;

/// Markers that are being written.
#[derive(Clone, Debug)]
pub struct Marking {
    round: MarkerRound,
    /// Partitions that did not confirm.
    left: BTreeSet<TopicPartition>,
    pub(super) retry_at_ms: i64,
}

impl TransactionCoordinator {
    pub(super) fn marked(
        &mut self,
        round: MarkerRound,
        at: TopicPartition,
        outcome: MarkerOutcome,
        out: &mut Out<'_>,
    ) -> Vec<String> {
        let Some(id) = out.under_way.marked(round) else {
            return Vec::new();
        };
        match outcome {
            MarkerOutcome::Failed => return Vec::new(),
            MarkerOutcome::Fenced => {
                let touched = self.resign(out);
                out.effects.push(Effect::Superseded);
                return touched;
            }
            MarkerOutcome::Written | MarkerOutcome::Gone => {}
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.marked(at, out);
        }
        vec![id]
    }
}

impl Transaction {
    /// A transaction that is decided and not complete: its markers go out.
    pub(super) fn begin_marking(&mut self, out: &mut Out<'_>) {
        let Some(metadata) = self.metadata.as_ref().filter(|m| m.state.deciding().is_some()) else {
            return;
        };
        let round = out.under_way.begin_round(&self.id);
        let left = metadata.partitions.clone();
        self.marking = Some(Marking { round, left, retry_at_ms: out.now_ms });
        self.write_markers(out);
    }

    pub(super) fn write_markers(&mut self, out: &mut Out<'_>) {
        let (Some(marking), Some(metadata)) = (&mut self.marking, &self.metadata) else {
            return;
        };
        let Some(commit) = metadata.state.deciding() else {
            return;
        };
        marking.retry_at_ms = out.now_ms.saturating_add(out.settings.retry_ms);
        let marker = EndMarker { producer: metadata.producer, commit, coordinator_epoch: out.coordinator_epoch };
        let (round, partitions) = (marking.round, marking.left.clone());
        out.effects.push(Effect::WriteMarkers { round, marker, raised: metadata.raised, partitions });
    }

    fn marked(&mut self, at: TopicPartition, out: &mut Out<'_>) {
        let Some(marking) = &mut self.marking else {
            return;
        };
        marking.left.remove(&at);
        if marking.left.is_empty() {
            out.under_way.end_round(marking.round);
            self.marking = None;
            self.complete(out);
        }
    }

    /// Every partition knows.
    pub(super) fn complete(&mut self, out: &mut Out<'_>) {
        if let Some(metadata) = &self.metadata {
            let completed = metadata.completed(out.now_ms);
            self.append(Some(completed), Purpose::Own, out);
        }
    }
}
