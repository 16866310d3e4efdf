//! The gRPC service that takes the links of other brokers, and answers their questions.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::detector::Observation;
use baton_core::replica::{Input, Message};
use baton_core::transaction::Producer;
use baton_core::transaction::partition::EndMarker;
use baton_core::{BrokerId, DiskId, Error, ErrorCode, Incarnation, ProducerEpoch, ProducerId, TopicPartition};
use baton_proto::peer::{disk_from_wire, disk_to_wire, key_from_wire, messages};
use baton_proto::v1::peer_server::Peer;
use baton_proto::v1::{
    AppendInternalRequest, AppendInternalResponse, FenceRequest, FenceResponse, JoinTransactionRequest,
    JoinTransactionResponse, LinkOpen, LinkReply, LinkWelcome, MarkerResult, PeerFrame, ResignRequest, ResignResponse,
    SuspectRequest, SuspectResponse, WriteMarkersRequest, WriteMarkersResponse, link_reply,
};
use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::internal::InternalHost;
use crate::peers::detection::DetectionHandle;
use crate::peers::link::PEER_PROTOCOL;
use crate::shard::{ShardInput, Shards};
use crate::transaction::{Marking, Transactions, join};

/// A link that says nothing for so long is closed: heartbeats come several times a second.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long a shard may take to fence a partition.
const FENCE_MAX: Duration = Duration::from_secs(2);

/// What the service is made of.
pub struct PeerService {
    pub cluster: String,
    pub me: BrokerId,
    pub disk: DiskId,
    pub incarnation: Incarnation,
    pub shards: Shards,
    pub detection: DetectionHandle,
    pub internal: Arc<InternalHost>,
    pub transactions: Transactions,
    pub marking: Marking,
}

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug)]
struct Caller {
    broker: BrokerId,
    incarnation: Incarnation,
    catch_up: bool,
}

impl PeerService {
    fn check(&self, open: &LinkOpen) -> Result<Caller, Error> {
        if open.protocol != PEER_PROTOCOL {
            let cause = format!("the broker speaks peer protocol {} and this one {PEER_PROTOCOL}", open.protocol);
            return Err(Error::new(ErrorCode::InvalidRequest, cause));
        }
        if open.cluster_id != self.cluster {
            let cause = format!("the broker is of cluster {}, this one of {}", open.cluster_id, self.cluster);
            return Err(Error::new(ErrorCode::WrongCluster, cause));
        }
        if open.to != self.me.0 || open.from == self.me.0 {
            let cause = format!("broker {} looks for {} and found {}", open.from, open.to, self.me);
            return Err(Error::new(ErrorCode::InvalidRequest, cause));
        }
        disk_from_wire(&open.disk).map_err(|e| Error::new(ErrorCode::InvalidRequest, e.to_string()))?;
        Ok(Caller { broker: BrokerId(open.from), incarnation: Incarnation(open.incarnation), catch_up: open.catch_up })
    }

    fn welcome(&self) -> LinkReply {
        let welcome =
            LinkWelcome { protocol: PEER_PROTOCOL, disk: disk_to_wire(self.disk), incarnation: self.incarnation.0 };
        LinkReply { reply: Some(link_reply::Reply::Welcome(welcome)) }
    }
}

/// Reads frames until the link ends. The sender of replies is held: dropping it ends the call.
async fn read_frames(
    caller: Caller,
    mut frames: Streaming<PeerFrame>,
    shards: Shards,
    detection: DetectionHandle,
    replies: mpsc::Sender<Result<LinkReply, Status>>,
) {
    shards.tell_all(|| ShardInput::LinkReset(caller.broker)).await;
    loop {
        let frame = match timeout(SILENCE_MAX, frames.message()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return,
            Ok(Err(status)) => {
                tracing::debug!(from = %caller.broker, %status, "a broker's link ended");
                return;
            }
            Err(_) => return,
        };
        if !caller.catch_up {
            let Caller { broker, incarnation, .. } = caller;
            detection.observe(Observation::Heard { broker, incarnation, draining: frame.draining });
        }
        match messages(frame) {
            Ok(messages) => tell_shards(&shards, caller.broker, messages).await,
            Err(malformed) => {
                tracing::warn!(from = %caller.broker, %malformed, "a broker's frame was refused");
                let _ = replies.send(Err(Status::invalid_argument(malformed.to_string()))).await;
                return;
            }
        }
    }
}

async fn tell_shards(shards: &Shards, from: BrokerId, messages: Vec<(TopicPartition, Message)>) {
    if messages.is_empty() {
        return;
    }
    let mut by_shard: BTreeMap<usize, Vec<(TopicPartition, Message)>> = BTreeMap::new();
    for (id, message) in messages {
        by_shard.entry(shards.index_of(id)).or_default().push((id, message));
    }
    for (shard, messages) in by_shard {
        shards.tell_shard(shard, ShardInput::Messages { from, messages }).await;
    }
}

