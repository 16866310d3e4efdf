//! Administration: any broker takes a request and forwards it to the coordinator.

mod groups;
mod types;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};

use baton_core::{BrokerId, Error, ErrorCode, Offset};
use baton_proto::v1::{self, admin_client::AdminClient};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status, transport::Channel};

pub use self::groups::{GroupDescription, GroupSummary, MemberDescription};
pub use self::types::{
    At, BrokerStatus, ClusterStatus, CoordinatorStatus, Endpoint, Event, PartitionDescription, PartitionProblem,
    TopicDescription, TopicSpec, TopicSummary,
};
use crate::{
    client::{Client, Shared},
    error::{Attempt, ClientError},
    metadata,
    net::{self, Purpose},
    offsets::{self, Ask},
};

/// What an answer may take beyond the time that the coordinator was given.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether a topic that somebody else finished is led.
const LED_AGAIN: Duration = Duration::from_millis(50);
/// How long the leaders are asked for offsets before a listing leaves them out.
const OFFSETS_WAIT: Duration = Duration::from_secs(3);

/// Administers a cluster.
#[derive(Clone)]
pub struct Admin {
    client: Client,
    who: String,
}

/// What a call came to besides its answer.
struct Done<T> {
    answer: T,
    /// An earlier attempt ended without an answer, so it may have been carried out.
    repeated: bool,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        let who = client.shared.config.client_id.clone();
        Self { client, who }
    }

    /// Says in the cluster's history who asked; the client's id if it is not called.
    #[must_use]
    pub fn on_behalf_of(mut self, who: impl Into<String>) -> Self {
        self.who = who.into();
        self
    }

    /// Makes a topic; answers when every partition is led.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, an invalid name, count or setting, or no coordinator.
    pub async fn create_topic(&self, spec: TopicSpec) -> Result<TopicSummary, ClientError> {
        let request = v1::CreateTopicRequest {
            name: spec.name.clone(),
            partitions: spec.partitions,
            replication: spec.replication,
            config: spec.config.clone().into_iter().collect(),
            assignment: spec.assignment.iter().map(|brokers| v1::ReplicaList { brokers: numbers(brokers) }).collect(),
            timeout_ms: millis(spec.timeout),
            who: self.who.clone(),
            validate_only: spec.validate_only,
            internal: false,
        };
        let done =
            self.command(spec.timeout, &request, |mut admin, request| async move { admin.create_topic(request).await });
        let Done { answer, repeated } = done.await?;
        match summary(spec.name.clone(), answer) {
            // The attempt whose answer was lost made it.
            Err(ClientError::Broker(error)) if error.code == ErrorCode::TopicExists && repeated => {
                Ok(summary_of(self.led_topic(&spec.name, spec.timeout).await?))
            }
            answer => answer,
        }
    }

    /// The topic, once every partition is led.
    async fn led_topic(&self, name: &str, limit: Duration) -> Result<TopicDescription, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            let topic = self.describe_topic(name).await?;
            if topic.partitions.iter().all(|partition| partition.leader.is_some()) {
                return Ok(topic);
            }
            if Instant::now() >= deadline {
                return Err(timed_out(limit, None));
            }
            sleep(LED_AGAIN).await;
        }
    }

    /// Changes the settings of a topic; those to unset fall back to their defaults.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, an invalid setting, or no coordinator.
    pub async fn alter_topic(
        &self,
        name: &str,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
    ) -> Result<TopicSummary, ClientError> {
        let set = set.into_iter().collect();
        let request = v1::AlterTopicRequest { name: name.to_owned(), set, unset, who: self.who.clone() };
        let limit = self.limit();
        let done = self.command(limit, &request, |mut admin, request| async move { admin.alter_topic(request).await });
        summary(name.to_owned(), done.await?.answer)
    }

    /// Adds partitions until there are `total`; answers when every one is led.
    ///
    /// # Errors
    /// `KEYS_WOULD_MOVE` unless that is accepted, `UNKNOWN_TOPIC`, `INVALID_PARTITIONS`.
    pub async fn add_partitions(
        &self,
        name: &str,
        total: u32,
        accept_moved_keys: bool,
    ) -> Result<TopicSummary, ClientError> {
        let limit = self.limit();
        let request = v1::AddPartitionsRequest {
            name: name.to_owned(),
            total,
            accept_moved_keys,
            timeout_ms: millis(limit),
            who: self.who.clone(),
            ..v1::AddPartitionsRequest::default()
        };
        let done =
            self.command(limit, &request, |mut admin, request| async move { admin.add_partitions(request).await });
        let Done { answer, repeated } = done.await?;
        match summary(name.to_owned(), answer) {
            // The attempt whose answer was lost added them.
            Err(ClientError::Broker(error)) if error.code == ErrorCode::InvalidPartitions && repeated => {
                let topic = self.led_topic(name, limit).await?;
                if topic.partitions.len() == total as usize { Ok(summary_of(topic)) } else { Err(error.into()) }
            }
            answer => answer,
        }
    }

    /// Deletes a topic and its data.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or no coordinator.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let limit = self.limit();
        let request =
            v1::DeleteTopicRequest { name: name.to_owned(), timeout_ms: millis(limit), who: self.who.clone() };
        let done = self.command(limit, &request, |mut admin, request| async move { admin.delete_topic(request).await });
        let Done { answer, repeated } = done.await?;
        self.client.shared.metadata.forget(name);
        match summary(name.to_owned(), answer) {
            // The attempt whose answer was lost deleted it.
            Err(ClientError::Broker(error)) if error.code == ErrorCode::UnknownTopic && repeated => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Gives a partition these replicas; none cancels what is under way.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `UNKNOWN_BROKER`, `REASSIGNMENT_IN_PROGRESS`.
    pub async fn reassign(&self, topic: &str, partition: u32, replicas: &[BrokerId]) -> Result<(), ClientError> {
        let (replicas, who) = (numbers(replicas), self.who.clone());
        let request = v1::ReassignRequest { topic: topic.to_owned(), partition, replicas, who };
        let limit = self.limit();
        let done = self.command(limit, &request, |mut admin, request| async move { admin.reassign(request).await });
        refusal(done.await?.answer.error)
    }

    /// Makes the first replica of the assignment the leader.
    ///
    /// # Errors
    /// `REPLICA_NOT_AVAILABLE` when it is not in sync.
    pub async fn elect_preferred(&self, topic: &str, partition: u32) -> Result<(), ClientError> {
        let request = v1::ElectPreferredRequest { topic: topic.to_owned(), partition, who: self.who.clone() };
        let limit = self.limit();
        let done =
            self.command(limit, &request, |mut admin, request| async move { admin.elect_preferred(request).await });
        refusal(done.await?.answer.error)
    }

    /// Believes the copy of one broker, whatever the others acknowledged.
    ///
    /// # Errors
    /// `INVALID_REQUEST` unless the loss of data is accepted.
    pub async fn elect_unclean(
        &self,
        topic: &str,
        partition: u32,
        broker: BrokerId,
        accept_data_loss: bool,
    ) -> Result<(), ClientError> {
        let (topic, who) = (topic.to_owned(), self.who.clone());
        let request = v1::ElectUncleanRequest { topic, partition, broker: broker.0, accept_data_loss, who };
        let limit = self.limit();
        let done =
            self.command(limit, &request, |mut admin, request| async move { admin.elect_unclean(request).await });
        refusal(done.await?.answer.error)
    }

    /// All topics, sorted by name, without offsets.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn topics(&self, include_internal: bool) -> Result<Vec<TopicDescription>, ClientError> {
        let request = v1::MetadataRequest { all_topics: true, include_internal, ..Default::default() };
        let answer = self.metadata(request).await?;
        let mut topics: Vec<TopicDescription> =
            answer.topics.into_iter().filter(|topic| topic.error.is_none()).map(Into::into).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic as the answering broker knows it, without offsets.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or no broker answers.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, ClientError> {
        self.client.shared.topic(name).await?;
        let request = v1::MetadataRequest { topics: vec![name.to_owned()], ..Default::default() };
        let answer = self.metadata(request).await?;
        match answer.topics.into_iter().find(|topic| topic.name == name) {
            Some(v1::TopicInfo { error: Some(error), .. }) => {
                self.client.shared.metadata.forget(name);
                Err(Error::from(&error).into())
            }
            Some(topic) => Ok(topic.into()),
            None => Err(ClientError::Protocol(format!("asked about topic {name}, the answer left it out"))),
        }
    }

    /// The partitions of a topic with their offsets, as far as their leaders answer.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or no broker answers.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<PartitionDescription>, ClientError> {
        let mut partitions = self.describe_topic(topic).await?.partitions;
        let led = || partitions.iter().filter(|partition| partition.leader.is_some()).map(|led| led.partition);
        let (ends, starts) = futures::join!(
            self.list(topic, led(), Ask::End, OFFSETS_WAIT),
            self.list(topic, led(), Ask::Start, OFFSETS_WAIT)
        );
        let known = |listed: &BTreeMap<u32, offsets::Listed>, partition| {
            listed.get(&partition).and_then(|listed| listed.as_ref().ok().copied().flatten())
        };
        for description in &mut partitions {
            description.high_watermark = known(&ends, description.partition);
            description.log_start = known(&starts, description.partition);
        }
        Ok(partitions)
    }

    /// One offset of each of these partitions; none where no record is that young.
    ///
    /// # Errors
    /// The first partition whose leader did not answer in time.
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        at: At,
    ) -> Result<BTreeMap<u32, Option<Offset>>, ClientError> {
        let ask = match at {
            At::Start => Ask::Start,
            At::End => Ask::End,
            At::Time(time) => Ask::Time(time),
        };
        let listed = self.list(topic, partitions.iter().copied(), ask, self.limit()).await;
        listed.into_iter().map(|(partition, listed)| Ok((partition, listed?))).collect()
    }

    /// Deletes the records below an offset (none: below the end) of each of these partitions;
    /// answers with where each begins then, once every in-sync replica has given them up. To
    /// repeat it is safe.
    ///
    /// # Errors
    /// The first partition where it failed, or whose leader did not answer in time.
    pub async fn delete_records(
        &self,
        topic: &str,
        partitions: &[u32],
        before: Option<Offset>,
    ) -> Result<BTreeMap<u32, Offset>, ClientError> {
        let ask = Ask::Delete(before);
        let deleted = self.list(topic, partitions.iter().copied(), ask, self.limit()).await;
        let start = |listed: Option<Offset>| {
            listed.ok_or_else(|| ClientError::Protocol("the answer does not say where the log begins".to_owned()))
        };
        deleted.into_iter().map(|(partition, listed)| Ok((partition, start(listed?)?))).collect()
    }

    /// The cluster as the answering broker sees it.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        let shared = &self.client.shared;
        let answer = shared.any_broker(self.limit(), |address| async move {
            let mut broker = shared.pool.broker(&address, Purpose::Control)?;
            let answer = broker.cluster_status(v1::ClusterStatusRequest {}).await;
            answer.map(Response::into_inner).map_err(|status| net::status_error(&address, &status))
        });
        Ok(answer.await?.into())
    }

    /// The cluster's history from this offset on (none: the last 100), and what comes if it is
    /// followed. It goes on from where it was when a broker is lost.
    #[must_use]
    pub fn events(&self, from: Option<i64>, follow: bool) -> Events {
        let shared = self.client.shared.clone();
        Events { shared, next: from.unwrap_or(-1), follow, stream: None, ready: VecDeque::new(), ended: false }
    }

    async fn list(
        &self,
        topic: &str,
        partitions: impl Iterator<Item = u32>,
        ask: Ask,
        within: Duration,
    ) -> BTreeMap<u32, offsets::Listed> {
        let name: Arc<str> = topic.into();
        let asked = partitions.map(|partition| ((name.clone(), partition), ask)).collect();
        let listed = offsets::list(&self.client.shared, asked, within).await;
        listed.into_iter().map(|((_, partition), listed)| (partition, listed)).collect()
    }

    async fn metadata(&self, request: v1::MetadataRequest) -> Result<v1::MetadataResponse, ClientError> {
        let shared = &self.client.shared;
        let limit = self.limit();
        let answer = shared
            .any_broker(limit, |address| {
                let request = request.clone();
                async move { metadata::ask(&shared.pool, &address, request, limit).await }
            })
            .await?;
        shared.metadata.learn(&answer);
        Ok(answer)
    }

    fn limit(&self) -> Duration {
        self.client.shared.config.request_timeout
    }

    /// Puts a command to one broker after the other, and again when the coordinator is not
    /// there yet. A second broker is asked only when the first one failed: commands are not
    /// hedged.
    async fn command<Q, A, F>(
        &self,
        limit: Duration,
        request: &Q,
        call: impl Fn(AdminClient<Channel>, Q) -> F,
    ) -> Result<Done<A>, ClientError>
    where
        Q: Clone,
        A: Answer,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let shared = &self.client.shared;
        let deadline = Instant::now() + limit + GRACE;
        let (mut repeated, mut failures) = (false, 0);
        loop {
            let mut failed: Vec<Attempt> = Vec::new();
            let mut last = None;
            for address in shared.metadata.addresses(&[]) {
                let admin = shared.pool.admin(&address)?;
                let left = deadline.saturating_duration_since(Instant::now());
                let answer = match timeout(left, call(admin, request.clone())).await {
                    Ok(answer) => answer.map_err(|status| net::status_error(&address, &status)),
                    Err(_) => return Err(timed_out(limit, last)),
                };
                match answer.map(Response::into_inner) {
                    Ok(answer) => match answer.refusal().filter(|error| awaits_coordinator(error.code)) {
                        Some(error) => {
                            // A coordinator that was replaced in between may have begun it, and
                            // its successor finishes what was begun.
                            repeated |= error.code == ErrorCode::FencedCoordinator;
                            last = Some(ClientError::from(error));
                            break;
                        }
                        None => return Ok(Done { answer, repeated }),
                    },
                    Err(ClientError::Unreachable(attempts)) => {
                        repeated = true;
                        failed.extend(attempts);
                    }
                    Err(error) => return Err(error),
                }
            }
            let last = last.unwrap_or(ClientError::Unreachable(failed));
            let wait = shared.dice.backoff(Duration::from_millis(100), Duration::from_secs(1), failures);
            failures += 1;
            let hopeless = matches!(last, ClientError::Unreachable(_)) && failures >= 3;
            if hopeless || Instant::now() + wait >= deadline {
                return Err(last);
            }
            sleep(wait).await;
        }
    }
}

