//! Carries out what the core decides, as long as this broker leads the partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::transaction::TransactionCoordinator;
use baton_core::transaction::message::{Answer, Effect, Input, RequestId, Ticket};
use baton_core::transaction::metadata::TransactionState;
use baton_core::{Epoch, Error, ErrorCode, ProducerId};
use baton_registry::Registry;
use baton_registry::recipes::producer_ids;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::coordination::append::{Appender, Outcome, certainly_not_stored};
use crate::coordination::serves;
use crate::coordination::time::Timekeeper;
use crate::shard::{PartitionHandle, PartitionStatus};
use crate::transaction::encode::encode;
use crate::transaction::host::Parts;
use crate::transaction::seats::{Ask, SeatGuard};

/// Requests that wait for the log; beyond it clients are told to ask again.
const WAITING_MAX: usize = 50_000;

/// Producer ids taken from the registry at once, for one coordinator.
const BLOCK: u32 = 100;

/// After the registry gave none.
const IDS_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Serving<'a> {
    parts: &'a Parts,
    epoch: Epoch,
    coordinator: TransactionCoordinator,
    /// Dropped first when the partition is handed over.
    seat: Option<SeatGuard>,
    asked: mpsc::Receiver<Ask>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    appender: Appender<Ticket>,
    outcomes: mpsc::UnboundedReceiver<Outcome<Ticket>>,
    /// Transactions of which the last record is on its way; whether they were committed.
    ending: BTreeMap<Ticket, bool>,
    /// Markers that are being written, and blocks of ids: each brings inputs.
    running: FuturesUnordered<BoxFuture<'static, Vec<Input>>>,
    marking: BTreeSet<crate::transaction::markers::Place>,
    time: Timekeeper,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Serves,
    /// Waits for what is on its way to the log, and takes nothing new.
    HandsOver,
    Over,
}

/// What to do next.
enum Turn {
    Status(PartitionStatus),
    Outcome(Outcome<Ticket>),
    Done(Vec<Input>),
    Ask(Ask),
    Due,
    Over,
}

impl<'a> Serving<'a> {
    pub(super) fn new(
        parts: &'a Parts,
        handle: &PartitionHandle,
        epoch: Epoch,
        coordinator: TransactionCoordinator,
        seat: SeatGuard,
        time: Timekeeper,
    ) -> Self {
        let asked = seat.open();
        let (appender, outcomes) = Appender::new(parts.shards.clone(), handle.id, epoch, handle.settings.clone());
        Self {
            parts,
            epoch,
            coordinator,
            seat: Some(seat),
            asked,
            waiting: BTreeMap::new(),
            next_request: 0,
            appender,
            outcomes,
            ending: BTreeMap::new(),
            running: FuturesUnordered::new(),
            marking: BTreeSet::new(),
            time,
        }
    }

    /// Until this broker leads no more in this epoch, or cannot know what is in the log.
    pub(super) async fn run(mut self, handle: &mut PartitionHandle) {
        let mut stand = self.stand(&handle.status.take());
        let effects = self.coordinator.loaded(self.time.now_ms());
        self.carry_out(effects).await;
        while stand == Stand::Serves || (stand == Stand::HandsOver && !self.appender.is_idle()) {
            let due = self.coordinator.next_deadline_ms().map(|at_ms| self.time.at(at_ms));
            let serving = stand == Stand::Serves;
            let turn = tokio::select! {
                biased;
                changed = handle.status.changed() => match changed {
                    Ok(()) => Turn::Status(handle.status.take()),
                    Err(_) => Turn::Over,
                },
                Some(outcome) = self.outcomes.recv() => Turn::Outcome(outcome),
                Some(inputs) = self.running.next(), if serving && !self.running.is_empty() => Turn::Done(inputs),
                Some(ask) = self.asked.recv(), if serving => Turn::Ask(ask),
                () = at(due), if serving => Turn::Due,
            };
            stand = match turn {
                Turn::Status(status) => self.stand(&status),
                Turn::Outcome(outcome) => self.outcome(outcome, stand).await,
                Turn::Done(inputs) => {
                    self.done(inputs).await;
                    stand
                }
                Turn::Ask(ask) => {
                    self.take(ask).await;
                    stand
                }
                Turn::Due => {
                    self.step(Input::Tick).await;
                    stand
                }
                Turn::Over => Stand::Over,
            };
            if self.seat.is_none() && stand == Stand::Serves {
                stand = Stand::HandsOver;
            }
        }
        self.end();
    }

