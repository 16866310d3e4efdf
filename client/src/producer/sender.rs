//! The producer's one task: takes batches that are ready, sends them to the leaders, takes
//! the answers, and retries.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use baton_core::{BrokerId, Epoch, Error, Offset, ProducerEpoch, ProducerId};
use baton_proto::v1;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Inner,
    accumulator::LaneKey,
    delivery::Stored,
    lane::{Flight, Lane, Pending, ProducerKey, Refusal, Route},
    stream::{Event, Link, Open, Part},
};
use crate::{
    client::{AbortOnDrop, Shared},
    config::Acks,
    error::ClientError,
    mutation::Mutation,
    net::{self, Purpose},
    view::View,
};

/// How often deadlines and silent leaders are looked at while anything is under way.
const TICK: Duration = Duration::from_millis(50);
const EVENTS_MAX: usize = 256;

/// Where a producer id comes from.
enum Keys {
    None,
    Asking {
        _task: AbortOnDrop,
    },
    Have(ProducerKey),
    /// It could not be had; not before this time again.
    Failed(Instant),
}

struct Sender {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    lanes: BTreeMap<LaneKey, Lane>,
    links: BTreeMap<BrokerId, Link>,
    events: mpsc::Sender<Event>,
    keys: Keys,
    key_failures: u32,
    next_stream: u64,
    next_correlation: u64,
}

/// The partitions of a topic that have a leader.
pub(super) fn led(view: &View, topic: &str) -> Vec<u32> {
    let Some(topic) = view.topics.get(topic) else { return Vec::new() };
    (0..).zip(&topic.partitions).filter(|(_, leadership)| leadership.broker.is_some()).map(|(n, _)| n).collect()
}

/// Runs until the producer is closed or dropped.
pub(super) async fn run(shared: Arc<Shared>, inner: Arc<Inner>) {
    let (events, mut received) = mpsc::channel(EVENTS_MAX);
    let mut changes = shared.metadata.changes();
    let (lanes, links) = Default::default();
    let (key_failures, next_stream, next_correlation) = (0, 0, 0);
    let mut sender =
        Sender { shared, inner, lanes, links, events, keys: Keys::None, key_failures, next_stream, next_correlation };
    loop {
        let now = Instant::now();
        if sender.inner.room.is_closed() {
            sender.give_up(now, None);
            return;
        }
        sender.give_up(now, now.checked_sub(sender.inner.config.delivery_timeout));
        sender.suspect(now);
        sender.provide_keys(now);
        let wake_at = sender.dispatch(now);
        let inner = sender.inner.clone();
        tokio::select! {
            biased;
            Ok(()) = changes.changed() => sender.leaders_changed(),
            Some(event) = received.recv() => {
                sender.handle(event, Instant::now());
                while let Ok(event) = received.try_recv() {
                    sender.handle(event, Instant::now());
                }
            }
            () = inner.wake.notified() => {}
            () = sleep_until(wake_at) => {}
        }
    }
}

impl Sender {
    /// Fails what is older than `before`, or everything.
    fn give_up(&mut self, now: Instant, before: Option<Instant>) {
        let all = self.inner.room.is_closed();
        if before.is_none() && !all {
            return;
        }
        for lane in self.lanes.values_mut() {
            if lane.is_empty() {
                continue;
            }
            let (topic, partition, last) = (lane.topic.clone(), lane.partition, lane.last_error.clone());
            for batch in lane.take_old(before) {
                let Pending { id, reserved, outcome, created, .. } = &batch;
                let error = ClientError::DeliveryTimeout {
                    topic: topic.to_string(),
                    partition,
                    waited: now.saturating_duration_since(*created),
                    maybe_stored: batch.maybe_stored(),
                    last: last.clone().map(Box::new),
                };
                self.inner.done(*id, *reserved, outcome, Err(error));
            }
        }
        let old = self.inner.accumulator().take_old(before);
        for (key, batch) in old {
            let (topic, last) = match self.lanes.get(&key) {
                Some(lane) => (lane.topic.clone(), lane.last_error.clone()),
                None => (self.inner.accumulator().name(key.topic).clone(), None),
            };
            let error = ClientError::DeliveryTimeout {
                topic: topic.to_string(),
                partition: key.partition,
                waited: now.saturating_duration_since(batch.created),
                maybe_stored: false,
                last: last.map(Box::new),
            };
            self.inner.done(batch.id, batch.reserved, &batch.outcome, Err(error));
        }
    }

