//! How every znode is written: a header that says whose it is, then fields of fixed width.
//!
//! ```text
//! 0  version   u8
//! 1  0xBA      u8    ours
//! 2  kind      u8    which znode, an ASCII letter
//! 3  fields          numbers big-endian; texts and lists start with a count (LEB128)
//! ```
//!
//! A list's count is checked against the bytes that are left before anything is allocated.

use baton_core::ids::{BrokerId, DiskId, Epoch, Generation, Incarnation, Member};
use bytes::Bytes;

const MAGIC: u8 = 0xBA;

/// The data of a node cannot be used. Nothing is ever overwritten because of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZnodeError {
    #[error("{znode}: the data ends too early")]
    Truncated { znode: &'static str },
    #[error("{znode}: written by a newer version (found {found}, understand up to {understood})")]
    Newer { znode: &'static str, found: u8, understood: u8 },
    #[error("{znode}: not written by Baton, or another kind of znode")]
    NotOurs { znode: &'static str },
    #[error("{znode}: {what}")]
    Invalid { znode: &'static str, what: &'static str },
}

/// The data of one kind of znode.
pub trait Znode: Sized {
    /// For messages: where it lives.
    const NAME: &'static str;
    const KIND: u8;
    /// The newest version that this program reads, and the one that it writes.
    const VERSION: u8;

    fn write(&self, out: &mut Writer);

    /// Reads the fields. `version` is between 1 and [`Self::VERSION`].
    fn read(input: &mut Reader<'_>, version: u8) -> Result<Self, ZnodeError>;

    fn encode(&self) -> Bytes {
        let mut out = Writer(vec![Self::VERSION, MAGIC, Self::KIND]);
        self.write(&mut out);
        out.0.into()
    }

    fn decode(data: &[u8]) -> Result<Self, ZnodeError> {
        let znode = Self::NAME;
        let mut input = Reader { znode, data };
        if data.get(1).is_some_and(|b| *b != MAGIC) || data.get(2).is_some_and(|b| *b != Self::KIND) {
            return Err(ZnodeError::NotOurs { znode });
        }
        let found = input.u8()?;
        input.take(2)?;
        if found > Self::VERSION {
            return Err(ZnodeError::Newer { znode, found, understood: Self::VERSION });
        }
        if found == 0 {
            return Err(ZnodeError::NotOurs { znode });
        }
        let value = Self::read(&mut input, found)?;
        if !input.data.is_empty() {
            return Err(input.invalid("bytes are left over"));
        }
        Ok(value)
    }
}

/// Appends fields.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn u128(&mut self, value: u128) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub fn count(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.0.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    pub fn optional_text(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        if let Some(text) = text {
            self.text(text);
        }
    }

    pub fn broker(&mut self, broker: BrokerId) {
        self.u32(broker.0);
    }

    pub fn brokers(&mut self, brokers: &[BrokerId]) {
        self.count(brokers.len());
        for broker in brokers {
            self.broker(*broker);
        }
    }

    pub fn member(&mut self, member: &Member) {
        self.broker(member.broker);
        self.u128(member.disk.0);
        self.u32(member.generation.0);
    }
}

