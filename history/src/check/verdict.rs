//! What needs the whole history.

use super::ids::{EventId, LaneId, PartitionId, SendId};
use super::outcomes::Strays;
use super::sends::State;
use super::slots::Slot;
use super::{Checker, Difference, Finding};
use crate::report::Kind;

impl Checker {
    pub(super) fn conclude(&mut self) {
        self.excuse();
        let mut strays = self.strays();
        for lane in 0..self.sends.lanes.len() {
            self.outcomes(LaneId(u32::try_from(lane).unwrap_or(u32::MAX)), &mut strays);
        }
        self.phantoms(&strays);
        for partition in self.partitions.ids() {
            self.ends(partition);
            self.epochs(partition);
            self.real_time(partition, &strays);
        }
        self.stale_acknowledgements();
        let commits = std::mem::take(&mut self.commits);
        let members = std::mem::take(&mut self.members);
        members.check(&commits, &self.groups, &self.consumer_names, self.options.skew_us, &mut self.findings);
        commits.check(&self.groups, self.options.skew_us, &mut self.findings);
    }

    /// Reports what waited for all unclean elections to be known.
    fn excuse(&mut self) {
        let skew_us = self.options.skew_us;
        for difference in std::mem::take(&mut self.differences) {
            let Difference { partition, known, new, .. } = &difference;
            // None, if either is not known.
            let epoch = known.epoch.min(new.epoch).map(Into::into);
            let permitted = self.partitions.get(*partition).may_lose(epoch, None, skew_us);
            difference.report(permitted, &mut self.findings);
        }
        for difference in std::mem::take(&mut self.blocks.differences) {
            let permitted = self.partitions.get(difference.partition).may_lose(None, None, skew_us);
            difference.report(permitted, &mut self.findings);
        }
        for fall in std::mem::take(&mut self.consumers.falls) {
            let mut unclean = self.partitions.get(fall.partition).unclean.iter();
            let permitted = unclean.any(|unclean| fall.spans(unclean.at_us, skew_us));
            fall.report(permitted, &mut self.findings);
        }
        for (first, second) in std::mem::take(&mut self.over) {
            self.acknowledged_over(first, second);
        }
    }

    /// Between its ends every offset holds something, and what was read is between them.
    fn ends(&mut self, partition: PartitionId) {
        let Some(end) = self.partitions.get(partition).end else { return };
        let mut next = end.log_start;
        let mut hole = |from: u64, to: u64| {
            if from < to {
                self.findings.add(Kind::Hole, false, partition, || Finding {
                    offsets: vec![from, to - 1],
                    what: format!("nothing from {from} up to {}", to - 1),
                    events: vec![end.event],
                });
            }
        };
        let mut gone = Vec::new();
        for slot in self.slots.of(partition).filter(|slot| slot.offset >= end.log_start) {
            hole(next, slot.offset.min(end.end));
            next = slot.offset.saturating_add(1);
            if slot.offset >= end.end && slot.sight.is_some() && !self.sends.is_home(&slot) {
                gone.push(slot);
            }
        }
        hole(next, end.end);
        for slot in gone {
            let Some(sight) = slot.sight else { continue };
            let permitted =
                self.partitions.get(partition).may_lose(sight.epoch.map(Into::into), None, self.options.skew_us);
            self.findings.add(Kind::ReadLost, permitted, partition, || Finding {
                offsets: vec![slot.offset],
                what: format!("at {}: {}, and the partition ends at {}", slot.offset, sight.describe(), end.end),
                events: vec![sight.event, end.event],
            });
        }
    }

    /// Along the log epochs never fall.
    fn epochs(&mut self, partition: PartitionId) {
        let mut highest: Option<(u32, u64, EventId)> = None;
        for slot in self.slots.of(partition) {
            let Some(sight) = slot.sight else { continue };
            let Some(epoch) = sight.epoch.map(u32::from) else { continue };
            match highest {
                Some((before, offset, event)) if before > epoch => {
                    let permitted = self.partitions.get(partition).may_lose(Some(epoch), None, self.options.skew_us);
                    self.findings.add(Kind::EpochBack, permitted, partition, || Finding {
                        offsets: vec![offset, slot.offset],
                        what: format!("epoch {before} at {offset}, epoch {epoch} at {}", slot.offset),
                        events: vec![event, sight.event],
                    });
                }
                _ => highest = Some((epoch, slot.offset, sight.event)),
            }
        }
    }

