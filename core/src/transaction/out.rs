//! What a step has to say, and what is on its way meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::message::{Answer, Effect, MarkerRound, RequestId, Ticket};
use super::record::TransactionRecord;
use super::settings::TransactionSettings;
use crate::error::{Error, ErrorCode};
use crate::ids::{Epoch, ProducerId};

/// Appends and rounds of markers whose outcome is not known, by transactional id.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    tickets: u64,
    rounds: u64,
    appends: BTreeMap<Ticket, String>,
    marking: BTreeMap<MarkerRound, String>,
}

impl UnderWay {
    pub fn take_append(&mut self, ticket: Ticket) -> Option<String> {
        self.appends.remove(&ticket)
    }

    pub fn appends(&self) -> usize {
        self.appends.len()
    }

    /// The transactional id whose markers are written in this round, unless it is over.
    pub fn marked(&self, round: MarkerRound) -> Option<String> {
        self.marking.get(&round).cloned()
    }

    pub fn begin_round(&mut self, id: &str) -> MarkerRound {
        let round = MarkerRound(self.rounds);
        self.rounds += 1;
        self.marking.insert(round, id.to_owned());
        round
    }

    pub fn end_round(&mut self, round: MarkerRound) {
        self.marking.remove(&round);
    }
}

/// Producer ids that nobody has yet.
#[derive(Clone, Debug, Default)]
pub struct ProducerIds {
    blocks: VecDeque<Range<i64>>,
    asked: bool,
}

impl ProducerIds {
    /// A block came, or did not.
    pub fn add(&mut self, first: ProducerId, count: u32) {
        self.asked = false;
        let end = first.0.saturating_add(i64::from(count));
        if first.0 >= 0 && end > first.0 {
            self.blocks.push_back(first.0..end);
        }
    }

    fn take(&mut self) -> Option<ProducerId> {
        let block = self.blocks.front_mut()?;
        let id = block.next().map(ProducerId);
        if block.is_empty() {
            self.blocks.pop_front();
        }
        id
    }

    fn is_short(&self, min: usize) -> bool {
        let left = self.blocks.iter().fold(0_i64, |sum, block| sum.saturating_add(block.end - block.start));
        left < i64::try_from(min).unwrap_or(i64::MAX)
    }
}

/// Where a step writes to.
pub struct Out<'a> {
    pub now_ms: i64,
    pub settings: &'a TransactionSettings,
    pub coordinator_epoch: Epoch,
    pub under_way: &'a mut UnderWay,
    pub ids: &'a mut ProducerIds,
    pub effects: Vec<Effect>,
}

impl Out<'_> {
    pub fn answer(&mut self, request: RequestId, answer: Answer) {
        self.effects.push(Effect::Answer(request, answer));
    }

    pub fn append(&mut self, record: TransactionRecord) {
        let ticket = Ticket(self.under_way.tickets);
        self.under_way.tickets += 1;
        self.under_way.appends.insert(ticket, record.id.clone());
        self.effects.push(Effect::Append { ticket, record });
    }

    /// A producer id that nobody had before.
    pub fn fresh_id(&mut self) -> Result<ProducerId, Error> {
        let id = self.ids.take();
        self.replenish();
        id.ok_or_else(|| {
            let cause = "the coordinator waits for a block of producer ids";
            Error::new(ErrorCode::CoordinatorUnavailable, cause)
        })
    }

    /// Asks for more producer ids if few are left and nobody asked yet.
    pub fn replenish(&mut self) {
        if !self.ids.asked && self.ids.is_short(self.settings.producer_ids_min) {
            self.ids.asked = true;
            self.effects.push(Effect::NeedProducerIds);
        }
    }

    /// Whether a client may have something appended now.
    pub fn admit_append(&self) -> Result<(), Error> {
        if self.under_way.appends() < self.settings.appends_max {
            return Ok(());
        }
        let cause = "too many changes of transactions are on their way to the log";
        Err(Error::new(ErrorCode::CoordinatorUnavailable, cause))
    }
}