/// An answer that may be a refusal.
trait Answer {
    fn refusal(&self) -> Option<Error>;
}

impl Answer for v1::TopicReply {
    fn refusal(&self) -> Option<Error> {
        self.error.as_ref().map(Error::from)
    }
}

impl Answer for v1::AdminReply {
    fn refusal(&self) -> Option<Error> {
        self.error.as_ref().map(Error::from)
    }
}

/// Refusals that pass by themselves when a coordinator is elected.
fn awaits_coordinator(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NoCoordinator | ErrorCode::FencedCoordinator)
}

fn timed_out(after: Duration, last: Option<ClientError>) -> ClientError {
    ClientError::TimedOut { what: "the command".to_owned(), after, last: last.map(Box::new) }
}

fn summary(name: String, reply: v1::TopicReply) -> Result<TopicSummary, ClientError> {
    refusal(reply.error)?;
    Ok(TopicSummary { name, id: reply.id, partitions: reply.partitions, replication: reply.replication })
}

fn summary_of(topic: TopicDescription) -> TopicSummary {
    TopicSummary {
        id: topic.id.clone(),
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        replication: u32::try_from(topic.replication()).unwrap_or(u32::MAX),
        name: topic.name,
    }
}

fn refusal(error: Option<v1::Error>) -> Result<(), ClientError> {
    error.map_or(Ok(()), |error| Err(Error::from(&error).into()))
}

