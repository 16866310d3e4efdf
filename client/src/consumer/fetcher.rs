//! The consumer's one task: asks the leaders for records ahead of the positions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use baton_core::{BrokerId, Epoch, Error, ErrorCode, Offset};
use baton_proto::v1;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Inner, Start, partition::Slot};
use crate::{
    client::Shared,
    config::OutOfRange,
    error::{Attempt, ClientError},
    metadata::PartitionName,
    mutation::Mutation,
    net::{self, Purpose},
    offsets::{self, Ask, Listed},
    view::View,
};

/// Two, so that partitions that are ready later need not wait for the first call's answer.
const CALLS_PER_BROKER: usize = 2;
/// A batch that is damaged so many times in a row is damaged on the broker.
const DAMAGED_MAX: u32 = 10;
const TICK: Duration = Duration::from_millis(100);
const FETCH_BYTES_MIN: usize = 64 << 10;

/// An answer to a call.
enum Answer {
    Fetched(Result<v1::FetchResponse, ClientError>),
    Listed(BTreeMap<PartitionName, Listed>),
}

struct Call {
    broker: Option<BrokerId>,
    sent: Instant,
    suspected: bool,
    parts: Vec<(PartitionName, Epoch)>,
}

type Calls = FuturesUnordered<BoxFuture<'static, (u64, Answer)>>;

struct Fetcher {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    calls: Calls,
    underway: BTreeMap<u64, Call>,
    throttled: BTreeMap<BrokerId, Instant>,
    next_call: u64,
}

/// Runs until the consumer is dropped.
pub(super) async fn run(shared: Arc<Shared>, inner: Arc<Inner>) {
    let mut changes = shared.metadata.changes();
    let mut fetcher = Fetcher {
        shared,
        inner: inner.clone(),
        calls: Calls::new(),
        underway: BTreeMap::new(),
        throttled: BTreeMap::new(),
        next_call: 0,
    };
    loop {
        let now = Instant::now();
        fetcher.suspect(now);
        fetcher.issue(now);
        tokio::select! {
            biased;
            Ok(()) = changes.changed() => fetcher.leaders_changed(),
            Some((call, answer)) = fetcher.calls.next(), if !fetcher.calls.is_empty() => {
                fetcher.answered(call, answer, Instant::now());
            }
            () = inner.wanted.notified() => {}
            () = sleep_until(now + TICK) => {}
        }
    }
}

impl Fetcher {
    /// Puts calls to the leaders of partitions that nobody asks for yet.
    fn issue(&mut self, now: Instant) {
        let view = self.shared.metadata.view();
        let mut fetches: BTreeMap<BrokerId, Vec<(PartitionName, Epoch, Offset)>> = BTreeMap::new();
        let mut unresolved = Vec::new();
        let inner = self.inner.clone();
        let mut state = inner.state();
        let room = state.buffered < inner.config.buffer_bytes / 2;
        for (name, slot) in &mut state.slots {
            if slot.flight.is_some() || slot.resting {
                continue;
            }
            if let Some(start) = slot.start {
                if slot.wait_until.is_none_or(|until| until <= now) {
                    unresolved.push((name.clone(), start));
                }
                continue;
            }
            let Some((broker, epoch, _)) = view.leader(&name.0, name.1) else {
                self.search(name, slot, &view, now);
                continue;
            };
            let held = slot.wait_until.is_some_and(|until| now < until)
                && slot.failed_epoch.is_none_or(|failed| epoch <= failed);
            let throttled = self.throttled.get(&broker).is_some_and(|until| now < *until);
            if room && !held && !throttled {
                fetches.entry(broker).or_default().push((name.clone(), epoch, slot.fetch_at));
            }
        }
        let share = inner.config.buffer_bytes / (4 * fetches.len().max(1));
        let mut issued = Vec::new();
        for (broker, parts) in fetches {
            let busy = self.underway.values().filter(|call| call.broker == Some(broker)).count();
            if busy < CALLS_PER_BROKER {
                issued.push((self.fetch(broker, &view, &parts, share, now), parts));
            }
        }
        for (call, parts) in issued {
            for (name, epoch, _) in parts {
                if let Some(slot) = state.slots.get_mut(&name) {
                    (slot.flight, slot.flight_epoch) = (Some(call), epoch);
                }
            }
        }
        if !unresolved.is_empty() {
            let call = self.resolve(&unresolved, now);
            for (name, _) in unresolved {
                if let Some(slot) = state.slots.get_mut(&name) {
                    slot.flight = Some(call);
                }
            }
        }
    }

