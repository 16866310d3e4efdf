//! The checker.
//!
//! Events are taken one by one. Of each record that was sent 48 bytes stay, and of each offset 20;
//! polls, commits and replicas are held against them as they come, and leave only positions. What
//! needs the whole history is done at the end ([`verdict`]), in passes over the records by
//! producer and over the offsets by partition.
//!
//! Cost: O(n), but for finding a record by its sequence (a binary search in the records of one
//! producer and partition), a page of 64 offsets (a tree for each partition), commits (sorted), and
//! values that are not where they were acknowledged (sorted, and searched for once for each record
//! if there are any).

mod commits;
mod consumers;
mod findings;
mod groups;
mod ids;
mod outcomes;
mod partitions;
mod replicas;
mod sends;
mod slots;
mod verdict;

use std::num::NonZeroU32;

use self::{
    commits::{Commits, Mark},
    consumers::Consumers,
    findings::{Files, Finding, Findings},
    groups::{Attempt, Groups},
    ids::{EventId, Names, PartitionId, SendId},
    partitions::Partitions,
    replicas::Blocks,
    sends::{Sends, Sent, State},
    slots::{Sight, Slots},
};
use crate::event::{Ack, Commit, Event, Joined, Outcome, Poll, PollFailed, Send};
use crate::report::{Counts, Kind, Report};

/// How a history is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// By how much the clocks of two processes may differ, in microseconds. What happened within
    /// it counts as simultaneous.
    pub skew_us: u64,
    /// How many examples of each kind the report keeps.
    pub examples_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { skew_us: 0, examples_max: 20 }
    }
}

/// The events contradict each other in a way that no broker could be the cause of: whoever wrote
/// the history is wrong, and there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event}: {what}")]
pub struct Invalid {
    /// Counts from 0.
    pub event: u64,
    pub what: String,
}

/// Takes events one by one and says at the end what is wrong.
#[derive(Debug)]
pub struct Checker {
    options: Options,
    counts: Counts,
    files: Files,
    remarks: Vec<String>,
    findings: Findings,
    partitions: Partitions,
    producers: Names,
    consumer_names: Names,
    groups: Names,
    /// By producer: idempotent, unless it was said otherwise.
    plain: Vec<bool>,
    sends: Sends,
    slots: Slots,
    /// Two sights of one offset that are not the same.
    differences: Vec<Difference>,
    /// Second acknowledgements at one offset.
    over: Vec<(SendId, SendId)>,
    consumers: Consumers,
    commits: Commits,
    members: Groups,
    blocks: Blocks,
}

/// More differences than this are not kept; those are counted without asking what excuses them.
const DIFFERENCES_MAX: usize = 100_000;

#[derive(Debug)]
struct Difference {
    partition: PartitionId,
    offset: u64,
    known: Sight,
    new: Sight,
}

