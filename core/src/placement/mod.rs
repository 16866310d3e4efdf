//! Which brokers hold the copies of a partition, and which of them should lead.
//!
//! The planner is pure: brokers, loads and a seed in, a plan out. Within a new topic the copies
//! and the preferred leaders (the first of each list) differ by at most one between equal
//! brokers; what is left over goes to the brokers that hold least of other topics. Partitions
//! that are added later continue the spread; as those that are there stay, the copies may then
//! differ by two. No two copies of a partition are on one broker, and they are on as many
//! racks as there are.
//! Leaders share their followers with every other broker evenly, so that the load of a dead
//! one spreads over all.

mod balance;
mod rehome;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use rehome::{Move, NoHome, Rehomed, rehome};

use crate::error::{Error, ErrorCode};
use crate::ids::BrokerId;

/// A live broker, and what it holds of all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerLoad {
    pub id: BrokerId,
    /// What fails together. A broker without one is taken for a rack of its own.
    pub rack: Option<String>,
    /// Copies of partitions, each of which is a candidate node in ZooKeeper.
    pub copies: u32,
    /// Partitions whose preferred leader it is.
    pub leaders: u32,
}

/// What may be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementLimits {
    /// Copies per broker. Each is an ephemeral node, and too many of them in one session take
    /// the whole ensemble down (ZOOKEEPER-4306).
    pub copies_per_broker_max: u32,
}

/// Why partitions cannot be placed; nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("a partition needs at least one replica")]
    NoReplicas,
    #[error("{replication} replicas need {replication} brokers, and {live} are alive")]
    TooFewBrokers { replication: u32, live: u32 },
    #[error(
        "partition {partition} needs {replication} brokers with room, and {with_room} have \
         fewer than {max} copies"
    )]
    NoRoom { partition: u32, replication: u32, with_room: u32, max: u32 },
}

impl PlacementError {
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoReplicas | Self::TooFewBrokers { .. } => ErrorCode::InvalidReplication,
            Self::NoRoom { .. } => ErrorCode::PolicyViolation,
        }
    }
}

