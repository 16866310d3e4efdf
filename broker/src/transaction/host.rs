//! Starts a task for each partition of the transactions' topic that has a copy here: it
//! coordinates whenever this broker leads the partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::transaction::settings::TransactionSettings;
use baton_core::{Epoch, TopicPartition};
use baton_registry::Registry;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordination::creation::Creation;
use crate::coordination::serves;
use crate::coordination::time::Timekeeper;
use crate::coordinator::CoordinatorLink;
use crate::metrics::Metrics;
use crate::shard::{PartitionHandle, Partitions, Shards};
use crate::transaction::load::load;
use crate::transaction::markers::Markers;
use crate::transaction::seats::Seats;
use crate::transaction::serving::Serving;
use crate::transaction::{Marking, PeerCalls, TRANSACTIONS_TOPIC, Transactions};

/// How often new copies are looked for. One that is here is watched by its own task.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After a coordinator that ended while its broker still leads.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What the host is made of, besides the handle.
pub struct HostParts {
    pub metrics: Metrics,
    pub transactions: Transactions,
    pub settings: TransactionSettings,
    /// Of the topic, when it is made.
    pub partition_count: u32,
    pub shards: Shards,
    pub partitions: Partitions,
    pub registry: Arc<dyn Registry>,
    pub coordinator: Arc<CoordinatorLink>,
    pub clock: Arc<dyn Clock>,
    pub marking: Marking,
    pub peers: Arc<PeerCalls>,
}

/// What every coordinator of a broker has in common.
pub(super) struct Parts {
    pub(super) shards: Shards,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: TransactionSettings,
    pub(super) seats: Seats,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) markers: Markers,
    pub(super) metrics: Metrics,
}

impl HostParts {
    /// Coordinates transactions until the broker stops.
    pub async fn run(self, stop: CancellationToken) {
        let view = self.transactions.view().clone();
        let registry = Arc::clone(&self.registry);
        let parts = Arc::new(Parts {
            shards: self.shards,
            metrics: self.metrics,
            clock: self.clock,
            settings: self.settings,
            seats: self.transactions.seats().clone(),
            registry: self.registry,
            markers: Markers::new(self.transactions.me(), view.clone(), registry, self.marking, self.peers),
        });
        let creation = Creation {
            topic: TRANSACTIONS_TOPIC,
            view: view.clone(),
            coordinator: self.coordinator,
            partitions: self.partition_count,
            wanted: self.transactions.wanted(),
        };
        // What is spawned here ends with it.
        let mut tasks = JoinSet::new();
        tasks.spawn(creation.run());
        let mut running: BTreeMap<TopicPartition, AbortHandle> = BTreeMap::new();
        loop {
            running.retain(|_, task| !task.is_finished());
            if let Some(topic) = view.topic(TRANSACTIONS_TOPIC) {
                let ids = (0..topic.partitions).map(|partition| TopicPartition { topic: topic.id, partition });
                for handle in ids.filter_map(|id| self.partitions.get(id)) {
                    running.entry(handle.id).or_insert_with(|| tasks.spawn(follow(Arc::clone(&parts), handle)));
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}

/// Coordinates the transactions of one local partition whenever this broker leads it. Ends with
/// the copy.
async fn follow(parts: Arc<Parts>, mut handle: PartitionHandle) {
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
    let Some(coordinator) = load(parts, handle.clone(), epoch).await else { return };
    let (partition, took_ms) = (handle.id.partition, began.elapsed().as_millis());
    tracing::info!(partition, epoch = epoch.0, took_ms, "coordinates transactions");
    Serving::new(parts, handle, epoch, coordinator, seat, time).run(handle).await;
    tracing::info!(partition, epoch = epoch.0, "coordinates transactions no more");
}
