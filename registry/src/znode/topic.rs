//! Topics: `/topics/{namespace}:{name}` → id, `/t` the next id, `/t/{id}` the topic itself.
//!
//! ```text
//! /topics/{namespace}:{name}   3  id        u32
//! /t                           3  next id   u32   an id is never reused
//! /t/{id}
//!  3  partitions   u32     how many there are once the intent is fulfilled
//!  7  intent       u8      0 none, 1 creating, 2 deleting, 3 growing
//!  8  namespace    text
//!     name         text
//!     config       count, then each: key, value (texts), sorted by key
//!     plan         only while creating or growing:
//!       first      u32     the first partition that the plan is for
//!       members    count, then each: u32 broker, u128 disk, u32 generation
//!       partitions count, then each: count, then an index into the members (LEB128) each
//! ```
//!
//! An intent is written before its work begins and cleared after its end: whoever coordinates
//! next finds it and finishes. The plan says where the new partitions go, so that the finisher
//! need not decide again.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::ids::{Member, TopicId};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const LINKS: &str = "/topics";
pub const ROOT: &str = "/t";

/// Where a topic's name points to its id. A name has no `:` and no `/`.
#[must_use]
pub fn link_path(namespace: &str, name: &str) -> String {
    format!("{LINKS}/{namespace}:{name}")
}

#[must_use]
pub fn path(topic: TopicId) -> String {
    format!("{ROOT}/{topic}")
}

/// The topic of a path below [`ROOT`]; none if it is not one.
#[must_use]
pub fn topic_of(path: &str) -> Option<TopicId> {
    path.strip_prefix(ROOT)?.strip_prefix('/')?.parse().ok()
}

/// The data of `/topics/{namespace}:{name}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLink {
    pub topic: TopicId,
}

impl Znode for TopicLink {
    const NAME: &'static str = "/topics/{name}";
    const KIND: u8 = b'L';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.topic.0);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { topic: TopicId(input.u32()?) })
    }
}

/// The data of `/t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicIds {
    pub next: TopicId,
}

impl Znode for TopicIds {
    const NAME: &'static str = ROOT;
    const KIND: u8 = b'i';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.next.0);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { next: TopicId(input.u32()?) })
    }
}

/// Where one new partition goes: the preferred leader first. All are in sync: it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedPartition {
    pub members: Vec<Member>,
}

/// What is being done to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Intent {
    #[default]
    None,
    /// All its partitions are to be created.
    Creating { plan: Vec<PlannedPartition> },
    /// Its partitions are to be removed, then the topic.
    Deleting,
    /// The partitions from `first` on are to be created.
    Growing { first: u32, plan: Vec<PlannedPartition> },
}

/// Far more than a coordinator makes. Readers look at each partition of a topic: a damaged count
/// must not keep them busy for ever.
pub const PARTITIONS_MAX: u32 = 100_000;

/// The data of `/t/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicNode {
    pub namespace: String,
    pub name: String,
    pub config: BTreeMap<String, String>,
    pub partitions: u32,
    pub intent: Intent,
}

impl Znode for TopicNode {
    const NAME: &'static str = "/t/{id}";
    const KIND: u8 = b'T';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.partitions);
        out.u8(match self.intent {
            Intent::None => 0,
            Intent::Creating { .. } => 1,
            Intent::Deleting => 2,
            Intent::Growing { .. } => 3,
        });
        out.text(&self.namespace);
        out.text(&self.name);
        out.count(self.config.len());
        for (key, value) in &self.config {
            out.text(key);
            out.text(value);
        }
        match &self.intent {
            Intent::None | Intent::Deleting => {}
            Intent::Creating { plan } => write_plan(out, 0, plan),
            Intent::Growing { first, plan } => write_plan(out, *first, plan),
        }
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        let partitions = input.u32()?;
        if partitions > PARTITIONS_MAX {
            return Err(input.invalid("more partitions than a topic can have"));
        }
        let intent = input.u8()?;
        let namespace = input.text()?;
        let name = input.text()?;
        let config = input.list(2, |input| Ok((input.text()?, input.text()?)))?;
        let intent = match intent {
            0 => Intent::None,
            1 => Intent::Creating { plan: read_plan(input)?.1 },
            2 => Intent::Deleting,
            3 => {
                let (first, plan) = read_plan(input)?;
                Intent::Growing { first, plan }
            }
            _ => return Err(input.invalid("an unknown intent")),
        };
        Ok(Self { namespace, name, config: config.into_iter().collect(), partitions, intent })
    }
}