    /// Has leaders that are silent searched for; their batches stay with them meanwhile.
    fn suspect(&mut self, now: Instant) {
        let (after, most) = (self.shared.config.suspect_after, self.shared.config.request_timeout);
        let mut hopeless = Vec::new();
        for (broker, link) in &mut self.links {
            let Some(open) = &mut link.open else { continue };
            for (Part { key, epoch, .. }, sent) in open.suspects(now, after) {
                if let Some(lane) = self.lanes.get(&key) {
                    self.shared.metadata.leader_lost(&lane.topic, key.partition, epoch, sent);
                }
            }
            if open.oldest().is_some_and(|sent| sent + most.saturating_mul(2) <= now) {
                hopeless.push((*broker, open.stream));
            }
        }
        for (broker, stream) in hopeless {
            let (what, after) = ("a produce request".to_owned(), most.saturating_mul(2));
            self.broken(broker, stream, ClientError::TimedOut { what, after, last: None }, now);
        }
    }

    /// Gives lanes the producer id that they lack, and asks for one when there is none.
    fn provide_keys(&mut self, now: Instant) {
        let lacking = |lane: &Lane, have: Option<ProducerKey>| {
            (lane.key().is_none() || lane.rekey) && (have.is_none() || lane.key() == have)
        };
        let have = if let Keys::Have(key) = self.keys { Some(key) } else { None };
        let mut wanted = false;
        for lane in self.lanes.values_mut() {
            if lacking(lane, have) {
                wanted = true;
            } else if let Some(key) = have
                && (lane.key().is_none() || lane.rekey)
            {
                lane.set_key(key);
            }
        }
        let ask = match &self.keys {
            Keys::None => true,
            Keys::Asking { .. } => false,
            Keys::Have(_) => wanted,
            Keys::Failed(until) => wanted && now >= *until,
        };
        if ask {
            let task = tokio::spawn(init_producer(self.shared.clone(), self.events.clone()));
            self.keys = Keys::Asking { _task: AbortOnDrop(task) };
        }
    }

    /// Sends what can be sent. Returns when to look again if nothing happens.
    fn dispatch(&mut self, now: Instant) -> Instant {
        let linger = self.inner.linger(now);
        let (ready, next) = self.inner.accumulator().ready(linger);
        for key in &ready {
            if !self.lanes.contains_key(key) {
                let name = self.inner.accumulator().name(key.topic).clone();
                self.lanes.insert(*key, Lane::new(name, key.partition));
            }
        }
        if !ready.is_empty() {
            self.provide_keys(now);
        }
        let ready: BTreeSet<LaneKey> = ready.into_iter().collect();
        let idle = ready.is_empty() && self.lanes.values().all(Lane::is_empty);
        let mut wake_at = if idle { now + Duration::from_secs(1) } else { now + TICK };
        wake_at = next.map_or(wake_at, |next| next.min(wake_at));
        let view = self.shared.metadata.view();
        let mut by_broker: BTreeMap<BrokerId, Vec<(LaneKey, Epoch)>> = BTreeMap::new();
        for (key, lane) in &mut self.lanes {
            if !(ready.contains(key) || lane.has_waiting()) || !lane.has_room() {
                continue;
            }
            match lane.route(now, &view) {
                Route::To(broker, epoch) => by_broker.entry(broker).or_default().push((*key, epoch)),
                Route::Wait(until) => wake_at = wake_at.min(until),
                Route::NoLeader => search(&self.shared, lane, &view, now),
            }
        }
        for (broker, mut lanes) in by_broker {
            // Whoever was last in one request is not always last in the next.
            let turn = usize::try_from(self.next_correlation).unwrap_or(0) % lanes.len();
            lanes.rotate_left(turn);
            if let Some(at) = self.send_to(broker, &lanes, &view, now) {
                wake_at = wake_at.min(at);
            }
        }
        wake_at.max(now + Duration::from_micros(100))
    }

    /// Sends requests to one broker until it has enough or nothing is left; returns from when
    /// on it can be tried again if it is not to be tried now.
    fn send_to(&mut self, broker: BrokerId, lanes: &[(LaneKey, Epoch)], view: &View, now: Instant) -> Option<Instant> {
        let link = self.links.entry(broker).or_default();
        if let Some(free_at) = link.free_at().filter(|at| now < *at) {
            return Some(free_at);
        }
        if link.open.is_none() {
            let address = view.brokers.get(&broker)?;
            self.next_stream += 1;
            match Open::start(&self.shared, broker, address, self.next_stream, self.events.clone()) {
                Ok(open) => link.open = Some(open),
                Err(error) => {
                    tracing::warn!(%broker, %error, "the broker's address makes no sense");
                    link.retry_at = Some(now + Duration::from_secs(1));
                    return link.retry_at;
                }
            }
        }
        while self.links.get(&broker).is_some_and(|link| !link.is_full()) {
            if !self.send_request(broker, lanes, now) {
                break;
            }
        }
        None
    }