    fn fetch(
        &mut self,
        broker: BrokerId,
        view: &View,
        parts: &[(PartitionName, Epoch, Offset)],
        share: usize,
        now: Instant,
    ) -> u64 {
        let config = &self.inner.config;
        let most = u32::try_from(share.max(FETCH_BYTES_MIN)).unwrap_or(u32::MAX).min(config.fetch_bytes_max);
        let hold = config.fetch_wait;
        let partitions = parts.iter().map(|((topic, partition), epoch, offset)| v1::FetchPartition {
            topic: topic.to_string(),
            partition: *partition,
            offset: offset.to_wire(),
            max_bytes: config.partition_bytes_max.min(most),
            epoch: Some(epoch.0),
        });
        let request = v1::FetchRequest {
            max_wait_ms: u32::try_from(hold.as_millis()).unwrap_or(u32::MAX),
            min_bytes: config.fetch_bytes_min,
            max_bytes: most,
            partitions: partitions.collect(),
            client_id: self.shared.config.client_id.clone(),
        };
        let address = view.brokers.get(&broker).cloned().unwrap_or_default();
        let client = self.shared.pool.broker(&address, Purpose::Fetch);
        let limit = hold + self.shared.config.request_timeout;
        self.next_call += 1;
        let call = self.next_call;
        let parts = parts.iter().map(|(name, epoch, _)| (name.clone(), *epoch)).collect();
        self.underway.insert(call, Call { broker: Some(broker), sent: now, suspected: false, parts });
        let answer = async move {
            match timeout(limit, client?.fetch(request)).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(net::status_error(&address, &status)),
                Err(_) => {
                    let reason = format!("no answer within {limit:?}");
                    Err(ClientError::Unreachable(vec![Attempt { address, reason }]))
                }
            }
        };
        self.calls.push(answer.map(move |answer| (call, Answer::Fetched(answer))).boxed());
        call
    }

    fn resolve(&mut self, unresolved: &[(PartitionName, Start)], now: Instant) -> u64 {
        self.next_call += 1;
        let call = self.next_call;
        let parts = unresolved.iter().map(|(name, _)| (name.clone(), Epoch::NONE)).collect();
        self.underway.insert(call, Call { broker: None, sent: now, suspected: true, parts });
        let asked = unresolved.iter().map(|(name, start)| {
            let ask = match start {
                Start::First | Start::Offset(_) => Ask::Start,
                Start::End => Ask::End,
                Start::Time(time) => Ask::Time(*time),
            };
            (name.clone(), ask)
        });
        let (asked, shared) = (asked.collect(), self.shared.clone());
        let within = self.shared.config.request_timeout;
        let listed = async move { (call, Answer::Listed(offsets::list(&shared, asked, within).await)) };
        self.calls.push(listed.boxed());
        call
    }

    fn answered(&mut self, call: u64, answer: Answer, now: Instant) {
        let Some(Call { broker, sent, parts, .. }) = self.underway.remove(&call) else { return };
        let inner = self.inner.clone();
        let mut state = inner.state();
        let state = &mut *state;
        // Those that were sought or went to another leader meanwhile are not in this call any more.
        let parts = parts.into_iter().filter(|(name, _)| state.slots.get(name).is_some_and(|s| s.flight == Some(call)));
        let parts: BTreeMap<PartitionName, Epoch> = parts.collect();
        for name in parts.keys() {
            if let Some(slot) = state.slots.get_mut(name) {
                slot.flight = None;
            }
        }
        match answer {
            Answer::Listed(mut listed) => {
                for name in parts.keys() {
                    if let (Some(slot), Some(listed)) = (state.slots.get_mut(name), listed.remove(name)) {
                        self.resolved(name, slot, listed, now);
                    }
                }
            }
            Answer::Fetched(Err(error)) => {
                tracing::debug!(%error, "a fetch failed");
                for (name, epoch) in &parts {
                    if let Some(slot) = state.slots.get_mut(name) {
                        self.hold_back(slot, *epoch, now);
                        self.shared.metadata.leader_lost(&name.0, name.1, *epoch, sent);
                    }
                }
            }
            Answer::Fetched(Ok(answer)) => {
                if let Some(broker) = broker.filter(|_| answer.throttle_ms > 0) {
                    self.throttled.insert(broker, now + Duration::from_millis(answer.throttle_ms.into()));
                }
                let view = self.shared.metadata.view();
                for result in answer.results {
                    let name: PartitionName = (result.topic.as_str().into(), result.partition);
                    if let (Some(epoch), Some(slot)) = (parts.get(&name), state.slots.get_mut(&name)) {
                        state.buffered += self.fetched(&name, slot, *epoch, &view, result, now);
                    }
                }
            }
        }
        self.inner.arrived.notify_waiters();
    }

    /// Takes one partition's part of an answer in; returns the bytes that are kept.
    fn fetched(
        &self,
        name: &PartitionName,
        slot: &mut Slot,
        epoch: Epoch,
        view: &View,
        result: v1::FetchResult,
        now: Instant,
    ) -> usize {
        if let Some(wire) = &result.error {
            if let Some(leader) = &wire.leader
                && !self.shared.config.lacks(Mutation::KeepMetadata)
            {
                self.shared.metadata.hint(&name.0, name.1, leader);
            }
            self.refused(name, slot, epoch, &result, Error::from(wire), now);
            return 0;
        }
        slot.denied_since = None;
        slot.wait_until = None;
        self.shared.metadata.leader_answers(&name.0, name.1);
        if let Some(high_watermark) = Offset::from_wire(result.high_watermark) {
            slot.high_watermark = slot.high_watermark.max(Some(high_watermark));
        }
        let compacted = view.topics.get(&name.0).is_some_and(|topic| topic.compacted);
        match slot.accept(result.batches, compacted) {
            Ok(kept) => {
                slot.failures = 0;
                // A new leader serves what was committed before it knows the end: what readers
                // got is below it.
                if kept > 0 {
                    slot.high_watermark = slot.high_watermark.map(|known| known.max(slot.fetch_at));
                }
                kept
            }
            Err(error) if slot.failures >= DAMAGED_MAX => {
                slot.fail(error.topic(&*name.0).partition(name.1).into());
                0
            }
            Err(error) => {
                tracing::warn!(%error, topic = %name.0, partition = name.1, "a fetched batch is damaged; asking again");
                self.hold_back(slot, epoch, now);
                0
            }
        }
    }

    fn refused(
        &self,
        name: &PartitionName,
        slot: &mut Slot,
        epoch: Epoch,
        result: &v1::FetchResult,
        error: Error,
        now: Instant,
    ) {
        let error = error.topic(&*name.0).partition(name.1);
        let patient = slot.is_denied_briefly(error.code, now);
        match error.code {
            ErrorCode::OffsetOutOfRange => {
                // A leader that was elected this moment may not know its own end yet.
                let below = Offset::from_wire(result.log_start).is_some_and(|start| slot.fetch_at < start);
                if !below && patient {
                    return self.hold_back(slot, epoch, now);
                }
                // What was fetched before is handed out first: the position is what counts.
                match self.inner.config.out_of_range {
                    _ if slot.position < slot.fetch_at => self.hold_back(slot, epoch, now),
                    OutOfRange::Fail => slot.fail(error.into()),
                    OutOfRange::Start => slot.start = Some(Start::First),
                    OutOfRange::End => slot.start = Some(Start::End),
                }
            }
            code if is_unknown(code) && !patient => slot.fail(error.into()),
            ErrorCode::NotLeader
            | ErrorCode::NoLeader
            | ErrorCode::FencedEpoch
            | ErrorCode::ShuttingDown
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::PartitionHalted
            | ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::Storage => {
                self.hold_back(slot, epoch, now);
                self.shared.metadata.leader_lost(&name.0, name.1, epoch, now);
            }
            code if code.retriable() => self.hold_back(slot, epoch, now),
            _ => slot.fail(error.into()),
        }
    }

    fn resolved(&self, name: &PartitionName, slot: &mut Slot, listed: Listed, now: Instant) {
        match listed {
            Ok(Some(offset)) => slot.resolve(offset),
            // No record is that young: the next one that is written will be.
            Ok(None) => slot.start = Some(Start::End),
            Err(error) if error.retriable() => self.hold_back(slot, Epoch::NONE, now),
            // Whoever divided the partitions of a group may know of more of them than we do.
            Err(error) if is_unknown(error.code()) && slot.is_denied_briefly(error.code(), now) => {
                self.hold_back(slot, Epoch::NONE, now);
                self.shared.metadata.leader_lost(&name.0, name.1, Epoch::NONE, now);
            }
            Err(error) => slot.fail(error),
        }
    }

    fn hold_back(&self, slot: &mut Slot, epoch: Epoch, now: Instant) {
        let wait = self.shared.dice.backoff(Duration::from_millis(20), Duration::from_secs(1), slot.failures);
        slot.failures = slot.failures.saturating_add(1);
        slot.wait_until = Some(now + wait);
        slot.failed_epoch = Some(epoch);
    }

    fn search(&self, name: &PartitionName, slot: &mut Slot, view: &View, now: Instant) {
        if slot.searched.is_none_or(|told| told + Duration::from_secs(1) <= now) {
            slot.searched = Some(now);
            let above = view.leadership(&name.0, name.1).unwrap_or_default().epoch;
            self.shared.metadata.leader_lost(&name.0, name.1, above, now);
        }
    }

    /// Has leaders searched for that hold a fetch longer than they were asked to.
    fn suspect(&mut self, now: Instant) {
        let after = self.inner.config.fetch_wait + self.shared.config.suspect_after;
        for call in self.underway.values_mut().filter(|call| !call.suspected && call.sent + after <= now) {
            call.suspected = true;
            for ((topic, partition), epoch) in &call.parts {
                self.shared.metadata.leader_lost(topic, *partition, *epoch, call.sent);
            }
        }
    }

    /// What waits at a leader that has been followed by another is asked for there.
    fn leaders_changed(&mut self) {
        let view = self.shared.metadata.view();
        let mut state = self.inner.state();
        let mut skipped = 0;
        for (name, slot) in &mut state.slots {
            let Some(call) = slot.flight.and_then(|call| self.underway.get(&call)) else { continue };
            let Some((broker, epoch, _)) = view.leader(&name.0, name.1) else { continue };
            if call.broker.is_some_and(|asked| asked != broker) && slot.flight_epoch < epoch {
                slot.flight = None;
                if self.shared.config.lacks(Mutation::SkipAtFailover) {
                    skipped += slot.skip_fetched();
                }
            }
        }
        state.buffered -= skipped;
    }
}

/// Somebody knows of the topic or partition, and somebody else does not, or not yet.
fn is_unknown(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
}
