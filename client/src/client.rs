//! The client: one view of the cluster, from which producers, consumers and administrators work.

use std::{future::Future, sync::Arc, time::Duration};

use baton_core::ErrorCode;
use baton_proto::v1;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    admin::Admin,
    backoff::Dice,
    config::{ClientConfig, ConsumerConfig, ProducerConfig},
    consumer::Consumer,
    error::{Attempt, ClientError},
    failover::Failovers,
    finder,
    metadata::{self, Metadata},
    net::Pool,
    producer::Producer,
};

/// When several brokers can answer, the next is asked after this time, or at once when one fails.
const HEDGE: Duration = Duration::from_millis(300);
/// A broker that was started or a topic that was created this moment may not be known everywhere.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_millis(600);

/// What all parts of one client share.
pub(crate) struct Shared {
    pub config: ClientConfig,
    pub pool: Pool,
    pub metadata: Metadata,
    pub dice: Arc<Dice>,
}

/// Ends a task when its owner is dropped.
pub(crate) struct AbortOnDrop(pub JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to a cluster; clones share it.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    _finder: Arc<AbortOnDrop>,
}

impl Client {
    /// Asks the bootstrap addresses who the brokers are; the first answer is enough.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names each address and why it did not answer.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        if config.bootstrap.is_empty() {
            return Err(ClientError::Invalid("there is no bootstrap address".to_owned()));
        }
        let dice = Arc::new(Dice::new(config.seed));
        let shared = Arc::new(Shared {
            pool: Pool::new(config.connector.clone(), config.connect_timeout),
            metadata: Metadata::new(config.bootstrap.clone(), dice.clone()),
            dice,
            config,
        });
        shared.refresh(Vec::new()).await?;
        let finder = tokio::spawn(finder::run(shared.clone()));
        Ok(Self { shared, _finder: Arc::new(AbortOnDrop(finder)) })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.shared.metadata.view().cluster_id.clone()
    }

    /// A producer of its own; idempotent always.
    #[must_use]
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::start(self.clone(), config)
    }

    /// A consumer without an assignment.
    #[must_use]
    pub fn consumer(&self, config: ConsumerConfig) -> Consumer {
        Consumer::start(self.clone(), config)
    }

    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The changes of leaders from now on, of the topics that this client uses.
    #[must_use]
    pub fn failovers(&self) -> Failovers {
        Failovers(self.shared.metadata.failovers())
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or no broker answers.
    pub async fn partitions(&self, topic: &str) -> Result<u32, ClientError> {
        let count = self.shared.topic(topic).await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

impl Shared {
    /// Asks any broker about these topics.
    pub(crate) async fn refresh(&self, topics: Vec<String>) -> Result<Vec<(String, baton_core::Error)>, ClientError> {
        let request = v1::MetadataRequest { topics, ..Default::default() };
        let (connect, limit) = (self.config.connect_timeout, self.config.request_timeout);
        let timeout = connect.saturating_mul(3).min(limit);
        let answer = self
            .any_broker(limit, |address| {
                let request = request.clone();
                async move { metadata::ask(&self.pool, &address, request, timeout).await }
            })
            .await?;
        Ok(self.metadata.learn(&answer))
    }

    /// The number of partitions of a topic, which is asked for if it is not known yet.
    pub(crate) async fn topic(&self, topic: &str) -> Result<usize, ClientError> {
        let patience = Instant::now() + UNKNOWN_TOPIC_PATIENCE;
        let mut failures = 0;
        loop {
            if let Some(known) = self.metadata.view().topics.get(topic)
                && !known.partitions.is_empty()
            {
                return Ok(known.partitions.len());
            }
            let refused = self.refresh(vec![topic.to_owned()]).await?;
            if let Some((_, error)) = refused.into_iter().find(|(name, _)| name == topic) {
                let lagging = error.code == ErrorCode::UnknownTopic || error.code.retriable();
                if !lagging || Instant::now() >= patience {
                    return Err(error.into());
                }
            } else if self.metadata.view().topics.contains_key(topic) {
                continue;
            } else if Instant::now() >= patience {
                return Err(ClientError::Protocol(format!("asked about topic {topic}, the answer left it out")));
            }
            sleep(self.dice.backoff(Duration::from_millis(50), Duration::from_millis(300), failures)).await;
            failures += 1;
        }
    }

    /// Puts a call to one broker after the other until one answers: the next one at once when
    /// one cannot be reached, or after a moment without an answer, whichever is first.
    pub(crate) async fn any_broker<T, F>(&self, limit: Duration, call: impl Fn(String) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + limit;
        let mut addresses = self.metadata.addresses(&[]).into_iter();
        let (mut calls, mut failed) = (FuturesUnordered::new(), Vec::new());
        let mut next_at = Instant::now();
        loop {
            if Instant::now() >= next_at
                && let Some(address) = addresses.next()
            {
                calls.push(call(address));
                next_at = Instant::now() + HEDGE;
            }
            if calls.is_empty() && addresses.len() == 0 {
                return Err(ClientError::Unreachable(failed));
            }
            tokio::select! {
                biased;
                Some(answer) = calls.next(), if !calls.is_empty() => match answer {
                    Err(ClientError::Unreachable(attempts)) => {
                        failed.extend::<Vec<Attempt>>(attempts);
                        next_at = Instant::now();
                    }
                    answer => return answer,
                },
                () = sleep_until(next_at), if addresses.len() > 0 => {}
                () = sleep_until(deadline) => {
                    let last = (!failed.is_empty()).then(|| Box::new(ClientError::Unreachable(failed)));
                    return Err(ClientError::TimedOut { what: "the request".to_owned(), after: limit, last });
                }
            }
        }
    }

    /// Waits for a change of the view, or for the deadline.
    pub(crate) async fn view_changed(&self, deadline: Instant) {
        let mut changes = self.metadata.changes();
        // An error would mean that the sender is gone, which this reference prevents.
        let _ = timeout_at(deadline, changes.changed()).await;
    }
}