    fn stand(&mut self, status: &PartitionStatus) -> Stand {
        if serves(status, self.epoch) && self.seat.is_some() {
            return Stand::Serves;
        }
        // Whoever asks from now on looks for the next coordinator.
        self.seat = None;
        let leads = matches!(status.role, baton_core::replica::RoleView::Leader { .. }) && status.epoch == self.epoch;
        if leads { Stand::HandsOver } else { Stand::Over }
    }

    async fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Look(look) => look(&self.coordinator, self.time.now_ms()),
            Ask::Change { make, reply } => {
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.retain(|_, reply| !reply.is_closed());
                }
                if self.waiting.len() >= WAITING_MAX {
                    // Without an answer it hears that it has to ask again.
                    tracing::warn!(waiting = self.waiting.len(), "too many requests wait for this coordinator");
                    return;
                }
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.waiting.insert(request, reply);
                self.step(make(request)).await;
            }
        }
    }

    async fn outcome(&mut self, outcome: Outcome<Ticket>, stand: Stand) -> Stand {
        let mut left = stand;
        for (ticket, result) in self.appender.outcome(outcome) {
            if let Some(committed) = self.ending.remove(&ticket).filter(|_| result.is_ok()) {
                self.parts.metrics.transaction_ended(committed);
            }
            if let Err(error) = &result
                && !certainly_not_stored(error)
            {
                tracing::info!(%error, "a change of transactions may be lost: the coordinator ends");
                // Until everything on its way has arrived, it cannot be read again.
                self.seat = None;
                left = Stand::HandsOver;
                continue;
            }
            if left == Stand::Serves {
                self.step(Input::Appended { ticket, result }).await;
            }
        }
        left
    }

    async fn done(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            if let Input::Marked { round, at, .. } = &input {
                self.marking.remove(&(*round, *at));
            }
            self.step(input).await;
        }
    }

    async fn step(&mut self, input: Input) {
        let effects = self.coordinator.step(self.time.now_ms(), input);
        self.carry_out(effects).await;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer(request, answer) => self.answer(request, answer),
                Effect::Append { ticket, record } => {
                    let state = record.metadata.as_ref().map(|metadata| metadata.state);
                    if let Some(committed) = state.filter(|state| state.is_idle()).and_then(TransactionState::decided) {
                        self.ending.insert(ticket, committed);
                    }
                    let batch = encode(self.time.now_ms(), &record, self.appender.settings());
                    self.appender.append(ticket, batch, None).await;
                }
                Effect::WriteMarkers { round, marker, raised, mut partitions } => {
                    // What is asked again while it is on its way would only be written twice.
                    partitions.retain(|at| self.marking.insert((round, *at)));
                    for write in self.parts.markers.write(round, marker, raised, partitions) {
                        self.running.push(write);
                    }
                }
                Effect::NeedProducerIds => self.running.push(ids(Arc::clone(&self.parts.registry))),
                Effect::Superseded => {
                    tracing::info!("a later coordinator is at work");
                    self.seat = None;
                }
            }
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(reply) = self.waiting.remove(&request) {
            // Whoever asked may have given up.
            drop(reply.send(answer));
        }
    }

    /// Everybody who waits has to ask the next coordinator. Questions in the queue are dropped
    /// with it, which says the same.
    fn end(mut self) {
        self.seat = None;
        for effect in self.coordinator.step(self.time.now_ms(), Input::Resigned) {
            if let Effect::Answer(request, answer) = effect {
                self.answer(request, answer);
            }
        }
    }
}

/// A block of producer ids, or word that there is none.
fn ids(registry: Arc<dyn Registry>) -> BoxFuture<'static, Vec<Input>> {
    Box::pin(async move {
        let allocated = producer_ids::allocate(&*registry, BLOCK).await;
        let allocated = allocated.map_err(|error| Error::new(ErrorCode::RegistryUnavailable, error.to_string()));
        let (first, count) = match allocated {
            Ok(block) => (block.start, u32::try_from(block.end - block.start).unwrap_or(0)),
            Err(error) => {
                tracing::warn!(%error, "there are no producer ids for transactions at the moment");
                tokio::time::sleep(IDS_AGAIN_AFTER).await;
                (0, 0)
            }
        };
        vec![Input::ProducerIds { first: ProducerId(first), count }]
    })
}

/// At that moment, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
