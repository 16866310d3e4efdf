//! `/cluster`: who this cluster is. A broker of another cluster refuses to start.
//!
//! ```text
//!  3  cluster uuid    u128
//! 19  feature level   u16    nothing newer is written anywhere before this rises
//! ```

use uuid::Uuid;

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const PATH: &str = "/cluster";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    pub uuid: Uuid,
    pub feature_level: u16,
}

impl Znode for ClusterIdentity {
    const NAME: &'static str = PATH;
    const KIND: u8 = b'C';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u128(self.uuid.as_u128());
        out.u16(self.feature_level);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { uuid: Uuid::from_u128(input.u128()?), feature_level: input.u16()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes};
    use proptest::prelude::*;

    check_znode!(
        (any::<u128>(), any::<u16>())
            .prop_map(|(uuid, feature_level)| { ClusterIdentity { uuid: Uuid::from_u128(uuid), feature_level } })
    );

    #[test]
    fn golden_bytes() {
        let value = ClusterIdentity { uuid: Uuid::from_u128(0xabcd), feature_level: 2 };
        has_bytes(&value, "01ba43 0000000000000000000000000000abcd 0002");
    }
}
