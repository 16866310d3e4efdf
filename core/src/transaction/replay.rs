//! A coordinator takes over: it reads what is in the log.

use super::Mutation;
use super::TransactionCoordinator;
use super::entry::Transaction;
use super::message::Effect;
use super::metadata::TransactionState;
use super::record::TransactionRecord;

impl TransactionCoordinator {
    /// One record of the partition, in the order of the log, before anything else is taken in.
    /// Limits do not apply: what was stored is kept.
    pub fn replay(&mut self, record: TransactionRecord) {
        match record.metadata {
            Some(mut metadata) => {
                let decided = metadata.state == TransactionState::PrepareCommit;
                if decided && self.settings.lacks(Mutation::TurnDecisions) {
                    metadata.state = TransactionState::PrepareAbort;
                }
                let entry = self.entries.entry(record.id).or_insert_with_key(|id| Transaction::new(id.clone()));
                entry.metadata = Some(metadata);
            }
            None => {
                self.entries.remove(&record.id);
            }
        }
    }

    /// Everything was read, and is on every in-sync replica. What was decided is carried
    /// through, and what is open goes on.
    pub fn loaded(&mut self, now_ms: i64) -> Vec<Effect> {
        self.act(now_ms, |coordinator, out| {
            out.replenish();
            for entry in coordinator.entries.values_mut() {
                entry.go_on(now_ms);
                if !out.settings.lacks(Mutation::DropDecisions) {
                    entry.begin_marking(out);
                }
            }
            coordinator.entries.keys().cloned().collect()
        })
    }
}

impl Transaction {
    /// The coordinator before may have had another clock: nothing lasts longer because of that.
    fn go_on(&mut self, now_ms: i64) {
        if let Some(metadata) = &mut self.metadata {
            metadata.started_ms = metadata.started_ms.map(|at| at.min(now_ms));
            metadata.updated_ms = metadata.updated_ms.min(now_ms);
        }
    }
}
