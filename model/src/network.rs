//! Messages under way: in order on each stream, and lost only together with the stream.

use std::hash::{Hash, Hasher};

use baton_core::ids::BrokerId;
use baton_core::replica::{Flow, HelloReply, HelloVerdict, Message, Names, Replica, Stream};

use crate::bounds::Delays;
use crate::disk::Record;
use crate::names::index;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cargo {
    /// The stream was opened anew: what was on it is lost.
    Opened,
    Carries(Message),
}

/// A stream: from, to, and whether it is the one for followers that lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    pub from: BrokerId,
    pub to: BrokerId,
    pub catch_up: bool,
}

impl Link {
    #[must_use]
    pub fn new(from: BrokerId, to: BrokerId, stream: Stream) -> Self {
        Self { from, to, catch_up: stream == Stream::CatchUp }
    }

    #[must_use]
    pub fn renamed(&self, names: &impl Names) -> Self {
        Self { from: names.broker(self.from), to: names.broker(self.to), catch_up: self.catch_up }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub cargo: Cargo,
}

impl Packet {
    /// Whether it waits on the network until it is chosen.
    #[must_use]
    pub fn delayed(&self, delays: &Delays) -> bool {
        match &self.cargo {
            Cargo::Opened | Cargo::Carries(Message::Announce(_)) => true,
            Cargo::Carries(Message::Hello(_)) => delays.hellos,
            Cargo::Carries(Message::HelloReply(_)) => delays.replies,
            Cargo::Carries(Message::Append(_)) => delays.appends,
            Cargo::Carries(Message::Ack(_)) => delays.acks,
        }
    }

    /// Whether it does nothing at this replica, whatever comes before it.
    #[must_use]
    pub fn is_void_at(&self, replica: &Replica) -> bool {
        let (own, _) = replica.flows();
        match &self.cargo {
            Cargo::Opened | Cargo::Carries(Message::Announce(_) | Message::Hello(_)) => false,
            Cargo::Carries(Message::HelloReply(m)) => {
                let unanswered = matches!(m.verdict, HelloVerdict::NotYet | HelloVerdict::Fenced);
                m.epoch <= replica.epoch() && (m.flow < own || m.epoch < replica.epoch() || unanswered)
            }
            Cargo::Carries(Message::Append(m)) => m.flow < own || m.epoch < replica.epoch(),
            Cargo::Carries(Message::Ack(m)) => m.epoch < replica.epoch(),
        }
    }

    /// The flow that it belongs to, and whether the sender numbered it.
    #[must_use]
    pub fn flow(&self) -> Option<(Flow, bool)> {
        match &self.cargo {
            Cargo::Opened | Cargo::Carries(Message::Announce(_)) => None,
            Cargo::Carries(Message::Hello(m)) => Some((m.flow, true)),
            Cargo::Carries(Message::Ack(m)) => Some((m.flow, true)),
            Cargo::Carries(Message::HelloReply(m)) => Some((m.flow, false)),
            Cargo::Carries(Message::Append(m)) => Some((m.flow, false)),
        }
    }
}

impl Packet {
    /// Without the number of its flow.
    pub fn fingerprint(&self, names: &impl Names, into: &mut impl Hasher) {
        match &self.cargo {
            Cargo::Opened => 0u8.hash(into),
            Cargo::Carries(Message::Announce(m)) => (1u8, m.epoch, names.broker(m.leader.broker)).hash(into),
            Cargo::Carries(Message::Hello(m)) => {
                (2u8, m.epoch, names.member(&m.member), names.incarnation(m.incarnation)).hash(into);
                (&m.lineage, m.end).hash(into);
            }
            Cargo::Carries(Message::HelloReply(m)) => (3u8, m.epoch, &m.verdict).hash(into),
            Cargo::Carries(Message::Append(m)) => {
                (4u8, m.epoch, m.base, m.previous_epoch, m.high_watermark).hash(into);
                m.batches.len().hash(into);
                m.batches.iter().for_each(|batch| (batch.base, Record::of(batch)).hash(into));
            }
            Cargo::Carries(Message::Ack(m)) => {
                (5u8, m.epoch, names.member(&m.member), names.incarnation(m.incarnation), m.durable_end).hash(into);
            }
        }
    }
}

/// One line, for people.
#[must_use]
pub fn describe(cargo: &Cargo) -> String {
    match cargo {
        Cargo::Opened => "stream opened anew".into(),
        Cargo::Carries(Message::Announce(m)) => format!("Announce epoch {}", m.epoch),
        Cargo::Carries(Message::Hello(m)) => {
            let lineage: Vec<String> = m.lineage.entries().iter().map(|(e, o)| format!("{e}@{o}")).collect();
            format!("Hello epoch {} flow {} end {} lineage [{}]", m.epoch, m.flow.0, m.end, lineage.join(" "))
        }
        Cargo::Carries(Message::HelloReply(HelloReply { epoch, flow, verdict })) => match verdict {
            HelloVerdict::Accepted { truncate_to, high_watermark, .. } => {
                format!("HelloReply epoch {epoch} flow {} truncate to {truncate_to}, hw {high_watermark}", flow.0)
            }
            other => format!("HelloReply epoch {epoch} flow {} {other:?}", flow.0),
        },
        Cargo::Carries(Message::Append(m)) => {
            let records: Vec<String> = m.batches.iter().map(|b| format!("r{}", b.max_timestamp_ms)).collect();
            let (epoch, flow, base, hw) = (m.epoch, m.flow.0, m.base, m.high_watermark);
            format!("Append epoch {epoch} flow {flow} at {base} [{}] hw {hw}", records.join(" "))
        }
        Cargo::Carries(Message::Ack(m)) => format!("Ack epoch {} flow {} end {}", m.epoch, m.flow.0, m.durable_end),
    }
}

/// The places of the two ends.
#[must_use]
pub fn ends(link: &Link) -> (usize, usize) {
    (index(link.from), index(link.to))
}
