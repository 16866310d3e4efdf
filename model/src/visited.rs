//! What was visited: the fingerprint of each state, and how much of the limits was used up then.
//!
//! A state that was reached with less used up can do all that the same state can do with more:
//! the latter needs no visit. Eight bytes for a fingerprint, two for what was used.

use crate::state::Used;

/// So many slots to begin with; a power of two.
const SLOTS_MIN: usize = 1 << 16;

/// How often each event happened, four bits each: comparable at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spent(u64);

const HIGH_BITS: u64 = 0x8888_8888_8888_8888;

impl Spent {
    /// Writes and retries are part of the state itself: they number the records.
    #[must_use]
    pub fn of(used: &Used) -> Self {
        let counts = [
            used.isr_changes,
            used.crashes,
            used.expiries,
            used.disk_losses,
            used.damages,
            used.resigns,
            used.reassigns,
            used.uncleans,
            used.min_changes,
            used.resets,
            used.unknowns,
            used.isolations,
            used.full_disks,
        ];
        Self(counts.iter().fold(0, |all, count| all << 4 | u64::from((*count).min(7))))
    }

    /// Whether nothing happened more often than there.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        ((other.0 | HIGH_BITS) - self.0) & HIGH_BITS == HIGH_BITS
    }
}

/// A set of states by their fingerprints: open addressing, at most three quarters full.
#[derive(Debug)]
pub struct Visited {
    keys: Vec<u64>,
    /// By the number of the combination in `combinations`.
    spent: Vec<u16>,
    combinations: Vec<Spent>,
    count: usize,
    /// Whether a state with less used up stands for one with more.
    dominance: bool,
}

impl Visited {
    #[must_use]
    pub fn new(dominance: bool) -> Self {
        Self { keys: vec![0; SLOTS_MIN], spent: vec![0; SLOTS_MIN], combinations: Vec::new(), count: 0, dominance }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.len() * 10
    }

    fn combination(&mut self, spent: Spent) -> u16 {
        let known = self.combinations.iter().position(|c| *c == spent);
        let number = known.unwrap_or_else(|| {
            self.combinations.push(spent);
            self.combinations.len() - 1
        });
        u16::try_from(number).expect("fewer combinations than the product of small limits")
    }

    /// Whether the state is new, and was not reached with as little used up.
    pub fn insert(&mut self, core: u64, used: &Used) -> bool {
        let key = core.max(1);
        let spent = Spent::of(used);
        let mask = self.keys.len() - 1;
        let mut slot = key as usize & mask;
        while self.keys[slot] != 0 {
            if self.keys[slot] == key {
                let before = self.combinations[usize::from(self.spent[slot])];
                if before == spent || (self.dominance && before.is_within(spent)) {
                    return false;
                }
            }
            slot = (slot + 1) & mask;
        }
        self.keys[slot] = key;
        self.spent[slot] = self.combination(spent);
        self.count += 1;
        if self.count * 4 > self.keys.len() * 3 {
            self.grow();
        }
        true
    }

    fn grow(&mut self) {
        let size = self.keys.len() * 2;
        let keys = std::mem::replace(&mut self.keys, vec![0; size]);
        let spent = std::mem::replace(&mut self.spent, vec![0; size]);
        for (key, spent) in keys.into_iter().zip(spent).filter(|(key, _)| *key != 0) {
            let mut slot = key as usize & (size - 1);
            while self.keys[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.keys[slot] = key;
            self.spent[slot] = spent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_visited_again_only_with_less_used_up() {
        let used = |crashes, expiries| Used { crashes, expiries, ..Used::default() };
        let mut visited = Visited::new(true);
        assert!(visited.insert(5, &used(1, 1)));
        assert!(!visited.insert(5, &used(1, 1)));
        assert!(!visited.insert(5, &used(1, 2)));
        assert!(visited.insert(5, &used(2, 0)), "less of one and more of the other");
        assert!(visited.insert(5, &used(0, 0)));
        assert!(!visited.insert(5, &used(7, 7)));
        assert!(visited.insert(6, &used(7, 7)));
        assert_eq!(visited.len(), 4);
    }

    #[test]
    fn without_dominance_each_combination_counts() {
        let mut visited = Visited::new(false);
        assert!(visited.insert(5, &Used::default()));
        assert!(visited.insert(5, &Used { crashes: 1, ..Used::default() }));
        assert!(!visited.insert(5, &Used::default()));
    }

    #[test]
    fn nothing_is_forgotten_while_the_table_grows() {
        let mut visited = Visited::new(true);
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert!((1..200_000).all(|n| visited.insert(key(n), &Used::default())));
        assert!((1..200_000).all(|n| !visited.insert(key(n), &Used::default())));
    }
}
