//! One partition as the producer sees it: the batches that are not acknowledged yet, in order.
//!
//! Order and uniqueness rest on three rules. A batch keeps its sequence number through all its
//! attempts. After any failure the lane rewinds: every batch waits again, and only the first
//! is sent until it is acknowledged; five may be under way otherwise. A new producer id is
//! taken only when the broker has said that the first batch is not stored, for then none
//! behind it is. That word is no proof once a batch before it was given up without an answer:
//! an attempt of then may still be on its way. What may be stored fails then, and says so; it
//! is never numbered anew.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use baton_core::{
    BrokerId, Epoch, Error, ErrorCode, ProducerEpoch, ProducerId,
    batch::{BatchError, BuildOptions, Codec, ProducerStamp},
};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{accumulator::OpenBatch, delivery::Outcome};
use crate::{backoff::Dice, error::ClientError, view::View};

/// As many as brokers remember per producer (KIP-98), so that every duplicate is recognised.
const IN_FLIGHT_MAX: usize = 5;
/// A broker may not have heard of a topic that was created this moment.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(5);
/// A batch that is out of order under so many producer ids will be so under the next one.
const REKEYS_MAX: u32 = 3;

/// A producer id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerKey {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub stream: u64,
    pub correlation: u64,
    pub broker: BrokerId,
    pub epoch: Epoch,
}

/// A batch that is not acknowledged yet.
pub(super) struct Pending {
    pub id: u64,
    pub outcome: Arc<Outcome>,
    pub bytes: Bytes,
    pub reserved: usize,
    pub created: Instant,
    count: u32,
    sequence: i32,
    flight: Option<Flight>,
    /// An attempt ended in a way that leaves open whether it was stored.
    uncertain: bool,
    rekeys: u32,
}

impl Pending {
    /// Whether it may be in the log: an attempt is under way, or ended without an answer.
    pub(super) fn maybe_stored(&self) -> bool {
        self.uncertain || self.flight.is_some()
    }
}

/// Where the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    To(BrokerId, Epoch),
    /// Not before this time, unless the view changes.
    Wait(Instant),
    NoLeader,
}

/// What a refusal leads to.
pub(super) enum Refusal {
    /// The answer belongs to an attempt that was given up; it changes nothing.
    Stale,
    /// The lane sends again; true: the leader is to be searched for.
    Retry { lost: bool },
    /// These batches failed for good.
    Failed(Vec<(Pending, ClientError)>),
}

pub(super) struct Lane {
    pub topic: Arc<str>,
    pub partition: u32,
    batches: VecDeque<Pending>,
    key: Option<ProducerKey>,
    next_sequence: i32,
    /// The broker has acknowledged a batch since the last failure.
    confirmed: bool,
    failed_epoch: Option<Epoch>,
    wait_until: Option<Instant>,
    failures: u32,
    unknown_since: Option<Instant>,
    /// A batch of the current producer id was given up that may be stored.
    doubtful: bool,
    /// Another producer id is needed before anything is sent.
    pub rekey: bool,
    pub last_error: Option<ClientError>,
    pub reported: Option<Instant>,
}

impl Lane {
    pub(super) fn new(topic: Arc<str>, partition: u32) -> Self {
        Self {
            topic,
            partition,
            batches: VecDeque::new(),
            key: None,
            next_sequence: 0,
            confirmed: false,
            failed_epoch: None,
            wait_until: None,
            failures: 0,
            unknown_since: None,
            doubtful: false,
            rekey: false,
            last_error: None,
            reported: None,
        }
    }

    pub(super) fn key(&self) -> Option<ProducerKey> {
        self.key
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// When the oldest batch was begun.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.created)
    }

    /// Takes a producer id on: all batches here are numbered anew, from zero. None of them may
    /// be stored; see the module's rules.
    pub(super) fn set_key(&mut self, key: ProducerKey) {
        self.key = Some(key);
        self.rekey = false;
        self.doubtful = false;
        self.confirmed = false;
        self.next_sequence = 0;
        for batch in &mut self.batches {
            batch.sequence = self.next_sequence;
            batch.bytes = restamp(&batch.bytes, key, batch.sequence);
            batch.flight = None;
            self.next_sequence = advance(self.next_sequence, batch.count);
        }
    }

