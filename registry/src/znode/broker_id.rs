//! `/broker-ids/{id}`: the claim of a broker id, ephemeral. Two processes never share an id.
//!
//! ```text
//!  3  disk          u128
//! 19  incarnation   u64
//! ```

use baton_core::ids::{BrokerId, DiskId, Incarnation};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/broker-ids";

#[must_use]
pub fn path(broker: BrokerId) -> String {
    format!("{ROOT}/{broker}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerClaim {
    pub disk: DiskId,
    pub incarnation: Incarnation,
}

impl Znode for BrokerClaim {
    const NAME: &'static str = "/broker-ids/{id}";
    const KIND: u8 = b'I';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u128(self.disk.0);
        out.u64(self.incarnation.0);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { disk: input.disk()?, incarnation: input.incarnation()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes};
    use proptest::prelude::*;

    check_znode!(
        (any::<u128>(), any::<u64>())
            .prop_map(|(disk, incarnation)| BrokerClaim { disk: DiskId(disk), incarnation: Incarnation(incarnation) })
    );

    #[test]
    fn golden_bytes() {
        let value = BrokerClaim { disk: DiskId(0xd15c), incarnation: Incarnation(7) };
        has_bytes(&value, "01ba49 0000000000000000000000000000d15c 0000000000000007");
        assert_eq!(path(BrokerId(3)), "/broker-ids/3");
    }
}
