//! `/absent/{id}`: since when a broker is away, so that a new coordinator goes on counting.
//!
//! ```text
//! 3  since   u64   milliseconds since 1970, by the coordinator's clock
//! ```

use baton_core::ids::BrokerId;

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/absent";

#[must_use]
pub fn path(broker: BrokerId) -> String {
    format!("{ROOT}/{broker}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    pub since_unix_ms: u64,
}

impl Znode for Absence {
    const NAME: &'static str = "/absent/{id}";
    const KIND: u8 = b'A';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u64(self.since_unix_ms);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self { since_unix_ms: input.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes};
    use proptest::prelude::*;

    check_znode!(any::<u64>().prop_map(|since_unix_ms| Absence { since_unix_ms }));

    #[test]
    fn golden_bytes() {
        has_bytes(&Absence { since_unix_ms: 258 }, "01ba41 0000000000000102");
        assert_eq!(path(BrokerId(3)), "/absent/3");
    }
}
