//! What happens because time passed.

use super::entry::{Purpose, Transaction};
use super::init::spare_id;
use super::metadata::{TransactionMetadata, TransactionState};
use super::out::Out;
use super::settings::TransactionSettings;

impl Transaction {
    /// When something is due, in ms since 1970; nothing while a record is on its way.
    pub(super) fn due_ms(&self, settings: &TransactionSettings) -> Option<i64> {
        if self.pending.is_some() {
            return None;
        }
        let metadata = self.metadata.as_ref()?;
        let at = match (metadata.state, &self.marking) {
            (TransactionState::Ongoing, _) => timed_out_ms(metadata),
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, Some(marking)) => marking.retry_at_ms,
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, None) => i64::MIN,
            (TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort, _) => {
                metadata.updated_ms.saturating_add(settings.id_expiration_ms)
            }
        };
        Some(self.retry_at_ms.map_or(at, |retry_at_ms| at.max(retry_at_ms)))
    }

    pub(super) fn tick(&mut self, out: &mut Out<'_>) {
        if self.due_ms(out.settings).is_none_or(|at| at > out.now_ms) {
            return;
        }
        let Some(metadata) = &self.metadata else {
            return;
        };
        match (metadata.state, &self.marking) {
            (TransactionState::Ongoing, _) => self.time_out(out),
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, Some(_)) => self.write_markers(out),
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, None) => self.complete(out),
            (TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort, _) => {
                self.append(None, Purpose::Own, out);
            }
        }
    }

    /// The transaction took too long. Its producer is fenced, and may go on under the raised
    /// epoch if it asks for that and nobody else has come.
    fn time_out(&mut self, out: &mut Out<'_>) {
        if let Some(metadata) = &self.metadata {
            let next_id = spare_id(metadata, out);
            let aborted = metadata.decided_and_raised(false, Some(metadata.producer), next_id, out.now_ms);
            self.append(Some(aborted), Purpose::Own, out);
        }
    }
}

/// When the transaction has taken too long.
pub(super) fn timed_out_ms(metadata: &TransactionMetadata) -> i64 {
    let since_ms = metadata.started_ms.unwrap_or(metadata.updated_ms);
    since_ms.saturating_add(i64::from(metadata.timeout_ms))
}
