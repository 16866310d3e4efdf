//! Consumer groups: who is in one, who reads what, and how far they got.
//!
//! A [`GroupCoordinator`] decides for all groups whose ids hash to one internal partition; the
//! broker that leads the partition runs it. What must survive is appended there, and nobody
//! hears of a change before it is durable on every in-sync replica; so another leader goes on
//! from the log without losing a committed offset or a member that is alive. What need not
//! survive (who has joined so far, when somebody was last heard of) is in memory only.
//!
//! | module | what it has |
//! |---|---|
//! | [`message`] | requests, answers, effects |
//! | [`consumer`] | what consumers say to each other |
//! | [`classic`] | one group: joining, syncing, heartbeats, leaving |
//! | [`offsets`] | one group's offsets |
//! | [`record`] | what is in the log |
//! | [`settings`] | limits and times |

pub mod classic;
mod commit;
pub mod consumer;
mod forget;
pub mod message;
mod mutation;
pub mod offsets;
mod out;
mod query;
pub mod record;
mod replay;
pub mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::classic::Group;
use self::message::{Answer, Effect, Identity, Input, Join, RequestId, Ticket};
use self::out::{Appends, Out, Purpose};
use self::settings::GroupSettings;
use crate::error::{Error, ErrorCode};

pub use self::mutation::Mutation;
pub use self::query::{Fetched, GroupDescription, GroupListing, MemberDescription};

/// The longest id of a group, in bytes.
pub const GROUP_ID_BYTES_MAX: usize = 249;

/// The partition, of `partitions`, that a group belongs to: as Kafka chooses it (Java's hash
/// of the id's UTF-16 units, without its sign).
#[must_use]
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as u32 % partitions.max(1)
}

/// All groups of one internal partition.
#[derive(Clone, Debug)]
pub struct GroupCoordinator {
    settings: GroupSettings,
    groups: BTreeMap<String, Group>,
    appends: Appends,
    /// When something is due, and for which group.
    due: BTreeSet<(i64, String)>,
    due_of: BTreeMap<String, i64>,
}

impl GroupCoordinator {
    #[must_use]
    pub fn new(settings: GroupSettings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            appends: Appends::default(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
        }
    }

