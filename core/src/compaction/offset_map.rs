//! Where each key was written last.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::ids::Offset;

/// The last offset of every key, by the key's 128-bit hash. Two keys with one hash would be
/// taken for one: with a seed that nobody outside knows, and ten million keys, that happens
/// once in 10²⁴ rounds.
#[derive(Clone, Debug)]
pub struct OffsetMap {
    seed: u64,
    capacity: usize,
    latest: HashMap<u128, Offset, BuildHasherDefault<Folded>>,
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(5) ^ u64::from_ne_bytes(word);
        }
    }
}

/// Memory of one key, with the room that the table leaves.
const KEY_BYTES: usize = 64;

impl OffsetMap {
    /// A map that takes about so much memory when it is full.
    #[must_use]
    pub fn new(bytes: usize, seed: u64) -> Self {
        Self { seed, capacity: (bytes / KEY_BYTES).max(1), latest: HashMap::default() }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.latest.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Whether so many more keys may be too many. One batch always fits into an empty map.
    #[must_use]
    pub fn is_full_with(&self, keys: usize) -> bool {
        !self.latest.is_empty() && self.latest.len() + keys > self.capacity
    }

    fn hash(&self, key: &[u8]) -> u128 {
        xxh3_128_with_seed(key, self.seed)
    }

    /// Offsets are noted in ascending order.
    pub fn note(&mut self, key: &[u8], offset: Offset) {
        let hash = self.hash(key);
        self.latest.insert(hash, offset);
    }

    #[must_use]
    pub fn last(&self, key: &[u8]) -> Option<Offset> {
        self.latest.get(&self.hash(key)).copied()
    }
}
