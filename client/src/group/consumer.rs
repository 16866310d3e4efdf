//! A consumer in a group. It takes part whenever it polls.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use baton_core::{Epoch, ErrorCode, Offset};
use baton_proto::v1;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    GroupConfig, Rebalance,
    heartbeat::{self, Stand},
    membership::{Me, Place},
    offsets,
};
use crate::{
    client::{AbortOnDrop, Client},
    consumer::{Consumer, Start},
    error::ClientError,
    metadata::PartitionName,
    record::ConsumedRecord,
};

/// How long a commit or a departure may take while something else waits for it.
const PARTING: Duration = Duration::from_secs(5);

/// A place in the current generation.
struct Current {
    place: Place,
    stand: watch::Receiver<Stand>,
    /// When the leader looks at the topics again.
    look_at: Instant,
    _heartbeat: AbortOnDrop,
}

/// Ends a join when its owner is dropped.
struct Joining(JoinHandle<Result<Place, ClientError>>);

impl Drop for Joining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads its part of the topics of a group.
pub struct GroupConsumer {
    me: Arc<Me>,
    consumer: Consumer,
    current: Option<Current>,
    joining: Option<Joining>,
    /// Handed out and not committed: the next record, and the epoch of the last one.
    uncommitted: BTreeMap<PartitionName, (Offset, Option<Epoch>)>,
    commit_at: Option<Instant>,
}

impl Client {
    /// A consumer in a group. It joins when it polls for the first time.
    #[must_use]
    pub fn group_consumer(&self, config: GroupConfig) -> GroupConsumer {
        let consumer = self.consumer(config.consumer.clone());
        let commit_at = config.commit_every.map(|every| Instant::now() + every);
        let me = Arc::new(Me::new(self.shared.clone(), config));
        GroupConsumer { me, consumer, current: None, joining: None, uncommitted: BTreeMap::new(), commit_at }
    }
}

impl GroupConsumer {
    /// Waits until there are records, at most so long, and takes part in the group meanwhile.
    /// An empty answer means that there were none in that time, or that the group still divides
    /// its partitions.
    ///
    /// # Errors
    /// What no retry can cure: the group refuses this consumer, or, once per partition, what
    /// [`Consumer::poll`] returns.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = Instant::now() + wait;
        loop {
            if timeout_at(deadline, self.take_part()).await.unwrap_or(Ok(false))? {
                self.commit_if_due().await;
                let left = deadline.saturating_duration_since(Instant::now());
                let Some(current) = &mut self.current else { continue };
                let records = tokio::select! {
                    biased;
                    () = disturbed(&mut current.stand) => continue,
                    records = self.consumer.poll(left) => records?,
                };
                if records.is_empty() {
                    self.look_at_topics().await;
                }
                self.note(&records);
                return Ok(records);
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// Commits what `poll` has handed out so far.
    ///
    /// # Errors
    /// The coordinator does not answer in time, or refuses: `REBALANCE_IN_PROGRESS`,
    /// `ILLEGAL_GENERATION` and `UNKNOWN_MEMBER_ID` mean that another member may read it again.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        let Some(current) = &self.current else {
            let cause = "this consumer has no part of the group's partitions now";
            return Err(baton_core::Error::new(ErrorCode::UnknownMember, cause).into());
        };
        let by = Some((self.me.identity(), current.place.generation));
        let limit = self.me.coordinator.shared.config.request_timeout;
        offsets::commit(&self.me.coordinator, by, &self.uncommitted, Instant::now() + limit).await?;
        self.uncommitted.clear();
        Ok(())
    }

