//! Offsets and groups are deleted, by somebody or because they are too old.

use std::collections::{BTreeMap, BTreeSet};

use super::classic::{Group, Phase};
use super::message::{Answer, RequestId};
use super::offsets::Committed;
use super::out::{Out, Purpose};
use super::record::GroupRecord;
use super::{GroupCoordinator, unavailable};
use crate::error::{Error, ErrorCode};
use crate::ids::{TopicId, TopicPartition};

/// Records of one append, so that it stays small.
const RECORDS_MAX: usize = 1_000;

impl GroupCoordinator {
    pub(super) fn delete_offsets(
        &mut self,
        request: RequestId,
        name: &str,
        offsets: Vec<(String, TopicPartition)>,
        out: &mut Out<'_>,
    ) {
        let subscribed = match self.settled_group(name, out).and_then(|group| group.subscribed_for_deletion()) {
            Ok(subscribed) => subscribed,
            Err(error) => return out.answer(request, Answer::DeleteOffsets(Err(error))),
        };
        let mut answers = Vec::with_capacity(offsets.len());
        let mut forgotten = Vec::new();
        for (topic, at) in offsets {
            if subscribed.contains(&topic) {
                let cause = format!("members of group {name} are subscribed to topic {topic}");
                answers.push((at, Err(Error::new(ErrorCode::GroupSubscribed, cause).topic(topic))));
            } else {
                answers.push((at, Ok(())));
                forgotten.push(at);
            }
        }
        let answer = Answer::DeleteOffsets(Ok(answers));
        if forgotten.is_empty() {
            return out.answer(request, answer);
        }
        forget(name, forgotten, Some((request, answer)), out);
    }

    pub(super) fn delete_group(&mut self, request: RequestId, name: &str, out: &mut Out<'_>) {
        let group = match self.settled_group(name, out) {
            Ok(group) if group.phase == Phase::Empty => group,
            Ok(group) => {
                let cause = format!("group {name} has {} members", group.members.len());
                let error = Error::new(ErrorCode::GroupNotEmpty, cause);
                return out.answer(request, Answer::DeleteGroup(Err(error)));
            }
            Err(error) => return out.answer(request, Answer::DeleteGroup(Err(error))),
        };
        group.delete(Some(request), out);
    }

    /// A group of which nothing is on its way to the log: what is deleted now is all there is.
    fn settled_group(&mut self, name: &str, out: &Out<'_>) -> Result<&mut Group, Error> {
        let busy = out.appends.concern(name);
        let Some(group) = self.groups.get_mut(name) else {
            return Err(Error::new(ErrorCode::GroupNotFound, format!("there is no group {name}")));
        };
        if busy || group.deleting || group.offsets.has_transactions() {
            let cause = format!("a change of group {name} is under way");
            return Err(Error::new(ErrorCode::CoordinatorUnavailable, cause));
        }
        Ok(group)
    }

    pub(super) fn forgotten(
        &mut self,
        name: &str,
        offsets: &[TopicPartition],
        answer: Option<(RequestId, Answer)>,
        result: Result<(), Error>,
        out: &mut Out<'_>,
    ) {
        if result.is_ok()
            && let Some(group) = self.groups.get_mut(name)
        {
            offsets.iter().for_each(|at| group.offsets.remove(*at));
        }
        if let Some((request, done)) = answer {
            let failed = |error| Answer::DeleteOffsets(Err(unavailable(error)));
            out.answer(request, result.map_or_else(failed, |()| done));
        }
    }

    pub(super) fn deleted(
        &mut self,
        name: &str,
        answer: Option<RequestId>,
        result: Result<(), Error>,
        out: &mut Out<'_>,
    ) {
        match (&result, self.groups.get_mut(name)) {
            (Ok(()), _) => {
                self.groups.remove(name);
            }
            (Err(_), Some(group)) => group.deleting = false,
            (Err(_), None) => {}
        }
        if let Some(request) = answer {
            out.answer(request, Answer::DeleteGroup(result.map_err(unavailable)));
        }
    }

    /// Forgets what nobody will ask for: offsets in topics that are gone, and those that were
    /// kept long enough.
    pub(super) fn sweep(&mut self, topics: &BTreeMap<TopicId, String>, gone: &BTreeSet<TopicId>, out: &mut Out<'_>) {
        for group in self.groups.values_mut() {
            if group.deleting || group.offsets.has_transactions() || out.appends.concern(&group.name) {
                continue;
            }
            let old = group.outlived(topics, gone, out);
            let all = old.len() == group.offsets.len();
            if all && group.phase == Phase::Empty && (group.recorded || !old.is_empty()) {
                group.delete(None, out);
            } else if !old.is_empty() {
                forget(&group.name, old, None, out);
            }
        }
    }
}

impl Group {
    /// The topics whose offsets are in use.
    fn subscribed_for_deletion(&self) -> Result<BTreeSet<String>, Error> {
        if self.phase == Phase::Empty {
            return Ok(BTreeSet::new());
        }
        self.subscriptions().ok_or_else(|| {
            let cause = format!("group {} has members that do not say which topics they read", self.name);
            Error::new(ErrorCode::GroupNotEmpty, cause)
        })
    }

    fn outlived(
        &self,
        topics: &BTreeMap<TopicId, String>,
        gone: &BTreeSet<TopicId>,
        out: &Out<'_>,
    ) -> Vec<TopicPartition> {
        let subscribed = if self.phase == Phase::Stable { self.subscriptions() } else { None };
        let keep_ms = out.settings.offsets_retention_ms;
        let is_old = |at: TopicPartition, committed: &Committed| {
            if gone.contains(&at.topic) {
                return true;
            }
            let Some(topic) = topics.get(&at.topic) else { return false };
            let unused_since = match (&subscribed, self.phase) {
                (_, Phase::Empty) => committed.committed_ms.max(self.since_ms),
                (Some(subscribed), _) if !subscribed.contains(topic) => committed.committed_ms,
                _ => return false,
            };
            unused_since.saturating_add(keep_ms) <= out.now_ms
        };
        self.offsets.iter().filter(|(at, committed)| is_old(*at, committed)).map(|(at, _)| at).collect()
    }

    /// Puts tombstones for all that there is; the group goes when they are durable.
    fn delete(&mut self, answer: Option<RequestId>, out: &mut Out<'_>) {
        self.deleting = true;
        let gone = |at| GroupRecord::Offset { group: self.name.clone(), at, committed: None };
        let mut records: Vec<_> = self.offsets.iter().map(|(at, _)| gone(at)).collect();
        records.push(GroupRecord::Group { group: self.name.clone(), metadata: None });
        let last = records.split_off((records.len() - 1) / RECORDS_MAX * RECORDS_MAX);
        for part in records.chunks(RECORDS_MAX) {
            out.append(part.to_vec(), Purpose::Emptied);
        }
        out.append(last, Purpose::Delete { group: self.name.clone(), answer });
    }
}

fn forget(name: &str, offsets: Vec<TopicPartition>, answer: Option<(RequestId, Answer)>, out: &mut Out<'_>) {
    let mut answer = answer;
    let mut parts = offsets.chunks(RECORDS_MAX).peekable();
    while let Some(part) = parts.next() {
        let gone = |at: &TopicPartition| GroupRecord::Offset { group: name.to_owned(), at: *at, committed: None };
        let records = part.iter().map(gone).collect();
        let answer = if parts.peek().is_none() { answer.take() } else { None };
        out.append(records, Purpose::Forget { group: name.to_owned(), offsets: part.to_vec(), answer });
    }
}