    /// The earliest time at which [`Input::Tick`] has something to do, in ms.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes in what happened, and says what to do.
    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let settings = self.settings.clone();
        let mut appends = std::mem::take(&mut self.appends);
        let mut touched: BTreeSet<_> =
            input.group().or_else(|| appends.group_of(&input)).map(str::to_owned).into_iter().collect();
        if input == Input::Tick {
            touched.extend(self.due.iter().take_while(|(at, _)| *at <= now_ms).map(|(_, name)| name.clone()));
        }
        let mut out = Out { now_ms, settings: &settings, appends: &mut appends, effects: Vec::new() };
        self.take_in(input, &mut out);
        let effects = out.effects;
        self.appends = appends;
        touched.iter().for_each(|name| self.settle(name));
        effects
    }

    /// After a group changed: when is something due for it, and is it still one?
    fn settle(&mut self, name: &str) {
        if self.groups.get(name).is_some_and(Group::is_forgettable) && !self.appends.concern(name) {
            self.groups.remove(name);
        }
        let due = self.groups.get(name).and_then(Group::deadline_ms);
        if let Some(before) = self.due_of.remove(name) {
            self.due.remove(&(before, name.to_owned()));
        }
        if let Some(at) = due {
            self.due.insert((at, name.to_owned()));
            self.due_of.insert(name.to_owned(), at);
        }
    }

    fn take_in(&mut self, input: Input, out: &mut Out<'_>) {
        match input {
            Input::Join(request, name, join) => self.join(request, name, &join, out),
            Input::Sync(request, name, sync) => match self.found(&name) {
                Ok(group) => group.sync(request, &sync, out),
                Err(error) => out.answer(request, Answer::Sync(Err(error))),
            },
            Input::Heartbeat { request, group, identity, generation } => {
                let result = self.found(&group).and_then(|g| g.heartbeat(&identity, generation, out.now_ms));
                out.answer(request, Answer::Heartbeat(result));
            }
            Input::Leave { request, group, members } => self.leave(request, &group, members, out),
            Input::Commit(request, name, commit) => self.commit(request, name, commit, out),
            Input::DeleteOffsets { request, group, offsets } => self.delete_offsets(request, &group, offsets, out),
            Input::DeleteGroup { request, group } => self.delete_group(request, &group, out),
            Input::Appended { ticket, result } => self.appended(ticket, result, out),
            Input::TransactionEnded { producer, epoch, committed } => {
                self.groups.values_mut().for_each(|group| group.offsets.end_transaction(producer, epoch, committed));
            }
            Input::Tick => self.tick(out),
            Input::Sweep { topics, gone } => self.sweep(&topics, &gone, out),
            Input::End => self.end(out),
        }
    }

    fn join(&mut self, request: RequestId, name: String, join: &Join, out: &mut Out<'_>) {
        if let Err(error) = self.admit(&name, join) {
            return out.answer(request, Answer::Join(Err((error, join.identity.member.clone()))));
        }
        let group = self.groups.entry(name).or_insert_with_key(|name| Group::new(name.clone(), out.now_ms));
        group.join(request, join, out);
    }

    fn admit(&self, name: &str, join: &Join) -> Result<(), Error> {
        let (min, max) = (self.settings.session_ms_min, self.settings.session_ms_max);
        if !(min..=max).contains(&join.session_ms) {
            let cause = format!("a session of {} ms; from {min} to {max} ms are allowed", join.session_ms);
            return Err(Error::new(ErrorCode::InvalidSessionTimeout, cause));
        }
        self.admit_name(name)?;
        if !self.groups.contains_key(name) && !join.identity.member.is_empty() {
            return Err(unknown_member(name, &join.identity.member));
        }
        Ok(())
    }

    /// Whether there may be a group of this name, and something of it may be stored now.
    fn admit_name(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() || name.len() > GROUP_ID_BYTES_MAX {
            let cause = format!("a group id of {} bytes; 1 to {GROUP_ID_BYTES_MAX} are allowed", name.len());
            return Err(Error::new(ErrorCode::InvalidGroupId, cause));
        }
        if self.appends.len() >= self.settings.appends_max {
            let cause = "too many changes of groups are on their way to the log";
            return Err(Error::new(ErrorCode::CoordinatorUnavailable, cause));
        }
        match self.groups.get(name) {
            Some(group) if group.deleting => {
                let cause = format!("group {name} is being deleted");
                Err(Error::new(ErrorCode::CoordinatorUnavailable, cause))
            }
            None if self.groups.len() >= self.settings.groups_max => {
                let cause = format!("this coordinator has {} groups, and no more are allowed", self.groups.len());
                Err(Error::new(ErrorCode::PolicyViolation, cause))
            }
            _ => Ok(()),
        }
    }

    fn found(&mut self, name: &str) -> Result<&mut Group, Error> {
        self.groups.get_mut(name).ok_or_else(|| unknown_member(name, ""))
    }

    fn leave(&mut self, request: RequestId, name: &str, members: Vec<Identity>, out: &mut Out<'_>) {
        match self.groups.get_mut(name) {
            Some(group) => group.leave(request, members, out),
            None => {
                let refused = members.into_iter().map(|identity| {
                    let error = unknown_member(name, &identity.member);
                    (identity, Err(error))
                });
                out.answer(request, Answer::Leave(refused.collect()));
            }
        }
    }

    fn appended(&mut self, ticket: Ticket, result: Result<(), Error>, out: &mut Out<'_>) {
        match out.appends.take(ticket) {
            Some(Purpose::Generation { group, generation }) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.announced(generation, result, out);
                }
            }
            Some(Purpose::Assignment { group, generation }) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.assigned(generation, result, out);
                }
            }
            Some(Purpose::Replaced { group, member, request, may_skip, old_leader }) => match result {
                Ok(()) => match self.groups.get_mut(&group) {
                    Some(found) => found.replaced(&member, request, may_skip, old_leader.as_deref(), out),
                    None => refuse_join(request, unknown_member(&group, &member), out),
                },
                Err(error) => refuse_join(request, unavailable(error), out),
            },
            Some(Purpose::Commit { group, request, accepted, refused, transaction }) => {
                self.committed(&group, request, accepted, refused, transaction, result, out);
            }
            Some(Purpose::Forget { group, offsets, answer }) => self.forgotten(&group, &offsets, answer, result, out),
            Some(Purpose::Delete { group, answer }) => self.deleted(&group, answer, result, out),
            Some(Purpose::Emptied) | None => {}
        }
    }

    fn tick(&mut self, out: &mut Out<'_>) {
        let now_ms = out.now_ms;
        for (_, name) in self.due.iter().take_while(|(at, _)| *at <= now_ms) {
            if let Some(group) = self.groups.get_mut(name) {
                group.tick(out);
            }
        }
    }

    /// Everybody who waits has to ask the next coordinator.
    fn end(&mut self, out: &mut Out<'_>) {
        let moved = || Error::new(ErrorCode::NotCoordinator, "this broker does not coordinate the group any more");
        let purposes: Vec<_> = out.appends.drain().collect();
        for purpose in purposes {
            match purpose {
                Purpose::Replaced { request, .. } => refuse_join(request, moved(), out),
                Purpose::Commit { request, accepted, refused, .. } => {
                    let moved = accepted.into_iter().map(|(at, _)| (at, Err(moved())));
                    let refused = refused.into_iter().map(|(at, error)| (at, Err(error)));
                    out.answer(request, Answer::Commit(moved.chain(refused).collect()));
                }
                Purpose::Forget { answer: Some((request, _)), .. } => {
                    out.answer(request, Answer::DeleteOffsets(Err(moved())));
                }
                Purpose::Delete { answer: Some(request), .. } => {
                    out.answer(request, Answer::DeleteGroup(Err(moved())));
                }
                _ => {}
            }
        }
        for group in std::mem::take(&mut self.groups).values() {
            group.end(&moved(), out);
        }
        self.due.clear();
        self.due_of.clear();
    }
}

fn refuse_join(request: RequestId, error: Error, out: &mut Out<'_>) {
    out.answer(request, Answer::Join(Err((error, String::new()))));
}

fn unknown_member(group: &str, member: &str) -> Error {
    Error::new(ErrorCode::UnknownMember, format!("group {group} has no member {member:?}"))
}

/// What a client of a group hears when the log did not take something: it has to ask again,
/// here or elsewhere.
fn unavailable(error: Error) -> Error {
    use ErrorCode as E;
    let code = match error.code {
        E::NotLeader | E::NoLeader | E::ShuttingDown | E::ReplicaNotAvailable => E::NotCoordinator,
        E::BatchTooLarge | E::FrameTooLarge => return error,
        // The transaction of the offsets does not go on, or its producer is another by now.
        E::InvalidProducerEpoch
        | E::InvalidProducerMapping
        | E::InvalidTransactionState
        | E::ConcurrentTransactions
        | E::TransactionAbortable => return error,
        _ => E::CoordinatorUnavailable,
    };
    Error { code, ..error }
}
