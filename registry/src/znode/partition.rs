//! `/p/{topic id}/{n}`: the state of a partition. The authority on who leads and who is in sync.
//!
//! ```text
//!  3  flags                u8    bit 0: there is a leader; bit 1: there is a hint
//!  4  leader epoch         u32
//!  8  last unclean epoch   u32
//! 12  leader               if there is one: u32 broker, u128 disk, u64 incarnation, i64 candidate
//!     hint                 if there is one: u32 broker
//!     in-sync replicas     count, then each: u32 broker, u128 disk, u32 generation
//!     replicas             count, then u32 broker each; the preferred leader first
//!     adding               count, then u32 broker each
//!     removing             count, then u32 broker each
//! ```

use baton_core::ids::{BrokerId, CandidateSeq, Member, TopicId, TopicPartition};
use baton_core::partition::{Assignment, LeaderId, PartitionState};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/p";

const HAS_LEADER: u8 = 1;
const HAS_HINT: u8 = 2;

#[must_use]
pub fn topic_path(topic: TopicId) -> String {
    format!("{ROOT}/{topic}")
}

#[must_use]
pub fn path(partition: TopicPartition) -> String {
    format!("{ROOT}/{}/{}", partition.topic, partition.partition)
}

/// The partition of a path at or below `/p/{topic id}/{n}`; none if it is not one.
#[must_use]
pub fn partition_of(path: &str) -> Option<TopicPartition> {
    let mut names = path.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let topic = names.next()?.parse().ok()?;
    let partition = number(names.next()?)?;
    Some(TopicPartition { topic, partition })
}

/// A partition's number as a node's name, in the one way in which it is written.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let shortest = name == "0" || !name.starts_with('0');
    (digits && shortest).then(|| name.parse().ok()).flatten()
}

impl Znode for PartitionState {
    const NAME: &'static str = "/p/{topic}/{n}";
    const KIND: u8 = b'P';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        let leader = if self.leader.is_some() { HAS_LEADER } else { 0 };
        let hint = if self.hint.is_some() { HAS_HINT } else { 0 };
        out.u8(leader | hint);
        out.u32(self.epoch.0);
        out.u32(self.last_unclean_epoch.0);
        if let Some(leader) = &self.leader {
            out.broker(leader.broker);
            out.u128(leader.disk.0);
            out.u64(leader.incarnation.0);
            out.i64(leader.candidate.0);
        }
        if let Some(hint) = self.hint {
            out.broker(hint);
        }
        out.count(self.isr.len());
        for member in &self.isr {
            out.member(member);
        }
        out.brokers(&self.assignment.replicas);
        out.brokers(&self.assignment.adding);
        out.brokers(&self.assignment.removing);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        let flags = input.u8()?;
        if flags & !(HAS_LEADER | HAS_HINT) != 0 {
            return Err(input.invalid("unknown flags"));
        }
        let epoch = input.epoch()?;
        let last_unclean_epoch = input.epoch()?;
        let leader = if flags & HAS_LEADER != 0 { Some(read_leader(input)?) } else { None };
        let hint = if flags & HAS_HINT != 0 { Some(input.broker()?) } else { None };
        let isr = input.list(24, Reader::member)?;
        let assignment =
            Assignment { replicas: input.brokers()?, adding: input.brokers()?, removing: input.brokers()? };
        check(input, &isr, &assignment)?;
        Ok(Self { leader, hint, epoch, isr, assignment, last_unclean_epoch })
    }
}

/// What everybody who decides from a state relies on.
fn check(input: &Reader<'_>, isr: &[Member], assignment: &Assignment) -> Result<(), ZnodeError> {
    let Assignment { replicas, adding, removing } = assignment;
    let repeats = |brokers: &[BrokerId]| (1..brokers.len()).any(|i| brokers[..i].contains(&brokers[i]));
    let in_sync: Vec<BrokerId> = isr.iter().map(|member| member.broker).collect();
    if repeats(&in_sync) || repeats(replicas) || repeats(adding) || repeats(removing) {
        return Err(input.invalid("a broker is named twice"));
    }
    if !adding.iter().chain(removing).all(|broker| replicas.contains(broker)) {
        return Err(input.invalid("a broker is added or removed that is not among the replicas"));
    }
    Ok(())
}

