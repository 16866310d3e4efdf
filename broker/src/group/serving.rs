//! Carries out what the core decides for the groups of one partition, in one leader epoch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_core::group::GroupCoordinator;
use baton_core::group::message::{Answer, Effect, Input, RequestId, Ticket};
use baton_core::group::record::GroupRecord;
use baton_core::replica::RoleView;
use baton_core::transaction::Producer;
use baton_core::{Epoch, Error, ErrorCode, ProducerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::coordination::append::{Appender, Outcome, certainly_not_stored};
use crate::coordination::serves;
use crate::coordination::time::Timekeeper;
use crate::group::encode::encode;
use crate::group::seats::{Ask, Counts, SeatGuard};
use crate::group::term::Parts;
use crate::shard::{InTransaction, PartitionHandle, PartitionStatus};

/// Requests that wait for others or for the log; beyond it clients are told to ask again.
const WAITING_MAX: usize = 50_000;

/// Producers whose transactional ids are remembered until their offsets are in the log.
const TRANSACTIONS_MAX: usize = 10_000;

/// How often groups and members are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// A timer that fires so much too late means that this process stood still, and not that the
/// members were silent.
const STOOD_STILL: Duration = Duration::from_secs(2);

pub(super) struct Serving<'a> {
    parts: &'a Parts,
    epoch: Epoch,
    coordinator: GroupCoordinator,
    /// Dropped first when the partition is handed over.
    seat: Option<SeatGuard>,
    asked: mpsc::Receiver<Ask>,
    counts: Arc<Counts>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    appender: Appender<Ticket>,
    outcomes: mpsc::UnboundedReceiver<Outcome<Ticket>>,
    /// The transactions that had offsets here, by producer: the last that came.
    transactions: BTreeMap<ProducerId, InTransaction>,
    /// Ends of transactions that wait until the core has heard of all that came before them.
    ended: VecDeque<(Ticket, Input)>,
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
    Ask(Ask),
    Due,
    Count,
    Over,
}

impl<'a> Serving<'a> {
    pub(super) fn new(
        parts: &'a Parts,
        handle: &PartitionHandle,
        epoch: Epoch,
        coordinator: GroupCoordinator,
        seat: SeatGuard,
        time: Timekeeper,
    ) -> Self {
        let (asked, counts) = seat.open();
        let (appender, outcomes) = Appender::new(parts.shards.clone(), handle.id, epoch, handle.settings.clone());
        Self {
            parts,
            epoch,
            coordinator,
            seat: Some(seat),
            asked,
            counts,
            waiting: BTreeMap::new(),
            next_request: 0,
            appender,
            outcomes,
            transactions: BTreeMap::new(),
            ended: VecDeque::new(),
            time,
        }
    }