impl Checker {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            counts: Counts::default(),
            files: Files::default(),
            remarks: Vec::new(),
            findings: Findings::new(options.examples_max),
            partitions: Partitions::default(),
            producers: Names::default(),
            consumer_names: Names::default(),
            groups: Names::default(),
            plain: Vec::new(),
            sends: Sends::default(),
            slots: Slots::default(),
            differences: Vec::new(),
            over: Vec::new(),
            consumers: Consumers::default(),
            commits: Commits::default(),
            members: Groups::default(),
            blocks: Blocks::default(),
        }
    }

    /// From here on events are called by the lines of this file, the first of which is its header.
    pub fn begin_file(&mut self, name: &str) {
        self.files.begin(self.next_event(), name.to_owned());
    }

    /// Adds something that a reader of the report should know.
    pub fn remark(&mut self, what: String) {
        self.remarks.push(what);
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// It contradicts an earlier one of the same client.
    pub fn add(&mut self, event: &Event<'_>) -> Result<(), Invalid> {
        let id = self.next_event();
        if id.0 == u32::MAX {
            return Err(self.invalid("a history has less than 4,294,967,295 events".to_owned()));
        }
        match event {
            Event::Producer(e) => {
                let producer = self.producer(&e.producer);
                self.plain[producer as usize] = !e.idempotent;
            }
            Event::Send(e) => self.send(e, id)?,
            Event::Ack(e) => self.ack(e, id)?,
            Event::Fail(e) => self.end(e, State::Failed, id)?,
            Event::Unknown(e) => self.end(e, State::Unknown, id)?,
            Event::Poll(e) => self.poll(e, id)?,
            Event::PollFailed(e) => self.poll_failed(e, id),
            Event::Commit(e) => self.commit(e, id),
            Event::CommitFailed(e) => {
                let (group, partition) = (self.groups.intern(&e.group), self.partitions.intern(&e.partition));
                self.members.attempt(group, partition, Attempt { offset: e.offset, sent_us: e.sent_us });
            }
            Event::Committed(e) => {
                let (group, partition) = (self.groups.intern(&e.group), self.partitions.intern(&e.partition));
                let (sent_us, received_us) = (e.sent_us, e.received_us);
                let offset = e.offset.unwrap_or(0);
                let mark = Mark { offset, generation: None, reset: false, sent_us, received_us, event: id };
                self.commits.add(group, partition, mark);
            }
            Event::Joined(e) => self.joined(e, id),
            Event::Resumed(e) => {
                let (group, partition) = (self.groups.intern(&e.group), self.partitions.intern(&e.partition));
                self.members.resumed(group, partition, e, id);
            }
            Event::Unclean(e) => {
                self.counts.unclean_elections += 1;
                self.partitions.unclean(e);
            }
            Event::Replica(e) => self.replica(e, id)?,
            Event::Final(e) => self.partitions.end(e, id),
        }
        self.counts.events += 1;
        Ok(())
    }

    fn commit(&mut self, e: &Commit<'_>, event: EventId) {
        self.counts.commits += 1;
        let (group, partition) = (self.groups.intern(&e.group), self.partitions.intern(&e.partition));
        let (sent_us, received_us, generation) = (e.sent_us, e.received_us, Some(e.generation));
        let mark = Mark { offset: e.offset, generation, reset: e.reset, sent_us, received_us, event };
        self.commits.add(group, partition, mark);
        self.members.attempt(group, partition, Attempt { offset: e.offset, sent_us });
    }

    fn joined(&mut self, e: &Joined<'_>, event: EventId) {
        let (group, member) = (self.groups.intern(&e.group), self.consumer_names.intern(&e.member));
        let partitions = e.partitions.iter().map(|partition| self.partitions.intern(partition)).collect();
        self.members.joined(group, member, partitions, e, event);
    }

    fn next_event(&self) -> EventId {
        EventId(u32::try_from(self.counts.events).unwrap_or(u32::MAX))
    }

    fn invalid(&self, what: String) -> Invalid {
        Invalid { event: self.counts.events, what }
    }

    fn producer(&mut self, name: &str) -> u32 {
        let producer = self.producers.intern(name);
        if producer as usize >= self.plain.len() {
            self.plain.push(false);
        }
        producer
    }

    fn send(&mut self, e: &Send<'_>, event: EventId) -> Result<(), Invalid> {
        let producer = self.producer(&e.producer);
        let partition = self.partitions.intern(&e.partition);
        let lane = self.sends.lane(producer, partition);
        if !self.sends.add(Sent::new(e.payload, e.sequence, e.sent_us, lane, event)) {
            let what = format!("expected a sequence above the last one of {} in {}", e.producer, e.partition);
            return Err(self.invalid(format!("{what}, found {}", e.sequence)));
        }
        self.counts.operations += 1;
        Ok(())
    }

    /// The record that an outcome is of.
    fn sent(&mut self, producer: &str, partition: &str, sequence: u64) -> Result<(PartitionId, SendId), Invalid> {
        let partition_id = self.partitions.intern(partition);
        let lane = self.producer(producer);
        let lane = self.sends.lane(lane, partition_id);
        let send = self.sends.find(lane, sequence);
        let missing =
            || self.invalid(format!("expected a send of {producer} to {partition} of sequence {sequence} before"));
        Ok((partition_id, send.ok_or_else(missing)?))
    }

    fn ack(&mut self, e: &Ack<'_>, event: EventId) -> Result<(), Invalid> {
        let (partition, send) = self.sent(&e.producer, &e.partition, e.sequence)?;
        let slot = self.slot(partition, e.offset)?;
        if let Some(epoch) = e.epoch {
            self.partitions.all[partition.index()].tell_epoch(epoch, e.received_us, event);
        }
        if let State::Acknowledged(before) = self.sends.get(send).state() {
            let (before, first) = (self.slots.get(before).offset, self.sends.get(send).ended_in);
            if before != e.offset {
                self.findings.add(Kind::AcknowledgedTwice, false, partition, || Finding {
                    offsets: vec![before, e.offset],
                    what: format!("{}'s record {} at {before} and at {}", e.producer, e.sequence, e.offset),
                    events: vec![first, event],
                });
            }
            return Ok(());
        }
        if let Some(other) = self.slots.acknowledge(slot, send) {
            self.over.push((other, send));
        }
        let sent = self.sends.get_mut(send);
        sent.epoch = e.epoch.and_then(NonZeroU32::new);
        sent.end(State::Acknowledged(slot), e.received_us, event);
        Ok(())
    }

    /// An outcome that is no acknowledgement; it never takes one back.
    fn end(&mut self, e: &Outcome<'_>, state: State, event: EventId) -> Result<(), Invalid> {
        let (_, send) = self.sent(&e.producer, &e.partition, e.sequence)?;
        let sent = self.sends.get_mut(send);
        if sent.state() == State::Unknown {
            sent.end(state, e.received_us, event);
        }
        Ok(())
    }

    fn poll(&mut self, e: &Poll<'_>, event: EventId) -> Result<(), Invalid> {
        let consumer = self.consumer_names.intern(&e.consumer);
        let partition = self.partitions.intern(&e.partition);
        self.counts.polls += 1;
        self.counts.records_read += e.records.len() as u64;
        self.consumers.poll(consumer, partition, e, event, &mut self.findings);
        let mut newest = None;
        for record in &e.records {
            newest = newest.max(record.epoch);
            let epoch = record.epoch.and_then(NonZeroU32::new);
            self.see(partition, record.offset, Sight { payload: record.payload, epoch, event, by_replica: false })?;
        }
        if let Some(epoch) = newest {
            self.partitions.all[partition.index()].tell_epoch(epoch, e.received_us, event);
        }
        Ok(())
    }

    fn poll_failed(&mut self, e: &PollFailed<'_>, event: EventId) {
        self.consumer_names.intern(&e.consumer);
        let partition = self.partitions.intern(&e.partition);
        self.findings.add(Kind::PollFailed, false, partition, || Finding {
            offsets: Vec::new(),
            what: format!("{} was told {}", e.consumer, e.reason),
            events: vec![event],
        });
    }

    fn slot(&mut self, partition: PartitionId, offset: u64) -> Result<ids::SlotId, Invalid> {
        let slot = self.slots.at(partition, offset);
        slot.ok_or_else(|| self.invalid("a history has less than 4,294,967,230 offsets".to_owned()))
    }

    /// Notes what somebody found at an offset.
    fn see(&mut self, partition: PartitionId, offset: u64, new: Sight) -> Result<(), Invalid> {
        let slot = self.slot(partition, offset)?;
        if let Some(known) = self.slots.see(slot, new).filter(|known| !known.agrees(&new)) {
            let difference = Difference { partition, offset, known, new };
            if self.differences.len() < DIFFERENCES_MAX {
                self.differences.push(difference);
            } else {
                difference.report(false, &mut self.findings);
            }
        }
        Ok(())
    }

    /// The verdict.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.conclude();
        self.counts.partitions = self.partitions.names.len();
        self.counts.producers = self.producers.len();
        self.counts.consumers = self.consumer_names.len();
        self.counts.groups = self.groups.len();
        let [anomalies, permitted] = self.findings.name(&self.partitions.names, &self.files);
        Report { counts: self.counts, anomalies, permitted, remarks: self.remarks }
    }
}

impl Difference {
    fn report(&self, permitted: bool, findings: &mut Findings) {
        let Self { partition, offset, known, new } = self;
        let kind = if known.by_replica || new.by_replica { Kind::ReplicasDiffer } else { Kind::ValuesDiffer };
        findings.add(kind, permitted, *partition, || Finding {
            offsets: vec![*offset],
            what: format!("at {offset}: {} and {}", known.describe(), new.describe()),
            events: vec![known.event, new.event],
        });
    }
}

impl Sight {
    fn describe(&self) -> String {
        let epoch = self.epoch.map_or_else(String::new, |epoch| format!(" of epoch {epoch}"));
        match self.payload {
            Some(payload) => format!("payload {payload}{epoch}"),
            None => format!("a record of somebody else{epoch}"),
        }
    }
}

#[cfg(test)]
mod tests;
