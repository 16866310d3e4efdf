//! Transactions: records in several partitions that readers see all of, or none.
//!
//! A [`TransactionCoordinator`] decides for all transactional ids that hash to one internal
//! partition; the broker that leads the partition runs it. Each decision is a record there
//! before anybody hears of it, and a transaction is decided by one record. So another leader
//! goes on from the log: what was decided is carried through, what is open runs on with its
//! time-out. In each partition that has records of a transaction a [marker](partition::EndMarker)
//! says how it ended; [`partition`] is what a partition knows of its transactions.
//!
//! The protocol is that of KIP-98 and KIP-360, and in its second version that of KIP-890: the
//! producer's epoch rises with each transaction, so that what is late is told from what is new.
//!
//! | module | what it has |
//! |---|---|
//! | [`message`] | requests, answers, effects |
//! | [`metadata`] | what survives of one transactional id, and how it changes |
//! | `entry` | one transactional id: what it has on its way |
//! | `init`, `add`, `end` | producers come, write, and end their transactions |
//! | `markers` | every partition hears of the end |
//! | `mutation` | rules that a simulation switches off |
//! | `due` | time-outs, and ids that nobody uses |
//! | [`record`] | what is in the log |
//! | [`partition`] | the side of the partitions |

mod add;
mod due;
mod end;
mod entry;
mod init;
mod markers;
pub mod message;
pub mod metadata;
mod mutation;
mod out;
pub mod partition;
mod query;
pub mod record;
mod replay;
pub mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::entry::Transaction;
use self::message::{Answer, Effect, Input, RequestId, Ticket};
use self::out::{Out, ProducerIds, UnderWay};
use self::settings::TransactionSettings;
use crate::connection::ConnectionId;
use crate::error::{Error, ErrorCode};
use crate::ids::Epoch;

pub use self::message::{Producer, Protocol};
pub use self::mutation::Mutation;
pub use self::query::{TransactionDescription, TransactionFilter, TransactionListing};

/// The partition, of `partitions`, that a transactional id belongs to: as Kafka chooses it.
#[must_use]
pub fn partition_of(id: &str, partitions: u32) -> u32 {
    crate::group::partition_of(id, partitions)
}

/// All transactional ids of one internal partition.
#[derive(Clone, Debug)]
pub struct TransactionCoordinator {
    settings: TransactionSettings,
    /// The leader epoch of the internal partition: markers carry it, so that those of an
    /// earlier coordinator are told from those of a later one.
    epoch: Epoch,
    entries: BTreeMap<String, Transaction>,
    under_way: UnderWay,
    ids: ProducerIds,
    /// When something is due, and for which transactional id.
    due: BTreeSet<(i64, String)>,
    due_of: BTreeMap<String, i64>,
    resigned: bool,
}

impl TransactionCoordinator {
    /// A coordinator in this leader epoch of its partition, with nothing replayed yet.
    #[must_use]
    pub fn new(settings: TransactionSettings, epoch: Epoch) -> Self {
        Self {
            settings,
            epoch,
            entries: BTreeMap::new(),
            under_way: UnderWay::default(),
            ids: ProducerIds::default(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            resigned: false,
        }
    }

    /// The earliest time at which [`Input::Tick`] has something to do, in ms since 1970.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes in what happened, and says what to do.
    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        self.act(now_ms, |coordinator, out| coordinator.take_in(input, out))
    }

