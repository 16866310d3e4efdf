//! Questions for the coordinator of a group, which is found again whenever it moves.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use baton_core::{Error, ErrorCode};
use baton_proto::v1::{self, groups_client::GroupsClient};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Response, Status, transport::Channel};

use crate::{
    client::Shared,
    error::{Attempt, ClientError},
    net,
};

/// How long one broker may take to name the coordinator.
const FIND_WITHIN: Duration = Duration::from_secs(1);

/// What an attempt may take beyond the time in which the broker promised to answer.
const GRACE: Duration = Duration::from_millis(500);

/// An answer that may be a refusal.
pub(crate) trait Answer {
    fn refusal(&self) -> Option<&v1::Error>;
}

macro_rules! answers {
    ($($name:ident)*) => {
        $(impl Answer for v1::$name {
            fn refusal(&self) -> Option<&v1::Error> {
                self.error.as_ref()
            }
        })*
    };
}

answers! {
    FindGroupResponse SyncGroupResponse GroupHeartbeatResponse LeaveGroupResponse CommitOffsetsResponse
    FetchOffsetsResponse DeleteOffsetsResponse ListGroupsResponse DescribeGroupResponse DeleteGroupResponse
}

impl Answer for v1::JoinGroupResponse {
    /// A join that is refused may carry the id to come again with: only what is for the
    /// transport to cure is a refusal here.
    fn refusal(&self) -> Option<&v1::Error> {
        self.error.as_ref().filter(|error| ErrorCode::from_number(error.code).is_some_and(has_moved))
    }
}

/// The coordinator of one group, as far as it is known.
pub(crate) struct Coordinator {
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: String,
    known: Mutex<Option<String>>,
}

impl Coordinator {
    pub(crate) fn new(shared: Arc<Shared>, group: &str) -> Self {
        Self { shared, group: group.to_owned(), known: Mutex::new(None) }
    }

    /// Asks until the coordinator has answered or the deadline has passed. Whatever is asked of
    /// a group may be asked again: see what each answer means. `each` is how long one attempt
    /// may take; it is also told to the broker, in ms.
    pub(crate) async fn call<T, F>(
        &self,
        what: &str,
        deadline: Instant,
        each: Duration,
        ask: impl Fn(GroupsClient<Channel>, u32) -> F,
    ) -> Result<T, ClientError>
    where
        T: Answer,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        let (mut failures, mut last) = (0, None);
        while Instant::now() < deadline {
            let error = match self.attempt(deadline, each, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !may_cure(&error) {
                return Err(error);
            }
            self.forget();
            last = Some(Box::new(error));
            let wait = self.shared.dice.backoff(Duration::from_millis(20), Duration::from_millis(500), failures);
            failures += 1;
            sleep_until(deadline.min(Instant::now() + wait)).await;
        }
        let what = format!("{what} of group {}", self.group);
        Err(ClientError::TimedOut { what, after: deadline.saturating_duration_since(began), last })
    }

    async fn attempt<T, F>(
        &self,
        deadline: Instant,
        each: Duration,
        ask: impl Fn(GroupsClient<Channel>, u32) -> F,
    ) -> Result<T, ClientError>
    where
        T: Answer,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let address = self.address(deadline).await?;
        let client = self.shared.pool.groups(&address)?;
        let limit = each.min(deadline.saturating_duration_since(Instant::now()));
        let answer = match timeout(limit + GRACE, ask(client, millis(limit))).await {
            Ok(answer) => answer.map_err(|status| net::status_error(&address, &status))?.into_inner(),
            Err(_) => {
                let reason = format!("no answer within {limit:?}");
                return Err(ClientError::Unreachable(vec![Attempt { address, reason }]));
            }
        };
        match answer.refusal() {
            Some(error) => Err(Error::from(error).into()),
            None => Ok(answer),
        }
    }

    async fn address(&self, deadline: Instant) -> Result<String, ClientError> {
        if let Some(address) = self.lock().clone() {
            return Ok(address);
        }
        let limit = FIND_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        let request = v1::FindGroupRequest { group: self.group.clone(), timeout_ms: millis(limit) };
        let pool = &self.shared.pool;
        let find = |address: String| {
            let request = request.clone();
            async move {
                let mut client = pool.groups(&address)?;
                let answer = match timeout(limit + GRACE, client.find_group(request)).await {
                    Ok(answer) => answer.map_err(|status| net::status_error(&address, &status))?.into_inner(),
                    Err(_) => {
                        let reason = format!("no answer within {limit:?}");
                        return Err(ClientError::Unreachable(vec![Attempt { address, reason }]));
                    }
                };
                match answer.error {
                    Some(error) => Err(Error::from(&error).into()),
                    None => Ok(answer.endpoint),
                }
            }
        };
        let found: String = self.shared.any_broker(limit + GRACE, find).await?;
        *self.lock() = Some(found.clone());
        Ok(found)
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether to look for the coordinator again, and ask it.
fn may_cure(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable(_) | ClientError::TimedOut { .. }) || has_moved(error.code())
}

fn has_moved(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(
        code,
        E::NotCoordinator | E::CoordinatorUnavailable | E::CoordinatorLoading | E::ShuttingDown | E::RequestTimedOut
    )
}

pub(crate) fn millis(duration: Duration) -> u32 {
    // None is the broker's default.
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}
