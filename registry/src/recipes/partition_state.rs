//! Guarded, versioned writes of partitions' states.
//!
//! Every write sets the state only if its version is the one that was read, and only if its
//! guards hold: one's own candidate node still exists, the follower to be added is registered as
//! it was, the coordinator is still the elected one. All in one transaction.

use baton_core::ids::{BrokerId, CandidateSeq, TopicPartition};
use baton_core::partition::{PartitionState, VersionedState};
use futures::future::join_all;

use super::{Fence, RecipeError};
use crate::api::{MultiError, Op, OpResult, Registry, RegistryError};
use crate::znode::{Znode, broker, candidate, partition};

/// Writes of one transaction.
const BATCH_MAX: usize = 50;
/// Data of one transaction: far below what a request may be.
const BATCH_BYTES_MAX: usize = 128 * 1024;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// This candidate of the partition still exists.
    Candidate(CandidateSeq),
    /// This broker is registered, and the registration is of this version.
    Broker { broker: BrokerId, version: i32 },
    /// The coordinator is still the elected one.
    Coordinator(Fence),
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    pub partition: TopicPartition,
    /// The version of the state that the new one was made from.
    pub version: i32,
    pub state: PartitionState,
    pub guards: Vec<Guard>,
}

impl StateWrite {
    /// Elect: the candidate `mine` takes over. `state` is [`PartitionState::elected`].
    #[must_use]
    pub fn elect(partition: TopicPartition, version: i32, state: PartitionState, mine: CandidateSeq) -> Self {
        Self { partition, version, state, guards: vec![Guard::Candidate(mine)] }
    }

    /// Change the ISR, by the leader. `added` are the brokers that join, with the version of the
    /// registration that was seen not to be draining.
    #[must_use]
    pub fn change_isr(
        partition: TopicPartition,
        version: i32,
        state: PartitionState,
        added: &[(BrokerId, i32)],
    ) -> Self {
        let guard = |(broker, version): &(BrokerId, i32)| Guard::Broker { broker: *broker, version: *version };
        Self { partition, version, state, guards: added.iter().map(guard).collect() }
    }

    /// Resign, by the leader, towards the candidate `to` of another replica.
    #[must_use]
    pub fn resign(partition: TopicPartition, version: i32, state: PartitionState, to: CandidateSeq) -> Self {
        Self { partition, version, state, guards: vec![Guard::Candidate(to)] }
    }