fn numbers(brokers: &[BrokerId]) -> Vec<u32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The cluster's history, in order.
pub struct Events {
    shared: Arc<Shared>,
    next: i64,
    follow: bool,
    stream: Option<tonic::Streaming<v1::EventsResponse>>,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Events {
    /// The next event; none at the end of what is not followed.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                self.stream = Some(self.open().await?);
                continue;
            };
            match stream.message().await {
                Ok(Some(answer)) => {
                    // After a change of broker, what was seen already is left out.
                    let fresh = answer.events.into_iter().filter(|event| self.next < 0 || event.offset >= self.next);
                    self.ready.extend(fresh.map(Event::from));
                    if let Some(last) = self.ready.back() {
                        self.next = last.offset.saturating_add(1);
                    }
                }
                Ok(None) if !self.follow => self.ended = true,
                Ok(None) | Err(_) => {
                    self.stream = None;
                    sleep(self.shared.dice.backoff(Duration::from_millis(100), Duration::from_millis(100), 0)).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<tonic::Streaming<v1::EventsResponse>, ClientError> {
        let request = v1::EventsRequest { from: self.next, follow: self.follow };
        let shared = &self.shared;
        shared
            .any_broker(shared.config.request_timeout, |address| async move {
                let mut broker = shared.pool.broker(&address, Purpose::Control)?;
                let answer = broker.events(request).await;
                answer.map(Response::into_inner).map_err(|status| net::status_error(&address, &status))
            })
            .await
    }
}
