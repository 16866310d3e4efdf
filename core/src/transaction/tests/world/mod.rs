//! A small world around the production code: partitions, a coordinator that dies, clients that
//! go on when they should not, and a network that delays, repeats and loses.

mod client;
mod coordinator;
mod judge;
mod partition;

use std::collections::{BTreeMap, BTreeSet};

use self::client::Client;
use self::coordinator::CoordinatorSim;
pub use self::judge::Anomaly;
use self::judge::Truth;
use self::partition::PartitionSim;
use crate::error::ErrorCode;
use crate::ids::{TopicId, TopicPartition};
use crate::transaction::message::*;
use crate::transaction::partition::{EndMarker, Guard};

pub const PARTITIONS: usize = 3;
pub const IDS: [&str; 2] = ["a", "b"];

/// The time-out of every transaction, in ms.
pub const TIMEOUT_MS: i64 = 60_000;

pub fn place(index: usize) -> TopicPartition {
    TopicPartition { topic: TopicId(7), partition: index as u32 }
}

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self, below: u64) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.next(len as u64) as usize
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.next(n) == 0
    }
}

/// What the clients speak, and which rules are switched off to see what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// By transactional id.
    pub protocols: [Protocol; 2],
    /// A partition asks the coordinator before it opens a transaction.
    pub verifies: bool,
    /// A raised marker ends nothing of its own epoch.
    pub strict_markers: bool,
}

impl Mode {
    pub fn of(protocol: Protocol) -> Self {
        Self { protocols: [protocol; 2], verifies: true, strict_markers: true }
    }
}

/// One batch of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub client: usize,
    /// Unique among all calls.
    pub call: u64,
    /// The client's transaction that it was sent in; unique among all clients.
    pub tag: usize,
    pub id: &'static str,
    pub producer: Producer,
    pub partition: usize,
    pub sequence: i32,
    pub protocol: Protocol,
}

#[derive(Clone, Debug)]
pub enum Ask {
    Init { id: &'static str, expected: Option<Producer> },
    Add { id: &'static str, producer: Producer, partition: usize },
    Verify { id: &'static str, producer: Producer, partition: usize },
    End { id: &'static str, producer: Producer, commit: bool, protocol: Protocol },
}

#[derive(Clone, Debug)]
pub enum Asker {
    Client(usize, u64),
    /// The leader of a partition, on behalf of a batch.
    Broker(Write, Guard),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Producer(Result<Producer, ErrorCode>),
    Done(Result<(), ErrorCode>),
}

#[derive(Clone, Debug)]
pub enum Message {
    Ask(Asker, Ask),
    Produce(Write, Option<Guard>),
    Mark { coordinator: u32, round: MarkerRound, marker: EndMarker, raised: bool, at: usize },
    Marked { coordinator: u32, round: MarkerRound, at: usize, outcome: MarkerOutcome },
    Reply { client: usize, call: u64, reply: Reply },
}

pub struct World {
    pub mode: Mode,
    pub rng: Rng,
    pub now_ms: i64,
    pub wire: Vec<Message>,
    /// Messages that take long.
    late: Vec<Message>,
    coordinator: CoordinatorSim,
    partitions: Vec<PartitionSim>,
    clients: Vec<Client>,
    truth: Truth,
    calls: u64,
    steps: u64,
}

impl World {
    pub fn new(seed: u64, mode: Mode) -> Self {
        let mut world = Self {
            mode,
            rng: Rng(seed),
            now_ms: 1_000_000,
            wire: Vec::new(),
            late: Vec::new(),
            coordinator: CoordinatorSim::new(),
            partitions: (0..PARTITIONS).map(|_| PartitionSim::new()).collect(),
            clients: Vec::new(),
            truth: Truth::default(),
            calls: 0,
            steps: 0,
        };
        if seed.is_multiple_of(4) {
            world.age_epochs();
        }
        world.take_over();
        (0..IDS.len()).for_each(|id| world.start_client(id));
        world
    }

    fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn start_client(&mut self, id: usize) {
        let number = self.clients.len();
        self.clients.push(Client::new(number, IDS[id], self.mode.protocols[id]));
    }

    pub fn step(&mut self) {
        match self.rng.next(200) {
            0..=84 => self.deliver_any(),
            85..=92 => self.deliver_late(),
            93..=126 => {
                let who = self.rng.index(self.clients.len());
                self.act(who);
            }
            127..=156 => {
                let (at, count) = (self.rng.index(PARTITIONS), self.rng.index(3) + 1);
                self.commit(at, count);
            }
            157..=184 => {
                self.store();
            }
            185..=197 => {
                let ms = self.rng.next(300) as i64;
                self.pass(ms);
            }
            _ => self.disturb(),
        }
        self.steps += 1;
        if self.steps.is_multiple_of(3) {
            self.judge_partitions();
        }
    }

    fn disturb(&mut self) {
        match self.rng.next(10) {
            0 | 1 => self.fail_over_coordinator(),
            2 | 3 => {
                let at = self.rng.index(PARTITIONS);
                self.fail_over_partition(at);
            }
            4 => self.refuse(),
            5 => {
                let ms = self.rng.next(2 * TIMEOUT_MS as u64) as i64;
                self.pass(ms);
            }
            6 => {
                let at = self.rng.index(PARTITIONS);
                self.partitions[at].take_snapshot();
            }
            // Another instance comes, while the one before goes on and does not know.
            7 | 8 => {
                let id = self.rng.index(IDS.len());
                self.start_client(id);
            }
            _ => {}
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.tick();
    }

    /// The oldest message, or any. Some are lost, some arrive much later, and some twice.
    fn deliver_any(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let index = if self.rng.one_in(4) { self.rng.index(self.wire.len()) } else { 0 };
        let message = self.wire.remove(index);
        match self.rng.next(32) {
            0 => {}
            1 | 2 => self.late.push(message),
            3 => {
                self.late.push(message.clone());
                self.deliver(message);
            }
            _ => self.deliver(message),
        }
    }

    fn deliver_late(&mut self) {
        if !self.late.is_empty() {
            let index = self.rng.index(self.late.len());
            let message = self.late.swap_remove(index);
            self.deliver(message);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask(asker, ask) => self.ask(asker, ask),
            Message::Produce(write, guard) => self.produce(write, guard),
            Message::Mark { coordinator, round, marker, raised, at } => {
                self.mark(coordinator, round, marker, raised, at);
            }
            Message::Marked { coordinator, round, at, outcome } => self.marked(coordinator, round, at, outcome),
            Message::Reply { client, call, reply } => self.reply(client, call, reply),
        }
    }

    /// Faults end, and nobody begins anything more: within a time-out everything is decided.
    pub fn finish(&mut self) {
        self.clients.iter_mut().for_each(Client::stop);
        self.wire.append(&mut self.late);
        let until = self.now_ms + TIMEOUT_MS + 20_000;
        while self.now_ms < until {
            for _ in 0..4 {
                for message in std::mem::take(&mut self.wire) {
                    self.deliver(message);
                }
                while self.store() {}
                (0..PARTITIONS).for_each(|at| self.commit(at, usize::MAX));
            }
            self.pass(1_000);
            self.judge_partitions();
        }
        self.judge_end();
    }

    pub fn anomalies(&self) -> &BTreeMap<Anomaly, String> {
        &self.truth.anomalies
    }

    /// What happened how often.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.truth.counts
    }
}
