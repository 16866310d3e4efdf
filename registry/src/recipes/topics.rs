//! Topics, with intents that whoever coordinates next finishes.
//!
//! Creating, growing and deleting are each: one transaction that writes the intent and all that
//! others see by name; then the partitions, in transactions of 50 that are all under way at
//! once; then one that clears the intent. Each checks the coordinator's fence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::ids::{BrokerId, Epoch, TopicId, TopicPartition};
use baton_core::partition::{Assignment, PartitionState};
use futures::future::join_all;
use tokio::time::sleep;

use super::{Fence, RecipeError, absences, fenced, partition_state, write_fenced};
use crate::api::{CreateMode, MultiError, Op, OpResult, Registry, RegistryError};
use crate::znode::{
    Intent, PlannedPartition, Tombstone, TopicIds, TopicLink, TopicNode, Znode, partition, tombstone, topic,
};

/// Nodes made or removed in one transaction.
const BATCH: usize = 50;
/// Rounds of a loop that somebody else may disturb.
const ROUNDS_MAX: usize = 100;
const RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("the topic exists (id {0})")]
    Exists(TopicId),
    #[error("there is no such topic")]
    NotFound,
    /// It is being created, grown or deleted.
    #[error("the topic is being changed")]
    Busy,
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

impl From<RegistryError> for TopicError {
    fn from(error: RegistryError) -> Self {
        Self::Recipe(error.into())
    }
}

/// A topic as it is to be. The coordinator decided on names, configuration and places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub namespace: String,
    pub name: String,
    pub config: BTreeMap<String, String>,
    pub plan: Vec<PlannedPartition>,
}

/// A topic as it is, with the version of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub node: TopicNode,
    pub version: i32,
}

