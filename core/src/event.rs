//! The history of the cluster: one event for each change, with what was seen, what was decided,
//! the result, and who asked. The internal topic `__events` keeps them.
//!
//! ```text
//!  0  version    u8    1
//!  1  kind       u8    see [`EventKind`]
//!  2  time       i64   milliseconds since 1970, by the coordinator's clock
//! 10  flags      u8    what follows: bit 0 topic, 1 partition, 2 broker, 3 epoch
//! 11  topic      text  if there is one
//!     partition  u32   if there is one
//!     broker     u32   if there is one
//!     epoch      u32   if there is one
//!     seen, decided, result, who   texts
//! ```
//!
//! Numbers are big-endian; a text is its length in bytes as u16, then UTF-8.

use bytes::Bytes;

use crate::ids::{BrokerId, Epoch};

const VERSION: u8 = 1;

const HAS_TOPIC: u8 = 1;
const HAS_PARTITION: u8 = 2;
const HAS_BROKER: u8 = 4;
const HAS_EPOCH: u8 = 8;

/// The longest text of an event; [`Event::encode`] cuts longer ones.
pub const TEXT_BYTES_MAX: usize = 1024;

/// No event is larger: five texts, and the numbers.
pub const EVENT_BYTES_MAX: usize = 5 * (TEXT_BYTES_MAX + 2) + 23;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $number:literal, $name:literal;)*) => {
        /// What happened. The numbers and names never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind { $($(#[doc = $doc])* $kind,)* }

        impl EventKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The name, as shown to people and in JSON.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$kind => $name,)* } }

            fn number(self) -> u8 { match self { $(Self::$kind => $number,)* } }

            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A broker's registration is gone.
    BrokerGone = 1, "broker_gone";
    /// A broker registered, again or for the first time.
    BrokerBack = 2, "broker_back";
    /// A partition has another leader, or none.
    LeaderMoved = 3, "leader_moved";
    /// Replicas joined or left the in-sync replicas.
    IsrChanged = 4, "isr_changed";
    /// Copies of a partition are to be on other brokers.
    Reassigned = 5, "reassigned";
    /// They are.
    ReassignmentFinished = 6, "reassignment_finished";
    TopicCreated = 7, "topic_created";
    TopicAltered = 8, "topic_altered";
    TopicDeleted = 9, "topic_deleted";
    PartitionsAdded = 10, "partitions_added";
    /// Another coordinator took over.
    CoordinatorElected = 11, "coordinator_elected";
    /// An operator gave up acknowledged records so that a partition is led again.
    UncleanElection = 12, "unclean_election";
    /// Copies of an absent broker find no new home.
    NoRoom = 13, "no_room";
    /// More happened than could be recorded; the text says how much was left out.
    EventsDropped = 14, "events_dropped";
    /// A leader was asked to hand over to the preferred one.
    PreferredElection = 15, "preferred_election";
    /// What was being moved stays where it is.
    ReassignmentCancelled = 16, "reassignment_cancelled";
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since 1970.
    pub time_ms: i64,
    pub kind: EventKind,
    /// The topic's name.
    pub topic: Option<String>,
    pub partition: Option<u32>,
    pub broker: Option<BrokerId>,
    /// The leader epoch, or the coordinator's for its election.
    pub epoch: Option<Epoch>,
    pub seen: String,
    pub decided: String,
    pub result: String,
    /// Who asked; `coordinator` or `broker` when nobody did.
    pub who: String,
}

/// Bytes that are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("the event ends too early")]
    Truncated,
    #[error("an event of version {0}; up to {VERSION} is understood")]
    Version(u8),
    #[error("an event of the unknown kind {0}")]
    Kind(u8),
    #[error("a text of {0} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TextTooLong(usize),
    #[error("a text is not UTF-8")]
    NotText,
    #[error("an event with unknown flags: {0:#04x}")]
    Flags(u8),
    #[error("{0} bytes are left over after an event")]
    LeftOver(usize),
}

