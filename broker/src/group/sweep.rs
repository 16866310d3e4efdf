//! Offsets that nobody will ask for are forgotten: now and then every coordinator is told which
//! topics there are, and which are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::TopicId;
use baton_core::group::message::Input;
use baton_registry::Registry;
use baton_registry::recipes::topics;
use baton_registry::znode::topic;
use tokio::sync::oneshot;

use crate::cluster::ClusterView;
use crate::group::seats::{Ask, Seats};

/// How long the registry may take to say what became of a topic.
const REGISTRY_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Sweeper {
    pub(super) view: ClusterView,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) seats: Seats,
    pub(super) every: Duration,
}

impl Sweeper {
    /// Never ends.
    pub(super) async fn run(self) {
        loop {
            tokio::time::sleep(self.every).await;
            for partition in self.seats.partitions() {
                self.sweep(partition).await;
            }
        }
    }

    async fn sweep(&self, partition: u32) {
        let Ok(inbox) = self.seats.find(partition) else { return };
        let (reply, answer) = oneshot::channel();
        let look = Ask::Look(Box::new(move |coordinator| drop(reply.send(coordinator.topics()))));
        // One that has gone meanwhile is swept where it is now.
        if inbox.send(look).await.is_err() {
            return;
        }
        let Ok(used) = answer.await else { return };
        let known: BTreeMap<TopicId, String> =
            self.view.topics().iter().map(|topic| (topic.id, topic.name.to_string())).collect();
        let unknown: BTreeSet<TopicId> = used.into_iter().filter(|id| !known.contains_key(id)).collect();
        let gone = self.gone(&unknown).await;
        drop(inbox.send(Ask::Do(Input::Sweep { topics: known, gone })).await);
    }

    /// Those that certainly are no more: ids are never used again, and what this broker has not
    /// heard of yet is there when the registry is asked after a sync.
    async fn gone(&self, unknown: &BTreeSet<TopicId>) -> BTreeSet<TopicId> {
        let mut gone = BTreeSet::new();
        for id in unknown {
            let asked = async {
                self.registry.sync(&topic::path(*id)).await.ok()?;
                topics::read(&*self.registry, *id).await.ok()
            };
            if let Ok(Some(None)) = tokio::time::timeout(REGISTRY_WITHIN, asked).await {
                gone.insert(*id);
            }
        }
        gone
    }
}
