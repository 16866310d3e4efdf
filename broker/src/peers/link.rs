//! One outgoing link: connect, say who this is, pump frames and heartbeats, begin anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::detector::Observation;
use baton_core::{BrokerId, DiskId, Error, Incarnation};
use baton_proto::peer::disk_to_wire;
use baton_proto::v1::peer_client::PeerClient;
use baton_proto::v1::{LinkOpen, LinkReply, PeerFrame, link_reply};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::metrics::{Metrics, PeerStreamMetrics};
use crate::net::{NetConnector, Network, is_refused};
use crate::peers::detection::DetectionHandle;
use crate::peers::sender::{Peer, PeerSender, Queued, queue};
use crate::shard::{ShardInput, Shards};

/// The version of the protocol between brokers.
pub const PEER_PROTOCOL: u32 = 1;

/// Frames handed to HTTP/2 and not written yet.
const FRAMES_IN_FLIGHT: usize = 4;

/// What all links of a broker share.
#[derive(Clone)]
pub struct LinkParts {
    pub network: Arc<dyn Network>,
    pub sender: PeerSender,
    pub shards: Shards,
    pub detection: DetectionHandle,
    pub metrics: Metrics,
    pub cluster: String,
    pub me: BrokerId,
    pub disk: DiskId,
    pub incarnation: Incarnation,
    pub heartbeat: Duration,
    pub connect_timeout: Duration,
    pub retry: Duration,
    pub frame_bytes: u64,
    pub queue_bytes: u64,
    pub draining: watch::Receiver<bool>,
}

/// The links of one broker to the others; follows the registry's list.
pub struct Links {
    parts: LinkParts,
    running: BTreeMap<BrokerId, Running>,
}

struct Running {
    address: String,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Links {
    #[must_use]
    pub fn new(parts: LinkParts) -> Self {
        Self { parts, running: BTreeMap::new() }
    }

    /// Opens links to who is new or has moved. A broker that left the registry keeps its links:
    /// its session may have ended while its process goes on, and only a refused port says
    /// that it is dead.
    pub fn follow(&mut self, registered: &BTreeMap<BrokerId, String>) {
        for (broker, address) in registered {
            let same = self.running.get(broker).is_some_and(|running| running.address == *address);
            if *broker == self.parts.me || same {
                continue;
            }
            self.running.remove(broker);
            self.parts.sender.remove(*broker);
            self.start(*broker, address.clone());
        }
    }

    fn start(&mut self, to: BrokerId, address: String) {
        let (live, live_queued) = queue(self.parts.queue_bytes);
        let (catch_up, catch_up_queued) = queue(self.parts.queue_bytes);
        self.parts.sender.insert(to, Peer { live, catch_up, channel: None });
        let link = |catch_up| Link { parts: self.parts.clone(), to, address: address.clone(), catch_up };
        let tasks = [tokio::spawn(link(false).run(live_queued)), tokio::spawn(link(true).run(catch_up_queued))];
        self.running.insert(to, Running { address, tasks });
    }
}

struct Link {
    parts: LinkParts,
    to: BrokerId,
    address: String,
    catch_up: bool,
}

/// An open link.
struct Open {
    frames: mpsc::Sender<PeerFrame>,
    replies: Streaming<LinkReply>,
}

impl Link {
    /// Until the task is aborted.
    async fn run(self, mut queued: Queued) {
        let metrics = self.parts.metrics.peer_stream(self.to, self.catch_up);
        loop {
            match self.open().await {
                Ok(open) => {
                    queued.clear();
                    self.begin_flows().await;
                    self.pump(open, &mut queued, &metrics).await;
                    if !self.catch_up {
                        self.parts.sender.set_channel(self.to, None);
                    }
                    tracing::debug!(to = %self.to, catch_up = self.catch_up, "a link to a broker broke");
                }
                Err(why) => {
                    tracing::debug!(to = %self.to, catch_up = self.catch_up, %why, "no link to a broker");
                    tokio::time::sleep(self.parts.retry).await;
                }
            }
        }
    }

    /// Messages may have been lost on the way: every flow with this broker begins anew. Of the
    /// catch-up link, too: the other side may have greeted over its own links, and what it was
    /// sent for that was dropped from the queue just now.
    async fn begin_flows(&self) {
        self.parts.shards.tell_all(|| ShardInput::LinkReset(self.to)).await;
    }

