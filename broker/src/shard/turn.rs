//! Carries out the effects of one turn, grouped: one call of the log, one frame per peer.

use std::collections::BTreeMap;

use baton_core::replica::{LogTerm, Message, Stream};
use baton_core::{BrokerId, Offset, TopicPartition};
use baton_proto::peer;
use baton_proto::v1::PeerFrame;

use crate::log::Append;

/// What an append that is under way will have made durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) id: TopicPartition,
    pub(super) term: LogTerm,
    pub(super) end: Offset,
}

/// Collected while inputs are handled, handed on when the batch of inputs is done.
#[derive(Default)]
pub(super) struct Turn {
    appends: BTreeMap<TopicPartition, Append>,
    marks: BTreeMap<TopicPartition, Mark>,
    frames: BTreeMap<(BrokerId, bool), PeerFrame>,
}

impl Turn {
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
        let frame = self.frames.entry((to, stream == Stream::CatchUp)).or_default();
        peer::add_to_frame(frame, id, message);
    }

    pub(super) fn take_appends(&mut self) -> Option<(Vec<Append>, Vec<Mark>)> {
        if self.appends.is_empty() {
            return None;
        }
        let appends = std::mem::take(&mut self.appends).into_values().collect();
        let marks = std::mem::take(&mut self.marks).into_values().collect();
        Some((appends, marks))
    }

    pub(super) fn take_frames(&mut self) -> BTreeMap<(BrokerId, bool), PeerFrame> {
        std::mem::take(&mut self.frames)
    }
}