/// Members repeat in every partition, so each is written once and then meant by its number.
fn write_plan(out: &mut Writer, first: u32, plan: &[PlannedPartition]) {
    let distinct: BTreeSet<&Member> = plan.iter().flat_map(|p| &p.members).collect();
    let numbers: BTreeMap<&Member, usize> =
        distinct.into_iter().enumerate().map(|(number, member)| (member, number)).collect();
    out.u32(first);
    out.count(numbers.len());
    for member in numbers.keys() {
        out.member(member);
    }
    out.count(plan.len());
    for partition in plan {
        out.count(partition.members.len());
        for number in partition.members.iter().filter_map(|member| numbers.get(member)) {
            out.count(*number);
        }
    }
}

fn read_plan(input: &mut Reader<'_>) -> Result<(u32, Vec<PlannedPartition>), ZnodeError> {
    let first = input.u32()?;
    let members = input.list(24, Reader::member)?;
    let plan = input.list(1, |input| {
        let members = input.list(1, |input| {
            let number = input.count(0)?;
            members.get(number).copied().ok_or_else(|| input.invalid("a member is missing"))
        })?;
        Ok(PlannedPartition { members })
    })?;
    Ok((first, plan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{has_bytes, member};
    use baton_core::ids::{BrokerId, DiskId, Generation};
    use proptest::prelude::*;

    fn plan() -> impl Strategy<Value = Vec<PlannedPartition>> {
        prop::collection::vec(member(), 1..4).prop_flat_map(|pool| {
            let members = prop::collection::vec(prop::sample::select(pool), 0..4);
            let partition = members.prop_map(|members| PlannedPartition { members });
            prop::collection::vec(partition, 0..5)
        })
    }

    fn intent() -> impl Strategy<Value = Intent> {
        prop_oneof![
            Just(Intent::None),
            Just(Intent::Deleting),
            plan().prop_map(|plan| Intent::Creating { plan }),
            (any::<u32>(), plan()).prop_map(|(first, plan)| Intent::Growing { first, plan }),
        ]
    }

    fn topic() -> impl Strategy<Value = TopicNode> {
        let config = prop::collection::btree_map("[a-z.]{0,9}", ".{0,9}", 0..4);
        (".{0,9}", ".{0,9}", config, 0..=PARTITIONS_MAX, intent()).prop_map(
            |(namespace, name, config, partitions, intent)| TopicNode { namespace, name, config, partitions, intent },
        )
    }

    mod node {
        use super::*;
        use crate::znode::codec::checks::check_znode;
        check_znode!(topic());
    }

    mod link {
        use super::*;
        use crate::znode::codec::checks::check_znode;
        check_znode!(any::<u32>().prop_map(|topic| TopicLink { topic: TopicId(topic) }));
    }

    mod ids {
        use super::*;
        use crate::znode::codec::checks::check_znode;
        check_znode!(any::<u32>().prop_map(|next| TopicIds { next: TopicId(next) }));
    }

    fn planned(brokers: &[u32]) -> PlannedPartition {
        let member = |broker: &u32| Member {
            broker: BrokerId(*broker),
            disk: DiskId(u128::from(*broker)),
            generation: Generation(0),
        };
        PlannedPartition { members: brokers.iter().map(member).collect() }
    }

    #[test]
    fn golden_bytes() {
        has_bytes(&TopicLink { topic: TopicId(0x2a) }, "01ba4c 0000002a");
        has_bytes(&TopicIds { next: TopicId(0x2b) }, "01ba69 0000002b");
        let topic = TopicNode {
            namespace: "default".to_owned(),
            name: "t".to_owned(),
            config: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            partitions: 3,
            intent: Intent::Growing { first: 1, plan: vec![planned(&[2, 1]), planned(&[1, 2])] },
        };
        has_bytes(
            &topic,
            "01ba54 00000003 03 0764656661756c74 0174 01 016b 0176
             00000001
             02 00000001 00000000000000000000000000000001 00000000
                00000002 00000000000000000000000000000002 00000000
             02 02 01 00  02 00 01",
        );
    }

    #[test]
    fn a_count_of_partitions_that_cannot_be_is_refused() {
        let node = TopicNode { partitions: PARTITIONS_MAX + 1, ..TopicNode::default() };
        let refused = TopicNode::decode(&node.encode()).unwrap_err();
        assert!(matches!(refused, ZnodeError::Invalid { .. }), "{refused}");
    }

    #[test]
    fn ten_thousand_planned_partitions_fit_in_a_request() {
        let plan = (0..10_000).map(|n| planned(&[n % 300, (n + 1) % 300, (n + 2) % 300])).collect();
        let topic = TopicNode { intent: Intent::Creating { plan }, ..TopicNode::default() };
        assert!(topic.encode().len() < crate::limits::REQUEST_BYTES_MAX / 2);
    }

    #[test]
    fn paths() {
        assert_eq!(link_path("default", "a.b"), "/topics/default:a.b");
        assert_eq!(topic_of(&path(TopicId(0x2a))), Some(TopicId(0x2a)));
        assert_eq!(topic_of("/t"), None);
        assert_eq!(topic_of("/t/x"), None);
    }
}
