//! Offsets are committed.

use super::GroupCoordinator;
use super::Mutation;
use super::classic::{Group, Phase};
use super::message::{Answer, Commit, RequestId};
use super::offsets::Committed;
use super::out::{Out, Purpose};
use super::record::GroupRecord;
use super::settings::GroupSettings;
use super::unavailable;
use crate::error::{Error, ErrorCode};
use crate::ids::{ProducerEpoch, ProducerId, TopicPartition};

/// What a record of an offset takes besides its texts.
const OFFSET_BYTES: usize = 64;

impl GroupCoordinator {
    pub(super) fn commit(&mut self, request: RequestId, name: String, commit: Commit, out: &mut Out<'_>) {
        let checked = self.admit_commit(&name, &commit).and_then(|()| {
            let group = self.groups.entry(name).or_insert_with_key(|name| Group::new(name.clone(), out.now_ms));
            group.may_commit(&commit, out.settings)?;
            group.in_time(&commit)?;
            group.touch(&commit.identity.member, out.now_ms);
            Ok(group)
        });
        let group = match checked {
            Ok(group) => group,
            Err(error) => {
                let refused = commit.offsets.iter().map(|(at, _)| (*at, Err(error.clone())));
                return out.answer(request, Answer::Commit(refused.collect()));
            }
        };
        let (accepted, refused) = sort_out(commit.offsets, out.settings);
        if accepted.is_empty() {
            let refused = refused.into_iter().map(|(at, error)| (at, Err(error)));
            return out.answer(request, Answer::Commit(refused.collect()));
        }
        let transaction = commit.transaction;
        if transaction.is_some() {
            accepted.iter().for_each(|(at, _)| group.offsets.begin_append(*at));
        }
        let name = group.name.clone();
        let record = |(at, committed): &(TopicPartition, Committed)| GroupRecord::Offset {
            group: name.clone(),
            at: *at,
            committed: Some(committed.clone()),
        };
        let records = accepted.iter().map(record).collect();
        let purpose = Purpose::Commit { group: name.clone(), request, accepted, refused, transaction };
        out.append_in(records, transaction, purpose);
    }

    fn admit_commit(&self, name: &str, commit: &Commit) -> Result<(), Error> {
        self.admit_name(name)?;
        if !self.groups.contains_key(name) && commit.generation >= 0 {
            let cause = format!("there is no group {name}, and so no generation {}", commit.generation);
            let code = match commit.transaction {
                None => ErrorCode::GroupNotFound,
                // Producers know no other code for it.
                Some(_) => ErrorCode::IllegalGeneration,
            };
            return Err(Error::new(code, cause));
        }
        Ok(())
    }

    /// The commit is durable, or was not taken.
    #[expect(clippy::too_many_arguments, reason = "the fields of one purpose")]
    pub(super) fn committed(
        &mut self,
        name: &str,
        request: RequestId,
        accepted: Vec<(TopicPartition, Committed)>,
        refused: Vec<(TopicPartition, Error)>,
        transaction: Option<(ProducerId, ProducerEpoch)>,
        result: Result<(), Error>,
        out: &mut Out<'_>,
    ) {
        let result = result.map_err(unavailable);
        let mut answers: Vec<_> = accepted.iter().map(|(at, _)| (*at, result.clone())).collect();
        answers.extend(refused.into_iter().map(|(at, error)| (at, Err(error))));
        if let Some(group) = self.groups.get_mut(name) {
            for (at, committed) in accepted {
                if transaction.is_some() {
                    group.offsets.end_append(at);
                }
                if result.is_ok() {
                    group.take_offset(at, committed, transaction);
                }
            }
        }
        out.answer(request, Answer::Commit(answers));
    }
}

impl Group {
    /// A commit that is in the log.
    pub(super) fn take_offset(
        &mut self,
        at: TopicPartition,
        committed: Committed,
        transaction: Option<(ProducerId, ProducerEpoch)>,
    ) {
        match transaction {
            Some((producer, epoch)) => self.offsets.add_pending(producer, epoch, at, committed),
            None => self.offsets.set(at, committed),
        }
    }

    fn may_commit(&self, commit: &Commit, settings: &GroupSettings) -> Result<(), Error> {
        if settings.lacks(Mutation::CommitOfAnyGeneration) {
            return Ok(());
        }
        // An administrator, or a consumer that divides the partitions in its own way, whatever
        // it calls itself.
        let from_outside = commit.generation < 0 && self.phase == Phase::Empty;
        if !from_outside {
            self.may_commit_as_member(commit)?;
        }
        if commit.transaction.is_none() && matches!(self.phase, Phase::Announcing | Phase::Completing) {
            return Err(self.rebalancing());
        }
        let added = commit.offsets.iter().filter(|(at, _)| self.offsets.get(*at).is_none()).count();
        if self.offsets.len() + added > settings.offsets_max {
            let cause = format!("group {} would have more than {} offsets", self.name, settings.offsets_max);
            return Err(Error::new(ErrorCode::PolicyViolation, cause));
        }
        let bytes: usize = commit.offsets.iter().map(|(_, c)| c.metadata.len() + self.name.len() + OFFSET_BYTES).sum();
        if bytes > settings.group_bytes_max {
            let cause = format!("a commit of {bytes} bytes; at most {} are taken at once", settings.group_bytes_max);
            return Err(Error::new(ErrorCode::BatchTooLarge, cause));
        }
        Ok(())
    }

    /// Whether the producer, or the member, has not committed on a later connection before.
    /// Somebody from outside cannot be told from others.
    fn in_time(&mut self, commit: &Commit) -> Result<(), Error> {
        if let Some((producer, _)) = commit.transaction {
            return self.transactions_on.admit(producer, commit.connection);
        }
        let Some(member) = self.members.get_mut(&commit.identity.member) else { return Ok(()) };
        member.commits_on.admit(commit.connection)
    }

    fn may_commit_as_member(&self, commit: &Commit) -> Result<(), Error> {
        let identity = &commit.identity;
        if commit.generation >= 0 || !identity.member.is_empty() || identity.instance.is_some() {
            self.known(identity)?;
            if commit.generation != self.generation {
                return Err(self.wrong_generation(commit.generation));
            }
        } else if commit.transaction.is_none() {
            let cause = format!("group {} has members, and only they may commit its offsets", self.name);
            return Err(Error::new(ErrorCode::UnknownMember, cause));
        }
        Ok(())
    }
}

type Accepted = Vec<(TopicPartition, Committed)>;

fn sort_out(offsets: Accepted, settings: &GroupSettings) -> (Accepted, Vec<(TopicPartition, Error)>) {
    let limit = settings.offset_metadata_bytes_max;
    let (accepted, refused): (Vec<_>, Vec<_>) = offsets.into_iter().partition(|(_, c)| c.metadata.len() <= limit);
    let too_large = |(at, committed): (TopicPartition, Committed)| {
        let cause = format!("a text of {} bytes beside the offset; at most {limit} are kept", committed.metadata.len());
        (at, Error::new(ErrorCode::OffsetMetadataTooLarge, cause))
    };
    (accepted, refused.into_iter().map(too_large).collect())
}
