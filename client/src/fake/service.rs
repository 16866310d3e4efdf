//! The services of one broker of the fake cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton_core::{Error, ErrorCode, Offset, batch};
use baton_proto::v1::{self, admin_server::Admin, broker_server::Broker, list_offsets_partition::At};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::pin::Pin;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::state::{ProduceFault, State};

#[derive(Clone)]
pub(super) struct Node {
    pub id: u32,
    pub state: Arc<Mutex<State>>,
    pub changed: watch::Sender<u64>,
    /// Breaks the connections of this broker.
    pub cut: Arc<dyn Fn() + Send + Sync>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Reply<T> = Result<Response<T>, Status>;

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Nothing: the answer is not to come.
    fn produce(&self, request: v1::ProduceRequest) -> Option<v1::ProduceResponse> {
        let mut state = self.state();
        state.produce_requests += 1;
        state.partitions_most = state.partitions_most.max(request.partitions.len());
        let fault = state.produce_faults.pop_front();
        if fault == Some(ProduceFault::Cut) {
            (self.cut)();
            return None;
        }
        let refuse = |part: &v1::ProducePartition, code| v1::ProduceResult {
            topic: part.topic.clone(),
            partition: part.partition,
            error: Some(Error::new(code, "as scripted").topic(part.topic.clone()).partition(part.partition).into()),
            ..Default::default()
        };
        let mut results = Vec::new();
        for part in request.partitions {
            results.push(match fault {
                Some(ProduceFault::Refuse(code)) => refuse(&part, code),
                Some(ProduceFault::StoreAndRefuse(code)) => {
                    let refusal = refuse(&part, code);
                    state.produce(self.id, part);
                    refusal
                }
                _ => state.produce(self.id, part),
            });
        }
        drop(state);
        self.touch();
        let throttle_ms = match fault {
            Some(ProduceFault::StoreAndCut) => {
                (self.cut)();
                return None;
            }
            Some(ProduceFault::StoreAndForget) => return None,
            Some(ProduceFault::Throttle(wait)) => wait,
            _ => 0,
        };
        Some(v1::ProduceResponse { correlation: request.correlation, results, throttle_ms })
    }

    /// Waits until `done`, or for so long.
    async fn until(&self, wait_ms: u32, mut done: impl FnMut(&mut State) -> bool) {
        let deadline = Instant::now() + Duration::from_millis(wait_ms.into());
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if done(&mut self.state()) || timeout_at(deadline, changes.changed()).await.is_err() {
                return;
            }
        }
    }

    fn fetch_one(&self, state: &mut State, part: &v1::FetchPartition, most: u32) -> v1::FetchResult {
        let mut result = v1::FetchResult { topic: part.topic.clone(), partition: part.partition, ..Default::default() };
        match state.led(self.id, &part.topic, part.partition) {
            Err(error) => result.error = Some(*error),
            Ok(led) => {
                result.high_watermark = led.end.to_wire();
                result.log_start = led.start.to_wire();
                result.epoch = led.epoch;
                match Offset::from_wire(part.offset).filter(|at| *at >= led.start && *at <= led.end) {
                    Some(at) => result.batches = led.read(at, part.max_bytes.min(most)),
                    None => {
                        let error = Error::new(ErrorCode::OffsetOutOfRange, "outside the log");
                        result.error = Some(error.into());
                    }
                }
            }
        }
        result
    }

    fn delete_one(&self, state: &mut State, part: &v1::DeleteRecordsPartition) -> v1::DeleteRecordsResult {
        let mut result = v1::DeleteRecordsResult {
            topic: part.topic.clone(),
            partition: part.partition,
            log_start: -1,
            error: None,
        };
        match state.led(self.id, &part.topic, part.partition) {
            Err(error) => result.error = Some(*error),
            Ok(led) => {
                led.start = led.start.max(part.before.map_or(led.end, Offset).min(led.end));
                result.log_start = led.start.to_wire();
            }
        }
        result
    }

    fn list_one(&self, state: &mut State, part: &v1::ListOffsetsPartition) -> v1::ListOffsetsResult {
        let mut result = v1::ListOffsetsResult {
            topic: part.topic.clone(),
            partition: part.partition,
            offset: -1,
            timestamp_ms: -1,
            ..Default::default()
        };
        match state.led(self.id, &part.topic, part.partition) {
            Err(error) => result.error = Some(*error),
            Ok(led) => match part.at {
                Some(At::End(_)) | None => result.offset = led.end.to_wire(),
                Some(At::Start(_)) => result.offset = led.start.to_wire(),
                Some(At::TimestampMs(time)) => {
                    let records = led.batches.iter().flat_map(|(_, b)| batch::decode_records(b, 1 << 24)).flatten();
                    if let Some(record) = records.into_iter().find(|record| record.timestamp_ms >= time) {
                        (result.offset, result.timestamp_ms) = (record.offset.to_wire(), record.timestamp_ms);
                    }
                }
                Some(At::MaxTimestamp(_)) => {}
            },
        }
        result
    }
}

