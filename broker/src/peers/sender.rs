//! Queues of frames towards the other brokers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use baton_core::BrokerId;
use baton_proto::peer::frame_bytes;
use baton_proto::v1::PeerFrame;
use tokio::sync::{Notify, mpsc};
use tonic::transport::Channel;

use crate::peers::pace::Pace;

/// One queue. What does not fit closes the link: the flows begin anew when it is back, from
/// what the follower really has.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    frames: mpsc::UnboundedSender<(PeerFrame, u64)>,
    bytes: Arc<AtomicU64>,
    overflow: Arc<Notify>,
    bytes_max: u64,
}

/// The other end of a [`Queue`], owned by the link.
#[derive(Debug)]
pub(super) struct Queued {
    frames: mpsc::UnboundedReceiver<(PeerFrame, u64)>,
    bytes: Arc<AtomicU64>,
    pub(super) overflow: Arc<Notify>,
}

pub(super) fn queue(bytes_max: u64) -> (Queue, Queued) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicU64::new(0));
    let overflow = Arc::new(Notify::new());
    let queued = Queued { frames: receiver, bytes: Arc::clone(&bytes), overflow: Arc::clone(&overflow) };
    (Queue { frames: sender, bytes, overflow, bytes_max }, queued)
}

impl Queue {
    fn push(&self, frame: PeerFrame) {
        let bytes = frame_bytes(&frame) as u64;
        if self.bytes.load(Ordering::Relaxed) + bytes > self.bytes_max {
            self.overflow.notify_one();
            return;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The link is gone when its broker is: then nothing has to arrive.
        let _ = self.frames.send((frame, bytes));
    }
}

impl Queued {
    /// The next frame, with what else is waiting, up to about `bytes_max` together.
    pub(super) async fn next(&mut self, bytes_max: u64) -> Option<PeerFrame> {
        let (mut frame, mut total) = self.frames.recv().await?;
        self.bytes.fetch_sub(total, Ordering::Relaxed);
        while total < bytes_max {
            let Ok((more, bytes)) = self.frames.try_recv() else { break };
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            total += bytes;
            merge(&mut frame, more);
        }
        Some(frame)
    }

    /// Forgets everything: the link broke, and the flows begin anew.
    pub(super) fn clear(&mut self) {
        while let Ok((_, bytes)) = self.frames.try_recv() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// One frame lists messages by kind, and they are handled in the order of these lists. Two
/// frames become one only because messages of different kinds about one partition belong to
/// different flows, or commute: a Hello opens a flow, and nothing of the new flow can follow
/// it in the same direction before its answer.
fn merge(frame: &mut PeerFrame, more: PeerFrame) {
    frame.announces.extend(more.announces);
    frame.hellos.extend(more.hellos);
    frame.hello_replies.extend(more.hello_replies);
    frame.appends.extend(more.appends);
    frame.acks.extend(more.acks);
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) live: Queue,
    pub(super) catch_up: Queue,
    /// For single questions; set while the live link is up.
    pub(super) channel: Option<Channel>,
}

/// Sends frames to the other brokers. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PeerSender {
    peers: Arc<RwLock<BTreeMap<BrokerId, Peer>>>,
    pace: Pace,
}

impl PeerSender {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { peers: Arc::default(), pace }
    }

    /// Without effect towards a broker that is not known: its link's start begins all flows.
    pub fn send(&self, to: BrokerId, catch_up: bool, frame: PeerFrame) {
        let peers = self.peers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(peer) = peers.get(&to) {
            if catch_up { peer.catch_up.push(frame) } else { peer.live.push(frame) }
        }
    }

    /// Waits until the rate allows another read for a lagging follower.
    pub async fn catch_up_turn(&self) {
        self.pace.turn().await;
    }

    /// What the read brought.
    pub fn pay_catch_up(&self, bytes: usize) {
        self.pace.pay(bytes);
    }

    /// Channels to all peers with a live link but `except`.
    #[must_use]
    pub fn channels(&self, except: BrokerId) -> Vec<(BrokerId, Channel)> {
        let peers = self.peers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let up = peers.iter().filter(|(id, _)| **id != except);
        up.filter_map(|(id, peer)| peer.channel.clone().map(|channel| (*id, channel))).collect()
    }

    pub(super) fn insert(&self, broker: BrokerId, peer: Peer) {
        self.write().insert(broker, peer);
    }

    pub(super) fn remove(&self, broker: BrokerId) {
        self.write().remove(&broker);
    }

    pub(super) fn set_channel(&self, broker: BrokerId, channel: Option<Channel>) {
        if let Some(peer) = self.write().get_mut(&broker) {
            peer.channel = channel;
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<BrokerId, Peer>> {
        self.peers.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_proto::v1::{Ack, Append};
    use bytes::Bytes;

    fn acks(n: usize) -> PeerFrame {
        PeerFrame { acks: vec![Ack::default(); n], ..PeerFrame::default() }
    }

    #[tokio::test]
    async fn waiting_frames_leave_together() {
        let (queue, mut queued) = queue(1 << 20);
        queue.push(acks(1));
        queue.push(acks(2));
        let frame = queued.next(1 << 20).await.expect("there are two");
        assert_eq!(frame.acks.len(), 3);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_noticed() {
        let (queue, queued) = queue(100);
        let append = Append { batches: vec![Bytes::from(vec![0; 101])], ..Append::default() };
        queue.push(PeerFrame { appends: vec![append], ..PeerFrame::default() });
        queued.overflow.notified().await;
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
