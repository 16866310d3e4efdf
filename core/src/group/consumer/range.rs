//! Kafka's range strategy: of each topic every member gets a row of neighbouring partitions.
//! Topics with equally many partitions are divided alike, so that records with one key of
//! several topics meet at one member.

use std::collections::BTreeMap;

use super::codec::Partitions;

/// Its name among the protocols of a group.
pub const NAME: &str = "range";

/// A member that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub member: String,
    /// A static member keeps its place in the order whatever its id is.
    pub instance: Option<String>,
    pub topics: Vec<String>,
}

/// Who reads what, by member id. Topics that are not in `partitions` are given to nobody.
#[must_use]
pub fn divide(candidates: &[Candidate], partitions: &BTreeMap<String, u32>) -> BTreeMap<String, Partitions> {
    let mut given: BTreeMap<String, Partitions> =
        candidates.iter().map(|candidate| (candidate.member.clone(), Partitions::new())).collect();
    for (topic, count) in partitions {
        let mut readers: Vec<_> = candidates.iter().filter(|c| c.topics.contains(topic)).collect();
        readers.sort_by_key(|reader| (reader.instance.is_none(), reader.instance.as_ref(), &reader.member));
        let Ok(members) = u32::try_from(readers.len()) else { continue };
        let (Some(each), Some(more)) = (count.checked_div(members), count.checked_rem(members)) else { continue };
        let mut next = 0;
        for (index, reader) in (0_u32..).zip(readers) {
            let end = next + each + u32::from(index < more);
            if end > next
                && let Some(parts) = given.get_mut(&reader.member)
            {
                parts.insert(topic.clone(), (next..end).collect());
            }
            next = end;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(member: &str, instance: Option<&str>, topics: &[&str]) -> Candidate {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Candidate { member: member.to_owned(), instance: instance.map(str::to_owned), topics }
    }

    fn counts(counts: &[(&str, u32)]) -> BTreeMap<String, u32> {
        counts.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect()
    }

    #[test]
    fn neighbours_stay_together_and_the_first_get_one_more() {
        let candidates = [candidate("b", None, &["t", "u"]), candidate("a", None, &["t"])];
        let given = divide(&candidates, &counts(&[("t", 3), ("u", 2), ("unread", 4)]));
        assert_eq!(given["a"], Partitions::from([("t".to_owned(), vec![0, 1])]));
        assert_eq!(given["b"], Partitions::from([("t".to_owned(), vec![2]), ("u".to_owned(), vec![0, 1])]));
    }

    #[test]
    fn static_members_come_first_by_their_names() {
        let candidates = [candidate("a", None, &["t"]), candidate("z", Some("one"), &["t"])];
        let given = divide(&candidates, &counts(&[("t", 1)]));
        assert_eq!(given["z"], Partitions::from([("t".to_owned(), vec![0])]));
        assert_eq!(given["a"], Partitions::new());
    }

    proptest! {
        #[test]
        fn every_partition_is_read_once(members in 1..9_usize, count in 0..40_u32) {
            let candidates: Vec<_> = (0..members).map(|n| candidate(&n.to_string(), None, &["t"])).collect();
            let given = divide(&candidates, &counts(&[("t", count)]));
            let mut all: Vec<u32> = given.values().flat_map(|parts| parts.values().flatten().copied()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            let sizes: Vec<_> = given.values().map(|parts| parts.values().flatten().count()).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