    async fn open(&self) -> Result<Open, String> {
        let connector = NetConnector::new(Arc::clone(&self.parts.network), self.parts.connect_timeout);
        let endpoint = Endpoint::new(format!("http://{}", self.address)).map_err(|e| e.to_string())?;
        let endpoint = endpoint
            .connect_timeout(self.parts.connect_timeout)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            // TCP would go on waiting for a peer that was cut off, for about as long again as it
            // was away: the link begins anew instead.
            .http2_keep_alive_interval(self.parts.heartbeat * 4)
            .keep_alive_timeout(self.parts.heartbeat * 12)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let connected = timeout(self.parts.connect_timeout, endpoint.connect_with_connector(connector)).await;
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(self.not_connected(&error)),
            Err(_) => return Err("the connection timed out".to_owned()),
        };
        let (frames, to_send) = mpsc::channel(FRAMES_IN_FLIGHT);
        // The stream has just been made: there is room for one frame.
        frames.try_send(self.introduction()).map_err(|e| e.to_string())?;
        let mut client =
            PeerClient::new(channel.clone()).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20);
        let opening = async {
            let mut replies = client.link(ReceiverStream::new(to_send)).await.map_err(|s| s.to_string())?.into_inner();
            let first = replies.message().await.map_err(|s| s.to_string())?;
            self.welcomed(first)?;
            Ok::<_, String>(replies)
        };
        let replies = timeout(self.parts.connect_timeout, opening).await.map_err(|_| "no welcome in time")??;
        if !self.catch_up {
            self.parts.sender.set_channel(self.to, Some(channel));
        }
        Ok(Open { frames, replies })
    }

    /// A port that refuses means that the process is gone.
    fn not_connected(&self, error: &tonic::transport::Error) -> String {
        if is_refused(error) {
            self.parts.detection.observe(Observation::Refused { broker: self.to });
            return "its port refuses connections".to_owned();
        }
        error.to_string()
    }

    fn introduction(&self) -> PeerFrame {
        let open = LinkOpen {
            protocol: PEER_PROTOCOL,
            cluster_id: self.parts.cluster.clone(),
            from: self.parts.me.0,
            to: self.to.0,
            disk: disk_to_wire(self.parts.disk),
            incarnation: self.parts.incarnation.0,
            catch_up: self.catch_up,
        };
        PeerFrame { open: Some(open), ..PeerFrame::default() }
    }

    fn welcomed(&self, reply: Option<LinkReply>) -> Result<(), String> {
        match reply.and_then(|reply| reply.reply) {
            Some(link_reply::Reply::Welcome(_)) => Ok(()),
            Some(link_reply::Reply::Refused(error)) => {
                let error = Error::from(&error);
                tracing::warn!(to = %self.to, %error, "a broker refuses this one");
                Err(error.to_string())
            }
            None => Err("the broker closed the link at once".to_owned()),
        }
    }

    /// Until the link breaks.
    async fn pump(&self, mut open: Open, queued: &mut Queued, metrics: &PeerStreamMetrics) {
        let mut heartbeat = tokio::time::interval(self.parts.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = self.parts.draining.clone();
        let overflow = Arc::clone(&queued.overflow);
        loop {
            let frame = tokio::select! {
                biased;
                _ = heartbeat.tick() => self.beat(),
                Ok(()) = draining.changed() => self.beat(),
                _ = open.replies.message() => return,
                () = overflow.notified() => {
                    tracing::warn!(to = %self.to, "a broker takes frames too slowly: its link begins anew");
                    return;
                }
                frame = queued.next(self.parts.frame_bytes) => match frame {
                    Some(frame) => frame,
                    None => return,
                },
            };
            metrics.sent(baton_proto::peer::frame_bytes(&frame) as u64);
            let sent = tokio::select! {
                biased;
                sent = open.frames.send(frame) => sent.is_ok(),
                _ = open.replies.message() => false,
                () = overflow.notified() => false,
            };
            if !sent {
                return;
            }
        }
    }

    fn beat(&self) -> PeerFrame {
        PeerFrame { heartbeat: true, draining: *self.parts.draining.borrow(), ..PeerFrame::default() }
    }
}
