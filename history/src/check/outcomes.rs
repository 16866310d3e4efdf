//! Every promise to a producer, held against where its records are.

use std::collections::HashMap;

use super::findings::Finding;
use super::ids::{LaneId, PartitionId, SendId, SlotId};
use super::sends::{Sent, State};
use super::slots::Slot;
use super::{Checker, Sight};
use crate::report::Kind;

/// Records that are somewhere else than where they were acknowledged, or were not acknowledged:
/// by payload.
#[derive(Debug, Default)]
pub struct Strays {
    by_payload: Vec<Stray>,
    /// Where the first copy of each one that somebody sent is.
    pub senders: HashMap<SlotId, SendId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stray {
    payload: u64,
    slot: SlotId,
    sent: bool,
}

/// Where one record is.
#[derive(Debug, Default)]
struct Places {
    /// Where it was acknowledged.
    home: Option<Slot>,
    /// Elsewhere in the partition that it was sent to, by offset.
    here: Vec<Slot>,
    elsewhere: Vec<Slot>,
}

impl Strays {
    /// The places of a value, but for where it belongs. What is returned counts as sent.
    fn of(&mut self, payload: u64) -> &mut [Stray] {
        let from = self.by_payload.partition_point(|stray| stray.payload < payload);
        let after = &mut self.by_payload[from..];
        let count = after.iter().take_while(|stray| stray.payload == payload).count();
        &mut after[..count]
    }
}

impl Checker {
    /// Every value that is not where it was acknowledged.
    pub(super) fn strays(&self) -> Strays {
        let mut strays = Strays::default();
        for slot in self.partitions.ids().flat_map(|partition| self.slots.of(partition)) {
            let Some(payload) = slot.sight.and_then(|sight| sight.payload) else { continue };
            if slot.acknowledged.is_none_or(|send| self.sends.get(send).payload != payload) {
                strays.by_payload.push(Stray { payload, slot: slot.id, sent: false });
            }
        }
        strays.by_payload.sort_unstable();
        strays
    }

    /// One producer's records of one partition, in the order in which it sent them.
    pub(super) fn outcomes(&mut self, lane: LaneId, strays: &mut Strays) {
        let (producer, partition) = (self.sends.lanes[lane.index()].producer, self.sends.lanes[lane.index()].partition);
        let plain = self.plain[producer as usize];
        // The highest offset so far, and whose it is.
        let mut highest: Option<(u64, SendId)> = None;
        for at in 0..self.sends.lanes[lane.index()].sends.len() {
            let send = self.sends.lanes[lane.index()].sends[at];
            let places = self.places(send, partition, strays);
            self.promise(send, partition, &places);
            self.copies(send, partition, plain, &places);
            // A repetition is a duplicate, whatever it does to the order.
            let Some(place) = places.home.or_else(|| places.here.first().copied()) else { continue };
            if places.home.is_none() {
                strays.senders.insert(place.id, send);
            }
            match highest {
                Some((offset, other)) if offset > place.offset => {
                    self.reordered(partition, plain, (place, send), (offset, other));
                }
                _ => highest = Some((place.offset, send)),
            }
        }
    }

    fn places(&self, send: SendId, partition: PartitionId, strays: &mut Strays) -> Places {
        let sent = self.sends.get(send);
        let mut places = Places::default();
        let mut home = None;
        if let State::Acknowledged(slot) = sent.state() {
            home = Some(slot);
            let slot = self.slots.get(slot);
            places.home = Some(slot).filter(|slot| slot.sight.is_some_and(|sight| sight.payload == Some(sent.payload)));
        }
        for stray in strays.of(sent.payload) {
            stray.sent = true;
            if home == Some(stray.slot) {
                continue;
            }
            let found =
                if self.slots.partition(stray.slot) == partition { &mut places.here } else { &mut places.elsewhere };
            found.push(self.slots.get(stray.slot));
        }
        places.here.sort_unstable_by_key(|slot| slot.offset);
        places
    }

    /// What its producer was told.
    fn promise(&mut self, send: SendId, partition: PartitionId, places: &Places) {
        let sent = *self.sends.get(send);
        match sent.state() {
            State::Unknown => self.counts.unknown += 1,
            State::Failed => {
                self.counts.failed += 1;
                for place in places.here.iter().chain(&places.elsewhere) {
                    let what = format!("{} failed, and is at {}", self.describe(&sent), place.offset);
                    self.found(Kind::ReadFailed, false, partition, &sent, &[*place], what);
                }
            }
            State::Acknowledged(slot) => {
                self.counts.acknowledged += 1;
                let acknowledged = self.slots.get(slot);
                let ended = self.partitions.get(partition).end.is_some_and(|end| end.end <= acknowledged.offset);
                match (places.home, places.here.as_slice()) {
                    (Some(_), _) if !ended => self.counts.verified += 1,
                    (None, [place, ..]) => {
                        let what = format!("{} is at {}", self.describe(&sent), place.offset);
                        let permitted = self.may_lose(partition, &sent);
                        self.found(Kind::Displaced, permitted, partition, &sent, &[acknowledged, *place], what);
                    }
                    _ => self.missing(partition, &sent, acknowledged),
                }
            }
        }
    }

