//! A member wants its part; the leader says who gets what.

use bytes::Bytes;

use super::{Group, Phase};
use crate::error::{Error, ErrorCode};
use crate::group::message::{Answer, RequestId, Sync, Synced};
use crate::group::out::{Out, Purpose};

impl Group {
    /// Answers at once, or when the leader's division is durable.
    pub(in crate::group) fn sync(&mut self, request: RequestId, sync: &Sync, out: &mut Out<'_>) {
        let id = &sync.identity.member;
        if let Err(error) = self.syncable(sync) {
            return out.answer(request, Answer::Sync(Err(error)));
        }
        let again = self.rebalancing();
        let Some(member) = self.members.get_mut(id) else { return };
        member.touch(out.now_ms);
        if let Some(before) = member.sync.replace(request) {
            // It gave that one up.
            out.answer(before, Answer::Sync(Err(again)));
        }
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            self.sync_deadline_ms = None;
        }
        if self.phase == Phase::Stable {
            self.hand_out(id, out);
        } else if self.leader.as_ref() == Some(id) && !self.assigning {
            self.divide(request, sync, out);
        }
    }

    fn syncable(&self, sync: &Sync) -> Result<(), Error> {
        self.known(&sync.identity)?;
        if sync.generation != self.generation {
            return Err(self.wrong_generation(sync.generation));
        }
        let other_type = sync.protocol_type.as_ref().is_some_and(|said| *said != self.protocol_type);
        let other = sync.protocol.is_some() && sync.protocol != self.protocol;
        if other_type || other {
            let (kind, chosen) = (&self.protocol_type, self.protocol.as_deref().unwrap_or_default());
            let cause = format!("group {} chose the protocol {chosen} of type {kind}", self.name);
            return Err(Error::new(ErrorCode::InconsistentProtocol, cause));
        }
        match self.phase {
            Phase::Completing | Phase::Stable => Ok(()),
            Phase::Empty => Err(self.unknown(&sync.identity.member)),
            Phase::Preparing | Phase::Announcing => Err(self.rebalancing()),
        }
    }

    /// Takes over what the leader decided; whoever it left out gets nothing.
    fn divide(&mut self, request: RequestId, sync: &Sync, out: &mut Out<'_>) {
        let bytes: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        if self.weight() + bytes > out.settings.group_bytes_max {
            let limit = out.settings.group_bytes_max;
            let cause = format!("the record of group {} would have more than {limit} bytes", self.name);
            if let Some(leader) = self.members.get_mut(&sync.identity.member) {
                leader.sync = None;
                self.unsynced.insert(sync.identity.member.clone());
                self.sync_deadline_ms.get_or_insert(out.now_ms);
            }
            return out.answer(request, Answer::Sync(Err(Error::new(ErrorCode::BatchTooLarge, cause))));
        }
        for member in self.members.values_mut() {
            let given = sync.assignments.iter().find(|(id, _)| *id == member.id);
            member.assignment = given.map_or_else(Bytes::new, |(_, assignment)| assignment.clone());
        }
        self.assigning = true;
        let record = self.record(true);
        out.append(vec![record], Purpose::Assignment { group: self.name.clone(), generation: self.generation });
    }

    /// Tells a member its part.
    pub(super) fn hand_out(&mut self, id: &str, out: &mut Out<'_>) {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone().unwrap_or_default());
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(request) = member.sync.take() else { return };
        member.touch(out.now_ms);
        let assignment = member.assignment.clone();
        out.answer(request, Answer::Sync(Ok(Synced { protocol_type, protocol, assignment })));
    }
}
