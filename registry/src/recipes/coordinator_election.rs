//! Who coordinates: the lowest of the queued candidates, and only while nobody else was elected.
//!
//! The candidate node is liveness. The authority is `/coordinator/epoch`: the winner raises it,
//! and its version is the [`Fence`] of everything that it writes from then on.

use std::time::Duration;

use baton_core::ids::{CandidateSeq, CoordinatorEpoch};
use tokio::time::{sleep, timeout};

use super::{Fence, RecipeError};
use crate::api::{CreateMode, Op, OpResult, Registry, RegistryError, Watch};
use crate::limits::name_of;
use crate::znode::coordinator::{CANDIDATE_PREFIX, EPOCH_PATH, ROOT};
use crate::znode::{CoordinatorCandidate, CoordinatorTerm, Znode, candidate};

/// A hint may be lost: everything is read again this often.
const REREAD: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// What an elected coordinator holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub epoch: CoordinatorEpoch,
    pub candidate: CandidateSeq,
    pub fence: Fence,
}

/// Queues, waits for its turn, and is elected. Goes on through lost connections and sessions.
/// `mine.nonce` must be new for each campaign. Cancelling it leaves the node in the queue: call
/// [`withdraw`].
///
/// # Errors
/// The registry is closed, or data is not ours or newer.
pub async fn campaign(registry: &dyn Registry, mine: &CoordinatorCandidate) -> Result<Term, RecipeError> {
    let mut watch: Option<Watch> = None;
    loop {
        if watch.is_none() {
            watch = match registry.watch(ROOT, true).await {
                Ok(watch) => Some(watch),
                Err(RegistryError::Closed) => return Err(RegistryError::Closed.into()),
                Err(_) => None,
            };
        }
        match step(registry, mine).await {
            Ok(Step::Elected(term)) => return Ok(term),
            Ok(Step::Wait) => {
                if let Some(watch) = &mut watch
                    && let Ok(None) = timeout(REREAD, watch.next()).await
                {
                    return Err(RegistryError::Closed.into());
                }
            }
            Ok(Step::Again) => {}
            Err(RecipeError::Registry(RegistryError::Unknown(_) | RegistryError::SessionExpired)) => sleep(RETRY).await,
            Err(error) => return Err(error),
        }
    }
}

enum Step {
    Elected(Term),
    /// Somebody is before us.
    Wait,
    /// Something changed meanwhile.
    Again,
}

async fn step(registry: &dyn Registry, mine: &CoordinatorCandidate) -> Result<Step, RecipeError> {
    let queue = queue(registry).await?;
    let Some(own) = find_own(registry, mine, &queue).await?.leave_only_current(registry).await? else {
        // After a lost answer the node is found by its nonce in the next step.
        registry.create(CANDIDATE_PREFIX, mine.encode(), CreateMode::EphemeralSequential).await?;
        return Ok(Step::Again);
    };
    if queue.first() != Some(&own) {
        return Ok(Step::Wait);
    }
    let (data, stat) = registry.get(EPOCH_PATH).await?;
    let epoch = CoordinatorEpoch(CoordinatorTerm::decode(&data)?.epoch.0.saturating_add(1));
    let ops = vec![
        Op::Check { path: path_of(own), version: None },
        Op::Set {
            path: EPOCH_PATH.to_owned(),
            data: CoordinatorTerm { epoch, candidate: own }.encode(),
            version: Some(stat.version),
        },
    ];
    match registry.multi(ops).await {
        Ok(results) => {
            let version = results.iter().find_map(|result| match result {
                OpResult::Set { version } => Some(*version),
                _ => None,
            });
            let fence = Fence::new(version.unwrap_or(stat.version + 1));
            Ok(Step::Elected(Term { epoch, candidate: own, fence }))
        }
        Err(error) if error.index.is_some() => Ok(Step::Again),
        // If it happened, the next step raises the epoch once more: harmless.
        Err(error) => Err(error.into()),
    }
}

async fn queue(registry: &dyn Registry) -> Result<Vec<CandidateSeq>, RecipeError> {
    let names = registry.children(ROOT).await?;
    let mut queue: Vec<CandidateSeq> = names.iter().filter_map(|name| candidate::sequence_of(name)).collect();
    queue.sort_unstable();
    Ok(queue)
}

