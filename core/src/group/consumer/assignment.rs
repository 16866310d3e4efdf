//! What a consumer is to read (ConsumerProtocolAssignment, versions 0–3, which are alike).
//!
//! ```text
//! version i16 │ topics i32 │ { length i16 │ UTF-8 │ partitions i32 │ i32… }…
//! │ user data: length i32, −1 if none │ bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::Malformed;
use super::codec::{Partitions, Reader, put_optional_bytes, put_partitions};

/// The version that is written: every client reads it, and later ones say no more.
const VERSION: i16 = 0;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub partitions: Partitions,
    /// The strategy's own.
    pub user_data: Option<Bytes>,
}

impl Assignment {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        put_partitions(&mut out, &self.partitions);
        put_optional_bytes(&mut out, self.user_data.as_ref());
        out.freeze()
    }

    /// No bytes at all mean that the leader gave nothing.
    ///
    /// # Errors
    /// The bytes are no assignment.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut rest = Reader(bytes);
        if rest.i16()? < 0 {
            return Err(Malformed("a negative version"));
        }
        let partitions = rest.partitions()?;
        let user_data = if rest.0.is_empty() { None } else { rest.optional_bytes()? };
        Ok(Self { partitions, user_data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_kafkas() {
        let assignment = Assignment { partitions: Partitions::from([("t".to_owned(), vec![1])]), user_data: None };
        let expected: &[u8] = b"\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff";
        assert_eq!(assignment.encode(), expected);
        assert_eq!(Assignment::decode(expected), Ok(assignment));
        assert_eq!(Assignment::decode(b""), Ok(Assignment::default()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(partitions in prop::collection::btree_map("[a-z]{1,5}",
                                   prop::collection::vec(0..9_u32, 0..4), 0..3), data: Option<Vec<u8>>) {
            let given = Assignment { partitions, user_data: data.map(Bytes::from) };
            prop_assert_eq!(Assignment::decode(&given.encode()), Ok(given));
        }

        #[test]
        fn other_bytes_harm_nobody(bytes: Vec<u8>) {
            let _ = Assignment::decode(&bytes);
        }
    }
}
