//! One produce stream to one broker.

use std::{collections::BTreeMap, time::Duration};

use baton_core::{BrokerId, Epoch};
use baton_proto::v1;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::accumulator::LaneKey;
use crate::{
    client::{AbortOnDrop, Shared},
    error::ClientError,
    net,
};

/// Requests that a broker has not answered yet. More records wait in their batches meanwhile,
/// so that batches grow when the brokers are the bottleneck.
pub(super) const REQUESTS_MAX: usize = 8;

/// What a stream tells the sender.
pub(super) enum Event {
    Answer { broker: BrokerId, stream: u64, answer: v1::ProduceResponse },
    Broken { broker: BrokerId, stream: u64, error: ClientError },
    Key(Result<super::lane::ProducerKey, ClientError>),
}

/// A batch inside a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub key: LaneKey,
    pub batch: u64,
    pub epoch: Epoch,
}

/// A request that is not answered in full.
pub(super) struct Request {
    pub sent: Instant,
    pub parts: Vec<Part>,
    pub suspected: Option<Instant>,
}

pub(super) struct Open {
    pub stream: u64,
    requests: mpsc::Sender<v1::ProduceRequest>,
    pub unanswered: BTreeMap<u64, Request>,
    _task: AbortOnDrop,
}

/// The way to one broker.
#[derive(Default)]
pub(super) struct Link {
    pub open: Option<Open>,
    pub retry_at: Option<Instant>,
    pub throttled_until: Option<Instant>,
    pub failures: u32,
}

impl Link {
    /// From when on a request may be sent.
    pub(super) fn free_at(&self) -> Option<Instant> {
        let retry_at = if self.open.is_some() { None } else { self.retry_at };
        retry_at.max(self.throttled_until)
    }

    /// A full link is freed by an answer.
    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.unanswered.len() >= REQUESTS_MAX || open.requests.capacity() == 0)
    }
}

impl Open {
    pub(super) fn start(
        shared: &Shared,
        broker: BrokerId,
        address: &str,
        stream: u64,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, ClientError> {
        let mut client = shared.pool.broker_apart(address)?;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let address = address.to_owned();
        let task = tokio::spawn(async move {
            let error = match client.produce(ReceiverStream::new(queue)).await {
                Ok(answers) => read(answers.into_inner(), broker, stream, &address, &events).await,
                Err(status) => net::status_error(&address, &status),
            };
            // The sender may be gone.
            let _ = events.send(Event::Broken { broker, stream, error }).await;
        });
        Ok(Self { stream, requests, unanswered: BTreeMap::new(), _task: AbortOnDrop(task) })
    }

    /// Sends, if the stream takes it.
    pub(super) fn send(&mut self, request: v1::ProduceRequest, parts: Vec<Part>, now: Instant) {
        let correlation = request.correlation;
        // A stream that is closed tells so by an event, which takes the batches back.
        let _ = self.requests.try_send(request);
        self.unanswered.insert(correlation, Request { sent: now, parts, suspected: None });
    }

    /// The part that an answer belongs to; the last one ends the request.
    pub(super) fn answered(&mut self, correlation: u64, key: LaneKey) -> Option<Part> {
        let request = self.unanswered.get_mut(&correlation)?;
        let at = request.parts.iter().position(|part| part.key == key)?;
        let part = request.parts.swap_remove(at);
        if request.parts.is_empty() {
            self.unanswered.remove(&correlation);
        }
        Some(part)
    }

    /// When the oldest unanswered request was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.unanswered.values().next().map(|request| request.sent)
    }

    /// The parts of requests that are unanswered for so long, each told once a second.
    pub(super) fn suspects(&mut self, now: Instant, after: Duration) -> Vec<(Part, Instant)> {
        let mut suspects = Vec::new();
        for request in self.unanswered.values_mut() {
            if request.sent + after > now {
                break;
            }
            if request.suspected.is_none_or(|told| told + Duration::from_secs(1) <= now) {
                request.suspected = Some(now);
                suspects.extend(request.parts.iter().map(|part| (*part, request.sent)));
            }
        }
        suspects
    }
}

/// Hands answers on until the stream breaks; returns why.
async fn read(
    mut answers: tonic::Streaming<v1::ProduceResponse>,
    broker: BrokerId,
    stream: u64,
    address: &str,
    events: &mpsc::Sender<Event>,
) -> ClientError {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if events.send(Event::Answer { broker, stream, answer }).await.is_err() {
                    return ClientError::Closed;
                }
            }
            Ok(None) => {
                let reason = "the broker ended the stream".to_owned();
                return ClientError::Unreachable(vec![crate::error::Attempt { address: address.to_owned(), reason }]);
            }
            Err(status) => return net::status_error(address, &status),
        }
    }
}
