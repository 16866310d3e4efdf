//! Changes of leaders as this client sees them.

use std::{sync::Arc, time::Duration};

use baton_core::{BrokerId, Epoch};
use tokio::sync::broadcast;

/// A partition has another leader than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    pub topic: Arc<str>,
    pub partition: u32,
    /// Who led before, as far as this client knew.
    pub old_leader: Option<BrokerId>,
    pub new_leader: BrokerId,
    pub epoch: Epoch,
    /// From the oldest request that the old leader left unanswered or denied to the moment at
    /// which the new leader was known here; none if nothing was waiting.
    pub outage: Option<Duration>,
}

/// What [`Failovers::next`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailoverEvent {
    Failover(Failover),
    /// The application was so slow that so many events were dropped.
    Missed(u64),
}

/// The changes of leaders from now on. The last 1,024 are kept for a slow reader.
pub struct Failovers(pub(crate) broadcast::Receiver<Failover>);

impl Failovers {
    /// Waits for the next change. None: the client was closed.
    pub async fn next(&mut self) -> Option<FailoverEvent> {
        match self.0.recv().await {
            Ok(failover) => Some(FailoverEvent::Failover(failover)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(FailoverEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
