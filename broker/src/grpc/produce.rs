//! One stream of produce requests: checked here, in the connection's own task, and appended by
//! the shards; answered partition by partition, as each is safe.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, ProduceLimits, Pushed, validate_produce};
use baton_core::replica::Acks;
use baton_core::topic::TopicName;
use baton_core::{Error, ErrorCode, TopicPartition};
use baton_proto::v1::{self, produce_partition::Payload};
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use crate::admission::{ConnectionUse, Demand, Permit};
use crate::authorizer::Verb;
use crate::context::{RequestContext, granted_timeout};
use crate::grpc::service::GrpcService;
use crate::shard::{ProduceCall, Produced, ShardInput};

/// Requests of one stream that are not answered yet; beyond it the stream is not read.
const REQUESTS_MAX: usize = 512;

/// Partitions of one request.
const PARTITIONS_MAX: usize = 10_000;

/// Responses waiting to be written.
const RESPONSES_MAX: usize = 16;

/// How often deadlines are looked at.
const DEADLINES_EVERY: Duration = Duration::from_millis(50);

/// The answer for one partition of one request.
struct Answer {
    correlation: u64,
    index: usize,
    result: Result<Produced, Error>,
}

/// One request that is not answered completely.
struct Open {
    deadline: Instant,
    /// None: answered.
    partitions: Vec<Option<(String, u32, Option<TopicPartition>)>>,
    left: usize,
    throttle_ms: u32,
    /// Its bytes count until everything is answered.
    _permit: Option<Permit>,
}

struct ProduceStream {
    service: GrpcService,
    context: RequestContext,
    open: BTreeMap<u64, Open>,
    answers: mpsc::UnboundedSender<Answer>,
    responses: mpsc::Sender<Result<v1::ProduceResponse, Status>>,
}

impl GrpcService {
    pub(super) fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send>> {
        let context = self.context(&request, 0).connection(ConnectionUse::default());
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        let (answers, answered) = mpsc::unbounded_channel();
        let state = ProduceStream { service: self.clone(), context, open: BTreeMap::new(), answers, responses };
        tokio::spawn(state.run(request.into_inner(), answered));
        Box::pin(ReceiverStream::new(stream))
    }
}

impl ProduceStream {
    async fn run(mut self, mut requests: Streaming<v1::ProduceRequest>, mut answered: mpsc::UnboundedReceiver<Answer>) {
        let _counted = self.service.parts.metrics.stream_opened();
        let mut deadlines = tokio::time::interval(DEADLINES_EVERY);
        deadlines.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut reading, mut broken) = (true, None);
        while (reading && broken.is_none()) || !self.open.is_empty() {
            let ready = tokio::select! {
                biased;
                Some(answer) = answered.recv() => {
                    let mut ready = self.collect(answer);
                    while let Ok(answer) = answered.try_recv() {
                        merge(&mut ready, self.collect(answer));
                    }
                    ready
                }
                request = requests.message(), if reading && broken.is_none() && self.open.len() < REQUESTS_MAX => match request {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) => {
                        reading = false;
                        Vec::new()
                    }
                    Err(status) => {
                        // Nothing that follows can be read; what is under way is answered first.
                        broken = Some(frame_error(status));
                        Vec::new()
                    }
                },
                _ = deadlines.tick() => self.expire(),
                () = self.responses.closed() => return,
            };
            for response in ready {
                if self.responses.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
        if let Some(status) = broken {
            let _ = self.responses.send(Err(status)).await;
        }
    }

