//! What was sent, and what became of it.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::ids::{EventId, LaneId, PartitionId, SendId, SlotId};
use super::slots::Slot;

/// What became of a record, as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Acknowledged(SlotId),
    Failed,
    /// It may be stored or not.
    Unknown,
}

const FAILED: u32 = u32::MAX;
const UNKNOWN: u32 = u32::MAX - 1;

/// Slots have smaller numbers than this one.
pub const SLOTS_MAX: u32 = UNKNOWN;

/// One record that was sent: 48 bytes, of which there are ten million.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub payload: u64,
    pub sequence: u64,
    pub sent_us: u64,
    /// How long the outcome took; the largest number stands for longer than 71 minutes.
    took_us: u32,
    /// Where it was acknowledged, or [`FAILED`], or [`UNKNOWN`].
    state: u32,
    pub lane: LaneId,
    pub epoch: Option<NonZeroU32>,
    pub sent_in: EventId,
    /// The send itself as long as there is no outcome.
    pub ended_in: EventId,
}

impl Sent {
    pub fn new(payload: u64, sequence: u64, sent_us: u64, lane: LaneId, event: EventId) -> Self {
        Self {
            payload,
            sequence,
            sent_us,
            took_us: u32::MAX,
            state: UNKNOWN,
            lane,
            epoch: None,
            sent_in: event,
            ended_in: event,
        }
    }

    pub fn state(&self) -> State {
        match self.state {
            FAILED => State::Failed,
            UNKNOWN => State::Unknown,
            slot => State::Acknowledged(SlotId(slot)),
        }
    }

    pub fn end(&mut self, state: State, received_us: u64, event: EventId) {
        self.state = match state {
            State::Acknowledged(slot) => slot.0,
            State::Failed => FAILED,
            State::Unknown => UNKNOWN,
        };
        self.took_us = u32::try_from(received_us.saturating_sub(self.sent_us)).unwrap_or(u32::MAX);
        self.ended_in = event;
    }

    /// When its outcome came; none if that took so long that it is not known any more.
    pub fn ended_us(&self) -> Option<u64> {
        (self.took_us < u32::MAX).then(|| self.sent_us.saturating_add(u64::from(self.took_us)))
    }

    /// The events that tell of it.
    pub fn events(&self) -> Vec<EventId> {
        let mut events = vec![self.sent_in, self.ended_in];
        events.dedup();
        events
    }
}

/// One producer's records of one partition, by rising sequence.
#[derive(Debug)]
pub struct Lane {
    pub producer: u32,
    pub partition: PartitionId,
    pub sends: Vec<SendId>,
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Sends {
    pub all: Vec<Sent>,
    pub lanes: Vec<Lane>,
    by_names: HashMap<(u32, PartitionId), LaneId>,
}

impl Sends {
    pub fn get(&self, id: SendId) -> &Sent {
        &self.all[id.index()]
    }

    pub fn get_mut(&mut self, id: SendId) -> &mut Sent {
        &mut self.all[id.index()]
    }

    /// What is there is what was acknowledged there.
    pub fn is_home(&self, slot: &Slot) -> bool {
        let payload = slot.sight.and_then(|sight| sight.payload);
        slot.acknowledged.is_some_and(|send| payload == Some(self.get(send).payload))
    }

    /// The lane of a producer in a partition; a new one if it is new.
    pub fn lane(&mut self, producer: u32, partition: PartitionId) -> LaneId {
        let next = LaneId(u32::try_from(self.lanes.len()).unwrap_or(u32::MAX));
        let lane = *self.by_names.entry((producer, partition)).or_insert(next);
        if lane == next {
            self.lanes.push(Lane { producer, partition, sends: Vec::new() });
        }
        lane
    }

    /// Adds a record. False if its sequence does not rise.
    pub fn add(&mut self, sent: Sent) -> bool {
        let id = SendId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        let last = self.lanes[sent.lane.index()].sends.last();
        if last.is_some_and(|last| self.get(*last).sequence >= sent.sequence) {
            return false;
        }
        self.lanes[sent.lane.index()].sends.push(id);
        self.all.push(sent);
        true
    }

    /// The record of a sequence.
    pub fn find(&self, lane: LaneId, sequence: u64) -> Option<SendId> {
        let sends = &self.lanes[lane.index()].sends;
        let found = sends.binary_search_by_key(&sequence, |id| self.get(*id).sequence);
        found.ok().map(|at| sends[at])
    }
}