#[allow(clippy::result_large_err, reason = "tonic's status")]
fn producer(id: i64, epoch: i32) -> Result<Producer, Status> {
    let epoch = i16::try_from(epoch).ok().filter(|epoch| *epoch >= 0 && id >= 0);
    let epoch = epoch.ok_or_else(|| Status::invalid_argument("a producer has an id and an epoch from 0 on"))?;
    Ok(Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) })
}

/// At most a minute from now.
fn deadline(timeout_ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(timeout_ms.clamp(1, 60_000)))
}

#[async_trait]
impl Peer for PeerService {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkReply, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        let mut frames = request.into_inner();
        let first = timeout(Duration::from_secs(5), frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no introduction in time"))??;
        let open = first.and_then(|frame| frame.open).ok_or(Status::invalid_argument("no introduction"))?;
        let (replies, stream) = mpsc::channel(2);
        let first = match self.check(&open) {
            Ok(caller) => {
                tokio::spawn(read_frames(caller, frames, self.shards.clone(), self.detection.clone(), replies.clone()));
                self.welcome()
            }
            Err(error) => {
                tracing::warn!(from = open.from, %error, "a broker's link was refused");
                LinkReply { reply: Some(link_reply::Reply::Refused((&error).into())) }
            }
        };
        // The channel has just been made: there is room.
        let _ = replies.try_send(Ok(first));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn suspect(&self, request: Request<SuspectRequest>) -> Result<Response<SuspectResponse>, Status> {
        let SuspectRequest { broker, incarnation } = request.into_inner();
        let hears_it = self.detection.hears(BrokerId(broker), Incarnation(incarnation)).await;
        Ok(Response::new(SuspectResponse { hears_it }))
    }

    async fn append_internal(
        &self,
        request: Request<AppendInternalRequest>,
    ) -> Result<Response<AppendInternalResponse>, Status> {
        let AppendInternalRequest { topic, partition, command, timeout_ms } = request.into_inner();
        let within = Duration::from_millis(u64::from(timeout_ms.clamp(1, 60_000)));
        let answer = match self.internal.append(&topic, partition, command, within).await {
            Ok(offset) => AppendInternalResponse { offset: offset.to_wire(), ..Default::default() },
            Err(error) => AppendInternalResponse { error: Some(error.into()), ..Default::default() },
        };
        Ok(Response::new(answer))
    }

    async fn fence(&self, request: Request<FenceRequest>) -> Result<Response<FenceResponse>, Status> {
        let request = request.into_inner();
        let id = key_from_wire(request.key.as_ref()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (done, fenced) = oneshot::channel();
        self.shards.tell(id, ShardInput::Fence { id, epoch: baton_core::Epoch(request.epoch), done }).await;
        // What the copy is, once it acknowledges nothing more. A broker without one says so.
        let copy = timeout(FENCE_MAX, fenced).await.ok().and_then(Result::ok).flatten();
        Ok(Response::new(FenceResponse {
            fenced: true,
            generation: copy.map(|(generation, _)| generation.0),
            end_offset: copy.map(|(_, end)| end.0),
        }))
    }

    async fn join_transaction(
        &self,
        request: Request<JoinTransactionRequest>,
    ) -> Result<Response<JoinTransactionResponse>, Status> {
        let JoinTransactionRequest { transactional_id, producer_id, producer_epoch, key, add, timeout_ms } =
            request.into_inner();
        let at = key_from_wire(key.as_ref()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let producer = producer(producer_id, producer_epoch)?;
        let deadline = deadline(timeout_ms);
        let joined = join(&self.transactions, &transactional_id, producer, at, add, deadline).await;
        Ok(Response::new(JoinTransactionResponse { error: joined.err().map(|error| (&error).into()) }))
    }

    async fn write_markers(
        &self,
        request: Request<WriteMarkersRequest>,
    ) -> Result<Response<WriteMarkersResponse>, Status> {
        let WriteMarkersRequest { producer_id, producer_epoch, commit, coordinator_epoch, raised, keys, timeout_ms } =
            request.into_inner();
        let places: Result<Vec<_>, _> = keys.iter().map(|key| key_from_wire(Some(key))).collect();
        let places = places.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let producer = producer(producer_id, producer_epoch)?;
        let marker = EndMarker { producer, commit, coordinator_epoch: baton_core::Epoch(coordinator_epoch) };
        let written = self.marking.write(marker, raised, &places, deadline(timeout_ms)).await;
        let result = |result: Result<(), Error>| MarkerResult { error: result.err().map(|error| (&error).into()) };
        Ok(Response::new(WriteMarkersResponse { results: written.into_iter().map(result).collect() }))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let request = request.into_inner();
        let id = key_from_wire(request.key.as_ref()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let input = Input::Resign { toward: BrokerId(request.toward) };
        self.shards.tell(id, ShardInput::Replica { id, input }).await;
        Ok(Response::new(ResignResponse::default()))
    }
}
