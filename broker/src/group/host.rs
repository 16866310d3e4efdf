//! Starts a task for each partition of the groups' topic that has a copy here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::TopicPartition;
use baton_registry::Registry;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::GroupsConfig;
use crate::coordination::creation::Creation;
use crate::coordinator::CoordinatorLink;
use crate::group::handle::Groups;
use crate::group::sweep::Sweeper;
use crate::group::term::{self, Parts};
use crate::group::{GROUPS_TOPIC, settings};
use crate::metrics::Metrics;
use crate::mutation::Mutations;
use crate::shard::{PartitionHandle, Partitions, Shards};

/// How often new copies are looked for. One that is here is watched by its own task.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the host is made of, besides the handle.
pub struct HostParts {
    pub groups: Groups,
    pub config: GroupsConfig,
    pub shards: Shards,
    pub partitions: Partitions,
    pub registry: Arc<dyn Registry>,
    pub coordinator: Arc<CoordinatorLink>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub mutations: Mutations,
}

impl HostParts {
    /// Coordinates groups until the broker stops.
    pub async fn run(self, stop: CancellationToken) {
        let parts = Arc::new(Parts {
            shards: self.shards,
            clock: self.clock,
            settings: settings(&self.config, self.mutations),
            seats: self.groups.seats().clone(),
            metrics: self.metrics.clone(),
        });
        let view = self.groups.view().clone();
        let sweeper = Sweeper {
            view: view.clone(),
            registry: self.registry,
            seats: self.groups.seats().clone(),
            every: Duration::from_millis(self.config.sweep_interval_ms),
        };
        let creation = Creation {
            topic: GROUPS_TOPIC,
            view,
            coordinator: self.coordinator,
            partitions: self.config.partitions,
            wanted: self.groups.wanted(),
        };
        // What is spawned here ends with it.
        let mut tasks = JoinSet::new();
        tasks.spawn(sweeper.run());
        tasks.spawn(creation.run());
        let mut running = BTreeMap::new();
        loop {
            follow(&self.groups, &self.partitions, &parts, &mut running, &mut tasks);
            let (groups, members) = self.groups.seats().totals();
            self.metrics.groups(groups, members);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}

/// Every copy has a task; one whose copy was closed has ended.
fn follow(
    groups: &Groups,
    partitions: &Partitions,
    parts: &Arc<Parts>,
    running: &mut BTreeMap<TopicPartition, AbortHandle>,
    tasks: &mut JoinSet<()>,
) {
    running.retain(|_, task| !task.is_finished());
    let Some(topic) = groups.view().topic(GROUPS_TOPIC) else { return };
    for partition in 0..topic.partitions {
        let id = TopicPartition { topic: topic.id, partition };
        if running.contains_key(&id) {
            continue;
        }
        let handle: Option<PartitionHandle> = partitions.get(id);
        if let Some(handle) = handle {
            running.insert(id, tasks.spawn(term::run(Arc::clone(parts), handle)));
        }
    }
}
