//! The events of a history.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The version of the format that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header<'a> {
    /// [`VERSION`].
    pub baton_history: u32,
    /// Who wrote it, for people.
    #[serde(borrow, default)]
    pub source: Cow<'a, str>,
}

/// By which a value is known again, made of its bytes (XXH3, 64 bits): among ten million values
/// two are equal once in 400,000 histories.
#[must_use]
pub fn payload_id(value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value)
}

/// One record that was read: offset, payload (none: it is not of this history), the leader epoch
/// that wrote it if it is known. An array in JSON: `[offset, payload]` or
/// `[offset, payload, epoch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: u64,
    pub payload: Option<u64>,
    pub epoch: Option<u32>,
}

/// The hash of the records from one offset up to and without another, in whatever way the writer
/// makes it, the same for all replicas. An array in JSON: `[from, to, hash]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub from: u64,
    pub to: u64,
    pub hash: u64,
}

/// One event. Partitions are named `topic/number`; clients, groups and topics as their writer
/// likes, uniquely in a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<'a> {
    /// What kind of producer this is; one that is not declared is idempotent.
    #[serde(borrow)]
    Producer(Producer<'a>),
    /// The program handed a record to its client.
    #[serde(borrow)]
    Send(Send<'a>),
    /// The record was acknowledged.
    #[serde(borrow)]
    Ack(Ack<'a>),
    /// The client says that the record is not stored, nor ever will be.
    #[serde(borrow)]
    Fail(Outcome<'a>),
    /// It may be stored or not.
    #[serde(borrow)]
    Unknown(Outcome<'a>),
    /// A consumer read.
    #[serde(borrow)]
    Poll(Poll<'a>),
    /// A consumer was told an error that it should not have been told.
    #[serde(borrow)]
    PollFailed(PollFailed<'a>),
    /// An offset was committed, and that was acknowledged.
    #[serde(borrow)]
    Commit(Commit<'a>),
    /// A commit was refused, or nobody knows what became of it: it may be stored.
    #[serde(borrow)]
    CommitFailed(CommitFailed<'a>),
    /// A group's committed offset was asked for.
    #[serde(borrow)]
    Committed(Committed<'a>),
    /// A member has its part of a generation of its group.
    #[serde(borrow)]
    Joined(Joined<'a>),
    /// A member got its first record of a partition in a generation.
    #[serde(borrow)]
    Resumed(Resumed<'a>),
    /// An operator allowed a leader that may lack records: from here on what was acknowledged
    /// before may be lost, and is reported apart.
    #[serde(borrow)]
    Unclean(Unclean<'a>),
    /// What one replica holds, or a piece of it.
    #[serde(borrow)]
    Replica(Replica<'a>),
    /// How the partition ended: everything in it has been read by somebody. The latest counts.
    #[serde(borrow)]
    Final(Final<'a>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer<'a> {
    #[serde(borrow)]
    pub producer: Cow<'a, str>,
    /// An idempotent producer's duplicates and reorderings are errors; a plain one's are counted.
    pub idempotent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send<'a> {
    #[serde(borrow)]
    pub producer: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The producer's own number of this record: rises within (producer, partition).
    pub sequence: u64,
    pub payload: u64,
    pub sent_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack<'a> {
    #[serde(borrow)]
    pub producer: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub sequence: u64,
    pub offset: u64,
    /// The leader epoch that the acknowledgement names, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    pub received_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome<'a> {
    #[serde(borrow)]
    pub producer: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub sequence: u64,
    pub received_us: u64,
    #[serde(borrow, default)]
    pub reason: Cow<'a, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll<'a> {
    #[serde(borrow)]
    pub consumer: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The offset that was asked for: records from here on, none left out.
    pub from: u64,
    /// The consumer was told to go to `from`; otherwise it is where its last poll ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seek: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<u64>,
    pub sent_us: u64,
    pub received_us: u64,
    pub records: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollFailed<'a> {
    #[serde(borrow)]
    pub consumer: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub received_us: u64,
    #[serde(borrow, default)]
    pub reason: Cow<'a, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub offset: u64,
    /// The group's generation in which the member committed.
    pub generation: u32,
    /// Somebody meant to go back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reset: bool,
    pub sent_us: u64,
    pub received_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitFailed<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub offset: u64,
    pub generation: u32,
    pub sent_us: u64,
    pub received_us: u64,
    #[serde(borrow, default)]
    pub reason: Cow<'a, str>,
}

/// Whoever tells of members tells of all members of that group, and of all their commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub member: Cow<'a, str>,
    pub generation: u32,
    /// What it reads in this generation.
    pub partitions: Vec<Cow<'a, str>>,
    /// It was in no generation since then.
    pub sent_us: u64,
    pub received_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub member: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub generation: u32,
    /// Of the first record.
    pub offset: u64,
    /// Where the partition began when the record came, or later: what is below may be left out.
    pub log_start: u64,
    pub received_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// None: the group has committed nothing there.
    pub offset: Option<u64>,
    pub sent_us: u64,
    pub received_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unclean<'a> {
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The first epoch of the new leader.
    pub epoch: u32,
    /// When it was announced.
    pub at_us: u64,
}

/// Long logs are told in several events of one `at_us`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica<'a> {
    pub broker: u32,
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    pub log_start: u64,
    /// As this replica knows it: below it nothing may differ from any other.
    pub high_watermark: u64,
    pub end: u64,
    pub at_us: u64,
    /// `records` or `blocks` tell everything from here …
    pub from: u64,
    /// … up to and without this offset.
    pub to: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Seen>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Final<'a> {
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// What was below it, retention has removed.
    pub log_start: u64,
    pub end: u64,
    pub at_us: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

mod arrays {
    //! Records and blocks as arrays: they are most of a history.

    use std::fmt;

    use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
    use serde::ser::SerializeTuple;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Block, Seen};

    impl Serialize for Seen {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut array = serializer.serialize_tuple(2 + usize::from(self.epoch.is_some()))?;
            array.serialize_element(&self.offset)?;
            array.serialize_element(&self.payload)?;
            if let Some(epoch) = self.epoch {
                array.serialize_element(&epoch)?;
            }
            array.end()
        }
    }

    struct SeenVisitor;

    impl<'de> Visitor<'de> for SeenVisitor {
        type Value = Seen;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("[offset, payload or null] or [offset, payload or null, epoch]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Seen, A::Error> {
            let offset = array.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
            let payload = array.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
            let epoch = array.next_element()?;
            end(&mut array, 3, &self)?;
            Ok(Seen { offset, payload, epoch })
        }
    }

    impl<'de> Deserialize<'de> for Seen {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_seq(SeenVisitor)
        }
    }

    impl Serialize for Block {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            (self.from, self.to, self.hash).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Block {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (from, to, hash) = Deserialize::deserialize(deserializer)?;
            Ok(Self { from, to, hash })
        }
    }

    fn end<'de, A: SeqAccess<'de>>(array: &mut A, length: usize, expected: &SeenVisitor) -> Result<(), A::Error> {
        match array.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::invalid_length(length + 1, expected)),
        }
    }
}

impl Seen {
    #[must_use]
    pub fn new(offset: u64, payload: u64, epoch: u32) -> Self {
        Self { offset, payload: Some(payload), epoch: Some(epoch) }
    }
}

impl Event<'_> {
    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        match self {
            Self::Producer(e) => Event::Producer(Producer { producer: own(e.producer), ..e }),
            Self::Send(e) => Event::Send(Send { producer: own(e.producer), partition: own(e.partition), ..e }),
            Self::Ack(e) => Event::Ack(Ack { producer: own(e.producer), partition: own(e.partition), ..e }),
            Self::Fail(e) => Event::Fail(e.into_owned()),
            Self::Unknown(e) => Event::Unknown(e.into_owned()),
            Self::Poll(e) => Event::Poll(Poll { consumer: own(e.consumer), partition: own(e.partition), ..e }),
            Self::PollFailed(e) => Event::PollFailed(PollFailed {
                consumer: own(e.consumer),
                partition: own(e.partition),
                reason: own(e.reason),
                ..e
            }),
            Self::Commit(e) => Event::Commit(Commit { group: own(e.group), partition: own(e.partition), ..e }),
            Self::CommitFailed(e) => Event::CommitFailed(CommitFailed {
                group: own(e.group),
                partition: own(e.partition),
                reason: own(e.reason),
                ..e
            }),
            Self::Joined(e) => Event::Joined(Joined {
                group: own(e.group),
                member: own(e.member),
                partitions: e.partitions.into_iter().map(own).collect(),
                ..e
            }),
            Self::Resumed(e) => {
                Event::Resumed(Resumed { group: own(e.group), member: own(e.member), partition: own(e.partition), ..e })
            }
            Self::Committed(e) => Event::Committed(Committed { group: own(e.group), partition: own(e.partition), ..e }),
            Self::Unclean(e) => Event::Unclean(Unclean { partition: own(e.partition), ..e }),
            Self::Replica(e) => Event::Replica(Replica { partition: own(e.partition), ..e }),
            Self::Final(e) => Event::Final(Final { partition: own(e.partition), ..e }),
        }
    }
}

impl Outcome<'_> {
    fn into_owned(self) -> Outcome<'static> {
        Outcome {
            producer: Cow::Owned(self.producer.into_owned()),
            partition: Cow::Owned(self.partition.into_owned()),
            sequence: self.sequence,
            received_us: self.received_us,
            reason: Cow::Owned(self.reason.into_owned()),
        }
    }
}