    /// Sends one request with one batch of each of these partitions, as far as there are any.
    fn send_request(&mut self, broker: BrokerId, lanes: &[(LaneKey, Epoch)], now: Instant) -> bool {
        let Some(stream) = self.links.get(&broker).and_then(|link| link.open.as_ref()).map(|open| open.stream) else {
            return false;
        };
        self.next_correlation += 1;
        let correlation = self.next_correlation;
        let (mut parts, mut partitions, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (key, epoch) in lanes {
            let flight = Flight { stream, correlation, broker, epoch: *epoch };
            let Some((batch, payload)) = self.next_batch(*key, flight, now) else { continue };
            bytes += payload.len();
            parts.push(Part { key: *key, batch, epoch: *epoch });
            partitions.push(v1::ProducePartition {
                topic: self.lanes[key].topic.to_string(),
                partition: key.partition,
                payload: Some(v1::produce_partition::Payload::Batch(payload)),
            });
            if bytes >= self.inner.config.request_bytes {
                break;
            }
        }
        let Some(open) = self.links.get_mut(&broker).and_then(|link| link.open.as_mut()).filter(|_| !parts.is_empty())
        else {
            return false;
        };
        let acks = match self.inner.config.acks {
            Acks::All => v1::Acks::All,
            Acks::Leader => v1::Acks::Leader,
        };
        let request = v1::ProduceRequest {
            correlation,
            timeout_ms: u32::try_from(self.shared.config.request_timeout.as_millis()).unwrap_or(u32::MAX),
            acks: acks.into(),
            partitions,
            client_id: self.shared.config.client_id.clone(),
        };
        open.send(request, parts, now);
        true
    }

    /// The batch of a lane to send next: one that waits for a retry, or a fresh one.
    fn next_batch(&mut self, key: LaneKey, flight: Flight, now: Instant) -> Option<(u64, bytes::Bytes)> {
        let lane = self.lanes.get_mut(&key)?;
        if !lane.has_room() {
            return None;
        }
        while !lane.has_waiting() {
            let linger = self.inner.linger(now);
            let fresh = self.inner.accumulator().take(key, linger)?;
            if let Err((rest, error)) = lane.push(fresh, self.inner.config.compression) {
                let refused = ClientError::Refused { error: Error::from(error), maybe_stored: false };
                self.inner.done(rest.id, rest.reserved, &rest.outcome, Err(refused));
            }
        }
        lane.send_next(flight)
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Answer { broker, stream, answer } => self.answered(broker, stream, answer, now),
            Event::Broken { broker, stream, error } => self.broken(broker, stream, error, now),
            Event::Key(Ok(key)) => {
                self.keys = Keys::Have(key);
                self.key_failures = 0;
            }
            Event::Key(Err(error)) => {
                let wait =
                    self.shared.dice.backoff(Duration::from_millis(50), Duration::from_secs(1), self.key_failures);
                self.key_failures = self.key_failures.saturating_add(1);
                self.keys = Keys::Failed(now + wait);
                for lane in self.lanes.values_mut().filter(|lane| lane.key().is_none() || lane.rekey) {
                    lane.last_error = Some(error.clone());
                }
            }
        }
    }

    fn answered(&mut self, broker: BrokerId, stream: u64, answer: v1::ProduceResponse, now: Instant) {
        let Some(link) = self.links.get_mut(&broker) else { return };
        let Some(open) = link.open.as_mut().filter(|open| open.stream == stream) else { return };
        link.failures = 0;
        if answer.throttle_ms > 0 {
            link.throttled_until = Some(now + Duration::from_millis(answer.throttle_ms.into()));
        }
        let correlation = answer.correlation;
        let mut parts = Vec::with_capacity(answer.results.len());
        for result in answer.results {
            let topic = self.inner.accumulator().topic(&result.topic);
            let Some(topic) = topic else { continue };
            let key = LaneKey { topic, partition: result.partition };
            if let Some(part) = open.answered(correlation, key) {
                parts.push((part, result));
            }
        }
        for (part, result) in parts {
            let flight = Flight { stream, correlation, broker, epoch: part.epoch };
            self.result(part, flight, result, now);
        }
    }