    /// Any write of the coordinator: Reassign, Unclean.
    #[must_use]
    pub fn coordinate(partition: TopicPartition, version: i32, state: PartitionState, fence: Fence) -> Self {
        let version = fence.state_version(version);
        Self { partition, version, state, guards: vec![Guard::Coordinator(fence)] }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written; the state has this version now.
    Done { version: i32 },
    /// Somebody wrote before: read again.
    Conflict,
    /// The partition does not exist. Only a tombstone says that it was deleted.
    Missing,
    /// The candidate that had to exist is gone.
    CandidateGone,
    /// The broker to be added is gone, or its registration changed (it may be draining).
    BrokerChanged,
    /// Another coordinator was elected.
    Fenced,
    /// It may have happened: sync, read again, decide from what is there.
    Unknown,
    /// It did not happen, for a reason that reading again does not cure.
    Failed(RegistryError),
}

/// Reads a state; none when the node does not exist (which never means "deleted" by itself).
///
/// # Errors
/// The registry's, or data that is truncated, newer, or not ours.
pub async fn read(registry: &dyn Registry, partition: TopicPartition) -> Result<Option<VersionedState>, RecipeError> {
    match registry.get(&partition::path(partition)).await {
        Ok((data, stat)) => {
            let state = PartitionState::decode(&data)?;
            Ok(Some(VersionedState { state, version: stat.version }))
        }
        Err(RegistryError::NoNode(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads after everything that was written before this call: for unknown outcomes.
///
/// # Errors
/// As [`read`].
pub async fn read_synced(
    registry: &dyn Registry,
    partition: TopicPartition,
) -> Result<Option<VersionedState>, RecipeError> {
    let path = partition::path(partition);
    let synced = registry.sync(&path);
    let state = read(registry, partition);
    synced.await?;
    state.await
}

/// Many states in one go, in the order asked for.
pub async fn read_many(
    registry: &dyn Registry,
    partitions: &[TopicPartition],
) -> Vec<Result<Option<VersionedState>, RecipeError>> {
    join_all(partitions.iter().map(|partition| read(registry, *partition))).await
}

/// One write.
pub async fn write(registry: &dyn Registry, write: &StateWrite) -> Outcome {
    let batch = Batch::of([write]);
    match registry.multi(batch.ops.clone()).await {
        Ok(results) => batch.versions(&results).into_iter().next().unwrap_or(Outcome::Unknown),
        Err(error) => batch.failure(&error),
    }
}

/// Many writes, each for itself, in the order given: transactions of up to 50, all under way at
/// once. When one write of a transaction is refused, its writes are tried again one by one.
pub async fn write_many(registry: &dyn Registry, writes: &[StateWrite]) -> Vec<Outcome> {
    let batches = split(writes);
    // Sent here, before anything is awaited.
    let sent: Vec<_> = batches.iter().map(|batch| registry.multi(batch.ops.clone())).collect();
    let mut outcomes = Vec::with_capacity(writes.len());
    let mut rest = writes;
    for (batch, result) in batches.iter().zip(join_all(sent).await) {
        let (these, later) = rest.split_at(batch.writes);
        rest = later;
        match result {
            Ok(results) => outcomes.extend(batch.versions(&results)),
            Err(error) if error.index.is_some() && these.len() > 1 => {
                outcomes.extend(join_all(these.iter().map(|one| write(registry, one))).await);
            }
            Err(error) => {
                let outcome = batch.failure(&error);
                outcomes.extend(std::iter::repeat_n(outcome, these.len()));
            }
        }
    }
    outcomes
}

fn split(writes: &[StateWrite]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut current = Batch::default();
    for write in writes {
        if current.is_full() {
            batches.push(std::mem::take(&mut current));
        }
        current.add(write);
    }
    if current.writes > 0 {
        batches.push(current);
    }
    batches
}

/// What an operation of a transaction stands for.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    State,
    Candidate,
    Broker,
    Coordinator,
}

#[derive(Default)]
struct Batch {
    writes: usize,
    ops: Vec<Op>,
    meanings: Vec<Meaning>,
    bytes: usize,
}

impl Batch {
    fn of<'a>(writes: impl IntoIterator<Item = &'a StateWrite>) -> Self {
        let mut batch = Self::default();
        for write in writes {
            batch.add(write);
        }
        batch
    }

    fn is_full(&self) -> bool {
        self.writes >= BATCH_MAX || self.ops.len() >= 3 * BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn add(&mut self, write: &StateWrite) {
        for guard in &write.guards {
            let (op, meaning) = match *guard {
                Guard::Candidate(sequence) => {
                    let path = candidate::path(write.partition, sequence);
                    (Op::Check { path, version: None }, Meaning::Candidate)
                }
                Guard::Broker { broker, version } => {
                    let path = broker::path(broker);
                    (Op::Check { path, version: Some(version) }, Meaning::Broker)
                }
                Guard::Coordinator(fence) => (fence.op(), Meaning::Coordinator),
            };
            // Nothing within a transaction changes what a guard looks at: once is enough.
            if !self.ops.contains(&op) {
                self.push(op, meaning);
            }
        }
        let data = write.state.encode();
        self.bytes += data.len();
        let path = partition::path(write.partition);
        self.push(Op::Set { path, data, version: Some(write.version) }, Meaning::State);
        self.writes += 1;
    }

    fn push(&mut self, op: Op, meaning: Meaning) {
        self.ops.push(op);
        self.meanings.push(meaning);
    }

    fn versions(&self, results: &[OpResult]) -> Vec<Outcome> {
        let version = |result: &OpResult| match result {
            OpResult::Set { version } => Some(Outcome::Done { version: *version }),
            _ => None,
        };
        results.iter().filter_map(version).collect()
    }

    fn failure(&self, error: &MultiError) -> Outcome {
        let meaning = error.index.and_then(|index| self.meanings.get(index));
        match (meaning, &error.error) {
            (_, RegistryError::Unknown(_)) => Outcome::Unknown,
            (Some(Meaning::Candidate), RegistryError::NoNode(_)) => Outcome::CandidateGone,
            (Some(Meaning::Broker), RegistryError::NoNode(_) | RegistryError::BadVersion(_)) => Outcome::BrokerChanged,
            (Some(Meaning::Coordinator), RegistryError::NoNode(_) | RegistryError::BadVersion(_)) => Outcome::Fenced,
            (Some(Meaning::State), RegistryError::BadVersion(_)) => Outcome::Conflict,
            (Some(Meaning::State), RegistryError::NoNode(_)) => Outcome::Missing,
            (_, other) => Outcome::Failed(other.clone()),
        }
    }
}
