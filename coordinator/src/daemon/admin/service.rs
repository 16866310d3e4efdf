//! The gRPC service: who may answer, deadlines, bounds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use baton_registry::recipes::coordinator_election;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status};

use super::{partitions, topics};
use crate::daemon::term::{Shared, Term};

/// Requests under way at once; they wait for each other anyway.
const REQUESTS_MAX: usize = 256;
/// What a request may take beyond its deadline to say how far it got.
const GRACE: Duration = Duration::from_millis(500);
/// How long the registry may take to name the elected coordinator.
const NAME_WITHIN: Duration = Duration::from_secs(1);

/// Who coordinates now, as seen from this process: the term, if it is this one.
pub type Active = watch::Receiver<Option<Arc<Term>>>;

/// The service; clones share everything.
#[derive(Clone)]
pub struct AdminService {
    shared: Arc<Shared>,
    active: Active,
    slots: Arc<Semaphore>,
}

/// A request on its way: the term that answers it, and when it has to be answered.
#[derive(Clone)]
pub struct Admin {
    pub term: Arc<Term>,
    pub deadline: Instant,
}

impl AdminService {
    #[must_use]
    pub fn new(shared: Arc<Shared>, active: Active) -> Self {
        Self { shared, active, slots: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    async fn run<T, F>(
        &self,
        verb: &'static str,
        timeout_ms: u32,
        work: impl FnOnce(Admin) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let answer = self.answer(timeout_ms, work).await;
        self.shared.metrics.answered(answer.as_ref().err().map(|error| error.code));
        if let Err(error) = &answer {
            tracing::info!(verb, %error, "a request was refused");
        }
        answer
    }

    async fn answer<T, F>(&self, timeout_ms: u32, work: impl FnOnce(Admin) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Some(term) = self.active.borrow().clone() else {
            return Err(self.not_elected().await);
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Err(Error::new(ErrorCode::Throttled, format!("{REQUESTS_MAX} requests are under way")));
        };
        let deadline = Instant::now() + self.shared.config.deadline(timeout_ms);
        let admin = Admin { term: Arc::clone(&term), deadline };
        let task = tokio::spawn(async move {
            let _slot = slot;
            let mut ready = term.ready.subscribe();
            let done = async {
                // The sender is the term's, which is held.
                let _ = ready.wait_for(|is| *is).await;
                work(admin).await
            };
            tokio::select! {
                biased;
                done = timeout_at(deadline + GRACE, done) => done.unwrap_or_else(|_| Err(timed_out())),
                () = term.over.cancelled() => Err(fenced()),
            }
        });
        task.await.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the request's task ended early")))
    }

    /// Names who coordinates instead.
    async fn not_elected(&self) -> Error {
        let found = timeout(NAME_WITHIN, coordinator_election::current(&*self.shared.registry)).await;
        let cause = match found {
            Ok(Ok(Some((term, who)))) => format!(
                "this coordinator stands by; {} at {}:{} was elected in epoch {}",
                who.name, who.host, who.port, term.epoch
            ),
            Ok(Ok(None)) => "this coordinator stands by, and none is elected".to_owned(),
            Ok(Err(error)) => format!("this coordinator stands by, and the registry does not say who leads: {error}"),
            Err(_) => "this coordinator stands by, and the registry does not answer".to_owned(),
        };
        Error::new(ErrorCode::NoCoordinator, cause)
    }
}

fn timed_out() -> Error {
    Error::new(ErrorCode::RequestTimedOut, "it was not done in time; what was begun goes on")
}

fn fenced() -> Error {
    Error::new(ErrorCode::FencedCoordinator, "another coordinator takes over")
}

fn topic_reply(answer: Result<v1::TopicReply, Error>) -> Response<v1::TopicReply> {
    Response::new(answer.unwrap_or_else(|error| v1::TopicReply { error: Some(error.into()), ..Default::default() }))
}

fn admin_reply(answer: Result<(), Error>) -> Response<v1::AdminReply> {
    Response::new(v1::AdminReply { error: answer.err().map(Into::into) })
}

#[async_trait]
impl v1::admin_server::Admin for AdminService {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::TopicReply>, Status> {
        let request = request.into_inner();
        let work = self.run("create topic", request.timeout_ms, |admin| topics::create_topic(admin, request));
        Ok(topic_reply(work.await))
    }

    async fn alter_topic(&self, request: Request<v1::AlterTopicRequest>) -> Result<Response<v1::TopicReply>, Status> {
        let request = request.into_inner();
        Ok(topic_reply(self.run("alter topic", 0, |admin| topics::alter_topic(admin, request)).await))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::TopicReply>, Status> {
        let request = request.into_inner();
        let work = self.run("add partitions", request.timeout_ms, |admin| topics::add_partitions(admin, request));
        Ok(topic_reply(work.await))
    }

    async fn delete_topic(&self, request: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::TopicReply>, Status> {
        let request = request.into_inner();
        let work = self.run("delete topic", request.timeout_ms, |admin| topics::delete_topic(admin, request));
        Ok(topic_reply(work.await))
    }

    async fn reassign(&self, request: Request<v1::ReassignRequest>) -> Result<Response<v1::AdminReply>, Status> {
        let request = request.into_inner();
        Ok(admin_reply(self.run("reassign", 0, |admin| partitions::reassign(admin, request)).await))
    }

    async fn elect_unclean(
        &self,
        request: Request<v1::ElectUncleanRequest>,
    ) -> Result<Response<v1::AdminReply>, Status> {
        let request = request.into_inner();
        Ok(admin_reply(self.run("elect unclean", 0, |admin| partitions::elect_unclean(admin, request)).await))
    }

    async fn elect_preferred(
        &self,
        request: Request<v1::ElectPreferredRequest>,
    ) -> Result<Response<v1::AdminReply>, Status> {
        let request = request.into_inner();
        Ok(admin_reply(self.run("elect preferred", 0, |admin| partitions::elect_preferred(admin, request)).await))
    }
}
