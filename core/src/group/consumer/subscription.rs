//! What a consumer wants to read, and what it has (ConsumerProtocolSubscription, versions 0–3).
//!
//! ```text
//! version i16 │ topics i32 │ { length i16 │ UTF-8 }… │ user data: length i32, −1 if none │ bytes
//! from 1: owned i32 │ { topic │ partitions i32 │ i32… }…
//! from 2: generation i32, −1 if none
//! from 3: rack: length i16, −1 if none │ UTF-8
//! ```
//! Later versions only append, and are read as far as they are known.

use bytes::{BufMut, Bytes, BytesMut};

use super::Malformed;
use super::codec::{Partitions, Reader, put_count, put_optional_bytes, put_partitions, put_text};

/// The version that is written: that of Kafka's current clients.
const VERSION: i16 = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub topics: Vec<String>,
    /// The strategy's own.
    pub user_data: Option<Bytes>,
    /// What it reads now and keeps while the group divides anew (KIP-429).
    pub owned: Partitions,
    /// The generation in which it got that (KIP-792).
    pub generation: Option<i32>,
    pub rack: Option<String>,
}

impl Subscription {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        put_count(&mut out, self.topics.len());
        self.topics.iter().for_each(|topic| put_text(&mut out, topic));
        put_optional_bytes(&mut out, self.user_data.as_ref());
        put_partitions(&mut out, &self.owned);
        out.put_i32(self.generation.unwrap_or(-1));
        match &self.rack {
            Some(rack) => put_text(&mut out, rack),
            None => out.put_i16(-1),
        }
        out.freeze()
    }

    /// # Errors
    /// The bytes are no subscription.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let version = rest.i16()?;
        if version < 0 {
            return Err(Malformed("a negative version"));
        }
        let topics = (0..rest.count(2)?).map(|_| rest.text()).collect::<Result<_, _>>()?;
        let mut read = Self { topics, ..Self::default() };
        // Some old clients leave this one out.
        if !rest.0.is_empty() {
            read.user_data = rest.optional_bytes()?;
        }
        if version >= 1 && !rest.0.is_empty() {
            read.owned = rest.partitions()?;
        }
        if version >= 2 && !rest.0.is_empty() {
            read.generation = Some(rest.i32()?).filter(|generation| *generation >= 0);
        }
        if version >= 3 && !rest.0.is_empty() {
            read.rack = rest.optional_text()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_kafkas() {
        let subscription = Subscription {
            topics: vec!["a".to_owned(), "bc".to_owned()],
            owned: Partitions::from([("a".to_owned(), vec![0, 2])]),
            generation: Some(5),
            rack: Some("r".to_owned()),
            ..Subscription::default()
        };
        let expected: &[u8] = b"\x00\x03\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff\
            \x00\x00\x00\x01\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x05\x00\x01r";
        assert_eq!(subscription.encode(), expected);
        assert_eq!(Subscription::decode(expected), Ok(subscription));
    }

    #[test]
    fn every_version_is_read() {
        let topics = vec!["a".to_owned()];
        // Versions 0, 1, 2 and one that is not known yet.
        for bytes in [
            &b"\x00\x00\x00\x00\x00\x01\x00\x01a\xff\xff\xff\xff"[..],
            b"\x00\x00\x00\x00\x00\x01\x00\x01a",
            b"\x00\x01\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x00\x02\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff",
            b"\x00\x09\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xffmore",
        ] {
            let read = Subscription::decode(bytes).unwrap();
            assert_eq!((&read.topics, read.generation), (&topics, None), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(topics in prop::collection::vec("[a-z]{0,9}", 0..4), data: Option<Vec<u8>>,
                                   owned in prop::collection::btree_map("[a-z]{1,5}", prop::collection::vec(0..9_u32, 0..4), 0..3),
                                   generation in prop::option::of(0..i32::MAX), rack in prop::option::of("[a-z]{0,5}")) {
            let said = Subscription { topics, user_data: data.map(Bytes::from), owned, generation, rack };
            prop_assert_eq!(Subscription::decode(&said.encode()), Ok(said));
        }

        #[test]
        fn other_bytes_harm_nobody(bytes: Vec<u8>) {
            let _ = Subscription::decode(&bytes);
        }
    }
}
