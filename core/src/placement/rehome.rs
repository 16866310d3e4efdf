//! New homes for the copies of brokers that stay away.

use std::collections::BTreeSet;

use super::{BrokerLoad, PlacementLimits, Planner, Replicas};
use crate::ids::BrokerId;
use crate::partition::Assignment;

/// A copy that gets a new home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: BrokerId,
    pub to: BrokerId,
}

/// Why a copy stays assigned to a broker that is away: each live broker holds a copy of the
/// partition already, or is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no home for the copy of broker {absent}: of {live} live brokers, {holding} hold a copy of \
     the partition, and {full} have no room for another"
)]
pub struct NoHome {
    pub absent: BrokerId,
    pub live: u32,
    pub holding: u32,
    pub full: u32,
}

/// What becomes of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehomed {
    /// Where its copies are to be; a new home stands at the place of the old one.
    pub replicas: Replicas,
    /// The copies that move; none if nothing has to or can.
    pub moves: Vec<Move>,
    /// The copies that would move if there were room.
    pub stuck: Vec<NoHome>,
}

impl Rehomed {
    /// The assignment while copies are on their way, none if none move.
    #[must_use]
    pub fn assignment(&self) -> Option<Assignment> {
        let removing: Vec<_> = self.moves.iter().map(|m| m.from).collect();
        let replicas = self.replicas.iter().chain(&removing).copied().collect();
        (!self.moves.is_empty()).then(|| Assignment {
            replicas,
            adding: self.moves.iter().map(|m| m.to).collect(),
            removing,
        })
    }
}

/// Finds new homes on live brokers for the copies that the `absent` ones hold of `partitions`,
/// and moves nothing else: on a rack that the partition is not on, if there is one, and there
/// on the broker with the fewest copies. `brokers` are the live ones that may take copies;
/// their loads include these partitions. The result has one entry per partition.
#[must_use]
pub fn rehome(
    partitions: &[Replicas],
    absent: &BTreeSet<BrokerId>,
    brokers: &[BrokerLoad],
    limits: PlacementLimits,
    seed: u64,
) -> Vec<Rehomed> {
    let live: Vec<_> = brokers.iter().filter(|broker| !absent.contains(&broker.id)).cloned().collect();
    let mut planner = Planner::new(&live, limits, seed);
    partitions.iter().map(|replicas| planner.rehome_one(replicas, absent)).collect()
}

impl Planner {
    fn rehome_one(&mut self, replicas: &[BrokerId], absent: &BTreeSet<BrokerId>) -> Rehomed {
        let mut result = Rehomed { replicas: replicas.to_vec(), ..Rehomed::default() };
        for (place, from) in replicas.iter().copied().enumerate() {
            if !absent.contains(&from) {
                continue;
            }
            match self.new_home(&result.replicas, place) {
                Some(index) => {
                    let to = self.settle(index, place);
                    result.replicas[place] = to;
                    result.moves.push(Move { from, to });
                }
                None => result.stuck.push(self.why_none(from, &result.replicas)),
            }
        }
        result
    }

    /// The best broker for one more copy of a partition.
    fn new_home(&self, replicas: &[BrokerId], place: usize) -> Option<usize> {
        let holding: Vec<_> = replicas.iter().filter_map(|id| self.index_of(*id)).collect();
        self.slots
            .iter()
            .enumerate()
            .filter(|(index, slot)| self.has_room(slot) && !holding.contains(index))
            .min_by_key(|(_, slot)| {
                let leaders = if place == 0 { slot.leaders } else { 0 };
                let racks = self.rack_use(slot.rack, &holding);
                (racks, slot.copies, leaders, slot.rank)
            })
            .map(|(index, _)| index)
    }

    fn settle(&mut self, index: usize, place: usize) -> BrokerId {
        let slot = &mut self.slots[index];
        slot.copies += 1;
        if place == 0 {
            slot.leaders += 1;
        }
        slot.id
    }

    fn why_none(&self, absent: BrokerId, replicas: &[BrokerId]) -> NoHome {
        let holds = |id: BrokerId| replicas.contains(&id);
        let holding = self.slots.iter().filter(|slot| holds(slot.id)).count();
        let full = |slot: &&super::Slot| !holds(slot.id) && !self.has_room(slot);
        NoHome {
            absent,
            live: self.slots.len() as u32,
            holding: holding as u32,
            full: self.slots.iter().filter(full).count() as u32,
        }
    }
}