    /// Going down the log, the earliest acknowledgement above each record: it must not have come
    /// before the record was sent.
    fn real_time(&mut self, partition: PartitionId, strays: &Strays) {
        let mut earliest: Option<(u64, SendId, u64)> = None;
        let mut found = Vec::new();
        for slot in self.slots.of(partition).rev().filter(|slot| slot.sight.is_some()) {
            let home = slot.acknowledged.filter(|_| self.sends.is_home(&slot));
            let Some(send) = home.or_else(|| strays.senders.get(&slot.id).copied()) else { continue };
            let sent = self.sends.get(send);
            if let Some((ended_us, other, offset)) = earliest
                && ended_us.saturating_add(self.options.skew_us) < sent.sent_us
            {
                found.push(((send, slot.offset), (other, offset)));
            }
            // Only what was acknowledged is there for certain from then on.
            if let (State::Acknowledged(_), Some(ended_us)) = (sent.state(), sent.ended_us())
                && earliest.is_none_or(|(earliest_us, ..)| ended_us < earliest_us)
            {
                earliest = Some((ended_us, send, slot.offset));
            }
        }
        for ((later, low), (earlier, high)) in found {
            let (later, earlier) = (*self.sends.get(later), *self.sends.get(earlier));
            let permitted = self.may_lose(partition, &earlier);
            let (one, other) = (self.describe(&earlier), self.describe(&later));
            self.findings.add(Kind::RealTime, permitted, partition, || Finding {
                offsets: vec![low, high],
                what: format!("{other} was sent afterwards to {one} and is at {low}, before {high}"),
                events: [earlier.events(), later.events()].concat(),
            });
        }
    }

    /// Once anybody was told of a later epoch, an earlier one acknowledges nothing that is sent
    /// then; and nobody acknowledges what a later leader wrote.
    fn stale_acknowledgements(&mut self) {
        // By partition: each epoch, and when it or a later one was first told of.
        let told = self.partitions.all.iter().map(|partition| {
            let mut first = None;
            let mut told: Vec<_> = partition
                .epochs
                .iter()
                .rev()
                .map(|(epoch, at)| {
                    first = Some(first.map_or(*at, |first| *at.min(&first)));
                    (*epoch, first.unwrap_or(*at))
                })
                .collect();
            told.reverse();
            told
        });
        let told: Vec<Vec<(u32, (u64, EventId))>> = told.collect();
        for number in 0..self.sends.all.len() {
            let sent = self.sends.all[number];
            let (State::Acknowledged(slot), Some(epoch)) = (sent.state(), sent.epoch) else { continue };
            let partition = self.sends.lanes[sent.lane.index()].partition;
            let told = &told[partition.index()];
            let later = told.get(told.partition_point(|(told, _)| *told <= u32::from(epoch)));
            let before = later.filter(|(_, (at_us, _))| at_us.saturating_add(self.options.skew_us) < sent.sent_us);
            if let Some((later, (_, event))) = before {
                let what = format!(
                    "{} was sent after somebody was told of epoch {later} or a later one",
                    self.describe(&sent)
                );
                self.stale(partition, self.slots.get(slot), what, vec![*event, sent.sent_in, sent.ended_in]);
            }
            let slot = self.slots.get(slot);
            if let Some(sight) =
                slot.sight.filter(|sight| sight.payload == Some(sent.payload) && sight.epoch > sent.epoch)
            {
                let what = format!("{} is {}", self.describe(&sent), sight.describe());
                self.stale(partition, slot, what, vec![sent.ended_in, sight.event]);
            }
        }
    }

    fn stale(&mut self, partition: PartitionId, slot: Slot, what: String, events: Vec<EventId>) {
        let offsets = vec![slot.offset];
        self.findings.add(Kind::StaleAcknowledgement, false, partition, || Finding { offsets, what, events });
    }
}
