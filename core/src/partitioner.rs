//! Which partition a record goes to.
//!
//! With a key it is Kafka's default: a client of either protocol puts the same key into the
//! same partition. Without one, producers stick to a partition for a batch (KIP-480).

use std::num::NonZeroU32;

/// The partition of a key: murmur2 without its sign bit, modulo the number of partitions.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: NonZeroU32) -> u32 {
    (murmur2(key) & (i32::MAX as u32)) % partitions
}

/// The partition for the next batch of records without a key, which differs from the one of
/// the last batch if there is a choice. Only `available` partitions (those with a leader) are
/// chosen; if there are none, any of all, for the leader may be there when it is sent.
#[must_use]
pub fn sticky_partition(random: u32, last: Option<u32>, available: &[u32], partitions: NonZeroU32) -> u32 {
    let among = |count: usize| random as usize % count.max(1);
    match (available, last) {
        ([], _) => random % partitions,
        ([only], _) => *only,
        (_, Some(last)) if available.contains(&last) => {
            let index = among(available.len() - 1);
            let others = available.iter().filter(|&&partition| partition != last);
            others.copied().nth(index).unwrap_or(last)
        }
        _ => available[among(available.len())],
    }
}

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// MurmurHash 2 by Austin Appleby, 32 bits, with the seed that Kafka's clients use; Java shows
/// the same bits as a signed number.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    // Java counts lengths in 32 bits as well.
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        let word = (word ^ (word >> SHIFT)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev();
        hash ^= rest.fold(0, |sum, &byte| (sum << 8) | u32::from(byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(partitions: u32) -> NonZeroU32 {
        NonZeroU32::new(partitions).unwrap()
    }

    /// What `org.apache.kafka.common.utils.Utils.murmur2` of kafka-clients 3.9.1 returns, and
    /// the partition out of 12.
    #[test]
    fn keys_go_where_the_java_client_puts_them() {
        let long = b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8";
        let cases: [(&[u8], i32, u32); 7] = [
            (b"", 275_646_681, 9),
            (b"21", -973_932_308, 0),
            (b"foobar", -790_332_482, 6),
            (b"a-little-bit-long-string", -985_981_536, 8),
            (b"a-little-bit-longer-string", -1_486_304_829, 11),
            (long, -58_897_971, 5),
            (b"abc", 479_470_107, 3),
        ];
        for (key, hash, partition) in cases {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
            assert_eq!(partition_for_key(key, count(12)), partition, "{key:?}");
        }
        let high_bytes = [0xff, 0xfe, 0x80, 0x01, 0xfd];
        assert_eq!(murmur2(&high_bytes) as i32, 1_651_672_185);
    }

    #[test]
    fn a_single_available_partition_is_kept() {
        assert_eq!(sticky_partition(7, Some(3), &[3], count(8)), 3);
        assert_eq!(sticky_partition(7, None, &[], count(8)), 7);
    }

    proptest! {
        #[test]
        fn keys_stay_in_range(key: Vec<u8>, partitions in 1..u32::MAX) {
            prop_assert!(partition_for_key(&key, count(partitions)) < partitions);
        }

        #[test]
        fn sticky_choices_are_available_and_change(
            random: u32, last in prop::option::of(0..12_u32),
            available in prop::collection::btree_set(0..12_u32, 0..12),
        ) {
            let available: Vec<_> = available.into_iter().collect();
            let chosen = sticky_partition(random, last, &available, count(12));
            prop_assert!(chosen < 12);
            prop_assert!(available.is_empty() || available.contains(&chosen));
            prop_assert!(available.len() < 2 || Some(chosen) != last);
        }

        #[test]
        fn sticky_choices_reach_every_available_partition(last in prop::option::of(0..6_u32)) {
            let available = [0, 2, 3, 5];
            for wanted in available.into_iter().filter(|p| Some(*p) != last) {
                let reached = (0..12).any(|r| {
                    sticky_partition(r, last, &available, count(6)) == wanted
                });
                prop_assert!(reached);
            }
        }
    }
}
