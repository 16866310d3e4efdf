//! Draws the events of a plan from its seed: single faults, changes, and scenes in which several
//! things go wrong together.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::plan::{Strike, What};
use super::topic::{Place, Topic};
use super::{broker_name, client_name, coordinator_name};

pub struct Draw {
    pub(super) rng: StdRng,
    pub brokers: u32,
    /// The disk of broker 1 damages what is on it. Then, and only then, no acknowledged order
    /// may be on a single broker, so `min.insync.replicas` of the orders stays 2 or 3.
    pub(super) damages: bool,
    topics: u32,
}

impl Draw {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut draw = Self { rng: StdRng::seed_from_u64(seed ^ 0xba70_0001), brokers: 4, damages: false, topics: 0 };
        draw.damages = draw.chance(0.5);
        draw
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// One of 0 to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    /// One of `first` to `last`, with both.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        self.rng.random_range(first..=last)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T], otherwise: T) -> T {
        from.choose(&mut self.rng).copied().unwrap_or(otherwise)
    }

    pub(super) fn broker(&mut self) -> u32 {
        self.rng.random_range(1..=self.brokers)
    }

    pub(super) fn two_brokers(&mut self) -> (u32, u32) {
        let one = self.broker();
        let other = self.rng.random_range(1..self.brokers);
        (one, if other >= one { other + 1 } else { other })
    }

    fn daemon(&mut self) -> String {
        if self.chance(0.2) { coordinator_name(self.rng.random_range(1..=2)) } else { broker_name(self.broker()) }
    }

    pub(super) fn place(&mut self) -> Place {
        let topic = if self.chance(0.6) { Topic::Orders } else { Topic::Drafts };
        Place { topic, partition: self.rng.random_range(0..topic.partitions()) }
    }

    /// All brokers but one, in some order.
    pub(super) fn replicas_without(&mut self, out: u32) -> Vec<u32> {
        let mut replicas: Vec<u32> = (1..=self.brokers).filter(|broker| *broker != out).collect();
        let turn = self.rng.random_range(0..replicas.len());
        replicas.rotate_left(turn);
        replicas
    }

    fn pair(&mut self) -> (String, String) {
        let (one, other) = self.two_brokers();
        match self.rng.random_range(0..10) {
            0 | 1 => (client_name(self.rng.random_range(1..=2)), broker_name(one)),
            2 => (coordinator_name(self.rng.random_range(1..=2)), broker_name(one)),
            _ => (broker_name(one), broker_name(other)),
        }
    }

    /// What happens to the disk of the broker that damages.
    pub(super) fn damage(&mut self) -> What {
        let broker = 1;
        match self.rng.random_range(0..4) {
            0 | 1 => What::BitRot { broker, batch: self.rng.random_range(0..10_000) },
            2 => {
                let (copy, batches) = (self.rng.random_range(0..100), self.rng.random_range(1..20));
                What::LoseTail { broker, copy, batches }
            }
            _ => What::NewDisk { broker },
        }
    }

    pub fn fault(&mut self) -> What {
        if self.damages && self.chance(0.12) {
            return self.damage();
        }
        let torn = self.rng.random_range(0..4);
        match self.rng.random_range(0..29) {
            0..3 => What::Kill { host: self.daemon() },
            3..6 => What::PowerOff { broker: self.broker(), torn },
            6 => What::Blackout { torn },
            7 | 8 => What::Pause { host: self.daemon() },
            9 | 10 => {
                let (a, b) = self.pair();
                What::Partition { a, b }
            }
            11 | 12 => {
                let (a, b) = self.pair();
                if self.chance(0.5) { What::OneWay { from: a, to: b } } else { What::OneWay { from: b, to: a } }
            }
            13 => What::Isolate { host: self.daemon() },
            14 => What::NoRegistry { host: self.daemon() },
            15 => What::SilentRegistry { host: self.daemon() },
            16 | 17 => What::Lag { host: self.daemon() },
            18 => What::LoseAnswers { host: self.daemon(), percent: self.rng.random_range(5..=60) },
            19 => What::Blip { host: self.daemon() },
            20 => What::Expire { host: self.daemon() },
            21 => What::NoQuorum,
            22 => What::ClockJump { host: self.daemon(), ms: self.rng.random_range(-3_600_000..3_600_000) },
            23 => What::SlowDisk { broker: self.broker(), ms: self.rng.random_range(5..400) },
            24 => What::FullDisk { broker: self.broker() },
            25 if self.chance(0.5) => What::Overloaded { broker: self.broker() },
            25 => What::FailSync { broker: self.broker() },
            26 | 27 => {
                let strikes = [Strike::Kill, Strike::PowerOff, Strike::Pause, Strike::Isolate, Strike::RefuseAppend];
                What::ToLeader { place: self.place(), strike: self.pick(&strikes, Strike::Kill) }
            }
            _ => What::Drain { broker: self.broker() },
        }
    }

    /// Long enough for sessions to end, sometimes.
    pub fn duration(&mut self, what: &What) -> u64 {
        match what {
            What::Blip { .. } | What::Expire { .. } | What::RefuseAppend { .. } => 0,
            What::Blackout { .. } | What::NoQuorum => self.rng.random_range(200..5_000),
            What::Overloaded { .. } => self.rng.random_range(50..1_500),
            What::Pause { .. } => self.pick(&[200, 800, 1_500, 3_000, 6_000, 9_000], 1_000),
            What::OneWay { .. } => self.pick(&[300, 1_500, 4_000, 8_000, 12_000, 18_000], 1_000),
            _ => self.rng.random_range(100..9_000),
        }
    }

    /// How many replicas of a topic have to be in sync, from now on.
    pub(super) fn min_insync(&mut self) -> What {
        let topic = if self.chance(0.6) { Topic::Orders } else { Topic::Drafts };
        let lowest = if self.damages && topic == Topic::Orders { 2 } else { 1 };
        What::MinInsync { topic, replicas: self.rng.random_range(lowest..=3) }
    }

    pub fn change(&mut self) -> What {
        match self.rng.random_range(0..11) {
            0 | 1 => {
                self.topics += 1;
                let (partitions, replication) = (self.rng.random_range(1..=3), self.rng.random_range(2..=3));
                What::CreateTopic { number: self.topics, partitions, replication }
            }
            2 if self.topics > 0 => What::DeleteTopic { number: self.rng.random_range(1..=self.topics) },
            3 => What::AddPartition,
            4 => self.min_insync(),
            5..8 => {
                let out = self.broker();
                What::Reassign { place: self.place(), replicas: self.replicas_without(out) }
            }
            8 => self.elect_unclean(),
            _ => What::ElectPreferred { place: self.place() },
        }
    }

    pub(super) fn elect_unclean(&mut self) -> What {
        let partition = self.rng.random_range(0..Topic::Drafts.partitions());
        What::ElectUnclean { partition, broker: self.broker() }
    }
}