/// Takes fields off the front.
#[derive(Debug)]
pub struct Reader<'a> {
    znode: &'static str,
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn invalid(&self, what: &'static str) -> ZnodeError {
        ZnodeError::Invalid { znode: self.znode, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ZnodeError> {
        let (taken, rest) = self.data.split_at_checked(count).ok_or(ZnodeError::Truncated { znode: self.znode })?;
        self.data = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ZnodeError> {
        let (taken, rest) = self.data.split_first_chunk::<N>().ok_or(ZnodeError::Truncated { znode: self.znode })?;
        self.data = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, ZnodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, ZnodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, ZnodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, ZnodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, ZnodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn u128(&mut self) -> Result<u128, ZnodeError> {
        self.array().map(u128::from_be_bytes)
    }

    pub fn flag(&mut self) -> Result<bool, ZnodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("a flag is neither 0 nor 1")),
        }
    }

    /// A count of things that take at least `least_bytes` each.
    pub fn count(&mut self, least_bytes: usize) -> Result<usize, ZnodeError> {
        let mut value = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value.saturating_mul(least_bytes) <= self.data.len() {
                    Ok(value)
                } else {
                    Err(ZnodeError::Truncated { znode: self.znode })
                };
            }
        }
        Err(self.invalid("a count is too large"))
    }

    /// A list whose items take at least `least_bytes` each (at least 1).
    pub fn list<T>(
        &mut self,
        least_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, ZnodeError>,
    ) -> Result<Vec<T>, ZnodeError> {
        let count = self.count(least_bytes.max(1))?;
        (0..count).map(|_| item(self)).collect()
    }

    pub fn text(&mut self) -> Result<String, ZnodeError> {
        let count = self.count(1)?;
        let bytes = self.take(count)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.invalid("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    pub fn optional_text(&mut self) -> Result<Option<String>, ZnodeError> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }

    pub fn broker(&mut self) -> Result<BrokerId, ZnodeError> {
        self.u32().map(BrokerId)
    }

    pub fn brokers(&mut self) -> Result<Vec<BrokerId>, ZnodeError> {
        self.list(4, Self::broker)
    }

    pub fn disk(&mut self) -> Result<DiskId, ZnodeError> {
        self.u128().map(DiskId)
    }

    pub fn incarnation(&mut self) -> Result<Incarnation, ZnodeError> {
        self.u64().map(Incarnation)
    }

    pub fn epoch(&mut self) -> Result<Epoch, ZnodeError> {
        self.u32().map(Epoch)
    }

    pub fn member(&mut self) -> Result<Member, ZnodeError> {
        let broker = self.broker()?;
        let disk = self.disk()?;
        let generation = self.u32().map(Generation)?;
        Ok(Member { broker, disk, generation })
    }
}

/// What every znode must pass.
#[cfg(test)]
pub(crate) mod checks {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Debug;

    pub fn round_trips<Z: Znode + PartialEq + Debug>(value: &Z) {
        assert_eq!(Z::decode(&value.encode()).as_ref(), Ok(value));
    }

    /// The bytes as hexadecimal digits: they must never change within a version.
    pub fn has_bytes<Z: Znode + PartialEq + Debug>(value: &Z, golden: &str) {
        let hex: String = value.encode().iter().map(|b| format!("{b:02x}")).collect();
        let golden: String = golden.split_whitespace().collect();
        assert_eq!(hex, golden, "the bytes of {} changed", Z::NAME);
        round_trips(value);
    }

    /// Every prefix is truncated; other magic, kinds and versions are told apart; no mutation
    /// panics.
    pub fn refuses_damage<Z: Znode + PartialEq + Debug>(value: &Z, at: usize, byte: u8) {
        let good = value.encode();
        for end in 0..good.len() {
            assert_eq!(
                Z::decode(&good[..end]).unwrap_err(),
                ZnodeError::Truncated { znode: Z::NAME },
                "cut to {end} of {} bytes",
                good.len()
            );
        }
        let with = |index: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[index] = byte;
            Z::decode(&bytes)
        };
        let newer = ZnodeError::Newer { znode: Z::NAME, found: Z::VERSION + 1, understood: Z::VERSION };
        assert_eq!(with(0, Z::VERSION + 1), Err(newer));
        for (index, byte) in [(0, 0), (1, 0), (2, 0)] {
            assert_eq!(with(index, byte), Err(ZnodeError::NotOurs { znode: Z::NAME }));
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(Z::decode(&longer).is_err(), "a trailing byte was taken");
        let _ = with(at % good.len(), byte);
    }

    pub fn member() -> impl Strategy<Value = Member> {
        (any::<u32>(), any::<u128>(), any::<u32>()).prop_map(|(broker, disk, generation)| Member {
            broker: BrokerId(broker),
            disk: DiskId(disk),
            generation: Generation(generation),
        })
    }

    pub fn brokers() -> impl Strategy<Value = Vec<BrokerId>> {
        prop::collection::vec(any::<u32>().prop_map(BrokerId), 0..5)
    }

    /// Round trip and damage, for values of any shape.
    macro_rules! check_znode {
        ($strategy:expr) => {
            proptest::proptest! {
                #[test]
                fn round_trips_and_refuses_damage(
                    value in $strategy,
                    at in proptest::prelude::any::<usize>(),
                    byte in proptest::prelude::any::<u8>(),
                ) {
                    crate::znode::codec::checks::round_trips(&value);
                    crate::znode::codec::checks::refuses_damage(&value, at, byte);
                }

                #[test]
                fn garbage_never_panics(
                    bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
                ) {
                    fn decode<Z: crate::znode::Znode>(_: &impl proptest::prelude::Strategy<Value = Z>, bytes: &[u8]) {
                        let _ = Z::decode(bytes);
                        let mut ours = vec![Z::VERSION, 0xBA, Z::KIND];
                        ours.extend(bytes);
                        let _ = Z::decode(&ours);
                    }
                    decode(&$strategy, &bytes);
                }
            }
        };
    }
    pub(crate) use check_znode;
}
