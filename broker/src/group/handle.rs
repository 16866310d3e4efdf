//! What listeners ask: who coordinates a group, and what groups and members want.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_core::group::message::{Answer, Commit, Identity, Input, Join, Joined, RequestId, Sync, Synced};
use baton_core::group::offsets::Committed;
use baton_core::group::{GROUP_ID_BYTES_MAX, GroupCoordinator, GroupDescription, GroupListing, partition_of};
use baton_core::transaction::Producer;
use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::clock::Seed;
use crate::cluster::ClusterView;
use crate::group::GROUPS_TOPIC;
use crate::group::requests::{CommittedAt, FetchedAt, JoinRefused, Place, PlaceResult};
use crate::group::seats::{Ask, Seats, not_coordinator};
use crate::shard::InTransaction;

/// The longest part of a member id that its client chose, in bytes.
const CLIENT_PART_MAX: usize = 64;

/// What the handle is made of.
pub struct GroupParts {
    pub me: BrokerId,
    pub view: ClusterView,
    /// Of the random part of member ids.
    pub seed: Seed,
}

/// The groups that this broker coordinates, and the way to the others. Cloning it is cheap.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

struct Shared {
    me: BrokerId,
    view: ClusterView,
    seats: Seats,
    ids: Mutex<StdRng>,
    wanted: watch::Sender<u64>,
}

impl Groups {
    #[must_use]
    pub fn new(parts: GroupParts) -> Self {
        let GroupParts { me, view, seed } = parts;
        let ids = Mutex::new(seed.rng());
        Self { shared: Arc::new(Shared { me, view, seats: Seats::default(), ids, wanted: watch::Sender::new(0) }) }
    }

    pub(super) fn seats(&self) -> &Seats {
        &self.shared.seats
    }

    pub(super) fn view(&self) -> &ClusterView {
        &self.shared.view
    }

    pub(super) fn wanted(&self) -> watch::Receiver<u64> {
        self.shared.wanted.subscribe()
    }

