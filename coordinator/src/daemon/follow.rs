//! Keeps the view at what the registry says. Watches are hints: what they name is read again,
//! and everything is read again from time to time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::{TopicId, TopicPartition};
use baton_registry::recipes::membership::{self, LiveBrokers};
use baton_registry::recipes::{RecipeError, partition_state, topics};
use baton_registry::znode::{candidate, partition, topic};
use baton_registry::{Event, Registry, RegistryError, Watch};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::history::History;
use super::view::View;

/// Reads sent at once.
const READS_MAX: usize = 512;
const RETRY: Duration = Duration::from_millis(200);
/// Events are gathered for so long, so that a node that changes often is read once.
const GATHER: Duration = Duration::from_millis(10);

/// What is to be read again.
#[derive(Debug, Default)]
struct Wanted {
    all: bool,
    topics: BTreeSet<TopicId>,
    states: BTreeSet<TopicPartition>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        !self.all && self.topics.is_empty() && self.states.is_empty()
    }

    fn note(&mut self, event: Event) {
        let Event::Node { path, .. } = event else {
            self.all = true;
            return;
        };
        if let Some(id) = topic::topic_of(&path) {
            self.topics.insert(id);
        } else if candidate::sequence_of(&path).is_none()
            && let Some(id) = partition::partition_of(&path)
        {
            self.states.insert(id);
        }
    }
}

/// Follows brokers until the registry is closed.
pub async fn follow_brokers(registry: Arc<dyn Registry>, view: Arc<View>) {
    let (publish, mut live) = watch::channel(Arc::new(LiveBrokers::default()));
    let follow = membership::follow(registry, publish);
    let copy = async {
        while live.changed().await.is_ok() {
            let latest = Arc::clone(&live.borrow_and_update());
            view.set_brokers(&latest);
        }
    };
    tokio::join!(follow, copy);
}

/// Follows topics and partitions until the registry is closed.
pub async fn follow_topics(registry: Arc<dyn Registry>, view: Arc<View>, history: Arc<History>, reread: Duration) {
    let Some(mut topics) = open(&*registry, topic::ROOT).await else { return };
    let Some(mut states) = open(&*registry, partition::ROOT).await else { return };
    let follower = Follower { registry, view, history };
    let mut wanted = Wanted { all: true, ..Wanted::default() };
    let mut next_reread = Instant::now() + reread;
    loop {
        if !wanted.is_empty() {
            let now = std::mem::take(&mut wanted);
            if now.all {
                next_reread = Instant::now() + reread;
            }
            match follower.read(now).await {
                Ok(()) => {}
                Err(RecipeError::Registry(RegistryError::Closed)) => return,
                Err(error) => {
                    tracing::debug!(%error, "the view of the topics is not up to date");
                    wanted.all = true;
                    sleep(RETRY).await;
                }
            }
            continue;
        }
        let event = tokio::select! {
            biased;
            () = sleep_until(next_reread) => Some(Event::Reset),
            event = topics.next() => event,
            event = states.next() => event,
        };
        let Some(event) = event else { return };
        wanted.note(event);
        if !gather(&mut topics, &mut states, &mut wanted).await {
            return;
        }
    }
}

/// Takes what comes within a moment. False: the registry is closed.
async fn gather(topics: &mut Watch, states: &mut Watch, wanted: &mut Wanted) -> bool {
    let until = Instant::now() + GATHER;
    loop {
        let event = tokio::select! {
            biased;
            () = sleep_until(until) => return true,
            event = topics.next() => event,
            event = states.next() => event,
        };
        match event {
            Some(event) => wanted.note(event),
            None => return false,
        }
    }
}

async fn open(registry: &dyn Registry, path: &str) -> Option<Watch> {
    loop {
        match registry.watch(path, true).await {
            Ok(watch) => return Some(watch),
            Err(RegistryError::Closed) => return None,
            Err(error) => {
                tracing::debug!(%error, path, "no watch yet");
                sleep(RETRY).await;
            }
        }
    }
}

struct Follower {
    registry: Arc<dyn Registry>,
    view: Arc<View>,
    history: Arc<History>,
}

impl Follower {
    async fn read(&self, wanted: Wanted) -> Result<(), RecipeError> {
        if wanted.all {
            return self.read_all().await;
        }
        for id in wanted.topics {
            self.read_topic(id).await?;
        }
        let ids: Vec<_> = wanted.states.into_iter().collect();
        self.read_states(&ids).await
    }

    async fn read_all(&self) -> Result<(), RecipeError> {
        let names = self.registry.children(topic::ROOT).await?;
        let topics: BTreeSet<TopicId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        self.view.keep_topics(&topics);
        let mut ids = Vec::new();
        let topics: Vec<_> = topics.into_iter().collect();
        for chunk in topics.chunks(READS_MAX) {
            for partitions in join_all(chunk.iter().map(|id| self.read_topic(*id))).await {
                ids.extend(partitions?);
            }
        }
        self.read_states(&ids).await?;
        self.view.set_topics_read();
        Ok(())
    }

    /// Reads one topic, and names its partitions. One that cannot be understood is told in the
    /// log and left as it is known: a damaged node does not blind the coordinator.
    async fn read_topic(&self, id: TopicId) -> Result<Vec<TopicPartition>, RecipeError> {
        let topic = match topics::read(&*self.registry, id).await {
            Ok(topic) => topic,
            Err(RecipeError::Znode(error)) => {
                tracing::warn!(topic = %id, %error, "cannot read a topic");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let partitions = topic.as_ref().map_or(0, |topic| topic.node.partitions);
        self.view.set_topic(id, topic);
        Ok((0..partitions).map(|partition| TopicPartition { topic: id, partition }).collect())
    }

    async fn read_states(&self, ids: &[TopicPartition]) -> Result<(), RecipeError> {
        read_states(&*self.registry, &self.view, &self.history, ids).await
    }
}

/// Reads states into the view, and records what changed. A state that cannot be understood is
/// told in the log and left out, so that one damaged node does not blind the coordinator.
///
/// # Errors
/// The registry's.
pub async fn read_states(
    registry: &dyn Registry,
    view: &View,
    history: &History,
    ids: &[TopicPartition],
) -> Result<(), RecipeError> {
    for chunk in ids.chunks(READS_MAX) {
        let mut read = Vec::with_capacity(chunk.len());
        for (id, found) in chunk.iter().zip(partition_state::read_many(registry, chunk).await) {
            match found {
                Ok(known) => read.push((*id, known)),
                Err(RecipeError::Znode(error)) => {
                    tracing::warn!(partition = %id, %error, "cannot read a partition's state");
                }
                Err(error) => return Err(error),
            }
        }
        history.record_changes(&view.set_states(read));
    }
    Ok(())
}