impl From<PlacementError> for Error {
    fn from(error: PlacementError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The replicas of one partition, the preferred leader first.
pub type Replicas = Vec<BrokerId>;

/// The partitions of a topic that names no number.
pub const PARTITIONS_DEFAULT: u32 = 1;

/// The replicas of a topic that names no number, with so many live brokers.
#[must_use]
pub fn replication_default(live: u32) -> u32 {
    const MOST: u32 = 3;
    MOST.min(live).max(1)
}

/// Places `count` partitions of a topic that has the partitions `existing`, none if it is new,
/// and returns the added ones. `seed` says where to start, so that topics differ.
///
/// # Errors
/// There are too few brokers, or too few with room.
pub fn place(
    brokers: &[BrokerLoad],
    existing: &[Replicas],
    count: u32,
    replication: u32,
    limits: PlacementLimits,
    seed: u64,
) -> Result<Vec<Replicas>, PlacementError> {
    if replication == 0 {
        return Err(PlacementError::NoReplicas);
    }
    let mut planner = Planner::new(brokers, limits, seed);
    let live = planner.slots.len() as u32;
    if replication > live {
        return Err(PlacementError::TooFewBrokers { replication, live });
    }
    for replicas in existing {
        planner.count_existing(replicas);
    }
    let mut placed = Vec::new();
    for added in 0..count {
        let with_room = planner.slots.iter().filter(|s| planner.has_room(s)).count() as u32;
        if with_room < replication {
            let partition = (existing.len() as u32).saturating_add(added);
            let max = limits.copies_per_broker_max;
            return Err(PlacementError::NoRoom { partition, replication, with_room, max });
        }
        placed.push(planner.place_one(replication));
    }
    planner.even_out(&mut placed);
    let ids = |indexes: Vec<usize>| indexes.into_iter().map(|i| planner.slots[i].id);
    Ok(placed.into_iter().map(|p| ids(p).collect()).collect())
}

/// One live broker while a plan is made.
#[derive(Clone, Debug)]
struct Slot {
    id: BrokerId,
    rack: usize,
    /// Of all topics.
    copies: u32,
    leaders: u32,
    /// Of the topic that is placed.
    topic_copies: u32,
    topic_leaders: u32,
    /// Breaks ties: the place in the ring of brokers, counted from where the seed starts.
    rank: usize,
}

struct Planner {
    /// In the order of their ids.
    slots: Vec<Slot>,
    limits: PlacementLimits,
    /// How often a broker follows another's leadership in this topic: leader × slots + follower.
    shared: Vec<u32>,
}

impl Planner {
    fn new(brokers: &[BrokerLoad], limits: PlacementLimits, seed: u64) -> Self {
        let by_id: BTreeMap<_, _> = brokers.iter().map(|b| (b.id, b)).collect();
        let count = by_id.len();
        // The count of brokers fits into 32 bits.
        let start = (seed % count.max(1) as u64) as usize;
        let mut racks = BTreeMap::new();
        let slots: Vec<_> = by_id
            .into_values()
            .enumerate()
            .map(|(index, broker)| {
                let alone = broker.rack.is_none().then_some(broker.id);
                let next = racks.len();
                Slot {
                    id: broker.id,
                    rack: *racks.entry((&broker.rack, alone)).or_insert(next),
                    copies: broker.copies,
                    leaders: broker.leaders,
                    topic_copies: 0,
                    topic_leaders: 0,
                    rank: (index + count - start) % count,
                }
            })
            .collect();
        let shared = vec![0; count * count];
        Self { slots, limits, shared }
    }

    fn has_room(&self, slot: &Slot) -> bool {
        slot.copies < self.limits.copies_per_broker_max
    }

    fn index_of(&self, id: BrokerId) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }

    /// Notes what a broker holds of the topic already. It is in the loads of all topics, and
    /// brokers that are not alive are not counted.
    fn count_existing(&mut self, replicas: &[BrokerId]) {
        let live: Vec<_> = replicas.iter().map(|id| self.index_of(*id)).collect();
        for index in live.iter().flatten() {
            self.slots[*index].topic_copies += 1;
        }
        if let Some(&Some(leader)) = live.first() {
            self.slots[leader].topic_leaders += 1;
            for follower in live[1..].iter().flatten() {
                self.shared[leader * self.slots.len() + follower] += 1;
            }
        }
    }

    /// Places one partition; enough brokers have room.
    fn place_one(&mut self, replication: u32) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::with_capacity(replication as usize);
        while chosen.len() < replication as usize {
            let next = self
                .slots
                .iter()
                .enumerate()
                .filter(|(index, slot)| self.has_room(slot) && !chosen.contains(index))
                .min_by_key(|(index, slot)| match chosen.first() {
                    None => self.leader_rank(slot),
                    Some(leader) => self.follower_rank(*leader, *index, &chosen),
                })
                .map(|(index, _)| index);
            // The caller has counted the brokers with room.
            let Some(next) = next else { break };
            self.take(next, chosen.first().copied());
            chosen.push(next);
        }
        chosen
    }

    fn take(&mut self, index: usize, leader: Option<usize>) {
        let count = self.slots.len();
        let slot = &mut self.slots[index];
        slot.copies += 1;
        slot.topic_copies += 1;
        match leader {
            Some(leader) => self.shared[leader * count + index] += 1,
            None => {
                slot.leaders += 1;
                slot.topic_leaders += 1;
            }
        }
    }

    /// The smallest is the next preferred leader.
    fn leader_rank(&self, slot: &Slot) -> [u64; 5] {
        let &Slot { topic_leaders, topic_copies, leaders, copies, rank, .. } = slot;
        let rank = rank as u64;
        [topic_leaders.into(), topic_copies.into(), leaders.into(), copies.into(), rank]
    }

    /// The smallest is the next follower of `leader`. Racks come first; among brokers with
    /// equally many copies, the one that has followed this leader least.
    fn follower_rank(&self, leader: usize, index: usize, chosen: &[usize]) -> [u64; 5] {
        let slot = &self.slots[index];
        let shared = self.shared[leader * self.slots.len() + index];
        [
            self.rack_use(slot.rack, chosen),
            slot.topic_copies.into(),
            shared.into(),
            slot.copies.into(),
            slot.rank as u64,
        ]
    }

    /// How many of the chosen are on this rack.
    fn rack_use(&self, rack: usize, chosen: &[usize]) -> u64 {
        let same = |index: &&usize| self.slots[**index].rack == rack;
        chosen.iter().filter(same).count() as u64
    }
}
