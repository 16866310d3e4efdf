//! Identifiers, offsets and epochs: one newtype each, so that none is passed for another.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// A broker's number in the cluster, chosen by its operator (`broker.id`), 1 to 2³¹−1.
    BrokerId(u32)
}
number! {
    /// The position of a record in its partition. The wire carries it as a signed 64-bit number.
    Offset(u64)
}
number! {
    /// The leader epoch of a partition: rises by at least one with every change of leader.
    Epoch(u32)
}
number! {
    /// Rises when the copy of one partition on one disk was found damaged and is refilled.
    Generation(u32)
}
number! {
    /// The sequence number of a candidate node (`c-0000000007` is 7).
    CandidateSeq(i64)
}
number! {
    /// The term of the elected coordinator; every coordinator write checks it.
    CoordinatorEpoch(u32)
}
number! {
    /// An idempotent producer's number, allocated by the cluster (KIP-98).
    ProducerId(i64)
}
number! {
    /// Fences older incarnations of one producer id (KIP-98).
    ProducerEpoch(i16)
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on, saturating at the end of the number range.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The wire's signed form. Offsets never reach 2⁶³: a partition would take 292 years at
    /// a thousand million records a second.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From the wire's signed form; negative numbers are not offsets.
    #[must_use]
    pub fn from_wire(value: i64) -> Option<Self> {
        u64::try_from(value).ok().map(Self)
    }
}

impl Epoch {
    /// Before the first election.
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Generation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Random, written when a data directory is formatted: a broker that returns with an empty
/// disk is not the member that left (KIP-903).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u128);

/// Random per start of a process: a heartbeat with another incarnation means that the old
/// process is dead.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskId({self})")
    }
}
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// Eight hex digits, never reused: paths are by id, so that the versions of a deleted topic's
/// nodes can never be taken for those of its successor (ABA).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not eight lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is eight lower-case hex digits, not {0:?}")]
pub struct NotATopicId(pub String);

impl FromStr for TopicId {
    type Err = NotATopicId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| u32::from_str_radix(text, 16).ok()).flatten().map(Self).ok_or_else(|| NotATopicId(text.to_owned()))
    }
}

/// One partition of one topic, by the id that is never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One copy of a partition: the broker, its disk, and the generation of the copy on it.
/// Two members are the same only if all three are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub broker: BrokerId,
    pub disk: DiskId,
    pub generation: Generation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_round_trip_and_reject_other_text() {
        assert_eq!("0000002a".parse(), Ok(TopicId(42)));
        assert_eq!(TopicId(42).to_string(), "0000002a");
        for bad in ["", "2a", "0000002A", "0000002g", "000000002a", "+000002a"] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn negative_wire_offsets_are_refused() {
        assert_eq!(Offset::from_wire(-1), None);
        assert_eq!(Offset::from_wire(7), Some(Offset(7)));
    }
}