#[async_trait]
impl Broker for Node {
    type ProduceStream = Answers<v1::ProduceResponse>;
    type EventsStream = Answers<v1::EventsResponse>;

    async fn produce(&self, request: Request<Streaming<v1::ProduceRequest>>) -> Reply<Self::ProduceStream> {
        let (mut requests, node) = (request.into_inner(), self.clone());
        let (answers, queue) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if let Some(answer) = node.produce(request)
                    && answers.send(Ok(answer)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Reply<v1::FetchResponse> {
        let request = request.into_inner();
        let mut results: Vec<v1::FetchResult> = Vec::new();
        self.until(request.max_wait_ms, |state| {
            let mut left = request.max_bytes;
            results.clear();
            for part in &request.partitions {
                let result = self.fetch_one(state, part, left);
                left = left.saturating_sub(count(result.batches.iter().map(Bytes::len).sum()));
                results.push(result);
            }
            results.iter().any(|result| result.error.is_some() || !result.batches.is_empty())
        })
        .await;
        Ok(Response::new(v1::FetchResponse { results, throttle_ms: 0 }))
    }

    async fn metadata(&self, request: Request<v1::MetadataRequest>) -> Reply<v1::MetadataResponse> {
        let request = request.into_inner();
        if !request.r#await.is_empty() {
            self.until(request.timeout_ms, |state| {
                request.r#await.iter().all(|awaited| match state.part(&awaited.topic, awaited.partition) {
                    Ok(part) => part.leader.is_some() && part.epoch > awaited.above_epoch,
                    Err(_) => true,
                })
            })
            .await;
        }
        Ok(Response::new(self.state().metadata(&request)))
    }

    async fn list_offsets(&self, request: Request<v1::ListOffsetsRequest>) -> Reply<v1::ListOffsetsResponse> {
        let mut state = self.state();
        let results = request.get_ref().partitions.iter().map(|part| self.list_one(&mut state, part)).collect();
        Ok(Response::new(v1::ListOffsetsResponse { results }))
    }

    async fn delete_records(&self, request: Request<v1::DeleteRecordsRequest>) -> Reply<v1::DeleteRecordsResponse> {
        let mut state = self.state();
        let results = request.get_ref().partitions.iter().map(|part| self.delete_one(&mut state, part)).collect();
        Ok(Response::new(v1::DeleteRecordsResponse { results }))
    }

    async fn init_producer(&self, _: Request<v1::InitProducerRequest>) -> Reply<v1::InitProducerResponse> {
        let mut state = self.state();
        state.next_producer += 1;
        let producer_id = state.next_producer;
        Ok(Response::new(v1::InitProducerResponse { producer_id, producer_epoch: 0, error: None }))
    }

    async fn cluster_status(&self, _: Request<v1::ClusterStatusRequest>) -> Reply<v1::ClusterStatusResponse> {
        let state = self.state();
        let brokers = state.addresses.iter().map(|(id, (host, port))| v1::BrokerStatus {
            id: *id,
            state: if state.live.contains(id) { "live" } else { "absent" }.into(),
            endpoints: vec![v1::Endpoint {
                listener: "client".into(),
                protocol: "grpc".into(),
                host: host.clone(),
                port: (*port).into(),
            }],
            leads: count(state.topics.values().flat_map(|t| &t.parts).filter(|p| p.leader == Some(*id)).count()),
            ..Default::default()
        });
        let problems = if state.healthy { 0 } else { 1 };
        Ok(Response::new(v1::ClusterStatusResponse {
            cluster_id: "fake".into(),
            brokers: brokers.collect(),
            coordinator: Some(v1::CoordinatorStatus { endpoint: "127.0.0.1:7450".into(), epoch: 1 }),
            registry_connected: true,
            topics: count(state.topics.len()),
            partitions: count(state.topics.values().map(|topic| topic.parts.len()).sum()),
            problems: Vec::new(),
            problems_total: problems,
        }))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Reply<Self::EventsStream> {
        let (request, node) = (request.into_inner(), self.clone());
        let (answers, queue) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut next = usize::try_from(request.from).unwrap_or(0);
            let mut changes = node.changed.subscribe();
            loop {
                let events = node.state().events.get(next..).unwrap_or_default().to_vec();
                next += events.len();
                if !events.is_empty() && answers.send(Ok(v1::EventsResponse { events })).await.is_err() {
                    return;
                }
                if !request.follow || changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }
}

impl Node {
    /// The fault that is scripted for the next command, or what the command comes to.
    fn command(&self, run: impl FnOnce(&mut State) -> Result<(String, u32), Error>) -> v1::TopicReply {
        let mut state = self.state();
        let outcome = match state.admin_faults.pop_front() {
            Some(code) => Err(Error::new(code, "as scripted")),
            None => run(&mut state),
        };
        let replication = count(state.addresses.len()).min(3);
        drop(state);
        self.touch();
        match outcome {
            Ok((id, partitions)) => v1::TopicReply { error: None, id, partitions, replication },
            Err(error) => v1::TopicReply { error: Some(error.into()), ..Default::default() },
        }
    }

    fn on_topic(&self, name: &str, run: impl FnOnce(&mut State)) -> v1::TopicReply {
        self.command(|state| {
            if !state.topics.contains_key(name) {
                return Err(Error::new(ErrorCode::UnknownTopic, "there is none").topic(name));
            }
            run(state);
            let topic = state.topics.get(name);
            Ok(topic.map_or_else(Default::default, |topic| (format!("{:08x}", topic.id), count(topic.parts.len()))))
        })
    }
}

#[async_trait]
impl Admin for Node {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Reply<v1::TopicReply> {
        let request = request.into_inner();
        Ok(Response::new(self.command(|state| {
            if request.name.is_empty() || request.name.starts_with("__") {
                return Err(Error::new(ErrorCode::InvalidTopicName, format!("{:?}", request.name)));
            }
            if state.topics.contains_key(&request.name) {
                return Err(Error::new(ErrorCode::TopicExists, "it is there").topic(request.name.clone()));
            }
            let partitions = request.partitions.unwrap_or(1);
            state.create(&request.name, partitions);
            if let Some(topic) = state.topics.get_mut(&request.name) {
                topic.config = request.config.into_iter().collect::<BTreeMap<_, _>>();
            }
            Ok((format!("{:08x}", state.next_topic), partitions))
        })))
    }

    async fn alter_topic(&self, request: Request<v1::AlterTopicRequest>) -> Reply<v1::TopicReply> {
        let request = request.into_inner();
        Ok(Response::new(self.on_topic(&request.name, |state| {
            if let Some(topic) = state.topics.get_mut(&request.name) {
                topic.config.retain(|key, _| !request.unset.contains(key));
                topic.config.extend(request.set.clone());
            }
        })))
    }

    async fn add_partitions(&self, request: Request<v1::AddPartitionsRequest>) -> Reply<v1::TopicReply> {
        let request = request.into_inner();
        Ok(Response::new(self.on_topic(&request.name, |state| {
            let leader = state.live.first().copied();
            if let Some(topic) = state.topics.get_mut(&request.name) {
                let part = super::state::Part { leader, epoch: 1, ..Default::default() };
                topic.parts.resize(request.total as usize, part);
            }
        })))
    }

    async fn delete_topic(&self, request: Request<v1::DeleteTopicRequest>) -> Reply<v1::TopicReply> {
        let name = request.into_inner().name;
        Ok(Response::new(self.on_topic(&name, |state| {
            state.topics.remove(&name);
        })))
    }

    async fn reassign(&self, request: Request<v1::ReassignRequest>) -> Reply<v1::AdminReply> {
        let error = self.state().part(&request.get_ref().topic, request.get_ref().partition).err().map(Into::into);
        Ok(Response::new(v1::AdminReply { error }))
    }

    async fn elect_unclean(&self, request: Request<v1::ElectUncleanRequest>) -> Reply<v1::AdminReply> {
        let request = request.into_inner();
        let refused = Error::new(ErrorCode::InvalidRequest, "the loss of data is not accepted");
        let error = if request.accept_data_loss {
            self.state().part(&request.topic, request.partition).err()
        } else {
            Some(refused)
        };
        Ok(Response::new(v1::AdminReply { error: error.map(Into::into) }))
    }

    async fn elect_preferred(&self, request: Request<v1::ElectPreferredRequest>) -> Reply<v1::AdminReply> {
        let error = self.state().part(&request.get_ref().topic, request.get_ref().partition).err().map(Into::into);
        Ok(Response::new(v1::AdminReply { error }))
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
