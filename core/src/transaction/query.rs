//! Questions that change nothing.

use std::collections::BTreeSet;

use super::TransactionCoordinator;
use super::message::Producer;
use super::metadata::{TransactionMetadata, TransactionState};
use crate::error::{Error, ErrorCode};
use crate::ids::{ProducerId, TopicPartition};

/// Which transactional ids are wanted; empty sets want all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    pub producers: BTreeSet<ProducerId>,
    pub states: BTreeSet<TransactionState>,
    /// Transactions that have been open for longer than this, in ms.
    pub open_for_ms: Option<i64>,
}

/// One line of a list of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionListing {
    pub id: String,
    pub producer: ProducerId,
    pub state: TransactionState,
}

/// All that is known of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    pub id: String,
    pub producer: Producer,
    pub state: TransactionState,
    pub timeout_ms: u32,
    /// When the open transaction began, in ms since 1970.
    pub started_ms: Option<i64>,
    pub partitions: BTreeSet<TopicPartition>,
}

impl TransactionCoordinator {
    #[must_use]
    pub fn list(&self, now_ms: i64, filter: &TransactionFilter) -> Vec<TransactionListing> {
        let wanted = |metadata: &TransactionMetadata| {
            let open_ms = metadata.started_ms.map(|since_ms| now_ms.saturating_sub(since_ms));
            (filter.producers.is_empty() || filter.producers.contains(&metadata.holder().id))
                && (filter.states.is_empty() || filter.states.contains(&metadata.state))
                && filter.open_for_ms.is_none_or(|longer| open_ms.is_some_and(|open_ms| open_ms > longer))
        };
        let durable = self.entries.values().filter_map(|entry| Some((&entry.id, entry.metadata.as_ref()?)));
        let line = |(id, metadata): (&String, &TransactionMetadata)| TransactionListing {
            id: id.clone(),
            producer: metadata.holder().id,
            state: metadata.state,
        };
        durable.filter(|(_, metadata)| wanted(metadata)).map(line).collect()
    }

    /// # Errors
    /// The id is empty, or nobody uses it.
    pub fn describe(&self, id: &str) -> Result<TransactionDescription, Error> {
        if id.is_empty() {
            return Err(Error::new(ErrorCode::InvalidRequest, "the transactional id is empty"));
        }
        let Some(metadata) = self.entries.get(id).and_then(|entry| entry.metadata.as_ref()) else {
            let cause = format!("nobody uses the transactional id {id:?}");
            return Err(Error::new(ErrorCode::TransactionalIdNotFound, cause));
        };
        Ok(TransactionDescription {
            id: id.to_owned(),
            producer: metadata.holder(),
            state: metadata.state,
            timeout_ms: metadata.timeout_ms,
            started_ms: metadata.started_ms,
            partitions: metadata.partitions.clone(),
        })
    }
}
