//! Histories of a broker that does everything right, of any length: to measure with, and to plant
//! anomalies into.
//!
//! Producers keep several records in flight; a record is stored, or not, some time after it was
//! sent, and its outcome comes some time after that, or never. Leaders change, consumers poll,
//! a group commits, and at the end everything is read and three replicas tell what they hold.

use std::collections::VecDeque;

use crate::event::{
    Ack, Block, Commit, CommitFailed, Committed, Event, Final, Joined, Outcome, Poll, Producer, Replica, Resumed, Seen,
    Send, payload_id,
};

/// What a synthetic history is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The same seed gives the same history.
    pub seed: u64,
    pub operations: u64,
    pub partitions: u32,
    pub producers: u32,
    pub consumers: u32,
    /// How many records a poll gives at most.
    pub poll_records_max: usize,
    /// Whether replicas tell what they hold.
    pub replicas: bool,
}

/// Records that one producer has in flight to one partition.
const IN_FLIGHT_MAX: usize = 5;

const GROUP: &str = "group";

/// A small generator of numbers (SplitMix64): the histories must be the same everywhere.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(end).unwrap_or(0)
    }

    /// Below `end`, which is a length.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }
}

#[derive(Default)]
struct Lane {
    producer: u32,
    partition: usize,
    sequence: u64,
    in_flight: VecDeque<(u64, u64)>,
    outcomes: VecDeque<(u64, Told)>,
}

#[derive(Clone, Copy)]
enum Told {
    Stored { offset: u64, epoch: u32 },
    Failed,
    Unknown,
}

struct Partition {
    name: String,
    /// Its first offset.
    base: u64,
    epoch: u32,
    log: Vec<(u64, u32)>,
}

impl Partition {
    fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    fn read(&self, from: u64, count_max: usize) -> Vec<Seen> {
        let at = usize::try_from(from - self.base).unwrap_or(usize::MAX);
        let records = self.log.iter().skip(at).take(count_max);
        (from..).zip(records).map(|(offset, (payload, epoch))| Seen::new(offset, *payload, *epoch)).collect()
    }
}

struct World<F> {
    shape: Shape,
    numbers: Numbers,
    now_us: u64,
    sent: u64,
    lanes: Vec<Lane>,
    partitions: Vec<Partition>,
    /// By consumer and partition.
    positions: Vec<u64>,
    committed: Vec<Option<u64>>,
    generation: u32,
    emit: F,
}

