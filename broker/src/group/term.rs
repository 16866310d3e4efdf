//! One coordinator, from the election of its partition's leader to the end of that.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Epoch;
use baton_core::group::settings::GroupSettings;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::coordination::serves;
use crate::coordination::time::Timekeeper;
use crate::group::load::load;
use crate::group::seats::Seats;
use crate::group::serving::Serving;
use crate::metrics::Metrics;
use crate::shard::{PartitionHandle, Shards};

/// After a coordinator that ended while its broker still leads.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What every coordinator of a broker has in common.
pub(super) struct Parts {
    pub(super) shards: Shards,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: GroupSettings,
    pub(super) seats: Seats,
    pub(super) metrics: Metrics,
}

/// Coordinates the groups of one local partition whenever this broker leads it. Ends with the
/// copy.
pub(super) async fn run(parts: Arc<Parts>, mut handle: PartitionHandle) {
    loop {
        let elected = handle.status.wait_for(|status| serves(status, status.epoch)).await;
        let Ok(epoch) = elected.map(|status| status.epoch) else { return };
        lead(&parts, &mut handle, epoch).await;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn lead(parts: &Parts, handle: &mut PartitionHandle, epoch: Epoch) {
    let seat = parts.seats.take(handle.id.partition);
    let began = Instant::now();
    let time = Timekeeper::starting_at(parts.clock.now_ms());
    let Some(coordinator) = load(parts, handle.clone(), epoch, time).await else { return };
    let (groups, members) = coordinator.counts();
    let took = began.elapsed();
    parts.metrics.groups_loaded(took);
    tracing::info!(
        partition = handle.id.partition,
        epoch = epoch.0,
        groups,
        members,
        took_ms = took.as_millis(),
        "coordinates groups"
    );
    Serving::new(parts, handle, epoch, coordinator, seat, time).run(handle).await;
    tracing::info!(partition = handle.id.partition, epoch = epoch.0, "coordinates groups no more");
}