    /// Hands every partition of a request to its shard; returns what can be said at once.
    async fn take(&mut self, request: v1::ProduceRequest) -> Vec<v1::ProduceResponse> {
        self.service.parts.metrics.produce_received();
        let correlation = request.correlation;
        if let Err(status) = self.check_request(&request) {
            // A client that does not follow the protocol gets no further.
            let _ = self.responses.send(Err(status)).await;
            return Vec::new();
        }
        if !request.client_id.is_empty() {
            self.context = self.context.clone().client_id(&request.client_id);
        }
        let timing = &self.service.parts.timing;
        let timeout = granted_timeout(
            request.timeout_ms,
            Duration::from_millis(timing.request_ms),
            Duration::from_millis(timing.request_ms_max),
        );
        let bytes = request.partitions.iter().map(payload_bytes).sum();
        let demand = Demand { verb: Verb::Produce, topic: None, key_hash: None, bytes };
        let (permit, throttle, refused) = match self.service.parts.admission.admit(&self.context, demand) {
            Ok(admitted) => (Some(admitted.permit), admitted.throttle, None),
            Err(refused) => {
                self.service.parts.metrics.request_refused();
                (None, refused.throttle, Some(refused.error))
            }
        };
        if !throttle.is_zero() {
            self.service.parts.metrics.throttled();
        }
        let acks = if request.acks == v1::Acks::Leader as i32 { Acks::Leader } else { Acks::All };
        let open = Open {
            deadline: Instant::now() + timeout,
            partitions: request.partitions.iter().map(|p| Some((p.topic.clone(), p.partition, None))).collect(),
            left: request.partitions.len(),
            throttle_ms: u32::try_from(throttle.as_millis()).unwrap_or(u32::MAX),
            _permit: permit,
        };
        self.open.insert(correlation, open);
        let mut ready = Vec::new();
        for (index, partition) in request.partitions.into_iter().enumerate() {
            let result = match &refused {
                Some(error) => Err(error.clone()),
                None => self.hand_over(correlation, index, acks, partition).await,
            };
            if let Err(error) = result {
                self.service.parts.metrics.produce_failed(error.code);
                merge(&mut ready, self.collect(Answer { correlation, index, result: Err(error) }));
            }
        }
        ready
    }

    #[allow(clippy::result_large_err, reason = "tonic's status, once per broken client")]
    fn check_request(&self, request: &v1::ProduceRequest) -> Result<(), Status> {
        if self.open.contains_key(&request.correlation) {
            return Err(Status::invalid_argument("a correlation number is in use"));
        }
        if request.partitions.is_empty() || request.partitions.len() > PARTITIONS_MAX {
            return Err(Status::invalid_argument("a request has 1 to 10,000 partitions"));
        }
        Ok(())
    }

    async fn hand_over(
        &mut self,
        correlation: u64,
        index: usize,
        acks: Acks,
        partition: v1::ProducePartition,
    ) -> Result<(), Error> {
        let v1::ProducePartition { topic, partition, payload } = partition;
        let place = |error: Error| error.topic(&topic).partition(partition);
        self.service.authorize(&self.context, Verb::Produce, &topic)?;
        topic.parse::<TopicName>().map_err(|error| place(error.into()))?;
        let (view, id) = self.service.locate(&topic, partition)?;
        if let Some(open) = self.open.get_mut(&correlation)
            && let Some(Some(known)) = open.partitions.get_mut(index)
        {
            known.2 = Some(id);
        }
        let handle = self.service.led(&topic, id)?;
        let (header, bytes) = self.batch(payload, handle.settings.produce_limits()).map_err(place)?;
        let answers = self.answers.clone();
        // The stream may have ended: nobody waits for the answer then.
        let reply = Box::new(move |result| drop(answers.send(Answer { correlation, index, result })));
        drop(view);
        if acks == Acks::Leader {
            self.service.parts.metrics.produce_leader_only();
        }
        let call = ProduceCall { id, acks, epoch: None, transaction: None, header, bytes, reply };
        self.service.parts.shards.tell(id, ShardInput::Produce(call)).await;
        Ok(())
    }

    fn batch(&self, payload: Option<Payload>, limits: ProduceLimits) -> Result<(BatchHeader, Bytes), Error> {
        let cap = usize::try_from(self.service.parts.limits.batch_bytes_max).unwrap_or(usize::MAX);
        let limits = ProduceLimits { max_message_bytes: limits.max_message_bytes.min(cap), ..limits };
        checked_batch(payload, limits, self.service.parts.clock.now_ms())
    }

    /// Takes one answer; returns a response if there is something to say.
    fn collect(&mut self, answer: Answer) -> Vec<v1::ProduceResponse> {
        let Answer { correlation, index, result } = answer;
        let Some(open) = self.open.get_mut(&correlation) else { return Vec::new() };
        let Some((topic, partition, id)) = open.partitions.get_mut(index).and_then(Option::take) else {
            return Vec::new();
        };
        open.left -= 1;
        let throttle_ms = open.throttle_ms;
        if open.left == 0 {
            self.open.remove(&correlation);
        }
        let result = match result {
            Ok(produced) => v1::ProduceResult {
                topic,
                partition,
                base_offset: produced.base.to_wire(),
                log_append_time_ms: produced.append_time_ms,
                duplicate: produced.duplicate,
                error: None,
                epoch: produced.epoch.0,
            },
            Err(error) => v1::ProduceResult {
                topic,
                partition,
                base_offset: -1,
                error: Some(self.service.wire_error(&error, id)),
                ..v1::ProduceResult::default()
            },
        };
        vec![v1::ProduceResponse { correlation, results: vec![result], throttle_ms }]
    }

