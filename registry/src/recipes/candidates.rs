//! The queue of replicas that could lead a partition: ephemeral sequential nodes below its state.

use baton_core::ids::{CandidateSeq, TopicPartition};
use futures::future::join_all;

use super::RecipeError;
use crate::api::{CreateMode, Registry, RegistryError, SessionId};
use crate::znode::{Candidate, Znode, candidate, partition};

/// A candidate in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedCandidate {
    pub sequence: CandidateSeq,
    pub candidate: Candidate,
    pub owner: SessionId,
}

/// Queues at the tail. After a lost answer the node is looked for by its owner and its data
/// (its nonce); only if it is not there it is made again, so that a candidate stands once.
///
/// # Errors
/// The registry's. After `Unknown` a node may be there or come: call [`adopt`] before queueing
/// again. `NoNode`: the partition does not exist.
pub async fn queue(
    registry: &dyn Registry,
    partition: TopicPartition,
    mine: &Candidate,
) -> Result<CandidateSeq, RecipeError> {
    for _ in 0..2 {
        match create(registry, partition, mine).await {
            Err(error) if error.outcome_unknown() => {
                registry.sync(&partition::path(partition)).await?;
                if let Some(sequence) = adopt(registry, partition, mine).await? {
                    return Ok(sequence);
                }
            }
            other => return other,
        }
    }
    create(registry, partition, mine).await
}

async fn create(
    registry: &dyn Registry,
    partition: TopicPartition,
    mine: &Candidate,
) -> Result<CandidateSeq, RecipeError> {
    let prefix = candidate::prefix(partition);
    let mode = CreateMode::EphemeralSequential;
    let created = registry.create(&prefix, mine.encode(), mode).await?;
    candidate::sequence_of(&created.path)
        .ok_or_else(|| RegistryError::Unknown(format!("{} has no sequence number", created.path)).into())
}

/// The node that this session made for exactly this candidate, if there is one. Further ones
/// (late doubles of a create with an unknown outcome) are deleted.
///
/// # Errors
/// The registry's.
pub async fn adopt(
    registry: &dyn Registry,
    partition: TopicPartition,
    mine: &Candidate,
) -> Result<Option<CandidateSeq>, RecipeError> {
    let session = registry.session_id();
    let mut found = list(registry, partition)
        .await?
        .into_iter()
        .filter(|other| Some(other.owner) == session && other.candidate == *mine);
    let first = found.next().map(|other| other.sequence);
    for double in found {
        delete(registry, partition, double.sequence).await?;
    }
    Ok(first)
}

/// The queue in its order. A node that vanishes meanwhile is left out, and so is one whose data
/// cannot be read (it could not be elected either).
///
/// # Errors
/// The registry's. `NoNode`: the partition does not exist.
pub async fn list(registry: &dyn Registry, partition: TopicPartition) -> Result<Vec<QueuedCandidate>, RecipeError> {
    let names = registry.children(&partition::path(partition)).await?;
    let mut sequences: Vec<CandidateSeq> = names.iter().filter_map(|name| candidate::sequence_of(name)).collect();
    sequences.sort_unstable();
    let paths: Vec<String> = sequences.iter().map(|s| candidate::path(partition, *s)).collect();
    let found = join_all(paths.iter().map(|path| registry.get(path))).await;
    let mut queue = Vec::with_capacity(sequences.len());
    for (sequence, found) in sequences.into_iter().zip(found) {
        match found {
            Ok((data, stat)) => match Candidate::decode(&data) {
                Ok(candidate) => {
                    let owner = stat.ephemeral_owner;
                    queue.push(QueuedCandidate { sequence, candidate, owner });
                }
                Err(error) => {
                    tracing::warn!(%partition, %sequence, %error, "cannot read a candidate");
                }
            },
            Err(RegistryError::NoNode(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(queue)
}

/// Leaves the queue. It is no error if the node is gone already.
///
/// # Errors
/// The registry's.
pub async fn delete(
    registry: &dyn Registry,
    partition: TopicPartition,
    sequence: CandidateSeq,
) -> Result<(), RegistryError> {
    match registry.delete(&candidate::path(partition, sequence), None).await {
        Ok(()) | Err(RegistryError::NoNode(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes what earlier sessions of this broker left in these queues. Returns how many.
///
/// # Errors
/// The registry's.
pub async fn delete_ghosts(
    registry: &dyn Registry,
    partitions: &[TopicPartition],
    remembered: &[SessionId],
) -> Result<usize, RecipeError> {
    if remembered.is_empty() {
        return Ok(0);
    }
    let queues = join_all(partitions.iter().map(|partition| list(registry, *partition))).await;
    let mut ghosts = Vec::new();
    for (partition, queue) in partitions.iter().zip(queues) {
        let queue = match queue {
            Err(RecipeError::Registry(RegistryError::NoNode(_))) => continue,
            other => other?,
        };
        let dead = queue.iter().filter(|queued| remembered.contains(&queued.owner));
        ghosts.extend(dead.map(|queued| (*partition, queued.sequence)));
    }
    let deletions = ghosts.iter().map(|(p, sequence)| delete(registry, *p, *sequence));
    for deletion in join_all(deletions).await {
        deletion?;
    }
    Ok(ghosts.len())
}