fn read_leader(input: &mut Reader<'_>) -> Result<LeaderId, ZnodeError> {
    Ok(LeaderId {
        broker: input.broker()?,
        disk: input.disk()?,
        incarnation: input.incarnation()?,
        candidate: CandidateSeq(input.i64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes, member};
    use baton_core::ids::{DiskId, Epoch, Generation, Incarnation};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn leader() -> impl Strategy<Value = LeaderId> {
        (any::<u32>(), any::<u128>(), any::<u64>(), any::<i64>()).prop_map(|(broker, disk, incarnation, candidate)| {
            LeaderId {
                broker: BrokerId(broker),
                disk: DiskId(disk),
                incarnation: Incarnation(incarnation),
                candidate: CandidateSeq(candidate),
            }
        })
    }

    fn state() -> impl Strategy<Value = PartitionState> {
        let who = (prop::option::of(leader()), prop::option::of(any::<u32>()));
        let epochs = (any::<u32>(), any::<u32>());
        let isr = prop::collection::vec(member(), 0..4);
        (who, epochs, isr, assignment()).prop_map(|((leader, hint), (epoch, unclean), mut isr, assignment)| {
            let mut seen = BTreeSet::new();
            isr.retain(|member| seen.insert(member.broker));
            PartitionState {
                leader,
                hint: hint.map(BrokerId),
                epoch: Epoch(epoch),
                isr,
                assignment,
                last_unclean_epoch: Epoch(unclean),
            }
        })
    }

    /// Of each replica: whether it is being added, whether it is being removed.
    fn assignment() -> impl Strategy<Value = Assignment> {
        prop::collection::btree_map(any::<u32>(), (any::<bool>(), any::<bool>()), 0..5).prop_map(|replicas| {
            let those = |which: fn(&(bool, bool)) -> bool| {
                replicas.iter().filter(|(_, what)| which(what)).map(|(broker, _)| BrokerId(*broker)).collect()
            };
            Assignment { replicas: those(|_| true), adding: those(|what| what.0), removing: those(|what| what.1) }
        })
    }

    check_znode!(state());

    #[test]
    fn golden_bytes() {
        let value = PartitionState {
            leader: Some(LeaderId {
                broker: BrokerId(1),
                disk: DiskId(0xd1),
                incarnation: Incarnation(7),
                candidate: CandidateSeq(12),
            }),
            hint: Some(BrokerId(2)),
            epoch: Epoch(3),
            isr: vec![Member { broker: BrokerId(1), disk: DiskId(0xd1), generation: Generation(1) }],
            assignment: Assignment {
                replicas: vec![BrokerId(1), BrokerId(2)],
                adding: vec![BrokerId(2)],
                removing: vec![],
            },
            last_unclean_epoch: Epoch(2),
        };
        has_bytes(
            &value,
            "01ba50 03 00000003 00000002
             00000001 000000000000000000000000000000d1 0000000000000007 000000000000000c
             00000002
             01 00000001 000000000000000000000000000000d1 00000001
             02 00000001 00000002  01 00000002  00",
        );
    }

    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        let one = Member { broker: BrokerId(1), disk: DiskId(1), generation: Generation(0) };
        let assignment = |replicas: &[u32], adding: &[u32], removing: &[u32]| {
            let brokers = |ids: &[u32]| ids.iter().map(|id| BrokerId(*id)).collect();
            Assignment { replicas: brokers(replicas), adding: brokers(adding), removing: brokers(removing) }
        };
        let with = |isr: Vec<Member>, assignment| PartitionState { isr, assignment, ..PartitionState::default() };
        for bad in [
            with(vec![one, Member { generation: Generation(1), ..one }], assignment(&[1], &[], &[])),
            with(vec![one], assignment(&[1, 2, 1], &[], &[])),
            with(vec![one], assignment(&[1], &[2], &[])),
            with(vec![one], assignment(&[1], &[], &[2])),
            with(vec![one], assignment(&[1, 2], &[2, 2], &[])),
        ] {
            let refused = PartitionState::decode(&bad.encode()).unwrap_err();
            assert!(matches!(refused, ZnodeError::Invalid { .. }), "{bad:?}: {refused}");
        }
    }

    #[test]
    fn partitions_are_found_in_paths() {
        let partition = TopicPartition { topic: TopicId(0x2a), partition: 7 };
        assert_eq!(path(partition), "/p/0000002a/7");
        assert_eq!(partition_of("/p/0000002a/7"), Some(partition));
        assert_eq!(partition_of("/p/0000002a/7/c-0000000001"), Some(partition));
        for other in ["/p", "/p/0000002a", "/p/2a/7", "/p/0000002a/+7", "/p/0000002a/07", "/t/0000002a/7"] {
            assert_eq!(partition_of(other), None, "{other}");
        }
    }
}