impl Event {
    /// An event about nothing in particular yet.
    #[must_use]
    pub fn new(time_ms: i64, kind: EventKind) -> Self {
        Self {
            time_ms,
            kind,
            topic: None,
            partition: None,
            broker: None,
            epoch: None,
            seen: String::new(),
            decided: String::new(),
            result: String::new(),
            who: String::new(),
        }
    }

    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    #[must_use]
    pub fn broker(mut self, broker: BrokerId) -> Self {
        self.broker = Some(broker);
        self
    }

    #[must_use]
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }

    #[must_use]
    pub fn seen(mut self, seen: impl Into<String>) -> Self {
        self.seen = seen.into();
        self
    }

    #[must_use]
    pub fn decided(mut self, decided: impl Into<String>) -> Self {
        self.decided = decided.into();
        self
    }

    #[must_use]
    pub fn result(mut self, result: impl Into<String>) -> Self {
        self.result = result.into();
        self
    }

    #[must_use]
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.who = who.into();
        self
    }

    /// The event as it is stored. Texts longer than [`TEXT_BYTES_MAX`] are cut, because an
    /// event that says less is worth more than one that is lost.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.extend([VERSION, self.kind.number()]);
        out.extend(self.time_ms.to_be_bytes());
        let present = [
            (self.topic.is_some(), HAS_TOPIC),
            (self.partition.is_some(), HAS_PARTITION),
            (self.broker.is_some(), HAS_BROKER),
            (self.epoch.is_some(), HAS_EPOCH),
        ];
        out.push(present.iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | flag));
        if let Some(topic) = &self.topic {
            put_text(&mut out, topic);
        }
        let numbers = [self.partition, self.broker.map(|b| b.0), self.epoch.map(|e| e.0)];
        for number in numbers.into_iter().flatten() {
            out.extend(number.to_be_bytes());
        }
        for text in [&self.seen, &self.decided, &self.result, &self.who] {
            put_text(&mut out, text);
        }
        out.into()
    }

    /// Reads what [`Event::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no event, or one of a newer version.
    pub fn decode(data: &[u8]) -> Result<Self, EventError> {
        let mut input = Input(data);
        let [version] = input.array()?;
        if version != VERSION {
            return Err(EventError::Version(version));
        }
        let [kind] = input.array()?;
        let kind = EventKind::from_number(kind).ok_or(EventError::Kind(kind))?;
        let time_ms = i64::from_be_bytes(input.array()?);
        let [flags] = input.array()?;
        if flags & !(HAS_TOPIC | HAS_PARTITION | HAS_BROKER | HAS_EPOCH) != 0 {
            return Err(EventError::Flags(flags));
        }
        let topic = if flags & HAS_TOPIC != 0 { Some(input.text()?) } else { None };
        let event = Self {
            time_ms,
            kind,
            topic,
            partition: input.number(flags & HAS_PARTITION)?,
            broker: input.number(flags & HAS_BROKER)?.map(BrokerId),
            epoch: input.number(flags & HAS_EPOCH)?.map(Epoch),
            seen: input.text()?,
            decided: input.text()?,
            result: input.text()?,
            who: input.text()?,
        };
        match input.0.len() {
            0 => Ok(event),
            left => Err(EventError::LeftOver(left)),
        }
    }
}

/// The longest start of `text` that is allowed, ending at a character's end.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text);
    // At most TEXT_BYTES_MAX, which fits.
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EventError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(EventError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next number, if its flag is set.
    fn number(&mut self, flag: u8) -> Result<Option<u32>, EventError> {
        if flag == 0 {
            return Ok(None);
        }
        self.array().map(u32::from_be_bytes).map(Some)
    }

    fn text(&mut self) -> Result<String, EventError> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        if len > TEXT_BYTES_MAX {
            return Err(EventError::TextTooLong(len));
        }
        let (taken, rest) = self.0.split_at_checked(len).ok_or(EventError::Truncated)?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).map_err(|_| EventError::NotText)
    }
}

