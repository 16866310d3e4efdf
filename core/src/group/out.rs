//! What a step has to say: effects in order, and what is to happen once an append is durable.

use std::collections::BTreeMap;

use super::message::{Answer, Effect, Input, RequestId, Ticket};
use super::offsets::Committed;
use super::record::GroupRecord;
use super::settings::GroupSettings;
use crate::error::Error;
use crate::ids::{ProducerEpoch, ProducerId, TopicPartition};

/// Why something was appended.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A generation begins: whoever joined hears of it.
    Generation { group: String, generation: i32 },
    /// The leader divided the partitions: whoever asked hears of its part.
    Assignment { group: String, generation: i32 },
    /// A static member came back under another id and keeps its part.
    Replaced { group: String, member: String, request: RequestId, may_skip: bool, old_leader: Option<String> },
    /// The group is empty; nobody waits.
    Emptied,
    Commit {
        group: String,
        request: RequestId,
        accepted: Vec<(TopicPartition, Committed)>,
        refused: Vec<(TopicPartition, Error)>,
        transaction: Option<(ProducerId, ProducerEpoch)>,
    },
    /// Offsets are forgotten, and then the request is answered, if there is one.
    Forget { group: String, offsets: Vec<TopicPartition>, answer: Option<(RequestId, Answer)> },
    /// The whole group is forgotten.
    Delete { group: String, answer: Option<RequestId> },
}

/// Appends whose outcome is not known.
#[derive(Clone, Debug, Default)]
pub struct Appends {
    next: u64,
    purposes: BTreeMap<Ticket, Purpose>,
}

impl Appends {
    pub fn take(&mut self, ticket: Ticket) -> Option<Purpose> {
        self.purposes.remove(&ticket)
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Purpose> + use<> {
        std::mem::take(&mut self.purposes).into_values()
    }

    /// The group whose append this is the outcome of.
    pub fn group_of(&self, input: &Input) -> Option<&str> {
        let Input::Appended { ticket, .. } = input else { return None };
        self.purposes.get(ticket).and_then(Purpose::group)
    }

    /// Whether something of this group is on its way.
    pub fn concern(&self, name: &str) -> bool {
        self.purposes.values().any(|purpose| purpose.group() == Some(name))
    }

    pub fn len(&self) -> usize {
        self.purposes.len()
    }
}

impl Purpose {
    fn group(&self) -> Option<&str> {
        match self {
            Self::Generation { group, .. }
            | Self::Assignment { group, .. }
            | Self::Replaced { group, .. }
            | Self::Commit { group, .. }
            | Self::Forget { group, .. }
            | Self::Delete { group, .. } => Some(group),
            Self::Emptied => None,
        }
    }
}

/// Where a step writes to.
pub struct Out<'a> {
    pub now_ms: i64,
    pub settings: &'a GroupSettings,
    pub appends: &'a mut Appends,
    pub effects: Vec<Effect>,
}

impl Out<'_> {
    pub fn answer(&mut self, request: RequestId, answer: Answer) {
        self.effects.push(Effect::Answer(request, answer));
    }

    pub fn append(&mut self, records: Vec<GroupRecord>, purpose: Purpose) {
        self.append_in(records, None, purpose);
    }

    pub fn append_in(
        &mut self,
        records: Vec<GroupRecord>,
        transaction: Option<(ProducerId, ProducerEpoch)>,
        purpose: Purpose,
    ) {
        let ticket = Ticket(self.appends.next);
        self.appends.next += 1;
        self.appends.purposes.insert(ticket, purpose);
        self.effects.push(Effect::Append { ticket, records, transaction });
    }
}
