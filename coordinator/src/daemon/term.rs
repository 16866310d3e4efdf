//! One term of the elected coordinator: what its work needs, and when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_broker::clock::{Clock, Seed};
use baton_core::{CoordinatorEpoch, Error, ErrorCode, TopicId, TopicPartition};
use baton_registry::recipes::topics::{self, TopicError};
use baton_registry::recipes::{Fence, RecipeError};
use baton_registry::{Registry, RegistryError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::brokers::BrokerCalls;
use super::config::CoordinatorConfig;
use super::follow;
use super::history::History;
use super::monitoring::CoordinatorMetrics;
use super::mutation::Mutations;
use super::view::View;

/// Between two attempts of a write.
const RETRY: Duration = Duration::from_millis(100);
/// Led partitions are looked for again so often, whatever the watches say.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a coordinator has whether it is elected or not.
pub struct Shared {
    pub config: CoordinatorConfig,
    pub registry: Arc<dyn Registry>,
    pub clock: Arc<dyn Clock>,
    pub view: Arc<View>,
    pub history: Arc<History>,
    pub brokers: Arc<dyn BrokerCalls>,
    pub metrics: Arc<CoordinatorMetrics>,
    pub seed: Seed,
    pub draws: AtomicU64,
    pub mutations: Mutations,
    /// The process is going away without a word, as in a crash.
    pub dead: CancellationToken,
}

impl Shared {
    /// Another number for each call.
    pub fn draw(&self, label: &str) -> u64 {
        self.seed.split(label).split_number(self.draws.fetch_add(1, Ordering::Relaxed)).0
    }

    #[must_use]
    pub fn now_unix_ms(&self) -> u64 {
        u64::try_from(self.clock.now_ms()).unwrap_or_default()
    }
}

/// One term. Every write names its fence, so that nothing it does after its end has effect.
pub struct Term {
    pub shared: Arc<Shared>,
    pub epoch: CoordinatorEpoch,
    pub fence: Fence,
    /// Plans are made from the view, so that one is carried out before the next is made.
    pub changes: tokio::sync::Mutex<()>,
    /// Cancelled when the term is over, or known to be.
    pub over: CancellationToken,
    /// What the coordinator before had begun is finished.
    pub ready: watch::Sender<bool>,
}

impl Term {
    #[must_use]
    pub fn new(shared: Arc<Shared>, epoch: CoordinatorEpoch, fence: Fence) -> Self {
        let over = shared.dead.child_token();
        Self { shared, epoch, fence, changes: tokio::sync::Mutex::default(), over, ready: watch::Sender::new(false) }
    }

    #[must_use]
    pub fn registry(&self) -> &dyn Registry {
        &*self.shared.registry
    }

    #[must_use]
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    #[must_use]
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// What a failed write means to whoever asked for it. A fenced one ends the term.
    #[must_use]
    pub fn failed(&self, error: &RecipeError) -> Error {
        if *error == RecipeError::Fenced {
            self.over.cancel();
        }
        let code = match error {
            RecipeError::Fenced => ErrorCode::FencedCoordinator,
            RecipeError::Registry(error) if is_transient(error) => ErrorCode::RegistryUnavailable,
            RecipeError::Registry(RegistryError::Denied(_)) => ErrorCode::Unauthorized,
            RecipeError::Registry(RegistryError::BadArgument(_)) => ErrorCode::InvalidRequest,
            RecipeError::Registry(_) | RecipeError::Contended(_) => ErrorCode::RequestTimedOut,
            RecipeError::Znode(_) => ErrorCode::Internal,
        };
        Error::new(code, error.to_string())
    }

    /// As [`Self::failed`], for topics.
    #[must_use]
    pub fn topic_failed(&self, name: &str, error: &TopicError) -> Error {
        let error = match error {
            TopicError::Exists(_) => super::plan::create::exists(name),
            TopicError::NotFound => Error::new(ErrorCode::UnknownTopic, "there is no such topic"),
            TopicError::Busy => Error::new(ErrorCode::RequestTimedOut, "the topic is being changed"),
            TopicError::Recipe(error) => self.failed(error),
        };
        error.topic(name)
    }

    /// Waits before another attempt. False: there is no time for one.
    pub async fn pause(&self, deadline: Instant) -> bool {
        if Instant::now() + RETRY >= deadline || self.over.is_cancelled() {
            return false;
        }
        sleep(RETRY).await;
        true
    }

    /// Reads a topic and its partitions into the view.
    ///
    /// # Errors
    /// The registry's.
    pub async fn refresh(&self, id: TopicId) -> Result<(), RecipeError> {
        let topic = topics::read(self.registry(), id).await?;
        let partitions = topic.as_ref().map_or(0, |topic| topic.node.partitions);
        self.view().set_topic(id, topic);
        let ids: Vec<_> = (0..partitions).map(|partition| TopicPartition { topic: id, partition }).collect();
        self.refresh_states(&ids).await
    }

    /// Reads partitions into the view.
    ///
    /// # Errors
    /// The registry's.
    pub async fn refresh_states(&self, ids: &[TopicPartition]) -> Result<(), RecipeError> {
        follow::read_states(self.registry(), self.view(), self.history(), ids).await
    }

    /// Waits until all `partitions` of a topic are led.
    ///
    /// # Errors
    /// `REQUEST_TIMED_OUT`, with how many are.
    pub async fn await_led(&self, id: TopicId, name: &str, partitions: u32, deadline: Instant) -> Result<(), Error> {
        let mut changes = self.view().changes();
        loop {
            let led = self.view().read(|snapshot| snapshot.led_of(id));
            if led >= partitions {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let cause = format!("the topic is there, and {led} of its {partitions} partitions are led");
                return Err(Error::new(ErrorCode::RequestTimedOut, cause).topic(name));
            }
            let until = deadline.min(Instant::now() + LOOK_AGAIN);
            let waited = async {
                // The view outlives the term.
                let _ = changes.changed().await;
            };
            if timeout_at(until, waited).await.is_err() {
                self.look_again(id, partitions).await;
            }
        }
    }

    /// Watches are hints: reads what the view does not know to be led.
    async fn look_again(&self, id: TopicId, partitions: u32) {
        let led = |snapshot: &super::plan::Snapshot, partition: &TopicPartition| {
            snapshot.states.get(partition).is_some_and(|known| known.state.leader.is_some())
        };
        let missing: Vec<_> = self.view().read(|snapshot| {
            (0..partitions)
                .map(|partition| TopicPartition { topic: id, partition })
                .filter(|partition| !led(snapshot, partition))
                .collect()
        });
        if let Err(error) = self.refresh_states(&missing).await {
            tracing::debug!(topic = %id, %error, "cannot look for leaders");
        }
    }
}

/// Whether an attempt may succeed later: the connection is what failed.
#[must_use]
pub fn is_transient(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Unknown(_) | RegistryError::SessionExpired | RegistryError::Closed)
}

/// As [`is_transient`].
#[must_use]
pub fn may_retry(error: &RecipeError) -> bool {
    match error {
        RecipeError::Registry(RegistryError::Closed) | RecipeError::Fenced | RecipeError::Znode(_) => false,
        RecipeError::Registry(RegistryError::BadVersion(_)) | RecipeError::Contended(_) => true,
        RecipeError::Registry(error) => is_transient(error),
    }
}
