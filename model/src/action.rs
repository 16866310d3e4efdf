//! Everything that can happen next.

use std::fmt;

use baton_core::ids::BrokerId;

use crate::network::Link;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client sends the next record to this leader.
    Produce(BrokerId),
    /// A client sends this record again.
    Retry(BrokerId, u8),
    /// The first message on a stream arrives.
    Deliver(Link),
    /// So many messages on it are overtaken.
    Overtake(Link, u8),
    /// Both streams from one broker to another break and are opened anew.
    Reset(BrokerId, BrokerId),
    /// The oldest change of the log becomes durable.
    Sync(BrokerId),
    /// The disk has no space for the oldest append.
    FullDisk(BrokerId),
    /// The state of this version reaches the broker.
    Learn(BrokerId, i32),
    /// The broker elects itself.
    Elect(BrokerId),
    /// The detector of a leader takes a follower for silent, or hears it again.
    Silent(BrokerId, BrokerId),
    Heard(BrokerId, BrokerId),
    Tick(BrokerId),
    /// The registry carries out the write at this place of its list.
    Apply(usize),
    /// The answer reaches its leader.
    Answer(usize),
    /// The answer gets lost, whether or not the write took effect yet.
    LoseAnswer(usize),
    /// The session ends; a new one begins.
    Expire(BrokerId),
    Rejoin(BrokerId),
    Crash(BrokerId),
    Restart(BrokerId),
    /// The disk of a dead broker is replaced by an empty one.
    LoseDisk(BrokerId),
    /// The copy of a dead broker loses its records above this many.
    Damage(BrokerId, u8),
    Resign(BrokerId, BrokerId),
    /// The spare broker joins, and this one is to leave.
    Reassign(BrokerId),
    /// An operator chooses this copy, whatever the others have.
    Unclean(BrokerId),
    /// `min.insync.replicas` is changed; a broker learns of it.
    SetMin(u8),
    LearnMin(BrokerId),
    /// A leader reaches neither the registry nor a follower for long enough.
    Isolate(BrokerId),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Produce(at) => write!(f, "produce at broker {at}"),
            Self::Retry(at, id) => write!(f, "send record {id} again, to broker {at}"),
            Self::Deliver(link) => {
                let stream = if link.catch_up { " (catching up)" } else { "" };
                write!(f, "deliver {} → {}{stream}", link.from, link.to)
            }
            Self::Overtake(link, count) => write!(f, "deliver {} → {} before {count} others", link.from, link.to),
            Self::Reset(from, to) => write!(f, "the streams {from} → {to} break"),
            Self::Sync(at) => write!(f, "broker {at} syncs its oldest change"),
            Self::FullDisk(at) => write!(f, "the disk of broker {at} is full"),
            Self::Learn(at, version) => write!(f, "broker {at} reads version {version} of the state"),
            Self::Elect(at) => write!(f, "broker {at} elects itself"),
            Self::Silent(at, about) => write!(f, "broker {at} takes {about} for silent"),
            Self::Heard(at, about) => write!(f, "broker {at} hears {about} again"),
            Self::Tick(at) => write!(f, "broker {at} ticks"),
            Self::Apply(at) => write!(f, "the registry carries out write {at}"),
            Self::Answer(at) => write!(f, "write {at} is answered"),
            Self::LoseAnswer(at) => write!(f, "the answer to write {at} gets lost"),
            Self::Expire(at) => write!(f, "the session of broker {at} ends"),
            Self::Rejoin(at) => write!(f, "broker {at} opens a new session"),
            Self::Crash(at) => write!(f, "broker {at} crashes"),
            Self::Restart(at) => write!(f, "broker {at} starts"),
            Self::LoseDisk(at) => write!(f, "broker {at} gets an empty disk"),
            Self::Damage(at, keep) => write!(f, "the copy of broker {at} is damaged after {keep} records"),
            Self::Resign(at, toward) => write!(f, "broker {at} is to resign in favour of {toward}"),
            Self::Reassign(leaving) => write!(f, "broker 4 is to take the place of {leaving}"),
            Self::Unclean(chosen) => write!(f, "an operator chooses the copy of broker {chosen}"),
            Self::SetMin(min) => write!(f, "min.insync.replicas becomes {min}"),
            Self::LearnMin(at) => write!(f, "broker {at} learns of min.insync.replicas"),
            Self::Isolate(at) => write!(f, "broker {at} reaches nobody for a long time"),
        }
    }
}
