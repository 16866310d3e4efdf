//! `/p/{topic id}/{n}/c-N` (ephemeral sequential): a replica in the ISR that could lead.
//!
//! ```text
//!  3  member        u32 broker, u128 disk, u32 generation
//! 27  incarnation   u64
//! 35  nonce         u64   tells one's own node apart after a create with an unknown outcome
//! ```

use baton_core::ids::{CandidateSeq, Incarnation, Member, TopicPartition};

use super::codec::{Reader, Writer, Znode, ZnodeError};
use super::partition;

/// The path of one candidate.
#[must_use]
pub fn path(partition: TopicPartition, candidate: CandidateSeq) -> String {
    format!("{}{:010}", prefix(partition), candidate.0)
}

/// The path to create it at: the server appends the sequence number.
#[must_use]
pub fn prefix(partition: TopicPartition) -> String {
    format!("{}/c-", partition::path(partition))
}

/// The sequence number in a candidate's name or path; none if it is not a candidate's.
#[must_use]
pub fn sequence_of(path: &str) -> Option<CandidateSeq> {
    let digits = crate::limits::name_of(path).strip_prefix("c-")?;
    let valid = digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| digits.parse().ok()).flatten().map(CandidateSeq)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub member: Member,
    pub incarnation: Incarnation,
    pub nonce: u64,
}

impl Znode for Candidate {
    const NAME: &'static str = "/p/{topic}/{n}/c-N";
    const KIND: u8 = b'Q';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.member(&self.member);
        out.u64(self.incarnation.0);
        out.u64(self.nonce);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { member: input.member()?, incarnation: input.incarnation()?, nonce: input.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes, member};
    use baton_core::ids::{BrokerId, DiskId, Generation, TopicId};
    use proptest::prelude::*;

    check_znode!((member(), any::<u64>(), any::<u64>()).prop_map(|(member, incarnation, nonce)| {
        Candidate { member, incarnation: Incarnation(incarnation), nonce }
    }));

    #[test]
    fn golden_bytes() {
        let member = Member { broker: BrokerId(1), disk: DiskId(2), generation: Generation(3) };
        let value = Candidate { member, incarnation: Incarnation(4), nonce: 5 };
        has_bytes(
            &value,
            "01ba51 00000001 00000000000000000000000000000002 00000003
             0000000000000004 0000000000000005",
        );
    }

    #[test]
    fn sequences_are_found_in_paths() {
        let partition = TopicPartition { topic: TopicId(0x2a), partition: 7 };
        let text = path(partition, CandidateSeq(12));
        assert_eq!(text, "/p/0000002a/7/c-0000000012");
        assert_eq!(sequence_of(&text), Some(CandidateSeq(12)));
        for other in ["/p/0000002a/7", "c-12", "c-+000000012", "x-0000000012", "c-"] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