    /// Closes a batch and puts it at the end, with the next sequence numbers.
    pub(super) fn push(&mut self, batch: OpenBatch, codec: Codec) -> Result<(), (OpenBatchRest, BatchError)> {
        let OpenBatch { id, builder, outcome, created, reserved } = batch;
        let (count, sequence) = (builder.len(), self.next_sequence);
        let producer = self.key.map(|key| ProducerStamp { id: key.id, epoch: key.epoch, base_sequence: sequence });
        let options = BuildOptions { codec, producer, transactional: false };
        match builder.build(&options) {
            Ok(bytes) => {
                self.next_sequence = advance(sequence, count);
                let (flight, uncertain, rekeys) = (None, false, 0);
                self.batches.push_back(Pending {
                    id,
                    outcome,
                    bytes,
                    reserved,
                    created,
                    count,
                    sequence,
                    flight,
                    uncertain,
                    rekeys,
                });
                Ok(())
            }
            Err(error) => Err((OpenBatchRest { id, outcome, reserved }, error)),
        }
    }

    /// Whether one more batch may be under way.
    pub(super) fn has_room(&self) -> bool {
        let limit = if self.confirmed { IN_FLIGHT_MAX } else { 1 };
        !self.rekey && self.key.is_some() && self.in_flight() < limit
    }

    fn in_flight(&self) -> usize {
        self.batches.iter().filter(|batch| batch.flight.is_some()).count()
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.batches.iter().any(|batch| batch.flight.is_none())
    }

    /// The first batch that is not under way. The caller sends it.
    pub(super) fn send_next(&mut self, flight: Flight) -> Option<(u64, Bytes)> {
        let batch = self.batches.iter_mut().find(|batch| batch.flight.is_none())?;
        batch.flight = Some(flight);
        Some((batch.id, batch.bytes.clone()))
    }

    pub(super) fn route(&self, now: Instant, view: &View) -> Route {
        let Some((broker, epoch, _)) = view.leader(&self.topic, self.partition) else {
            return Route::NoLeader;
        };
        match self.wait_until {
            Some(until) if now < until && self.failed_epoch.is_none_or(|failed| epoch <= failed) => Route::Wait(until),
            _ => Route::To(broker, epoch),
        }
    }

    /// The batch was stored, by this attempt or an earlier one.
    pub(super) fn stored(&mut self, id: u64) -> Option<Pending> {
        let at = self.batches.iter().position(|batch| batch.id == id)?;
        self.confirmed = true;
        self.failures = 0;
        self.wait_until = None;
        self.failed_epoch = None;
        self.unknown_since = None;
        self.last_error = None;
        self.batches.remove(at)
    }

    /// The broker refused a batch.
    pub(super) fn refused(&mut self, id: u64, flight: Flight, error: Error, now: Instant, dice: &Dice) -> Refusal {
        let Some(at) = self.batches.iter().position(|b| b.id == id && b.flight == Some(flight)) else {
            return Refusal::Stale;
        };
        self.batches[at].uncertain |= !surely_not_stored(error.code);
        let (fatal, lost) = self.judge(at, error.code, now);
        self.batches[at].flight = None;
        self.rewind();
        // Those before it have their answers first: they would be numbered anew with it.
        let mut failed: Vec<Pending> = self.batches.pop_front_if(|_| fatal && at == 0).into_iter().collect();
        if let Some(batch) = failed.first()
            && error.code != ErrorCode::DuplicateSequence
        {
            // Those behind it were numbered after it.
            self.rekey = true;
            self.doubtful |= batch.uncertain;
        }
        if self.rekey && self.doubtful {
            let all = std::mem::take(&mut self.batches).into_iter();
            let (doubtful, sure): (VecDeque<_>, VecDeque<_>) = all.partition(|batch| batch.uncertain);
            self.batches = sure;
            failed.extend(doubtful);
        }
        if !failed.is_empty() {
            let told = |batch: Pending| {
                let refused = ClientError::Refused { error: error.clone(), maybe_stored: batch.uncertain };
                (batch, refused)
            };
            return Refusal::Failed(failed.into_iter().map(told).collect());
        }
        if !self.rekey {
            self.hold_back(flight.epoch, now, dice);
        }
        self.last_error = Some(error.into());
        Refusal::Retry { lost }
    }