const _: () = assert!(TEXT_BYTES_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn events() -> impl Strategy<Value = Event> {
        let what = (any::<i64>(), prop::sample::select(EventKind::ALL), prop::option::of(".{0,40}"));
        let numbers = prop::array::uniform3(prop::option::of(any::<u32>()));
        (what, numbers, prop::array::uniform4(".{0,80}")).prop_map(
            |((time_ms, kind, topic), [partition, broker, epoch], [seen, decided, result, who])| Event {
                time_ms,
                kind,
                topic,
                partition,
                broker: broker.map(BrokerId),
                epoch: epoch.map(Epoch),
                seen,
                decided,
                result,
                who,
            },
        )
    }

    proptest! {
        #[test]
        fn events_round_trip_and_no_part_of_one_is_taken_for_one(event in events()) {
            let bytes = event.encode();
            prop_assert!(bytes.len() <= EVENT_BYTES_MAX);
            prop_assert_eq!(Event::decode(&bytes), Ok(event));
            for end in 0..bytes.len() {
                prop_assert_eq!(Event::decode(&bytes[..end]), Err(EventError::Truncated));
            }
        }

        #[test]
        fn any_bytes_give_an_event_or_an_error(data in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(event) = Event::decode(&data) {
                prop_assert_eq!(&event.encode()[..], &data[..]);
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let event = Event::new(258, EventKind::LeaderMoved)
            .topic("t")
            .partition(7)
            .broker(BrokerId(2))
            .epoch(Epoch(3))
            .seen("a")
            .decided("b")
            .result("é")
            .who("c");
        let expected = [
            &[1, 3][..],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0x0f],
            &[0, 1, b't'],
            &[0, 0, 0, 7],
            &[0, 0, 0, 2],
            &[0, 0, 0, 3],
            &[0, 1, b'a', 0, 1, b'b', 0, 2, 0xc3, 0xa9, 0, 1, b'c'],
        ]
        .concat();
        assert_eq!(event.encode(), expected);
        assert_eq!(Event::decode(&expected), Ok(event));
        let least = Event::new(-1, EventKind::EventsDropped);
        let expected = [&[1, 14][..], &[0xff; 8], &[0; 9]].concat();
        assert_eq!(least.encode(), expected);
    }

    #[test]
    fn what_is_no_event_gives_a_typed_error() {
        let good = Event::new(1, EventKind::BrokerGone).encode().to_vec();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Event::decode(&bytes)
        };
        assert_eq!(with(0, 2), Err(EventError::Version(2)));
        assert_eq!(with(1, 200), Err(EventError::Kind(200)));
        assert_eq!(with(10, 0x10), Err(EventError::Flags(0x10)));
        assert_eq!(with(11, 0xff), Err(EventError::TextTooLong(0xff00)));
        assert_eq!(with(12, 1), Err(EventError::Truncated));
        let not_text = [&good[..11], &[0, 1, 0xff], &[0; 6]].concat();
        assert_eq!(Event::decode(&not_text), Err(EventError::NotText));
        assert_eq!(Event::decode(&[&good[..], b"x"].concat()), Err(EventError::LeftOver(1)));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let event = Event::new(1, EventKind::NoRoom).seen("é".repeat(TEXT_BYTES_MAX)).who("x".repeat(100_000));
        let read = Event::decode(&event.encode()).unwrap();
        assert_eq!((read.seen.len(), read.who.len()), (TEXT_BYTES_MAX, TEXT_BYTES_MAX));
        let odd = Event::new(1, EventKind::NoRoom).seen(format!("x{}", "é".repeat(TEXT_BYTES_MAX)));
        assert_eq!(Event::decode(&odd.encode()).unwrap().seen.len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn names_and_numbers_are_unique() {
        let names: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(EventKind::from_number(0), None);
    }
}
