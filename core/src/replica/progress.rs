//! What a leader knows of one follower.

use std::collections::VecDeque;

use crate::ids::{Incarnation, Member, Offset};
use crate::replica::{Flow, Hello, StoredBatch};

/// The patience with a follower that acknowledges nothing doubles so often.
const STALLS_MAX: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// Said Hello; its first acknowledgement is awaited before anything is sent.
    Greeting,
    /// Reads on its behalf are under way, or wait until what was sent is acknowledged.
    CatchUp { reading: bool },
    /// Gets every batch as it is appended.
    Live,
    /// Messages may have been lost: its next Hello is awaited, and its lag goes on counting.
    Closed,
}

/// One follower in one epoch of one leader. Exists from its Hello on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    pub(super) member: Member,
    pub(super) incarnation: Incarnation,
    pub(super) flow: Flow,
    pub(super) mode: Mode,
    /// Durable on the follower, as it acknowledged in this epoch and flow.
    pub(super) acked: Option<Offset>,
    /// The next offset to send.
    pub(super) next: Offset,
    pub(super) unacked: VecDeque<(Offset, u64)>,
    unacked_bytes: u64,
    /// Since when an acknowledgement is awaited.
    awaited_since_ms: u64,
    /// How often the flow was given up without a record acknowledged in between.
    stalls: u32,
    pub(super) sent_high_watermark: Offset,
    pub(super) sent_log_start: Offset,
    /// Where its log begins, as it acknowledged.
    pub(super) log_start: Offset,
    /// The follower had everything up to `mark` of the time `mark_ms`.
    mark: Offset,
    mark_ms: u64,
    caught_up_ms: u64,
}

impl Progress {
    /// A follower that greeted, and is to be sent what follows `next`. What it lacks of
    /// `log_end` counts as lag: a copy that says Hello over and over does not keep up.
    pub(super) fn new(hello: &Hello, next: Offset, log_end: Offset, now_ms: u64) -> Self {
        Self {
            member: hello.member,
            incarnation: hello.incarnation,
            flow: hello.flow,
            mode: Mode::Greeting,
            acked: None,
            next,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            awaited_since_ms: now_ms,
            stalls: 0,
            sent_high_watermark: Offset::ZERO,
            sent_log_start: Offset::ZERO,
            log_start: Offset::ZERO,
            mark: log_end,
            mark_ms: now_ms,
            caught_up_ms: now_ms,
        }
    }

    /// The same follower greets again: it is as late as it was.
    pub(super) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| earlier.member == self.member) {
            self.caught_up_ms = earlier.caught_up_ms;
            self.stalls = earlier.stalls;
        }
        self
    }

    /// Nothing that it sends counts until its next Hello.
    pub(super) fn close(&mut self) {
        self.mode = Mode::Closed;
        self.acked = None;
        self.unacked.clear();
        self.unacked_bytes = 0;
    }

    #[cfg(feature = "model")]
    pub(super) fn forget_time(&mut self) {
        self.mark_ms = 0;
        self.caught_up_ms = 0;
        self.awaited_since_ms = 0;
        self.stalls = 0;
    }

    #[must_use]
    pub fn acked(&self) -> Option<Offset> {
        self.acked
    }

    #[must_use]
    pub fn member(&self) -> Member {
        self.member
    }

    #[must_use]
    pub fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    pub(super) fn sent(&mut self, batches: &[StoredBatch], now_ms: u64) {
        if self.unacked.is_empty() {
            self.awaited_since_ms = now_ms;
        }
        for batch in batches {
            self.unacked.push_back((batch.end(), batch.len() as u64));
            self.unacked_bytes += batch.len() as u64;
            self.next = batch.end();
        }
    }

    pub(super) fn unacked_bytes(&self) -> u64 {
        self.unacked_bytes
    }

    /// Takes an acknowledgement; returns whether it says anything new.
    pub(super) fn acknowledged(&mut self, end: Offset, log_end: Offset, now_ms: u64) -> bool {
        let news = self.acked.is_none_or(|acked| end > acked);
        if news {
            self.acked = Some(end);
            self.awaited_since_ms = now_ms;
        }
        while let Some((sent, bytes)) = self.unacked.front().copied()
            && sent <= end
        {
            self.unacked.pop_front();
            self.unacked_bytes -= bytes;
            self.stalls = 0;
        }
        self.note_lag(log_end, now_ms);
        news
    }

    /// Everything that was sent has been acknowledged.
    pub(super) fn drained(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Whether an acknowledgement is overdue: what was sent may be lost, or its answer. Each
    /// time it takes twice as long, as the follower may just be slow.
    pub(super) fn stands_still(&self, now_ms: u64, patience_ms: u64) -> bool {
        let awaited = match self.mode {
            Mode::Greeting => true,
            Mode::CatchUp { .. } | Mode::Live => !self.drained(),
            Mode::Closed => false,
        };
        awaited && now_ms.saturating_sub(self.awaited_since_ms) > patience_ms << self.stalls.min(STALLS_MAX)
    }

    /// Nothing that it sends counts until its next Hello, for which it is asked.
    pub(super) fn give_up_flow(&mut self) {
        self.close();
        self.stalls += 1;
    }

    /// A follower is as far behind as the time since it last had all that the log held then.
    pub(super) fn note_lag(&mut self, log_end: Offset, now_ms: u64) {
        let Some(acked) = self.acked else { return };
        if acked >= log_end {
            self.caught_up_ms = now_ms;
        } else if acked >= self.mark {
            self.caught_up_ms = self.caught_up_ms.max(self.mark_ms);
        } else {
            return;
        }
        self.mark = log_end;
        self.mark_ms = now_ms;
    }

    pub(super) fn lag_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.caught_up_ms)
    }
}