    /// Answers what is over its deadline. The records may still be stored: only an idempotent
    /// producer may send them again without storing them twice.
    fn expire(&mut self) -> Vec<v1::ProduceResponse> {
        let now = Instant::now();
        let late: Vec<(u64, usize)> = self
            .open
            .iter()
            .filter(|(_, open)| open.deadline <= now)
            .flat_map(|(correlation, open)| {
                let unanswered = open.partitions.iter().enumerate().filter(|(_, p)| p.is_some());
                unanswered.map(|(index, _)| (*correlation, index))
            })
            .collect();
        let mut ready = Vec::new();
        for (correlation, index) in late {
            let cause = "not acknowledged by enough replicas in time; whether it is stored is unknown";
            let result = Err(Error::new(ErrorCode::RequestTimedOut, cause));
            self.service.parts.metrics.produce_failed(ErrorCode::RequestTimedOut);
            merge(&mut ready, self.collect(Answer { correlation, index, result }));
        }
        ready
    }
}

/// Says with the stable code what tonic says in its own words.
fn frame_error(status: Status) -> Status {
    if status.code() == tonic::Code::OutOfRange {
        let error = Error::new(ErrorCode::FrameTooLarge, status.message());
        return Status::out_of_range(format!("{error}; {}", error.code.next_step()));
    }
    status
}

/// Answers of one request leave in one response.
fn merge(ready: &mut Vec<v1::ProduceResponse>, more: Vec<v1::ProduceResponse>) {
    for response in more {
        match ready.iter_mut().find(|known| known.correlation == response.correlation) {
            Some(known) => known.results.extend(response.results),
            None => ready.push(response),
        }
    }
}

fn payload_bytes(partition: &v1::ProducePartition) -> u64 {
    let record = |r: &v1::Record| {
        let headers: usize = r.headers.iter().map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        r.key.as_ref().map_or(0, Bytes::len) + r.value.as_ref().map_or(0, Bytes::len) + headers + 64
    };
    let bytes = match &partition.payload {
        Some(Payload::Batch(batch)) => batch.len(),
        Some(Payload::Records(records)) => records.records.iter().map(record).sum(),
        None => 0,
    };
    bytes as u64
}

/// The batch that a leader would append, checked.
pub(super) fn checked_batch(
    payload: Option<Payload>,
    limits: ProduceLimits,
    now_ms: i64,
) -> Result<(BatchHeader, Bytes), Error> {
    let bytes = match payload {
        Some(Payload::Batch(bytes)) => bytes,
        Some(Payload::Records(records)) => encode(&records.records, now_ms, limits.max_message_bytes)?,
        None => return Err(Error::new(ErrorCode::InvalidRequest, "there is neither a batch nor a record")),
    };
    let header = validate_produce(&bytes, limits)?;
    if header.attributes.transactional() {
        let cause = "transactions are for Kafka's clients: this protocol has no transactional ids";
        return Err(Error::new(ErrorCode::InvalidTransactionState, cause));
    }
    Ok((header, bytes))
}

/// Plain records become one batch.
fn encode(records: &[v1::Record], now_ms: i64, bytes_max: usize) -> Result<Bytes, Error> {
    if records.is_empty() {
        return Err(Error::new(ErrorCode::InvalidBatch, "there is no record"));
    }
    let mut builder = BatchBuilder::new(bytes_max);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|h| baton_core::batch::RecordHeader { key: h.key.clone(), value: h.value.clone() })
            .collect();
        let time = record.timestamp_ms.unwrap_or(now_ms);
        match builder.push(time, record.key.as_deref(), record.value.as_deref(), &headers)? {
            Pushed::Added => {}
            Pushed::Full => {
                let cause = format!("the records make a batch of more than {bytes_max} bytes");
                return Err(Error::new(ErrorCode::BatchTooLarge, cause));
            }
        }
    }
    Ok(builder.build(&BuildOptions::default())?)
}