/// The nodes of this coordinator in the queue.
#[derive(Default)]
struct Own {
    current: Option<CandidateSeq>,
    /// Of campaigns that could not withdraw: they would stand before everybody, this
    /// coordinator included, for as long as the session lives.
    earlier: Vec<CandidateSeq>,
}

impl Own {
    async fn leave_only_current(self, registry: &dyn Registry) -> Result<Option<CandidateSeq>, RecipeError> {
        for sequence in self.earlier {
            delete(registry, sequence).await?;
        }
        Ok(self.current)
    }
}

async fn find_own(
    registry: &dyn Registry,
    mine: &CoordinatorCandidate,
    queue: &[CandidateSeq],
) -> Result<Own, RecipeError> {
    let mut own = Own::default();
    for sequence in queue {
        match registry.get(&path_of(*sequence)).await {
            Ok((_, stat)) if registry.session_id() != Some(stat.ephemeral_owner) => {}
            Ok((data, _)) => match CoordinatorCandidate::decode(&data) {
                Ok(found) if found == *mine && own.current.is_none() => own.current = Some(*sequence),
                // A session that several coordinators share tells them apart by their names.
                Ok(found) if found.name == mine.name && (&found.host, found.port) == (&mine.host, mine.port) => {
                    own.earlier.push(*sequence);
                }
                Ok(_) | Err(_) => {}
            },
            Err(RegistryError::NoNode(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(own)
}

async fn delete(registry: &dyn Registry, sequence: CandidateSeq) -> Result<(), RecipeError> {
    match registry.delete(&path_of(sequence), None).await {
        Ok(()) | Err(RegistryError::NoNode(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The path of a coordinator's candidate.
#[must_use]
pub fn path_of(sequence: CandidateSeq) -> String {
    format!("{CANDIDATE_PREFIX}{:010}", sequence.0)
}

/// Waits until the term is certainly over: somebody else was elected, or the candidate node is
/// gone, or the registry is closed. (While ZooKeeper is away nothing is certain, and no fenced
/// write can succeed.)
pub async fn lost(registry: &dyn Registry, term: &Term) {
    let mut watch: Option<Watch> = None;
    loop {
        match still_elected(registry, term).await {
            Ok(true) => {}
            Ok(false) | Err(RegistryError::Closed) => return,
            Err(_) => {
                sleep(RETRY).await;
                continue;
            }
        }
        match &mut watch {
            Some(watch) => {
                if let Ok(None) = timeout(REREAD, watch.next()).await {
                    return;
                }
            }
            None => match registry.watch(ROOT, true).await {
                Ok(made) => watch = Some(made),
                Err(_) => sleep(RETRY).await,
            },
        }
    }
}

async fn still_elected(registry: &dyn Registry, term: &Term) -> Result<bool, RegistryError> {
    let epoch = registry.exists(EPOCH_PATH).await?;
    let own = registry.exists(&path_of(term.candidate)).await?;
    Ok(own.is_some() && epoch.is_some_and(|stat| stat.version == term.fence.version))
}

/// Leaves the queue, elected or not.
///
/// # Errors
/// The registry's.
pub async fn withdraw(registry: &dyn Registry, mine: &CoordinatorCandidate) -> Result<(), RecipeError> {
    let queue = queue(registry).await?;
    match find_own(registry, mine, &queue).await?.leave_only_current(registry).await? {
        Some(own) => delete(registry, own).await,
        None => Ok(()),
    }
}

/// The elected coordinator, if it lives: where brokers forward admin calls to.
///
/// # Errors
/// The registry's, or data that is not ours or newer.
pub async fn current(registry: &dyn Registry) -> Result<Option<(CoordinatorTerm, CoordinatorCandidate)>, RecipeError> {
    let (data, _) = registry.get(EPOCH_PATH).await?;
    let term = CoordinatorTerm::decode(&data)?;
    if term.epoch.0 == 0 {
        return Ok(None);
    }
    match registry.get(&path_of(term.candidate)).await {
        Ok((data, _)) => Ok(Some((term, CoordinatorCandidate::decode(&data)?))),
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a path below [`ROOT`] can change the answer of [`current`].
#[must_use]
pub fn concerns(path: &str) -> bool {
    path == EPOCH_PATH || candidate::sequence_of(name_of(path)).is_some()
}
