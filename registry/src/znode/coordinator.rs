//! `/coordinator/c-N` (ephemeral sequential): who would coordinate. `/coordinator/epoch`: who does.
//!
//! ```text
//! /coordinator/c-N              /coordinator/epoch
//! 3  nonce   u64                 3  epoch       u32   rises with every election
//! 11 name    text                7  candidate   i64   the winner's N
//!    host    text
//!    port    u16
//! ```
//!
//! The nonce tells one's own candidate apart after a create with an unknown outcome. Every write
//! of the coordinator checks the *version* of `/coordinator/epoch` (KAFKA-6082: zombie
//! controllers wrote until then).

use baton_core::ids::{CandidateSeq, CoordinatorEpoch};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/coordinator";
pub const EPOCH_PATH: &str = "/coordinator/epoch";
/// The prefix of candidates' paths, before the sequence number.
pub const CANDIDATE_PREFIX: &str = "/coordinator/c-";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorCandidate {
    pub nonce: u64,
    /// For people: which process this is.
    pub name: String,
    /// Where brokers forward admin calls to.
    pub host: String,
    pub port: u16,
}

impl Znode for CoordinatorCandidate {
    const NAME: &'static str = "/coordinator/c-N";
    const KIND: u8 = b'c';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u64(self.nonce);
        out.text(&self.name);
        out.text(&self.host);
        out.u16(self.port);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { nonce: input.u64()?, name: input.text()?, host: input.text()?, port: input.u16()? })
    }
}

/// The term of the elected coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorTerm {
    pub epoch: CoordinatorEpoch,
    pub candidate: CandidateSeq,
}

impl Znode for CoordinatorTerm {
    const NAME: &'static str = EPOCH_PATH;
    const KIND: u8 = b'E';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.epoch.0);
        out.i64(self.candidate.0);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { epoch: CoordinatorEpoch(input.u32()?), candidate: CandidateSeq(input.i64()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::has_bytes;
    use proptest::prelude::*;

    mod candidate {
        use super::*;
        use crate::znode::codec::checks::check_znode;
        check_znode!(
            (any::<u64>(), ".{0,9}", ".{0,9}", any::<u16>())
                .prop_map(|(nonce, name, host, port)| CoordinatorCandidate { nonce, name, host, port })
        );
    }

    mod term {
        use super::*;
        use crate::znode::codec::checks::check_znode;
        check_znode!(
            (any::<u32>(), any::<i64>()).prop_map(|(epoch, candidate)| {
                CoordinatorTerm { epoch: epoch.into(), candidate: candidate.into() }
            })
        );
    }

    #[test]
    fn golden_bytes() {
        let candidate = CoordinatorCandidate { nonce: 9, name: "a".to_owned(), host: "h".to_owned(), port: 7490 };
        has_bytes(&candidate, "01ba63 0000000000000009 0161 0168 1d42");
        let term = CoordinatorTerm { epoch: CoordinatorEpoch(4), candidate: CandidateSeq(12) };
        has_bytes(&term, "01ba45 00000004 000000000000000c");
    }
}
