//! What one consumer saw of one partition, poll by poll.

use std::collections::HashMap;

use super::findings::{Finding, Findings};
use super::ids::{EventId, PartitionId};
use crate::event::Poll;
use crate::report::Kind;

/// A fall of the high watermark, which an unclean election may excuse once all of them are known.
#[derive(Debug)]
pub struct Fall {
    pub partition: PartitionId,
    consumer: Box<str>,
    before: HighWatermark,
    after: HighWatermark,
}

#[derive(Clone, Copy, Debug)]
struct HighWatermark {
    offset: u64,
    told_us: u64,
    event: EventId,
}

#[derive(Debug, Default)]
struct Position {
    next: Option<u64>,
    last: Option<EventId>,
    high_watermark: Option<HighWatermark>,
}

/// All consumers' positions.
#[derive(Debug, Default)]
pub struct Consumers {
    positions: HashMap<(u32, PartitionId), Position>,
    pub falls: Vec<Fall>,
}

/// More falls than this are not kept; those are counted without asking what excuses them.
const FALLS_MAX: usize = 100_000;

impl Consumers {
    /// Holds a poll against the consumer's last one, and against itself.
    pub fn poll(
        &mut self,
        consumer: u32,
        partition: PartitionId,
        poll: &Poll<'_>,
        event: EventId,
        findings: &mut Findings,
    ) {
        let position = self.positions.entry((consumer, partition)).or_default();
        let events = |position: &Position| position.last.into_iter().chain([event]).collect();
        if let Some(next) = position.next.filter(|next| !poll.seek && *next != poll.from) {
            let kind = if poll.from > next { Kind::Skipped } else { Kind::Repeated };
            findings.add(kind, false, partition, || Finding {
                offsets: vec![next, poll.from],
                what: format!("{} polled from {} although it was at {next}", poll.consumer, poll.from),
                events: events(position),
            });
        }
        let next = within(poll, partition, event, findings);
        if let Some(offset) = poll.high_watermark {
            let after = HighWatermark { offset, told_us: poll.received_us, event };
            if let Some(before) = position.high_watermark.filter(|before| before.offset > offset) {
                let fall = Fall { partition, consumer: poll.consumer.as_ref().into(), before, after };
                if self.falls.len() < FALLS_MAX {
                    self.falls.push(fall);
                } else {
                    fall.report(false, findings);
                }
            }
            position.high_watermark = Some(after);
        }
        position.next = Some(next);
        position.last = Some(event);
    }
}

impl Fall {
    /// Whether an unclean election at `at_us` lies between the two polls.
    pub fn spans(&self, at_us: u64, skew_us: u64) -> bool {
        self.before.told_us <= at_us.saturating_add(skew_us) && at_us <= self.after.told_us.saturating_add(skew_us)
    }

    pub fn report(&self, permitted: bool, findings: &mut Findings) {
        let Self { partition, consumer, before, after } = self;
        findings.add(Kind::HighWatermarkBack, permitted, *partition, || Finding {
            offsets: vec![before.offset, after.offset],
            what: format!("{consumer} was told {}, then {}", before.offset, after.offset),
            events: vec![before.event, after.event],
        });
    }
}

/// Holds a poll's records against each other; where the consumer is after it.
fn within(poll: &Poll<'_>, partition: PartitionId, event: EventId, findings: &mut Findings) -> u64 {
    let mut next = poll.from;
    for record in &poll.records {
        let offset = record.offset;
        if offset != next {
            let kind = if offset > next { Kind::Skipped } else { Kind::Repeated };
            findings.add(kind, false, partition, || Finding {
                offsets: vec![next, offset],
                what: format!("{} got {offset} where {next} was to come", poll.consumer),
                events: vec![event],
            });
        }
        if let Some(high_watermark) = poll.high_watermark.filter(|high_watermark| offset >= *high_watermark) {
            findings.add(Kind::BeyondHighWatermark, false, partition, || Finding {
                offsets: vec![offset],
                what: format!("{} got {offset} and was told the high watermark {high_watermark}", poll.consumer),
                events: vec![event],
            });
        }
        next = next.max(offset.saturating_add(1));
    }
    next
}