    /// Runs `action`, which names the transactional ids that it touched.
    fn act(&mut self, now_ms: i64, action: impl FnOnce(&mut Self, &mut Out<'_>) -> Vec<String>) -> Vec<Effect> {
        let settings = self.settings.clone();
        let mut under_way = std::mem::take(&mut self.under_way);
        let mut ids = std::mem::take(&mut self.ids);
        let mut out = Out {
            now_ms,
            settings: &settings,
            coordinator_epoch: self.epoch,
            under_way: &mut under_way,
            ids: &mut ids,
            effects: Vec::new(),
        };
        let touched = action(self, &mut out);
        let effects = out.effects;
        (self.under_way, self.ids) = (under_way, ids);
        touched.iter().for_each(|id| self.settle(id));
        effects
    }

    /// After an id changed: when is something due for it, and is it still one?
    fn settle(&mut self, id: &str) {
        if self.entries.get(id).is_some_and(Transaction::is_forgotten) {
            self.entries.remove(id);
        }
        let due = self.entries.get(id).and_then(|entry| entry.due_ms(&self.settings));
        if let Some(before) = self.due_of.remove(id) {
            self.due.remove(&(before, id.to_owned()));
        }
        if let Some(at) = due {
            self.due.insert((at, id.to_owned()));
            self.due_of.insert(id.to_owned(), at);
        }
    }

    fn take_in(&mut self, input: Input, out: &mut Out<'_>) -> Vec<String> {
        if self.resigned {
            refuse(&input, out);
            return Vec::new();
        }
        match input {
            Input::Init { request, id, timeout_ms, expected, connection } => {
                self.init(request, &id, timeout_ms, (expected, connection), out);
                vec![id]
            }
            Input::Add { request, id, producer, partitions, connection } => {
                match self.found_in_time(&id, producer, connection) {
                    Ok(entry) => entry.add(request, producer, partitions, out),
                    Err(error) => out.answer(request, Answer::Add(Err(error))),
                }
                vec![id]
            }
            Input::Verify { request, id, producer, partitions } => {
                let result = self.found(&id).and_then(|entry| entry.verify(producer, partitions));
                out.answer(request, Answer::Verify(result));
                vec![id]
            }
            Input::End { request, id, producer, commit, protocol, connection } => {
                match self.found_in_time(&id, producer, connection) {
                    Ok(entry) => entry.end(request, producer, commit, protocol, out),
                    Err(error) => out.answer(request, Answer::End(Err(error))),
                }
                vec![id]
            }
            Input::Marked { round, at, outcome } => self.marked(round, at, outcome, out),
            Input::Appended { ticket, result } => self.appended(ticket, result, out),
            Input::ProducerIds { first, count } => {
                out.ids.add(first, count);
                Vec::new()
            }
            Input::Tick => self.tick(out),
            Input::Resigned => self.resign(out),
        }
    }

    fn found(&mut self, id: &str) -> Result<&mut Transaction, Error> {
        self.entries.get_mut(id).ok_or_else(|| {
            let cause = format!("nobody has initialised the transactional id {id:?}");
            Error::new(ErrorCode::InvalidProducerMapping, cause)
        })
    }

    /// A transactional id for a step of its transaction, which its producer has not taken on a
    /// later connection before.
    fn found_in_time(
        &mut self,
        id: &str,
        producer: Producer,
        connection: Option<ConnectionId>,
    ) -> Result<&mut Transaction, Error> {
        let entry = self.found(id)?;
        // Who is fenced anyway does not hang up on the one that has the id.
        if entry.may_be(producer) {
            entry.steps_on.admit(connection)?;
        }
        Ok(entry)
    }

    fn appended(&mut self, ticket: Ticket, result: Result<(), Error>, out: &mut Out<'_>) -> Vec<String> {
        let Some(id) = out.under_way.take_append(ticket) else {
            return Vec::new();
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.appended(result, out);
        }
        vec![id]
    }

    fn tick(&mut self, out: &mut Out<'_>) -> Vec<String> {
        let due = self.due.iter().take_while(|(at, _)| *at <= out.now_ms);
        let due: Vec<_> = due.map(|(_, id)| id.clone()).collect();
        for id in &due {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.tick(out);
            }
        }
        due
    }

    /// Everybody who waits has to ask the next coordinator.
    fn resign(&mut self, out: &mut Out<'_>) -> Vec<String> {
        self.resigned = true;
        for entry in std::mem::take(&mut self.entries).values_mut() {
            entry.resign(out);
        }
        *out.under_way = UnderWay::default();
        self.due.clear();
        self.due_of.clear();
        Vec::new()
    }
}

fn refuse(input: &Input, out: &mut Out<'_>) {
    match input {
        Input::Init { request, .. } => out.answer(*request, Answer::Init(Err(moved()))),
        Input::Add { request, .. } => out.answer(*request, Answer::Add(Err(moved()))),
        Input::Verify { request, .. } => out.answer(*request, Answer::Verify(Err(moved()))),
        Input::End { request, .. } => out.answer(*request, Answer::End(Err(moved()))),
        Input::Marked { .. } | Input::Appended { .. } | Input::ProducerIds { .. } | Input::Tick | Input::Resigned => {}
    }
}

fn moved() -> Error {
    Error::new(ErrorCode::NotCoordinator, "this broker does not coordinate the transactional id any more")
}

/// What a client hears when the log did not take something: it has to ask again, here or
/// elsewhere.
fn unavailable(error: Error) -> Error {
    use ErrorCode as E;
    let code = match error.code {
        E::NotLeader | E::NoLeader | E::ShuttingDown | E::ReplicaNotAvailable => E::NotCoordinator,
        E::BatchTooLarge | E::FrameTooLarge => return error,
        _ => E::CoordinatorUnavailable,
    };
    Error { code, ..error }
}

/// Whoever is to be told in the kind of answer that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Init(RequestId),
    Add(RequestId),
    End(RequestId),
}

impl Waiting {
    fn refuse(self, error: Error, out: &mut Out<'_>) {
        match self {
            Self::Init(request) => out.answer(request, Answer::Init(Err(error))),
            Self::Add(request) => out.answer(request, Answer::Add(Err(error))),
            Self::End(request) => out.answer(request, Answer::End(Err(error))),
        }
    }

    /// What it asked for is durable: it is this producer now.
    fn grant(self, producer: Producer, out: &mut Out<'_>) {
        match self {
            Self::Init(request) => out.answer(request, Answer::Init(Ok(producer))),
            Self::Add(request) => out.answer(request, Answer::Add(Ok(()))),
            Self::End(request) => out.answer(request, Answer::End(Ok(producer))),
        }
    }
}