    fn result(&mut self, part: Part, flight: Flight, result: v1::ProduceResult, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&part.key) else { return };
        let Some(wire) = &result.error else {
            let Some(base) = Offset::from_wire(result.base_offset) else {
                tracing::warn!(topic = %lane.topic, offset = result.base_offset, "an acknowledgement without an offset");
                return;
            };
            if let Some(batch) = lane.stored(part.batch) {
                self.shared.metadata.leader_answers(&lane.topic, lane.partition);
                let epoch = Epoch(result.epoch);
                let stored = Stored { base, timestamp_ms: result.log_append_time_ms, epoch };
                self.inner.done(batch.id, batch.reserved, &batch.outcome, Ok(stored));
            }
            return;
        };
        if let Some(leader) = &wire.leader
            && !self.shared.config.lacks(Mutation::KeepMetadata)
        {
            self.shared.metadata.hint(&lane.topic, lane.partition, leader);
        }
        match lane.refused(part.batch, flight, Error::from(wire), now, &self.shared.dice) {
            Refusal::Stale | Refusal::Retry { lost: false } => {}
            Refusal::Retry { lost: true } => {
                self.shared.metadata.leader_lost(&lane.topic, lane.partition, part.epoch, now);
            }
            Refusal::Failed(batches) => {
                for (batch, error) in batches {
                    self.inner.done(batch.id, batch.reserved, &batch.outcome, Err(error));
                }
            }
        }
    }

    /// Takes back what was under way on a stream that is gone.
    fn broken(&mut self, broker: BrokerId, stream: u64, error: ClientError, now: Instant) {
        let Some(link) = self.links.get_mut(&broker) else { return };
        let Some(open) = link.open.take_if(|open| open.stream == stream) else { return };
        let since = open.oldest().unwrap_or(now);
        drop(open);
        // The first time at once: a broker that restarted in a moment is there again.
        let wait = match link.failures {
            0 => Duration::ZERO,
            n => self.shared.dice.backoff(Duration::from_millis(10), Duration::from_millis(500), n),
        };
        link.failures = link.failures.saturating_add(1);
        link.retry_at = Some(now + wait);
        let view = self.shared.metadata.view();
        for lane in self.lanes.values_mut().filter(|lane| !lane.is_empty()) {
            if lane.flies_on(stream) {
                lane.rewind();
                lane.rekey |= self.shared.config.lacks(Mutation::NumberRetriesAnew);
                lane.last_error = Some(error.clone());
            }
            if let Some((leader, epoch, _)) = view.leader(&lane.topic, lane.partition)
                && leader == broker
            {
                lane.last_error = Some(error.clone());
                self.shared.metadata.leader_lost(&lane.topic, lane.partition, epoch, since);
            }
        }
    }

    /// Batches under way to a leader that has been followed by another go to that one.
    fn leaders_changed(&mut self) {
        let view = self.shared.metadata.view();
        for lane in self.lanes.values_mut() {
            if lane.overtaken(&view) {
                lane.rewind();
            }
        }
        let mut accumulator = self.inner.accumulator();
        let names: Vec<Arc<str>> = accumulator.names().cloned().collect();
        for name in names {
            let count = view.topics.get(&name).map_or(0, |topic| topic.partitions.len());
            let index = accumulator.ensure(&name, count);
            accumulator.set_led(index, led(&view, &name));
        }
        drop(accumulator);
        self.links.retain(|broker, link| link.open.is_some() || view.brokers.contains_key(broker));
    }
}

/// A partition without a leader is searched for as long as records wait for it.
fn search(shared: &Shared, lane: &mut Lane, view: &View, now: Instant) {
    if lane.reported.is_none_or(|told| told + Duration::from_secs(1) <= now) {
        lane.reported = Some(now);
        let above = view.leadership(&lane.topic, lane.partition).map_or(Epoch::NONE, |known| known.epoch);
        shared.metadata.leader_lost(&lane.topic, lane.partition, above, lane.oldest().unwrap_or(now));
    }
}

/// Asks any broker for a producer id.
async fn init_producer(shared: Arc<Shared>, events: mpsc::Sender<Event>) {
    let request = v1::InitProducerRequest { client_id: shared.config.client_id.clone() };
    let limit = shared.config.request_timeout.min(Duration::from_secs(5));
    let answer = shared
        .any_broker(limit, |address| {
            let (request, shared) = (request.clone(), shared.clone());
            async move {
                let mut broker = shared.pool.broker(&address, Purpose::Control)?;
                let answer = broker.init_producer(request).await;
                let answer = answer.map_err(|status| net::status_error(&address, &status))?.into_inner();
                match &answer.error {
                    Some(error) => Err(Error::from(error).into()),
                    None => Ok(answer),
                }
            }
        })
        .await;
    let key = answer.and_then(|answer| match i16::try_from(answer.producer_epoch) {
        Ok(epoch) if answer.producer_id >= 0 => {
            Ok(ProducerKey { id: ProducerId(answer.producer_id), epoch: ProducerEpoch(epoch) })
        }
        _ => Err(ClientError::Protocol(format!("producer id {}, epoch {}", answer.producer_id, answer.producer_epoch))),
    });
    // The producer may be gone.
    let _ = events.send(Event::Key(key)).await;
}