/// One topic.
///
/// # Errors
/// The registry's, or data that is not ours or newer.
pub async fn read(registry: &dyn Registry, id: TopicId) -> Result<Option<Topic>, RecipeError> {
    match registry.get(&topic::path(id)).await {
        Ok((data, stat)) => Ok(Some(Topic { id, node: TopicNode::decode(&data)?, version: stat.version })),
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The id behind a name.
///
/// # Errors
/// The registry's, or data that is not ours or newer.
pub async fn find(registry: &dyn Registry, namespace: &str, name: &str) -> Result<Option<TopicId>, RecipeError> {
    match registry.get(&topic::link_path(namespace, name)).await {
        Ok((data, _)) => Ok(Some(TopicLink::decode(&data)?.topic)),
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All topics that can be read, and the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicList {
    /// By id. Those with an intent are unfinished.
    pub topics: Vec<Topic>,
    /// They exist, and what is written in their nodes is damaged, newer, or not ours.
    pub unreadable: Vec<TopicId>,
}

/// Reads all topics. One whose node cannot be understood is told in the log and does not hide
/// the others.
///
/// # Errors
/// The registry's.
pub async fn read_all(registry: &dyn Registry) -> Result<TopicList, RecipeError> {
    let names = registry.children(topic::ROOT).await?;
    let ids: Vec<TopicId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let found = join_all(ids.iter().map(|id| read(registry, *id))).await;
    let mut list = TopicList { topics: Vec::with_capacity(ids.len()), unreadable: Vec::new() };
    for (id, topic) in ids.into_iter().zip(found) {
        match topic {
            Ok(topic) => list.topics.extend(topic),
            Err(RecipeError::Znode(error)) => {
                tracing::warn!(topic = %id, %error, "cannot read a topic");
                list.unreadable.push(id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(list)
}

/// The topics that can be read, by id: see [`read_all`].
///
/// # Errors
/// The registry's.
pub async fn list(registry: &dyn Registry) -> Result<Vec<Topic>, RecipeError> {
    Ok(read_all(registry).await?.topics)
}

/// The topics whose intent a coordinator that died did not fulfil: [`finish`] does.
///
/// # Errors
/// As [`list`].
pub async fn unfinished(registry: &dyn Registry) -> Result<Vec<Topic>, RecipeError> {
    let mut topics = list(registry).await?;
    topics.retain(|topic| topic.node.intent != Intent::None);
    Ok(topics)
}

/// Creates a topic, whole.
///
/// # Errors
/// It exists; fenced; the registry's. When it fails after the intent was written, [`finish`]
/// goes on with it.
pub async fn create(registry: &dyn Registry, fence: Fence, new: &NewTopic) -> Result<TopicId, TopicError> {
    let id = intend_creation(registry, fence, new).await?;
    finish(registry, fence, id).await?;
    Ok(id)
}

/// The first transaction of [`create`]: takes an id, the name, and says what is to be done.
///
/// # Errors
/// It exists; fenced; the registry's.
pub async fn intend_creation(registry: &dyn Registry, fence: Fence, new: &NewTopic) -> Result<TopicId, TopicError> {
    let link = topic::link_path(&new.namespace, &new.name);
    for _ in 0..ROUNDS_MAX {
        let (data, stat) = registry.get(topic::ROOT).await?;
        let id = TopicIds::decode(&data).map_err(RecipeError::from)?.next;
        let next = TopicIds { next: TopicId(id.0.saturating_add(1)) };
        let root = topic::ROOT.to_owned();
        let ops = vec![
            fence.op(),
            Op::Set { path: root, data: next.encode(), version: Some(stat.version) },
            create_op(link.clone(), &TopicLink { topic: id }),
            create_op(topic::path(id), &new.node()),
        ];
        let error = match registry.multi(ops).await {
            Ok(_) => return Ok(id),
            Err(error) => error,
        };
        match (error.index, &error.error) {
            (Some(1), RegistryError::BadVersion(_)) => {}
            (Some(2), RegistryError::NodeExists(_)) => {
                let existing = find(registry, &new.namespace, &new.name).await?;
                return Err(existing.map_or(TopicError::Busy, TopicError::Exists));
            }
            (None, RegistryError::Unknown(_)) => {
                // Only this coordinator takes ids, so the name points to this one only if it
                // happened.
                registry.sync(topic::ROOT).await?;
                if find(registry, &new.namespace, &new.name).await? == Some(id) {
                    return Ok(id);
                }
                return Err(TopicError::Recipe(error.into()));
            }
            _ => return Err(fenced(error).into()),
        }
    }
    Err(RecipeError::Contended(topic::ROOT.to_owned()).into())
}

impl NewTopic {
    fn node(&self) -> TopicNode {
        TopicNode {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            config: self.config.clone(),
            partitions: u32::try_from(self.plan.len()).unwrap_or(u32::MAX),
            intent: Intent::Creating { plan: self.plan.clone() },
        }
    }
}

fn create_op(path: String, node: &impl Znode) -> Op {
    Op::Create { path, data: node.encode(), mode: CreateMode::Persistent }
}

/// Adds partitions to a topic, behind those that it has.
///
/// # Errors
/// No such topic, or it is being changed; fenced; the registry's.
pub async fn grow(
    registry: &dyn Registry,
    fence: Fence,
    id: TopicId,
    plan: Vec<PlannedPartition>,
) -> Result<(), TopicError> {
    let topic = idle(registry, id).await?;
    let first = topic.node.partitions;
    let added = u32::try_from(plan.len()).unwrap_or(u32::MAX);
    let partitions = first.saturating_add(added);
    let node = TopicNode { partitions, intent: Intent::Growing { first, plan }, ..topic.node };
    set_node(registry, fence, id, &node, topic.version).await?;
    finish(registry, fence, id).await
}

/// Replaces a topic's configuration.
///
/// # Errors
/// No such topic, or it is being changed; fenced; the registry's.
pub async fn set_config(
    registry: &dyn Registry,
    fence: Fence,
    id: TopicId,
    config: BTreeMap<String, String>,
) -> Result<(), TopicError> {
    let topic = idle(registry, id).await?;
    let node = TopicNode { config, ..topic.node };
    Ok(set_node(registry, fence, id, &node, topic.version).await?)
}

async fn idle(registry: &dyn Registry, id: TopicId) -> Result<Topic, TopicError> {
    let topic = read(registry, id).await?.ok_or(TopicError::NotFound)?;
    if topic.node.intent == Intent::None { Ok(topic) } else { Err(TopicError::Busy) }
}

async fn set_node(
    registry: &dyn Registry,
    fence: Fence,
    id: TopicId,
    node: &TopicNode,
    version: i32,
) -> Result<(), RecipeError> {
    let path = topic::path(id);
    let op = Op::Set { path, data: node.encode(), version: Some(version) };
    write_fenced(registry, fence, op).await
}

/// Deletes a topic: its name is free at once, its data goes when the brokers see the tombstone.
/// A topic that is being created or grown may be deleted as well.
///
/// # Errors
/// No such topic; fenced; the registry's. When it fails after the intent was written,
/// [`finish`] goes on with it.
pub async fn delete(registry: &dyn Registry, fence: Fence, id: TopicId, now_unix_ms: u64) -> Result<(), TopicError> {
    intend_deletion(registry, fence, id, now_unix_ms).await?;
    finish(registry, fence, id).await
}

/// The first transaction of [`delete`].
///
/// # Errors
/// No such topic; fenced; the registry's.
pub async fn intend_deletion(
    registry: &dyn Registry,
    fence: Fence,
    id: TopicId,
    now_unix_ms: u64,
) -> Result<(), TopicError> {
    let topic = read(registry, id).await?.ok_or(TopicError::NotFound)?;
    if topic.node.intent == Intent::Deleting {
        return Ok(());
    }
    let brokers = holders(registry, &topic).await?;
    let link = topic::link_path(&topic.node.namespace, &topic.node.name);
    let name = topic.node.name.clone();
    let grave = Tombstone { deleted_unix_ms: now_unix_ms, name, brokers };
    let node = TopicNode { intent: Intent::Deleting, ..topic.node };
    let ops = vec![
        fence.op(),
        Op::Set { path: topic::path(id), data: node.encode(), version: Some(topic.version) },
        create_op(tombstone::path(id), &grave),
        Op::Delete { path: link, version: None },
    ];
    match registry.multi(ops).await {
        Ok(_) => Ok(()),
        Err(error) if error.error.outcome_unknown() => {
            registry.sync(topic::ROOT).await?;
            match read(registry, id).await? {
                Some(Topic { node: TopicNode { intent: Intent::Deleting, .. }, .. }) => Ok(()),
                _ => Err(TopicError::Recipe(error.into())),
            }
        }
        Err(MultiError { index: Some(1), .. }) => Err(TopicError::Busy),
        Err(error) => Err(fenced(error).into()),
    }
}

/// Every broker that may hold data of the topic: those that are assigned or in sync, and those
/// that are away, for their copies may have got new homes since.
async fn holders(registry: &dyn Registry, topic: &Topic) -> Result<Vec<BrokerId>, RecipeError> {
    let mut brokers: BTreeSet<BrokerId> = absences::read_all(registry).await?.into_keys().collect();
    if let Intent::Creating { plan } | Intent::Growing { plan, .. } = &topic.node.intent {
        brokers.extend(plan.iter().flat_map(|p| &p.members).map(|member| member.broker));
    }
    let all: Vec<TopicPartition> = partition_numbers(registry, topic.id).await?;
    for state in partition_state::read_many(registry, &all).await {
        if let Some(state) = state? {
            brokers.extend(&state.state.assignment.replicas);
            brokers.extend(state.state.isr.iter().map(|member| member.broker));
        }
    }
    Ok(brokers.into_iter().collect())
}

async fn partition_numbers(registry: &dyn Registry, id: TopicId) -> Result<Vec<TopicPartition>, RecipeError> {
    match registry.children(&partition::topic_path(id)).await {
        Ok(names) => {
            let numbers = names.iter().filter_map(|name| partition::number(name));
            Ok(numbers.map(|partition| TopicPartition { topic: id, partition }).collect())
        }
        Err(RegistryError::NoNode(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Does what a topic's intent says, whoever wrote it and however far it got.
///
/// # Errors
/// Fenced, or the registry's: it can be called again.
pub async fn finish(registry: &dyn Registry, fence: Fence, id: TopicId) -> Result<(), TopicError> {
    let Some(topic) = read(registry, id).await? else {
        return Ok(()); // Deleted, whole.
    };
    let (first, plan) = match &topic.node.intent {
        Intent::None => return Ok(()),
        Intent::Deleting => return Ok(finish_deletion(registry, fence, id).await?),
        Intent::Creating { plan } => (0, plan),
        Intent::Growing { first, plan } => (*first, plan),
    };
    create_partitions(registry, fence, id, first, plan).await?;
    let node = TopicNode { intent: Intent::None, ..topic.node };
    match set_node(registry, fence, id, &node, topic.version).await {
        // Another attempt of this coordinator was faster, or it is being deleted.
        Err(RecipeError::Registry(RegistryError::BadVersion(_))) => Ok(()),
        other => Ok(other?),
    }
}

/// A new partition: everybody who holds it is in sync, because it is empty. Its preferred leader
/// should elect itself.
#[must_use]
pub fn initial_state(planned: &PlannedPartition) -> PartitionState {
    let replicas: Vec<BrokerId> = planned.members.iter().map(|member| member.broker).collect();
    PartitionState {
        leader: None,
        hint: replicas.first().copied(),
        epoch: Epoch::NONE,
        isr: planned.members.clone(),
        assignment: Assignment { replicas, adding: Vec::new(), removing: Vec::new() },
        last_unclean_epoch: Epoch::NONE,
    }
}

async fn create_partitions(
    registry: &dyn Registry,
    fence: Fence,
    id: TopicId,
    first: u32,
    plan: &[PlannedPartition],
) -> Result<(), RecipeError> {
    let root = Op::Create { path: partition::topic_path(id), data: bytes::Bytes::new(), mode: CreateMode::Persistent };
    match write_fenced(registry, fence, root).await {
        Ok(()) | Err(RecipeError::Registry(RegistryError::NodeExists(_))) => {}
        Err(error) => return Err(error),
    }
    for _ in 0..ROUNDS_MAX {
        // An earlier attempt may have made some of them.
        let there = partition_numbers(registry, id).await?;
        let there: BTreeSet<u32> = there.into_iter().map(|p| p.partition).collect();
        let missing: Vec<Op> = (first..)
            .zip(plan)
            .filter(|(number, _)| !there.contains(number))
            .map(|(number, planned)| {
                let path = partition::path(TopicPartition { topic: id, partition: number });
                create_op(path, &initial_state(planned))
            })
            .collect();
        if missing.is_empty() || create_all(registry, fence, &missing).await? {
            return Ok(());
        }
    }
    Err(RecipeError::Contended(partition::topic_path(id)))
}

/// False if somebody else made one of them meanwhile.
async fn create_all(registry: &dyn Registry, fence: Fence, creates: &[Op]) -> Result<bool, RecipeError> {
    let mut whole = true;
    for answer in join_all(in_batches(registry, fence, creates)).await {
        match answer {
            Ok(_) => {}
            Err(MultiError { error: RegistryError::NodeExists(_), .. }) => whole = false,
            Err(error) => return Err(fenced(error)),
        }
    }
    Ok(whole)
}

/// All transactions are sent here, before the first answer is awaited.
fn in_batches<'a>(
    registry: &'a dyn Registry,
    fence: Fence,
    ops: &[Op],
) -> Vec<impl Future<Output = Result<Vec<OpResult>, MultiError>> + use<'a>> {
    let with_fence = |batch: &[Op]| std::iter::once(fence.op()).chain(batch.to_vec()).collect();
    ops.chunks(BATCH).map(|batch| registry.multi(with_fence(batch))).collect()
}

async fn finish_deletion(registry: &dyn Registry, fence: Fence, id: TopicId) -> Result<(), RecipeError> {
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            sleep(RETRY).await; // A broker that did not see the deletion yet queues again.
        }
        let partitions = partition_numbers(registry, id).await?;
        if delete_partitions(registry, fence, &partitions).await? {
            return delete_topic_nodes(registry, fence, id).await;
        }
    }
    Err(RecipeError::Contended(partition::topic_path(id)))
}

/// Removes partitions with their candidates; false if a candidate came or went in between.
async fn delete_partitions(
    registry: &dyn Registry,
    fence: Fence,
    partitions: &[TopicPartition],
) -> Result<bool, RecipeError> {
    let paths: Vec<String> = partitions.iter().map(|p| partition::path(*p)).collect();
    let children = join_all(paths.iter().map(|path| registry.children(path))).await;
    let mut deletions = Vec::new();
    for (path, names) in paths.iter().zip(children) {
        let names = match names {
            Err(RegistryError::NoNode(_)) => continue,
            other => other?,
        };
        let nodes = names.iter().map(|name| format!("{path}/{name}")).chain([path.clone()]);
        deletions.extend(nodes.map(|path| Op::Delete { path, version: None }));
    }
    let mut whole = true;
    for answer in join_all(in_batches(registry, fence, &deletions)).await {
        match answer {
            Ok(_) => {}
            Err(MultiError { error: RegistryError::NoNode(_) | RegistryError::NotEmpty(_), index: Some(1..) }) => {
                whole = false
            }
            Err(error) => return Err(fenced(error)),
        }
    }
    Ok(whole)
}

/// The topic's own nodes go last: as long as they are there, the intent is.
async fn delete_topic_nodes(registry: &dyn Registry, fence: Fence, id: TopicId) -> Result<(), RecipeError> {
    for path in [partition::topic_path(id), topic::path(id)] {
        match write_fenced(registry, fence, Op::Delete { path, version: None }).await {
            Ok(()) | Err(RecipeError::Registry(RegistryError::NoNode(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
