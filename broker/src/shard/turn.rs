//! Carries out the effects of one turn, grouped: one call of the log, one frame per peer.

use std::collections::BTreeMap;

use baton_core::replica::{LogTerm, Message, Stream};
use baton_core::{BrokerId, Offset, TopicPartition};
use baton_proto::peer;
use baton_proto::v1::PeerFrame;

use crate::log::{Append, LocalPartition};
use crate::shard::input::{ProduceReply, Produced};

/// What an append that is under way will have made durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) id: TopicPartition,
    pub(super) local: LocalPartition,
    pub(super) term: LogTerm,
    pub(super) end: Offset,
}

/// Collected while inputs are handled, handed on when the batch of inputs is done.
pub(super) struct Turn {
    appends: BTreeMap<TopicPartition, Append>,
    marks: BTreeMap<TopicPartition, Mark>,
    /// By peer, stream and number.
    frames: BTreeMap<FrameKey, PeerFrame>,
    /// The newest frame of each, and its bytes.
    filling: BTreeMap<(BrokerId, bool), (u32, usize)>,
    frame_bytes: usize,
    acknowledged: Vec<(ProduceReply, Produced)>,
}

type FrameKey = (BrokerId, bool, u32);

impl Turn {
    /// Frames of about `frame_bytes`: many inputs of one turn may bring more than what may be
    /// sent as one message.
    pub(super) fn new(frame_bytes: usize) -> Self {
        let (appends, marks, frames, filling) = Default::default();
        Self { appends, marks, frames, filling, frame_bytes, acknowledged: Vec::new() }
    }

    pub(super) fn append(&mut self, mark: Mark, append: Append) {
        self.marks.insert(mark.id, mark);
        match self.appends.get_mut(&mark.id) {
            Some(earlier) => earlier.batches.extend(append.batches),
            None => {
                self.appends.insert(mark.id, append);
            }
        }
    }

    pub(super) fn send(&mut self, to: BrokerId, stream: Stream, id: TopicPartition, message: Message) {
        let catch_up = stream == Stream::CatchUp;
        let (number, bytes) = self.filling.entry((to, catch_up)).or_default();
        let more = peer::message_bytes(&message);
        if *bytes > 0 && *bytes + more > self.frame_bytes {
            (*number, *bytes) = (*number + 1, 0);
        }
        *bytes += more;
        let frame = self.frames.entry((to, catch_up, *number)).or_default();
        peer::add_to_frame(frame, id, message);
    }

    /// A producer is told at the end of the turn.
    pub(super) fn acknowledge(&mut self, reply: ProduceReply, produced: Produced) {
        self.acknowledged.push((reply, produced));
    }

    pub(super) fn take_acknowledged(&mut self) -> Vec<(ProduceReply, Produced)> {
        std::mem::take(&mut self.acknowledged)
    }

    pub(super) fn take_appends(&mut self) -> Option<(Vec<Append>, Vec<Mark>)> {
        if self.appends.is_empty() {
            return None;
        }
        let appends = std::mem::take(&mut self.appends).into_values().collect();
        let marks = std::mem::take(&mut self.marks).into_values().collect();
        Some((appends, marks))
    }

    pub(super) fn take_frames(&mut self) -> BTreeMap<FrameKey, PeerFrame> {
        self.filling.clear();
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use baton_core::replica::{Append as Batches, Flow, StoredBatch};
    use baton_core::{Epoch, Offset};
    use bytes::Bytes;

    use super::*;

    #[test]
    fn one_turn_becomes_frames_that_can_be_sent() {
        let mut turn = Turn::new(1_000);
        for n in 0..10 {
            let bytes = Bytes::from(vec![0; 400]);
            let batch = StoredBatch { base: Offset(n), last: Offset(n), epoch: Epoch(1), max_timestamp_ms: 0, bytes };
            let append = Batches {
                epoch: Epoch(1),
                flow: Flow(1),
                base: Offset(n),
                previous_epoch: Epoch(1),
                batches: vec![batch],
                high_watermark: Offset(0),
                log_start: Offset(0),
            };
            turn.send(BrokerId(1), Stream::Live, TopicPartition::default(), Message::Append(append));
        }
        let frames = turn.take_frames();
        assert_eq!(frames.len(), 5);
        let mut bases = Vec::new();
        for ((to, catch_up, _), frame) in frames {
            assert!(to == BrokerId(1) && !catch_up && peer::frame_bytes(&frame) <= 1_000);
            bases.extend(frame.appends.iter().map(|append| append.base));
        }
        assert!(bases.is_sorted(), "in the order in which they were sent: {bases:?}");
        assert!(turn.take_frames().is_empty());
    }
}
