//! `/deleted/{topic id}`: a topic was deleted on purpose, so its data may be removed.
//!
//! ```text
//! 3  deleted at   u64     milliseconds since 1970
//! 11 name         text    for people
//!    brokers      count, then u32 each: those that may still hold data
//! ```
//!
//! Without it, a missing `/p/{id}` removes nothing: an emptied ZooKeeper must not empty the
//! brokers. A broker that removed its data takes itself off the list; the last one deletes the
//! node.

use baton_core::ids::{BrokerId, TopicId};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/deleted";

#[must_use]
pub fn path(topic: TopicId) -> String {
    format!("{ROOT}/{topic}")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub deleted_unix_ms: u64,
    pub name: String,
    pub brokers: Vec<BrokerId>,
}

impl Znode for Tombstone {
    const NAME: &'static str = "/deleted/{id}";
    const KIND: u8 = b'D';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u64(self.deleted_unix_ms);
        out.text(&self.name);
        out.brokers(&self.brokers);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { deleted_unix_ms: input.u64()?, name: input.text()?, brokers: input.brokers()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{brokers, check_znode, has_bytes};
    use proptest::prelude::*;

    check_znode!(
        (any::<u64>(), ".{0,9}", brokers())
            .prop_map(|(deleted_unix_ms, name, brokers)| { Tombstone { deleted_unix_ms, name, brokers } })
    );

    #[test]
    fn golden_bytes() {
        let value = Tombstone { deleted_unix_ms: 5, name: "t".to_owned(), brokers: vec![BrokerId(1), BrokerId(3)] };
        has_bytes(&value, "01ba44 0000000000000005 0174 02 00000001 00000003");
    }
}
