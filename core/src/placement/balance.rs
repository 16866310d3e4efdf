//! The last step of a plan: copies move from the fullest brokers to the emptiest.

use std::collections::VecDeque;

use super::Planner;

/// Which broker could hand a follower of the topic to which other.
struct Handovers {
    brokers: usize,
    possible: Vec<bool>,
}

impl Handovers {
    fn takers(&self, from: usize) -> impl Iterator<Item = usize> {
        let row = &self.possible[from * self.brokers..][..self.brokers];
        row.iter().enumerate().filter(|(_, possible)| **possible).map(|(to, _)| to)
    }
}

impl Planner {
    /// Hands followers on until no broker holds two copies of the topic more than another,
    /// as far as racks and room allow. Leaders stay: they are even from the start.
    pub(super) fn even_out(&mut self, placed: &mut [Vec<usize>]) {
        let copies: usize = placed.iter().map(Vec::len).sum();
        for _ in 0..copies {
            if !self.hand_on(placed) {
                return;
            }
        }
    }

    /// Brings one copy from a fuller broker to an emptier one, through others if it has to be:
    /// the emptier may already hold a copy of whatever the fuller follows.
    fn hand_on(&mut self, placed: &mut [Vec<usize>]) -> bool {
        let copies = |index: &usize| self.slots[*index].topic_copies;
        let all = 0..self.slots.len();
        let Some(least) = all.clone().map(|index| copies(&index)).min() else {
            return false;
        };
        let mut fuller: Vec<_> = all.filter(|index| copies(index) >= least + 2).collect();
        if fuller.is_empty() {
            return false;
        }
        fuller.sort_by_key(|index| (u32::MAX - copies(index), self.slots[*index].rank));
        let handovers = self.handovers(placed);
        let path = fuller.into_iter().find_map(|from| self.shortest_path(from, &handovers));
        let Some(path) = path else {
            return false;
        };
        // From the far end, so that nobody holds more than before in between.
        path.windows(2).rev().all(|step| self.move_follower(step[0], step[1], placed))
    }

    fn handovers(&self, placed: &[Vec<usize>]) -> Handovers {
        let brokers = self.slots.len();
        let mut possible = vec![false; brokers * brokers];
        for replicas in placed {
            for (place, from) in replicas.iter().enumerate().skip(1) {
                for to in 0..brokers {
                    if !possible[from * brokers + to] && self.fits(replicas, place, to) {
                        possible[from * brokers + to] = true;
                    }
                }
            }
        }
        Handovers { brokers, possible }
    }

    /// The brokers from `from` to one with room and two copies fewer, if one can be reached.
    fn shortest_path(&self, from: usize, handovers: &Handovers) -> Option<Vec<usize>> {
        let full = self.slots[from].topic_copies;
        let mut before = vec![None; handovers.brokers];
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            let slot = &self.slots[at];
            if slot.topic_copies + 2 <= full && self.has_room(slot) {
                let mut path: Vec<_> = std::iter::successors(Some(at), |index| before[*index]).collect();
                path.reverse();
                return Some(path);
            }
            for to in handovers.takers(at) {
                if to != from && before[to].is_none() {
                    before[to] = Some(at);
                    queue.push_back(to);
                }
            }
        }
        None
    }

    fn move_follower(&mut self, from: usize, to: usize, placed: &mut [Vec<usize>]) -> bool {
        let found = placed.iter().enumerate().find_map(|(partition, replicas)| {
            let place = replicas.iter().skip(1).position(|index| *index == from)? + 1;
            self.fits(replicas, place, to).then_some((partition, place))
        });
        let Some((partition, place)) = found else {
            return false;
        };
        placed[partition][place] = to;
        let (leader, count) = (placed[partition][0], self.slots.len());
        self.shared[leader * count + from] -= 1;
        self.shared[leader * count + to] += 1;
        let giver = &mut self.slots[from];
        giver.copies -= 1;
        giver.topic_copies -= 1;
        let taker = &mut self.slots[to];
        taker.copies += 1;
        taker.topic_copies += 1;
        true
    }

    /// Whether `to` may stand at `place`: it holds no copy, and shares its rack with no more
    /// of the others than the replica there does.
    fn fits(&self, replicas: &[usize], place: usize, to: usize) -> bool {
        let sharing = |index: usize| {
            let rack = self.slots[index].rack;
            let others = replicas.iter().enumerate().filter(|(at, _)| *at != place);
            others.filter(|(_, other)| self.slots[**other].rack == rack).count()
        };
        !replicas.contains(&to) && sharing(to) <= sharing(replicas[place])
    }
}