/// Hands the events of a history to `emit`, in the order of their time.
pub fn generate(shape: Shape, emit: impl FnMut(Event<'_>)) {
    let mut world = World::new(shape, emit);
    for producer in 0..shape.producers {
        let name = format!("producer-{producer}");
        (world.emit)(Event::Producer(Producer { producer: name.into(), idempotent: true }));
    }
    while world.sent < shape.operations {
        world.step();
    }
    world.close();
}

impl<F: FnMut(Event<'_>)> World<F> {
    fn new(shape: Shape, emit: F) -> Self {
        let mut numbers = Numbers::new(shape.seed);
        let partitions = (0..shape.partitions).map(|partition| Partition {
            name: format!("orders/{partition}"),
            base: 1_000 + numbers.below(1_000),
            epoch: 2 + u32::try_from(numbers.below(5)).unwrap_or(0),
            log: Vec::new(),
        });
        let partitions: Vec<Partition> = partitions.collect();
        let lanes = (0..shape.producers).flat_map(|producer| {
            (0..partitions.len()).map(move |partition| Lane { producer, partition, ..Lane::default() })
        });
        let bases: Vec<u64> = partitions.iter().map(|partition| partition.base).collect();
        Self {
            lanes: lanes.collect(),
            positions: bases.repeat(shape.consumers as usize),
            committed: vec![None; partitions.len()],
            partitions,
            shape,
            numbers,
            now_us: 1_000_000,
            sent: 0,
            generation: 1,
            emit,
        }
    }

    fn step(&mut self) {
        self.now_us += 1 + self.numbers.below(5);
        let lane = self.numbers.index(self.lanes.len());
        match self.numbers.below(1_000) {
            0..400 => self.send(lane),
            400..700 => self.store(lane),
            700..990 => self.tell(lane),
            990..997 => self.poll_any(),
            997..998 => self.elect(),
            _ => self.commit(),
        }
    }

    fn send(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        if lane.in_flight.len() >= IN_FLIGHT_MAX {
            return;
        }
        let payload = payload_id(&[self.shape.seed.to_le_bytes(), self.sent.to_le_bytes()].concat());
        lane.in_flight.push_back((lane.sequence, payload));
        self.sent += 1;
        (self.emit)(Event::Send(Send {
            producer: format!("producer-{}", lane.producer).into(),
            partition: self.partitions[lane.partition].name.as_str().into(),
            sequence: lane.sequence,
            payload,
            sent_us: self.now_us,
        }));
        // Producers number their records as they like.
        lane.sequence += 1 + self.numbers.below(2);
    }

    /// The broker gets the oldest record in flight, and stores it or not.
    fn store(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some((sequence, payload)) = lane.in_flight.pop_front() else { return };
        let partition = &mut self.partitions[lane.partition];
        let (offset, epoch) = (partition.end(), partition.epoch);
        let (stored, told) = match self.numbers.below(100) {
            0 => (false, Told::Failed),
            1 => (false, Told::Unknown),
            2 => (true, Told::Unknown),
            _ => (true, Told::Stored { offset, epoch }),
        };
        if stored {
            partition.log.push((payload, epoch));
        }
        lane.outcomes.push_back((sequence, told));
    }

    /// The producer is told the oldest outcome.
    fn tell(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some((sequence, told)) = lane.outcomes.pop_front() else { return };
        let producer = format!("producer-{}", lane.producer).into();
        let partition = self.partitions[lane.partition].name.as_str().into();
        let received_us = self.now_us;
        let outcome = |reason: &'static str| Outcome { reason: reason.into(), ..Outcome::default() };
        (self.emit)(match told {
            Told::Stored { offset, epoch } => {
                Event::Ack(Ack { producer, partition, sequence, offset, epoch: Some(epoch), received_us })
            }
            Told::Failed => Event::Fail(Outcome { producer, partition, sequence, received_us, ..outcome("refused") }),
            Told::Unknown => {
                Event::Unknown(Outcome { producer, partition, sequence, received_us, ..outcome("timed out") })
            }
        });
    }

    fn poll_any(&mut self) {
        let at = self.numbers.index(self.positions.len());
        self.poll(at);
    }

    fn poll(&mut self, at: usize) {
        let partition = &self.partitions[at % self.partitions.len()];
        let from = self.positions[at];
        let records = partition.read(from, self.shape.poll_records_max);
        self.positions[at] += records.len() as u64;
        (self.emit)(Event::Poll(Poll {
            consumer: format!("consumer-{}", at / self.partitions.len()).into(),
            partition: partition.name.as_str().into(),
            from,
            seek: false,
            high_watermark: Some(partition.end()),
            sent_us: self.now_us,
            received_us: self.now_us,
            records,
        }));
    }

    fn elect(&mut self) {
        let at = self.numbers.index(self.partitions.len());
        self.partitions[at].epoch += 1;
    }

    /// The group commits as far as the first consumer is, and sometimes asks.
    fn commit(&mut self) {
        if self.numbers.below(10) == 0 {
            self.rebalance();
        }
        let at = self.numbers.index(self.partitions.len());
        let (group, partition) = (GROUP.into(), self.partitions[at].name.as_str().into());
        let (sent_us, received_us) = (self.now_us, self.now_us);
        let ask = self.numbers.below(4);
        if ask == 0 {
            let offset = self.committed[at];
            (self.emit)(Event::Committed(Committed { group, partition, offset, sent_us, received_us }));
            return;
        }
        let (Some(offset), generation) = (self.positions.get(at).copied(), self.generation) else { return };
        // The answer of one that was taken, or not, is lost.
        if ask == 1 && self.numbers.below(4) == 0 {
            if self.numbers.below(2) == 0 {
                self.committed[at] = Some(offset);
            }
            let reason = "timed out".into();
            let failed = CommitFailed { group, partition, offset, generation, sent_us, received_us, reason };
            return (self.emit)(Event::CommitFailed(failed));
        }
        self.committed[at] = Some(offset);
        (self.emit)(Event::Commit(Commit { group, partition, offset, generation, reset: false, sent_us, received_us }));
    }

    /// Two members divide the partitions anew, and go on where the group is.
    fn rebalance(&mut self) {
        self.generation += 1;
        self.now_us += 1;
        for member in 0..2 {
            let name = format!("member-{member}");
            let mine = |at: &usize| at % 2 == member;
            let partitions = (0..self.partitions.len()).filter(mine);
            (self.emit)(Event::Joined(Joined {
                group: GROUP.into(),
                member: name.as_str().into(),
                generation: self.generation,
                partitions: partitions.clone().map(|at| self.partitions[at].name.as_str().into()).collect(),
                sent_us: self.now_us,
                received_us: self.now_us,
            }));
            for at in partitions {
                let log_start = self.partitions[at].base;
                (self.emit)(Event::Resumed(Resumed {
                    group: GROUP.into(),
                    member: name.as_str().into(),
                    partition: self.partitions[at].name.as_str().into(),
                    generation: self.generation,
                    offset: self.committed[at].unwrap_or(log_start),
                    log_start,
                    received_us: self.now_us,
                }));
            }
        }
        self.now_us += 1;
    }

    /// Most of what is in flight ends, everything is read, and told.
    fn close(&mut self) {
        for at in 0..self.lanes.len() {
            // The last one stays without an outcome, as if its producer had been killed.
            while self.lanes[at].in_flight.len() > 1 {
                self.store(at);
            }
            while !self.lanes[at].outcomes.is_empty() {
                self.now_us += 1;
                self.tell(at);
            }
        }
        for at in 0..self.positions.len() {
            while self.positions[at] < self.partitions[at % self.partitions.len()].end() {
                self.now_us += 1;
                self.poll(at);
            }
        }
        for at in 0..self.partitions.len() {
            self.now_us += 1;
            if self.shape.replicas {
                (1..=3).for_each(|broker| self.replica(at, broker));
            }
            let Partition { name, base, .. } = &self.partitions[at];
            let (end, at_us) = (self.partitions[at].end(), self.now_us);
            let partition = name.as_str().into();
            (self.emit)(Event::Final(Final { partition, log_start: *base, end, at_us }));
        }
    }

    /// In pieces of 100 offsets; the third broker tells hashes.
    fn replica(&mut self, at: usize, broker: u32) {
        const PIECE: u64 = 100;
        let partition = &self.partitions[at];
        let (log_start, end) = (partition.base, partition.end());
        let mut from = log_start;
        while from < end {
            let to = (from + PIECE).min(end);
            let mut records = partition.read(from, usize::try_from(to - from).unwrap_or(0));
            let hash = records.iter().fold(0, |hash: u64, record| {
                payload_id(&[hash.to_le_bytes(), record.payload.unwrap_or(0).to_le_bytes()].concat())
            });
            let blocks = vec![Block { from, to, hash }];
            if broker == 3 {
                records.clear();
            }
            (self.emit)(Event::Replica(Replica {
                broker,
                partition: partition.name.as_str().into(),
                log_start,
                high_watermark: end,
                end,
                at_us: self.now_us,
                from,
                to,
                records,
                blocks,
            }));
            from = to;
        }
    }
}

impl Shape {
    /// A history of a test.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        Self { seed, operations: 400, partitions: 2, producers: 3, consumers: 2, poll_records_max: 7, replicas: true }
    }
}
