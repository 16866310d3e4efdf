//! Stopping well: hand over what is led, leave the in-sync replicas, save what is in memory.

use std::time::Duration;

use baton_core::replica::{Input, RoleView};
use baton_core::{BrokerId, TopicPartition};
use tokio::sync::oneshot;

use crate::server::Shared;
use crate::shard::ShardInput;

/// Everything that was only in memory is saved, so that the next start has little to read.
pub(super) async fn checkpoint(shared: &Shared) {
    for index in 0..shared.shards.len() {
        let (done, saved) = oneshot::channel();
        shared.shards.tell_shard(index, ShardInput::Checkpoint { done }).await;
        // A shard that is gone has nothing to save.
        let _ = tokio::time::timeout(Duration::from_secs(10), saved).await;
    }
}

/// Until this broker leads nothing and is in sync nowhere where others would suffer from it.
pub(super) async fn drain(shared: &Shared) {
    loop {
        let mut left = 0;
        for handle in shared.partitions.all() {
            let status = handle.status.now();
            let successor = successor(shared, handle.id);
            match status.role {
                RoleView::Leader { resigning: false } => {
                    if let Some(toward) = successor {
                        left += 1;
                        let input = Input::Resign { toward };
                        shared.shards.tell(handle.id, ShardInput::Replica { id: handle.id, input }).await;
                    }
                }
                RoleView::Leader { resigning: true } => left += 1,
                _ => left += usize::from(successor.is_some() && may_leave(shared, handle.id)),
            }
        }
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Another live in-sync replica that is not stopping itself.
fn successor(shared: &Shared, id: TopicPartition) -> Option<BrokerId> {
    let state = shared.view.state(id)?.state;
    let env = shared.env.borrow();
    let others = state.assignment.replicas.iter().filter(|b| **b != shared.me && state.isr_member(**b).is_some());
    others.copied().find(|b| env.is_alive(*b) && !env.is_draining(*b))
}

/// The leader takes a stopping broker out of the in-sync replicas, unless too few would stay.
fn may_leave(shared: &Shared, id: TopicPartition) -> bool {
    let (Some(known), Some(handle)) = (shared.view.state(id), shared.partitions.get(id)) else { return false };
    let min = usize::try_from(handle.settings.min_insync_replicas).unwrap_or(1);
    known.state.leader.is_some() && known.state.isr_member(shared.me).is_some() && known.state.isr.len() > min
}