    /// It is not where it was acknowledged, nor anywhere else.
    fn missing(&mut self, partition: PartitionId, sent: &Sent, slot: Slot) {
        let end = self.partitions.get(partition).end;
        let who = self.describe(sent);
        let what = match (slot.sight, end) {
            (_, Some(end)) if end.end <= slot.offset => format!("{who}, and the partition ends at {}", end.end),
            (Some(sight), _) => format!("{who}; there is {}", sight.describe()),
            (None, None) => {
                self.counts.unverified += 1;
                return;
            }
            (None, Some(end)) if slot.offset < end.log_start => {
                self.counts.expired += 1;
                return;
            }
            (None, Some(_)) => format!("{who}; there is nothing"),
        };
        let permitted = self.may_lose(partition, sent);
        self.found(Kind::Lost, permitted, partition, sent, &[slot], what);
    }

    /// More than one copy, and copies in other partitions.
    fn copies(&mut self, send: SendId, partition: PartitionId, plain: bool, places: &Places) {
        if places.elsewhere.is_empty() && places.here.is_empty() {
            return;
        }
        let sent = *self.sends.get(send);
        for place in &places.elsewhere {
            let there = self.slots.partition(place.id);
            let what =
                format!("{} is in {} at {}", self.describe(&sent), self.partitions.names.text(there.0), place.offset);
            self.found(Kind::Misplaced, false, partition, &sent, &[*place], what);
        }
        let copies: Vec<Slot> = places.home.iter().chain(&places.here).copied().collect();
        if copies.len() > 1 {
            let offsets: Vec<u64> = copies.iter().map(|slot| slot.offset).collect();
            let what = format!("{} is at {offsets:?}", self.describe(&sent));
            // One copy may have been read before an unclean election, another been written after.
            let oldest = copies.iter().map(|slot| slot.sight.and_then(|sight| sight.epoch)).min().flatten();
            let unclean = self.partitions.get(partition).may_lose(oldest.map(Into::into), None, self.options.skew_us);
            self.found(Kind::Duplicate, plain || unclean, partition, &sent, &copies, what);
        }
    }

    fn reordered(
        &mut self,
        partition: PartitionId,
        plain: bool,
        (place, send): (Slot, SendId),
        (offset, other): (u64, SendId),
    ) {
        let (sent, other) = (*self.sends.get(send), *self.sends.get(other));
        let permitted = plain || self.may_lose(partition, &other);
        let what =
            format!("{} is at {}, and {} at {offset}", self.describe(&sent), place.offset, self.describe(&other));
        self.findings.add(Kind::Reordered, permitted, partition, || Finding {
            offsets: vec![place.offset, offset],
            what,
            events: [other.events(), sent.events()].concat(),
        });
    }

    /// Whatever was read and nobody sent.
    pub(super) fn phantoms(&mut self, strays: &Strays) {
        for stray in strays.by_payload.iter().filter(|stray| !stray.sent) {
            let (slot, partition) = (self.slots.get(stray.slot), self.slots.partition(stray.slot));
            self.findings.add(Kind::Phantom, false, partition, || Finding {
                offsets: vec![slot.offset],
                what: format!("at {}: payload {}", slot.offset, stray.payload),
                events: slot.sight.iter().map(|sight| sight.event).collect(),
            });
        }
    }

    /// Two records acknowledged at one offset.
    pub(super) fn acknowledged_over(&mut self, first: SendId, second: SendId) {
        let (first, second) = (*self.sends.get(first), *self.sends.get(second));
        let partition = self.sends.lanes[first.lane.index()].partition;
        let offset = match second.state() {
            State::Acknowledged(slot) => self.slots.get(slot).offset,
            State::Failed | State::Unknown => return,
        };
        let older = if first.epoch < second.epoch { first } else { second };
        let permitted = self.may_lose(partition, &older);
        let what = format!("{} and {}", self.describe(&first), self.describe(&second));
        self.findings.add(Kind::AcknowledgedOver, permitted, partition, || Finding {
            offsets: vec![offset],
            what,
            events: vec![first.ended_in, second.ended_in],
        });
    }

    /// An unclean election after it was acknowledged excuses its loss.
    pub(super) fn may_lose(&self, partition: PartitionId, sent: &Sent) -> bool {
        let epoch = sent.epoch.map(Into::into);
        self.partitions.get(partition).may_lose(epoch, Some(sent.sent_us), self.options.skew_us)
    }

    pub(super) fn describe(&self, sent: &Sent) -> String {
        let lane = &self.sends.lanes[sent.lane.index()];
        let (producer, partition) = (self.producers.text(lane.producer), self.partitions.names.text(lane.partition.0));
        let name = format!("{producer}'s record {} to {partition}", sent.sequence);
        match (sent.state(), sent.epoch) {
            (State::Acknowledged(slot), Some(epoch)) => {
                format!("{name}, acknowledged at {} in epoch {epoch},", self.slots.get(slot).offset)
            }
            (State::Acknowledged(slot), None) => format!("{name}, acknowledged at {},", self.slots.get(slot).offset),
            (State::Failed | State::Unknown, _) => name,
        }
    }

    fn found(&mut self, kind: Kind, permitted: bool, partition: PartitionId, sent: &Sent, at: &[Slot], what: String) {
        self.findings.add(kind, permitted, partition, || {
            let sights = at.iter().filter_map(|slot| slot.sight).map(|sight: Sight| sight.event);
            let offsets = at.iter().map(|slot| slot.offset).collect();
            Finding { offsets, what, events: sent.events().into_iter().chain(sights).collect() }
        });
    }
}