    /// Until this broker leads no more in this epoch, or cannot know what is in the log.
    pub(super) async fn run(mut self, handle: &mut PartitionHandle) {
        let mut count = tokio::time::interval(COUNT_EVERY);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stand = self.stand(&handle.status.take());
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
                Some(ask) = self.asked.recv(), if serving => Turn::Ask(ask),
                () = at(due), if serving => Turn::Due,
                _ = count.tick() => Turn::Count,
            };
            stand = match turn {
                Turn::Status(status) => self.stand(&status),
                Turn::Outcome(outcome) => self.outcome(outcome, stand).await,
                Turn::Ask(ask) => {
                    self.take(ask).await;
                    stand
                }
                Turn::Due => {
                    self.due(due).await;
                    stand
                }
                Turn::Count => {
                    self.count();
                    stand
                }
                Turn::Over => Stand::Over,
            };
        }
        self.end();
    }

    fn stand(&mut self, status: &PartitionStatus) -> Stand {
        if serves(status, self.epoch) && self.seat.is_some() {
            return Stand::Serves;
        }
        // Whoever asks from now on looks for the next coordinator.
        self.seat = None;
        let leads = matches!(status.role, RoleView::Leader { .. }) && status.epoch == self.epoch;
        if leads { Stand::HandsOver } else { Stand::Over }
    }

    async fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Look(look) => look(&self.coordinator),
            Ask::Do(input @ Input::TransactionEnded { .. }) => match self.appender.last() {
                Some(last) => self.ended.push_back((last, input)),
                None => self.step(input).await,
            },
            Ask::Do(input) => self.step(input).await,
            Ask::Change { make, transaction, reply } => {
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
                if let Some((producer, transaction)) = transaction {
                    self.name(producer.id, transaction);
                }
                let input = make(request, self.time.now_ms());
                self.step(input).await;
            }
        }
    }

    /// Something is due. If it is due since long, this process stood still: everybody's session
    /// begins anew, as after a failover.
    async fn due(&mut self, due: Option<Instant>) {
        if due.is_some_and(|due| due.elapsed() > STOOD_STILL) {
            tracing::warn!("this process stood still: the sessions of the groups' members begin anew");
            self.coordinator.loaded(self.time.now_ms());
        }
        self.step(Input::Tick).await;
    }

    async fn outcome(&mut self, outcome: Outcome<Ticket>, stand: Stand) -> Stand {
        let mut left = stand;
        for (ticket, result) in self.appender.outcome(outcome) {
            if let Err(error) = &result
                && !certainly_not_stored(error)
            {
                tracing::info!(%error, "a change of groups may be lost: the coordinator ends");
                // Until everything on its way has arrived, it cannot be read again.
                self.seat = None;
                left = Stand::HandsOver;
                continue;
            }
            self.step(Input::Appended { ticket, result }).await;
        }
        while let Some((_, input)) = self.ended.pop_front_if(|(last, _)| self.appender.is_past(*last)) {
            self.step(input).await;
        }
        left
    }

    async fn step(&mut self, input: Input) {
        let now_ms = self.time.now_ms();
        for effect in self.coordinator.step(now_ms, input) {
            match effect {
                Effect::Answer(request, answer) => self.answer(request, answer),
                Effect::Append { ticket, records, transaction: Some((id, epoch)) } => {
                    let Some(transaction) = self.transactions.get(&id).cloned() else {
                        let cause = "too many transactions have offsets here";
                        self.appender.refuse(ticket, Error::new(ErrorCode::Throttled, cause));
                        continue;
                    };
                    self.note(&records);
                    let batch = encode(now_ms, &records, Some(Producer { id, epoch }), self.appender.settings());
                    self.appender.append(ticket, batch, Some(transaction)).await;
                }
                Effect::Append { ticket, records, transaction: None } => {
                    self.note(&records);
                    let batch = encode(now_ms, &records, None, self.appender.settings());
                    self.appender.append(ticket, batch, None).await;
                }
            }
        }
    }

    /// Remembers to which transactional id a producer belongs.
    fn name(&mut self, producer: ProducerId, transaction: InTransaction) {
        if self.transactions.len() >= TRANSACTIONS_MAX {
            self.transactions.pop_first();
        }
        self.transactions.insert(producer, transaction);
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(reply) = self.waiting.remove(&request) {
            // Whoever asked may have given up.
            drop(reply.send(answer));
        }
    }

    fn note(&self, records: &[GroupRecord]) {
        for record in records {
            match record {
                GroupRecord::Group { metadata: Some(metadata), .. } if !metadata.assigned => {
                    self.parts.metrics.group_rebalanced();
                }
                GroupRecord::Offset { committed: Some(_), .. } => self.parts.metrics.offset_committed(),
                _ => {}
            }
        }
    }

    fn count(&self) {
        let (groups, members) = self.coordinator.counts();
        self.counts.groups.store(groups as u64, Ordering::Relaxed);
        self.counts.members.store(members as u64, Ordering::Relaxed);
    }

    /// Everybody who waits has to ask the next coordinator. Questions in the queue are dropped
    /// with it, which says the same.
    fn end(mut self) {
        self.seat = None;
        for effect in self.coordinator.step(self.time.now_ms(), Input::End) {
            if let Effect::Answer(request, answer) = effect {
                self.answer(request, answer);
            }
        }
    }
}

/// At that moment, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