    /// What it reads now.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, u32)> {
        self.current.iter().flat_map(|current| current.place.partitions.keys().cloned()).collect()
    }

    /// The generation that it is in; none while it joins.
    #[must_use]
    pub fn generation(&self) -> Option<i32> {
        self.current.as_ref().map(|current| current.place.generation)
    }

    /// Its member id; empty before the first join.
    #[must_use]
    pub fn member(&self) -> String {
        self.me.id()
    }

    /// The next record that `poll` hands out; see [`Consumer::position`].
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        self.consumer.position(topic, partition)
    }

    /// Goes on from another place, until the next rebalance or commit.
    ///
    /// # Errors
    /// It does not read the partition.
    pub fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        self.uncommitted.remove(&(topic.into(), partition));
        self.consumer.seek(topic, partition, start)
    }

    /// These were handed out and are not worked on: they are not committed, and are handed out
    /// again by the next `poll`.
    ///
    /// # Errors
    /// One of them is of a partition that this consumer does not read any more.
    pub fn hand_back(&mut self, records: &[ConsumedRecord]) -> Result<(), ClientError> {
        let mut first: BTreeMap<PartitionName, Offset> = BTreeMap::new();
        for record in records {
            let offset = first.entry((record.topic.clone(), record.partition)).or_insert(record.offset);
            *offset = record.offset.min(*offset);
        }
        for (name, offset) in first {
            self.consumer.seek(&name.0, name.1, Start::Offset(offset))?;
            self.uncommitted.insert(name, (offset, None));
        }
        Ok(())
    }

    /// Commits if that is automatic, and leaves the group, so that others take over at once. A
    /// static member stays until its session ends.
    ///
    /// # Errors
    /// The commit failed; it has left nevertheless.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let commits = self.me.config.commit_every.is_some() && self.current.is_some();
        let committed = if commits { self.commit().await } else { Ok(()) };
        self.joining = None;
        let revoked = self.give_up();
        self.tell(&Rebalance::Revoked(revoked));
        if self.me.config.instance.is_none() && !self.me.id().is_empty() {
            let request = v1::LeaveGroupRequest {
                group: self.me.config.group.clone(),
                members: vec![self.me.identity()],
                timeout_ms: 0,
            };
            let deadline = Instant::now() + PARTING;
            let left = self.me.coordinator.call("leaving", deadline, PARTING, |mut client, timeout_ms| {
                let request = v1::LeaveGroupRequest { timeout_ms, ..request.clone() };
                async move { client.leave_group(request).await }
            });
            if let Err(error) = left.await.map(|v1::LeaveGroupResponse { .. }| ()) {
                // Its session ends by itself.
                tracing::debug!(group = self.me.config.group, %error, "could not say goodbye");
            }
        }
        committed
    }

    /// Whether it has a place in a generation now. Cancelled, it goes on where it was.
    async fn take_part(&mut self) -> Result<bool, ClientError> {
        if let Some(current) = &self.current {
            let stand = current.stand.borrow().clone();
            match stand {
                Stand::Good => return Ok(true),
                Stand::Rebalances => {
                    self.commit_before_parting().await;
                    let revoked = self.give_up();
                    self.tell(&Rebalance::Revoked(revoked));
                }
                Stand::Lost | Stand::Refused(_) => {
                    if stand == Stand::Lost {
                        self.me.forget_id();
                    }
                    let lost = self.give_up();
                    self.tell(&Rebalance::Lost(lost));
                    if let Stand::Refused(error) = stand {
                        return Err(error);
                    }
                }
            }
        }
        let me = self.me.clone();
        let joining = self.joining.get_or_insert_with(|| Joining(tokio::spawn(async move { me.join().await })));
        let joined = (&mut joining.0).await;
        self.joining = None;
        let place = joined.map_err(|error| ClientError::Protocol(format!("joining ended early: {error}")))??;
        self.begin(place);
        Ok(true)
    }

    /// A generation begins: reads on from where the group is.
    fn begin(&mut self, place: Place) {
        let (stands, stand) = watch::channel(Stand::Good);
        let task = tokio::spawn(heartbeat::run(self.me.clone(), place.generation, stands));
        for (name, committed) in &place.partitions {
            self.consumer.take(name.clone(), committed.map_or(self.me.config.start, Start::Offset));
        }
        let assigned = place.partitions.keys().cloned().collect();
        let look_at = Instant::now() + self.me.config.look_every;
        self.current = Some(Current { place, stand, look_at, _heartbeat: AbortOnDrop(task) });
        self.tell(&Rebalance::Assigned(assigned));
    }

    /// Reads nothing any more; returns what it read.
    fn give_up(&mut self) -> Vec<PartitionName> {
        self.uncommitted.clear();
        let Some(current) = self.current.take() else { return Vec::new() };
        let mut by_topic: BTreeMap<Arc<str>, BTreeSet<u32>> = BTreeMap::new();
        for (topic, partition) in current.place.partitions.keys() {
            by_topic.entry(topic.clone()).or_default().insert(*partition);
        }
        for (topic, partitions) in by_topic {
            self.consumer.unassign(&topic, &partitions.into_iter().collect::<Vec<_>>());
        }
        current.place.partitions.into_keys().collect()
    }

    fn tell(&self, rebalance: &Rebalance) {
        tracing::debug!(group = self.me.config.group, ?rebalance, "rebalanced");
        if let Some(on_rebalance) = &self.me.config.on_rebalance {
            on_rebalance(rebalance);
        }
    }

    fn note(&mut self, records: &[ConsumedRecord]) {
        for record in records {
            let name = (record.topic.clone(), record.partition);
            self.uncommitted.insert(name, (record.offset.plus(1), Some(record.epoch)));
        }
    }

    async fn commit_if_due(&mut self) {
        let Some(every) = self.me.config.commit_every else { return };
        if self.commit_at.is_some_and(|at| at <= Instant::now()) {
            self.commit_at = Some(Instant::now() + every);
            self.commit_before_parting().await;
        }
    }

    /// What is not committed is read again by whoever gets the partition.
    async fn commit_before_parting(&mut self) {
        if self.me.config.commit_every.is_none() {
            return;
        }
        match timeout_at(Instant::now() + PARTING, self.commit()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(group = self.me.config.group, %error, "offsets are not committed"),
            Err(_) => tracing::warn!(group = self.me.config.group, "offsets were not committed in time"),
        }
    }

    /// The leader joins again when there is something else to divide.
    async fn look_at_topics(&mut self) {
        let Some(current) = &mut self.current else { return };
        let Some(divided) = current.place.divided.clone().filter(|_| current.look_at <= Instant::now()) else { return };
        current.look_at = Instant::now() + self.me.config.look_every;
        if self.me.changed(&divided).await {
            self.commit_before_parting().await;
            let revoked = self.give_up();
            self.tell(&Rebalance::Revoked(revoked));
        }
    }
}

/// Until the place is not good any more.
async fn disturbed(stand: &mut watch::Receiver<Stand>) {
    if stand.wait_for(|stand| *stand != Stand::Good).await.is_err() {
        // The heartbeats have ended, and said why before.
        pending::<()>().await;
    }
}