    /// Whether the refusal is final, and whether the leader is to be searched for.
    fn judge(&mut self, at: usize, code: ErrorCode, now: Instant) -> (bool, bool) {
        if !matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) {
            self.unknown_since = None;
        }
        match code {
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => {
                let since = *self.unknown_since.get_or_insert(now);
                (now.saturating_duration_since(since) >= UNKNOWN_TOPIC_PATIENCE, true)
            }
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer if at > 0 || self.in_flight() > 1 => {
                (false, false)
            }
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer => {
                let batch = &mut self.batches[at];
                batch.rekeys += 1;
                // Refused while it was alone under way: neither it nor any behind it is stored.
                self.rekey = true;
                (batch.rekeys > REKEYS_MAX, false)
            }
            ErrorCode::NotLeader
            | ErrorCode::NoLeader
            | ErrorCode::FencedEpoch
            | ErrorCode::ShuttingDown
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::PartitionHalted
            | ErrorCode::Storage => (false, true),
            code => (!code.retriable(), false),
        }
    }

    /// Nothing that is under way will be waited for any longer: it may be stored or not.
    pub(super) fn rewind(&mut self) {
        self.confirmed = false;
        for batch in &mut self.batches {
            batch.uncertain |= batch.flight.take().is_some();
        }
    }

    fn hold_back(&mut self, epoch: Epoch, now: Instant, dice: &Dice) {
        let wait = dice.backoff(Duration::from_millis(20), Duration::from_secs(1), self.failures);
        self.failures = self.failures.saturating_add(1);
        self.failed_epoch = Some(epoch);
        self.wait_until = Some(now + wait);
    }

    /// Whether an attempt is under way on this stream.
    pub(super) fn flies_on(&self, stream: u64) -> bool {
        self.batches.iter().any(|batch| batch.flight.is_some_and(|flight| flight.stream == stream))
    }

    /// Whether an attempt is under way to a broker that has been followed by another since.
    pub(super) fn overtaken(&self, view: &View) -> bool {
        let Some((broker, epoch, _)) = view.leader(&self.topic, self.partition) else { return false };
        self.batches
            .iter()
            .filter_map(|batch| batch.flight)
            .any(|flight| flight.broker != broker && flight.epoch < epoch)
    }

    /// The batches that were begun before this time, or all of them.
    pub(super) fn take_old(&mut self, before: Option<Instant>) -> Vec<Pending> {
        let mut old = Vec::new();
        while let Some(batch) = self.batches.pop_front_if(|b| before.is_none_or(|before| b.created <= before)) {
            self.doubtful |= batch.maybe_stored();
            old.push(batch);
        }
        old
    }
}

/// What is left of a batch that could not be built.
pub(super) struct OpenBatchRest {
    pub id: u64,
    pub outcome: Arc<Outcome>,
    pub reserved: usize,
}

/// Sequence numbers wrap to zero after the largest 32-bit number.
fn advance(sequence: i32, count: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).unwrap_or(0)
}

/// Codes with which a broker refuses before it appends.
fn surely_not_stored(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::InvalidTopicName
            | ErrorCode::InvalidRequest
            | ErrorCode::CorruptBatch
            | ErrorCode::InvalidBatch
            | ErrorCode::UnsupportedFormat
            | ErrorCode::UnsupportedCompression
            | ErrorCode::BatchTooLarge
            | ErrorCode::FrameTooLarge
            | ErrorCode::OutOfOrderSequence
            | ErrorCode::UnknownProducer
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::Unauthorized
            | ErrorCode::PolicyViolation
            | ErrorCode::Throttled
            | ErrorCode::DiskFull
    )
}

/// The same records under another producer id and sequence number.
fn restamp(bytes: &Bytes, key: ProducerKey, sequence: i32) -> Bytes {
    let mut batch = BytesMut::from(&bytes[..]);
    batch[43..51].copy_from_slice(&key.id.0.to_be_bytes());
    batch[51..53].copy_from_slice(&key.epoch.0.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}
