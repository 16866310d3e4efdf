//! What listeners ask: who coordinates a transactional id, and what its producer wants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::connection::ConnectionId;
use baton_core::transaction::message::{Answer, ByPartition, Input, RequestId};
use baton_core::transaction::{
    Producer, Protocol, TransactionCoordinator, TransactionDescription, TransactionFilter, TransactionListing,
    partition_of,
};
use baton_core::{BrokerId, Error, ErrorCode, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::cluster::ClusterView;
use crate::transaction::TRANSACTIONS_TOPIC;
use crate::transaction::seats::{Ask, Seats, not_coordinator};

/// How a question came.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// The producer's connection; none if a broker asks.
    pub connection: Option<ConnectionId>,
}

/// What the handle is made of.
pub struct TransactionParts {
    pub me: BrokerId,
    pub view: ClusterView,
}

/// The transactions that this broker coordinates, and the way to the others. Cloning it is cheap.
#[derive(Clone)]
pub struct Transactions {
    shared: Arc<Shared>,
}

struct Shared {
    me: BrokerId,
    view: ClusterView,
    seats: Seats,
    wanted: watch::Sender<u64>,
}

impl Transactions {
    #[must_use]
    pub fn new(parts: TransactionParts) -> Self {
        let TransactionParts { me, view } = parts;
        Self { shared: Arc::new(Shared { me, view, seats: Seats::default(), wanted: watch::Sender::new(0) }) }
    }

    pub(super) fn seats(&self) -> &Seats {
        &self.shared.seats
    }

    pub(super) fn view(&self) -> &ClusterView {
        &self.shared.view
    }

    pub(super) fn me(&self) -> BrokerId {
        self.shared.me
    }

    pub(super) fn wanted(&self) -> watch::Receiver<u64> {
        self.shared.wanted.subscribe()
    }

