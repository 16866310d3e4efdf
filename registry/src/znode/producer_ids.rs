//! `/producer-ids`: the first producer id that nobody was given yet (KIP-98).
//!
//! ```text
//! 3  next   i64
//! ```

use baton_core::ids::ProducerId;

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const PATH: &str = "/producer-ids";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerIdBlocks {
    pub next: ProducerId,
}

impl Znode for ProducerIdBlocks {
    const NAME: &'static str = PATH;
    const KIND: u8 = b'N';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.i64(self.next.0);
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        let next = ProducerId(input.i64()?);
        if next.0 < 0 {
            return Err(input.invalid("a negative producer id"));
        }
        Ok(Self { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes};
    use proptest::prelude::*;

    check_znode!((0..=i64::MAX).prop_map(|next| ProducerIdBlocks { next: ProducerId(next) }));

    #[test]
    fn golden_bytes() {
        has_bytes(&ProducerIdBlocks { next: ProducerId(1000) }, "01ba4e 00000000000003e8");
    }
}