    /// The broker that coordinates a group. The first question has the groups' topic made, and
    /// waits for that and for an election as long as it may.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID`; `COORDINATOR_NOT_AVAILABLE` if there is none by the deadline.
    pub async fn coordinator_of(&self, group: &str, deadline: Instant) -> Result<BrokerId, Error> {
        check_id(group)?;
        let mut changes = self.shared.view.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                match self.shared.view.topic(GROUPS_TOPIC) {
                    Some(topic) if topic.partitions > 0 => {
                        let partition = partition_of(group, topic.partitions);
                        let id = TopicPartition { topic: topic.id, partition };
                        if let (Some(leader), _) = self.shared.view.leader(id) {
                            return leader;
                        }
                    }
                    _ => self.shared.wanted.send_modify(|times| *times = times.wrapping_add(1)),
                }
                // The topic is asked for again if nothing came of it.
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        };
        timeout_at(deadline, found).await.map_err(|_| {
            let cause = "the partition of the group has no leader, or the topic of the groups is not there yet";
            Error::new(ErrorCode::CoordinatorUnavailable, cause)
        })
    }

    /// A member joins; the answer comes when its generation begins. Its `fresh_id` is filled in
    /// here.
    ///
    /// # Errors
    /// Kafka's of a JoinGroup, and those of [`Groups::describe`].
    pub async fn join(&self, group: &str, join: Join, deadline: Instant) -> Result<Joined, JoinRefused> {
        let member = join.identity.member.clone();
        let refused = |error| JoinRefused { error, member };
        let join = Join { fresh_id: self.fresh_id(&join), ..join };
        let name = group.to_owned();
        let answer = self.change(group, deadline, move |request, _| Input::Join(request, name, join)).await;
        match answer {
            Ok(Answer::Join(Ok(joined))) => Ok(joined),
            Ok(Answer::Join(Err((error, member)))) => Err(JoinRefused { error, member }),
            Ok(_) => Err(refused(contradiction())),
            Err(error) => Err(refused(error)),
        }
    }

    /// A member asks for its part; the leader brings everybody's.
    ///
    /// # Errors
    /// Kafka's of a SyncGroup, and those of [`Groups::describe`].
    pub async fn sync(&self, group: &str, sync: Sync, deadline: Instant) -> Result<Synced, Error> {
        let name = group.to_owned();
        match self.change(group, deadline, move |request, _| Input::Sync(request, name, sync)).await? {
            Answer::Sync(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// A member is alive.
    ///
    /// # Errors
    /// Kafka's of a Heartbeat, and those of [`Groups::describe`].
    pub async fn heartbeat(
        &self,
        group: &str,
        identity: Identity,
        generation: i32,
        deadline: Instant,
    ) -> Result<(), Error> {
        let name = group.to_owned();
        let make = move |request, _| Input::Heartbeat { request, group: name, identity, generation };
        match self.change(group, deadline, make).await? {
            Answer::Heartbeat(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// Members leave.
    ///
    /// # Errors
    /// Those of [`Groups::describe`], for all of them; Kafka's of a LeaveGroup for each.
    pub async fn leave(
        &self,
        group: &str,
        members: Vec<Identity>,
        deadline: Instant,
    ) -> Result<Vec<(Identity, Result<(), Error>)>, Error> {
        let name = group.to_owned();
        let make = move |request, _| Input::Leave { request, group: name, members };
        match self.change(group, deadline, make).await? {
            Answer::Leave(results) => Ok(results),
            _ => Err(contradiction()),
        }
    }

    /// Remembers offsets. The answers are in no particular order.
    ///
    /// # Errors
    /// Those of [`Groups::describe`], for all of them; Kafka's of an OffsetCommit for each.
    pub async fn commit(&self, group: &str, commit: CommittedAt, deadline: Instant) -> Result<Vec<PlaceResult>, Error> {
        self.commit_in(group, commit, None, deadline).await
    }

    /// The same as part of a transaction: the offsets count when it commits (KIP-98, KIP-447).
    ///
    /// # Errors
    /// Those of [`Groups::commit`]; Kafka's of a TxnOffsetCommit for each.
    pub async fn commit_in(
        &self,
        group: &str,
        commit: CommittedAt,
        transaction: Option<(Producer, InTransaction)>,
        deadline: Instant,
    ) -> Result<Vec<PlaceResult>, Error> {
        let CommittedAt { identity, generation, offsets, connection } = commit;
        let mut answers = Vec::with_capacity(offsets.len());
        let (mut ids, mut places) = (Vec::new(), std::collections::BTreeMap::new());
        for (place, new) in offsets {
            match place.find(&self.shared.view) {
                Ok(id) => {
                    places.insert(id, place);
                    ids.push((id, new));
                }
                Err(error) => answers.push((place, Err(error))),
            }
        }
        let name = group.to_owned();
        let producer = transaction.as_ref().map(|(producer, _)| (producer.id, producer.epoch));
        let make = move |request, committed_ms| {
            let committed = ids.into_iter().map(|(id, new)| {
                let (offset, leader_epoch, metadata) = (new.offset, new.leader_epoch, new.metadata);
                (id, Committed { offset, leader_epoch, metadata, committed_ms })
            });
            let offsets = committed.collect();
            Input::Commit(request, name, Commit { identity, generation, offsets, transaction: producer, connection })
        };
        match self.change_in(group, transaction, deadline, make).await? {
            Answer::Commit(results) => {
                let named = |(id, result)| Some((places.get(&id)?.clone(), result));
                answers.extend(results.into_iter().filter_map(named));
                Ok(answers)
            }
            _ => Err(contradiction()),
        }
    }

    /// Committed offsets: those that are named, or all.
    ///
    /// # Errors
    /// Those of [`Groups::describe`], for all of them; `UNSTABLE_OFFSET` for each.
    pub async fn fetch(
        &self,
        group: &str,
        named: Option<Vec<Place>>,
        require_stable: bool,
        deadline: Instant,
    ) -> Result<Vec<FetchedAt>, Error> {
        let view = self.shared.view.clone();
        let name = group.to_owned();
        let look = move |coordinator: &GroupCoordinator| match named {
            None => {
                let all = coordinator.fetch(&name, None, require_stable).into_iter();
                all.filter_map(|(id, found)| Some((Place::of(id, &view)?, found))).collect()
            }
            Some(named) => {
                let one = |place: Place| {
                    // Of a topic that is not there nothing is committed.
                    let id = place.find(&view).ok();
                    let found = id.and_then(|id| coordinator.fetch(&name, Some(&[id]), require_stable).pop());
                    (place, found.map_or(Ok(None), |(_, found)| found))
                };
                named.into_iter().map(one).collect()
            }
        };
        self.look(group, deadline, look).await
    }

    /// Forgets offsets.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP` and those of [`Groups::describe`], for all of
    /// them; `GROUP_SUBSCRIBED_TO_TOPIC` for each.
    pub async fn delete_offsets(
        &self,
        group: &str,
        offsets: Vec<Place>,
        deadline: Instant,
    ) -> Result<Vec<PlaceResult>, Error> {
        let mut answers = Vec::new();
        let (mut ids, mut places) = (Vec::new(), std::collections::BTreeMap::new());
        for place in offsets {
            match place.find(&self.shared.view) {
                Ok(id) => {
                    ids.push((place.topic.to_string(), id));
                    places.insert(id, place);
                }
                Err(error) => answers.push((place, Err(error))),
            }
        }
        let name = group.to_owned();
        let make = move |request, _| Input::DeleteOffsets { request, group: name, offsets: ids };
        match self.change(group, deadline, make).await? {
            Answer::DeleteOffsets(results) => {
                let named = |(id, result)| Some((places.get(&id)?.clone(), result));
                answers.extend(results?.into_iter().filter_map(named));
                Ok(answers)
            }
            _ => Err(contradiction()),
        }
    }

    /// Forgets a group without members, and its offsets.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`, and those of [`Groups::describe`].
    pub async fn delete_group(&self, group: &str, deadline: Instant) -> Result<(), Error> {
        let name = group.to_owned();
        match self.change(group, deadline, move |request, _| Input::DeleteGroup { request, group: name }).await? {
            Answer::DeleteGroup(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// All that is known of a group besides its offsets; none if there is no such group.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`, `COORDINATOR_NOT_AVAILABLE`,
    /// `INVALID_GROUP_ID`, `REQUEST_TIMED_OUT`.
    pub async fn describe(&self, group: &str, deadline: Instant) -> Result<Option<GroupDescription>, Error> {
        let name = group.to_owned();
        self.look(group, deadline, move |coordinator| coordinator.describe(&name)).await
    }

    /// The groups that this broker coordinates. Some may be missing if there is an error.
    pub async fn list(&self, deadline: Instant) -> (Vec<GroupListing>, Option<Error>) {
        let (mut all, mut problem) = (Vec::new(), None);
        for partition in self.shared.seats.partitions() {
            match self.look_at(partition, deadline, GroupCoordinator::list).await {
                Ok(groups) => all.extend(groups),
                // Another broker lists them by now.
                Err(error) if error.code == ErrorCode::NotCoordinator => {}
                Err(error) => problem = Some(error),
            }
        }
        (all, problem)
    }

    /// A member id that nobody has: as Kafka's, so that tools show them alike.
    fn fresh_id(&self, join: &Join) -> String {
        let chosen = join.identity.instance.as_deref().unwrap_or(&join.client_id);
        let mut end = chosen.len().min(CLIENT_PART_MAX);
        while !chosen.is_char_boundary(end) {
            end -= 1;
        }
        // A generator that a panic left in the middle still draws.
        let random: u128 = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner).random();
        let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
        format!("{}-{id}", &chosen[..end])
    }

    /// Whether the partition is one of those that hold the groups.
    pub(crate) fn keeps(&self, at: TopicPartition) -> bool {
        self.shared.view.topic(GROUPS_TOPIC).is_some_and(|topic| topic.id == at.topic)
    }

    /// The partition that keeps a group's offsets: it becomes part of their transaction.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID`; `NOT_COORDINATOR` if the topic is not there yet.
    pub fn partition_of(&self, group: &str) -> Result<TopicPartition, Error> {
        let partition = self.partition(group)?;
        let topic = self.shared.view.topic(GROUPS_TOPIC).ok_or_else(not_coordinator)?;
        Ok(TopicPartition { topic: topic.id, partition })
    }

    /// Whether a coordinator of this broker will hear what happens in its partition.
    ///
    /// # Errors
    /// There is none, or it is still reading.
    pub(crate) fn is_coordinating(&self, partition: u32) -> Result<(), Error> {
        self.shared.seats.find(partition).map(drop)
    }

    /// A marker is in the partition: the offsets of the transaction count from now on, or never
    /// will. Told in the order of the log.
    ///
    /// # Errors
    /// The coordinator has gone, or has too much to do: the marker has to be written again.
    pub(crate) fn transaction_ended(&self, partition: u32, producer: Producer, committed: bool) -> Result<(), Error> {
        let ended = Input::TransactionEnded { producer: producer.id, epoch: producer.epoch, committed };
        self.ask(partition, Ask::Do(ended))
    }

    async fn change(
        &self,
        group: &str,
        deadline: Instant,
        make: impl FnOnce(RequestId, i64) -> Input + Send + 'static,
    ) -> Result<Answer, Error> {
        self.change_in(group, None, deadline, make).await
    }

    async fn change_in(
        &self,
        group: &str,
        transaction: Option<(Producer, InTransaction)>,
        deadline: Instant,
        make: impl FnOnce(RequestId, i64) -> Input + Send + 'static,
    ) -> Result<Answer, Error> {
        let partition = self.partition(group)?;
        let (reply, answer) = oneshot::channel();
        self.ask(partition, Ask::Change { make: Box::new(make), transaction, reply })?;
        answered(answer, deadline).await
    }

    async fn look<T: Send + 'static>(
        &self,
        group: &str,
        deadline: Instant,
        look: impl FnOnce(&GroupCoordinator) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.look_at(self.partition(group)?, deadline, look).await
    }

    async fn look_at<T: Send + 'static>(
        &self,
        partition: u32,
        deadline: Instant,
        look: impl FnOnce(&GroupCoordinator) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |coordinator: &GroupCoordinator| drop(reply.send(look(coordinator))));
        self.ask(partition, Ask::Look(look))?;
        answered(answer, deadline).await
    }

    fn partition(&self, group: &str) -> Result<u32, Error> {
        check_id(group)?;
        let topic = self.shared.view.topic(GROUPS_TOPIC).ok_or_else(not_coordinator)?;
        Ok(partition_of(group, topic.partitions))
    }

    fn ask(&self, partition: u32, ask: Ask) -> Result<(), Error> {
        let inbox = self.shared.seats.find(partition)?;
        inbox.try_send(ask).map_err(|refused| match refused {
            tokio::sync::mpsc::error::TrySendError::Closed(_) => not_coordinator(),
            tokio::sync::mpsc::error::TrySendError::Full(_) => {
                Error::new(ErrorCode::CoordinatorUnavailable, "too many requests wait for the group's coordinator")
            }
        })
    }
}

/// An answer that never comes means that the coordinator has gone.
async fn answered<T>(answer: oneshot::Receiver<T>, deadline: Instant) -> Result<T, Error> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(not_coordinator()),
        Err(_) => Err(Error::new(ErrorCode::RequestTimedOut, "the group's coordinator did not answer in time")),
    }
}

fn check_id(group: &str) -> Result<(), Error> {
    if group.is_empty() || group.len() > GROUP_ID_BYTES_MAX {
        let cause = format!("a group id of {} bytes; 1 to {GROUP_ID_BYTES_MAX} are allowed", group.len());
        return Err(Error::new(ErrorCode::InvalidGroupId, cause));
    }
    Ok(())
}

fn contradiction() -> Error {
    Error::new(ErrorCode::Internal, "the group's coordinator answered another question")
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").field("broker", &self.shared.me).finish_non_exhaustive()
    }
}