    /// The broker that coordinates an id. The first question has the topic made, and waits for
    /// that and for an election as long as it may.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an empty id; `COORDINATOR_NOT_AVAILABLE` if there is none by the
    /// deadline.
    pub async fn coordinator_of(&self, id: &str, deadline: Instant) -> Result<BrokerId, Error> {
        check_id(id)?;
        let mut changes = self.shared.view.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                match self.leader_of(id) {
                    Some(Some(leader)) => return leader,
                    Some(None) => {}
                    None => self.shared.wanted.send_modify(|times| *times = times.wrapping_add(1)),
                }
                // The topic is asked for again if nothing came of it.
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        };
        timeout_at(deadline, found).await.map_err(|_| {
            let cause = "the partition of the transactional id has no leader, or its topic is not there yet";
            Error::new(ErrorCode::CoordinatorUnavailable, cause)
        })
    }

    /// Who leads the partition of an id, if there is the topic.
    pub(super) fn leader_of(&self, id: &str) -> Option<Option<BrokerId>> {
        let topic = self.shared.view.topic(TRANSACTIONS_TOPIC).filter(|topic| topic.partitions > 0)?;
        let partition = partition_of(id, topic.partitions);
        Some(self.shared.view.leader(TopicPartition { topic: topic.id, partition }).0)
    }

    /// A producer takes an id; `expected` is who it was before, if it goes on after an error
    /// (KIP-360).
    ///
    /// # Errors
    /// Kafka's of an InitProducerId, and those of [`Transactions::describe`].
    pub async fn init(
        &self,
        id: &str,
        timeout_ms: i64,
        expected: Option<Producer>,
        asked: Asked,
    ) -> Result<Producer, Error> {
        let (name, connection) = (id.to_owned(), asked.connection);
        let make = move |request| Input::Init { request, id: name, timeout_ms, expected, connection };
        match self.change(id, asked.deadline, make).await? {
            Answer::Init(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// Partitions become part of a transaction.
    ///
    /// # Errors
    /// Kafka's of an AddPartitionsToTxn, and those of [`Transactions::describe`].
    pub async fn add(
        &self,
        id: &str,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
        asked: Asked,
    ) -> Result<(), Error> {
        let (name, connection) = (id.to_owned(), asked.connection);
        let make = move |request| Input::Add { request, id: name, producer, partitions, connection };
        match self.change(id, asked.deadline, make).await? {
            Answer::Add(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// Are the partitions part of a transaction that goes on?
    ///
    /// # Errors
    /// Those of [`Transactions::add`]; `TRANSACTION_ABORTABLE` for each partition that is not.
    pub async fn verify(
        &self,
        id: &str,
        producer: Producer,
        partitions: BTreeSet<TopicPartition>,
        deadline: Instant,
    ) -> Result<ByPartition, Error> {
        let name = id.to_owned();
        let make = move |request| Input::Verify { request, id: name, producer, partitions };
        match self.change(id, deadline, make).await? {
            Answer::Verify(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// Ends a transaction; returns who the producer is in the next one.
    ///
    /// # Errors
    /// Kafka's of an EndTxn, and those of [`Transactions::describe`].
    pub async fn end(
        &self,
        id: &str,
        producer: Producer,
        commit: bool,
        protocol: Protocol,
        asked: Asked,
    ) -> Result<Producer, Error> {
        let (name, connection) = (id.to_owned(), asked.connection);
        let make = move |request| Input::End { request, id: name, producer, commit, protocol, connection };
        match self.change(id, asked.deadline, make).await? {
            Answer::End(result) => result,
            _ => Err(contradiction()),
        }
    }

    /// All that is known of a transactional id.
    ///
    /// # Errors
    /// `TRANSACTIONAL_ID_NOT_FOUND`, `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`,
    /// `COORDINATOR_NOT_AVAILABLE`, `REQUEST_TIMED_OUT`.
    pub async fn describe(&self, id: &str, deadline: Instant) -> Result<TransactionDescription, Error> {
        let name = id.to_owned();
        let partition = self.partition(id)?;
        self.look_at(partition, deadline, move |coordinator, _| coordinator.describe(&name)).await?
    }

    /// The transactional ids that this broker coordinates. Some may be missing if there is an
    /// error.
    pub async fn list(&self, filter: TransactionFilter, deadline: Instant) -> (Vec<TransactionListing>, Option<Error>) {
        let (mut all, mut problem) = (Vec::new(), None);
        for partition in self.shared.seats.partitions() {
            let filter = filter.clone();
            let listed =
                self.look_at(partition, deadline, move |coordinator, now_ms| coordinator.list(now_ms, &filter));
            match listed.await {
                Ok(ids) => all.extend(ids),
                // Another broker lists them by now.
                Err(error) if error.code == ErrorCode::NotCoordinator => {}
                Err(error) => problem = Some(error),
            }
        }
        (all, problem)
    }

    async fn change(
        &self,
        id: &str,
        deadline: Instant,
        make: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<Answer, Error> {
        let partition = self.partition(id)?;
        let (reply, answer) = oneshot::channel();
        self.ask(partition, Ask::Change { make: Box::new(make), reply })?;
        answered(answer, deadline).await
    }

    async fn look_at<T: Send + 'static>(
        &self,
        partition: u32,
        deadline: Instant,
        look: impl FnOnce(&TransactionCoordinator, i64) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |coordinator: &TransactionCoordinator, now_ms| {
            // Whoever asked may have given up.
            drop(reply.send(look(coordinator, now_ms)));
        });
        self.ask(partition, Ask::Look(look))?;
        answered(answer, deadline).await
    }

    fn partition(&self, id: &str) -> Result<u32, Error> {
        check_id(id)?;
        let topic = self.shared.view.topic(TRANSACTIONS_TOPIC).ok_or_else(not_coordinator)?;
        Ok(partition_of(id, topic.partitions))
    }

    fn ask(&self, partition: u32, ask: Ask) -> Result<(), Error> {
        let inbox = self.shared.seats.find(partition)?;
        inbox.try_send(ask).map_err(|refused| match refused {
            mpsc::error::TrySendError::Closed(_) => not_coordinator(),
            mpsc::error::TrySendError::Full(_) => Error::new(
                ErrorCode::CoordinatorUnavailable,
                "too many requests wait for the transaction's coordinator",
            ),
        })
    }
}

/// An answer that never comes means that the coordinator has gone.
async fn answered<T>(answer: oneshot::Receiver<T>, deadline: Instant) -> Result<T, Error> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(not_coordinator()),
        Err(_) => Err(Error::new(ErrorCode::RequestTimedOut, "the transaction's coordinator did not answer in time")),
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    if id.is_empty() {
        return Err(Error::new(ErrorCode::InvalidRequest, "the transactional id is empty"));
    }
    Ok(())
}

fn contradiction() -> Error {
    Error::new(ErrorCode::Internal, "the transaction's coordinator answered another question")
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions").field("broker", &self.shared.me).finish_non_exhaustive()
    }
}
