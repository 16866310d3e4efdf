//! How the partitions stand, for metrics and `/readyz`.

use std::time::Duration;

use baton_core::replica::RoleView;
use baton_registry::SessionState;
use tokio::sync::oneshot;

use crate::http::{Missing, ReadinessProbe};
use crate::metrics::PartitionCounts;
use crate::server::{BrokerError, Shared};
use crate::shard::{PartitionStatus, ShardInput};

/// Shows once a second how the partitions stand.
pub(super) async fn measure(shared: Shared) -> Result<(), BrokerError> {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let mut counts = PartitionCounts::default();
        for handle in shared.partitions.all() {
            let status = handle.status.now();
            counts.held += 1;
            match status.role {
                RoleView::Leader { .. } => {
                    counts.led += 1;
                    counts.under_replicated += u64::from(status.in_sync < status.assigned);
                }
                RoleView::Halted => counts.halted += 1,
                RoleView::Idle => counts.offline += 1,
                RoleView::Follower { .. } => {}
            }
        }
        shared.metrics.partitions(counts);
        let usage = shared.log.usage();
        shared.metrics.log_usage(usage.bytes, usage.free_bytes);
    }
}

/// Answers `/readyz`.
pub(super) struct Probe(pub(super) Shared);

#[async_trait::async_trait]
impl ReadinessProbe for Probe {
    async fn missing(&self) -> Vec<Missing> {
        let shared = &self.0;
        let mut missing = Vec::new();
        let mut lacks = |what, why: String| missing.push(Missing { what, why });
        if !matches!(*shared.registry.session().borrow(), SessionState::Connected(_)) {
            lacks("registry", "ZooKeeper does not answer; producing and consuming go on".to_owned());
        }
        if !*shared.loaded.borrow() {
            lacks("registry", "the topics and partitions have not been read yet".to_owned());
        }
        if !shared.view.brokers().brokers.contains_key(&shared.me) {
            lacks("registry", "this broker is not registered yet".to_owned());
        }
        if shared.log.usage().below_reserve {
            lacks("log", "the disk is full: producing is refused".to_owned());
        }
        let behind = shared.partitions.all().iter().filter(|h| is_behind(&h.status.now())).count();
        if behind > 0 {
            lacks("partitions", format!("{behind} partitions neither lead nor follow their leader yet"));
        }
        if *shared.draining.borrow() {
            lacks("draining", "this broker is stopping".to_owned());
        }
        missing
    }

    async fn alive(&self) {
        for index in 0..self.0.shards.len() {
            let (done, answered) = oneshot::channel();
            self.0.shards.tell_shard(index, ShardInput::Ping { done }).await;
            let _ = answered.await;
        }
    }
}

/// A damaged copy that nobody can refill waits for an operator, not for time: it is reported
/// elsewhere, and the other partitions of this broker are not held up by it.
fn is_behind(status: &PartitionStatus) -> bool {
    let settled = matches!(status.role, RoleView::Leader { .. } | RoleView::Follower { greeted: true, .. });
    !settled && !status.damaged
}
