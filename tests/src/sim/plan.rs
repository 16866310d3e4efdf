//! What happens in one run: data, so that it can be printed, replayed and cut down.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{broker_name, client_name, coordinator_name};

/// Faults come every ten seconds, one to four at a time.
const FAULT_EVERY_MS: u64 = 10_000;

/// Administrators change something about so often.
const CHANGE_EVERY_MS: u64 = 7_000;

/// In one of so many plans records are deleted.
const DELETING_SEEDS: u64 = 3;

/// The cluster is left alone for so long at first.
const QUIET_MS: u64 = 3_000;

/// The partitions of the topic that everybody uses, at first.
pub const PARTITIONS: u32 = 4;

/// Everything that decides a run, besides the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    /// How long the load and the faults last; then everything is mended and checked.
    pub seconds: u64,
    pub brokers: u32,
    pub coordinators: u32,
    pub producers: u32,
    pub consumers: u32,
    /// Produced records and polls of all clients together.
    pub operations_per_second: u32,
    /// The rule that is switched off, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutation: Option<String>,
    /// `retention.bytes` of the topic that everybody uses: small enough to bite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// After so many seconds the copies of an absent broker get new homes.
    pub rehome_after_s: u64,
    pub events: Vec<Timed>,
}

/// Something that begins at a time and lasts a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    pub at_ms: u64,
    pub for_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

/// A fault, or a change that an administrator makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The process is killed; its disk keeps what was synced and what was written.
    Kill {
        host: String,
    },
    /// The power of one broker goes; the first `torn` of the changes that are being synced are
    /// on the disk all the same.
    PowerOff {
        broker: u32,
        torn: usize,
    },
    /// The power of all brokers goes.
    Blackout {
        torn: usize,
    },
    /// The process stands still: nothing reaches it or leaves it, and nothing is lost.
    Pause {
        host: String,
    },
    /// Nothing passes between two hosts.
    Partition {
        a: String,
        b: String,
    },
    OneWay {
        from: String,
        to: String,
    },
    /// Nothing passes between a host and all others; the registry is reached.
    Isolate {
        host: String,
    },
    /// The connection to the registry breaks and does not come back.
    NoRegistry {
        host: String,
    },
    /// Nothing passes to the registry, and the host notices late.
    SilentRegistry {
        host: String,
    },
    /// The registry's server of this host falls behind.
    Lag {
        host: String,
    },
    /// Requests or answers are lost with the connection, so many in a hundred.
    LoseAnswers {
        host: String,
        percent: u32,
    },
    /// The connection breaks and is there again at once.
    Blip {
        host: String,
    },
    Expire {
        host: String,
    },
    /// The registry's quorum is lost.
    NoQuorum,
    ClockJump {
        host: String,
        ms: i64,
    },
    SlowDisk {
        broker: u32,
        ms: u64,
    },
    FullDisk {
        broker: u32,
    },
    /// The next fsync fails, and the process ends.
    FailSync {
        broker: u32,
    },
    /// One bit of a batch at rest is another one; the batch is chosen by this number.
    BitRot {
        broker: u32,
        batch: u32,
    },
    /// The disk loses the newest batches of a copy although it said that they were synced.
    LoseTail {
        broker: u32,
        copy: u32,
        batches: usize,
    },
    /// The disk is replaced by an empty one.
    NewDisk {
        broker: u32,
    },
    /// The broker is stopped well and started again.
    Drain {
        broker: u32,
    },
    CreateTopic {
        number: u32,
        partitions: u32,
        replication: u32,
    },
    DeleteTopic {
        number: u32,
    },
    AddPartition,
    MinInsync {
        replicas: u32,
    },
    Reassign {
        partition: u32,
        replicas: Vec<u32>,
    },
    ElectPreferred {
        partition: u32,
    },
    /// Records are deleted, up to so many in a hundred of what is there.
    DeleteRecords {
        partition: u32,
        percent: u32,
    },
}

impl What {
    /// Whether an administrator does it.
    #[must_use]
    pub fn is_change(&self) -> bool {
        matches!(
            self,
            Self::CreateTopic { .. }
                | Self::DeleteTopic { .. }
                | Self::AddPartition
                | Self::MinInsync { .. }
                | Self::Reassign { .. }
                | Self::ElectPreferred { .. }
                | Self::DeleteRecords { .. }
        )
    }

    /// The name that its serialised form begins with.
    #[must_use]
    pub fn kind(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(object)) => object.keys().next().cloned().unwrap_or_default(),
            Ok(serde_json::Value::String(name)) => name,
            _ => String::new(),
        }
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, seconds: u64) -> Self {
        let mut draw = Draw { rng: StdRng::seed_from_u64(seed ^ 0xba70_0001), brokers: 4, damages: false, topics: 0 };
        draw.damages = draw.rng.random_bool(0.5);
        let mut plan = Self {
            seed,
            seconds,
            brokers: draw.brokers,
            coordinators: 2,
            producers: 4,
            consumers: 2,
            operations_per_second: 50,
            mutation: None,
            retention_bytes: None,
            rehome_after_s: if draw.rng.random_bool(0.3) { 8 } else { 600 },
            events: Vec::new(),
        };
        let end = seconds * 1_000;
        let mut at = QUIET_MS + draw.rng.random_range(0..3_000);
        while at + 1_500 < end {
            for _ in 0..draw.rng.random_range(1..=4) {
                let at_ms = at + draw.rng.random_range(0..1_500);
                let what = draw.fault();
                let for_ms = draw.duration(&what).min(end - at_ms);
                plan.events.push(Timed { at_ms, for_ms, what });
            }
            at += FAULT_EVERY_MS + draw.rng.random_range(0..2_000) - 1_000;
        }
        let mut at = QUIET_MS;
        while at < end {
            let what = draw.change();
            plan.events.push(Timed { at_ms: at, for_ms: 0, what });
            at += draw.rng.random_range(CHANGE_EVERY_MS / 2..CHANGE_EVERY_MS * 3 / 2);
        }
        if seed % DELETING_SEEDS == 2 {
            plan.add_deletions();
        }
        plan.events.sort_by_key(|event| event.at_ms);
        plan
    }

    /// Old records go: by size in one half of these plans, and on request in all of them. Drawn
    /// apart, so that the other seeds are what they were.
    fn add_deletions(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xba70_0002);
        self.retention_bytes = rng.random_bool(0.5).then(|| rng.random_range(2_000..20_000));
        let mut at_ms = QUIET_MS;
        while at_ms < self.seconds * 1_000 {
            let (partition, percent) = (rng.random_range(0..PARTITIONS), rng.random_range(1..=100));
            self.events.push(Timed { at_ms, for_ms: 0, what: What::DeleteRecords { partition, percent } });
            at_ms += rng.random_range(500..6_000);
        }
    }

    /// How many of its events are faults.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.events.iter().filter(|event| !event.what.is_change()).count()
    }
}

struct Draw {
    rng: StdRng,
    brokers: u32,
    /// The disk of broker 1 damages what is on it. Then, and only then, no acknowledged record
    /// may be on a single broker, so `min.insync.replicas` stays 2.
    damages: bool,
    topics: u32,
}

impl Draw {
    fn broker(&mut self) -> u32 {
        self.rng.random_range(1..=self.brokers)
    }

    fn two_brokers(&mut self) -> (u32, u32) {
        let one = self.broker();
        let other = self.rng.random_range(1..self.brokers);
        (one, if other >= one { other + 1 } else { other })
    }

    fn daemon(&mut self) -> String {
        if self.rng.random_bool(0.2) {
            coordinator_name(self.rng.random_range(1..=2))
        } else {
            broker_name(self.broker())
        }
    }

    fn pair(&mut self) -> (String, String) {
        let (one, other) = self.two_brokers();
        match self.rng.random_range(0..10) {
            0 | 1 => (client_name(self.rng.random_range(1..=2)), broker_name(one)),
            2 => (coordinator_name(self.rng.random_range(1..=2)), broker_name(one)),
            _ => (broker_name(one), broker_name(other)),
        }
    }

    fn fault(&mut self) -> What {
        if self.damages && self.rng.random_bool(0.12) {
            let broker = 1;
            return match self.rng.random_range(0..3) {
                0 => What::BitRot { broker, batch: self.rng.random_range(0..10_000) },
                1 => What::LoseTail {
                    broker,
                    copy: self.rng.random_range(0..100),
                    batches: self.rng.random_range(1..20),
                },
                _ => What::NewDisk { broker },
            };
        }
        let torn = self.rng.random_range(0..4);
        match self.rng.random_range(0..26) {
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
                if self.rng.random_bool(0.5) {
                    What::OneWay { from: a, to: b }
                } else {
                    What::OneWay { from: b, to: a }
                }
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
            24 if self.rng.random_bool(0.5) => What::FullDisk { broker: self.broker() },
            24 => What::FailSync { broker: self.broker() },
            _ => What::Drain { broker: self.broker() },
        }
    }

    /// Long enough for sessions to end, sometimes.
    fn duration(&mut self, what: &What) -> u64 {
        match what {
            What::Blip { .. } | What::Expire { .. } => 0,
            What::Blackout { .. } | What::NoQuorum => self.rng.random_range(200..5_000),
            What::Pause { .. } => *[200, 800, 1_500, 3_000, 6_000, 9_000].choose(&mut self.rng).unwrap_or(&1_000),
            _ => self.rng.random_range(100..9_000),
        }
    }

    fn change(&mut self) -> What {
        match self.rng.random_range(0..10) {
            0 | 1 => {
                self.topics += 1;
                let (partitions, replication) = (self.rng.random_range(1..=3), self.rng.random_range(2..=3));
                What::CreateTopic { number: self.topics, partitions, replication }
            }
            2 if self.topics > 0 => What::DeleteTopic { number: self.rng.random_range(1..=self.topics) },
            3 => What::AddPartition,
            4 if !self.damages => What::MinInsync { replicas: self.rng.random_range(1..=3) },
            5..8 => {
                let mut replicas: Vec<u32> = (1..=self.brokers).collect();
                let out = self.rng.random_range(0..replicas.len());
                replicas.remove(out);
                let turn = self.rng.random_range(0..replicas.len());
                replicas.rotate_left(turn);
                What::Reassign { partition: self.rng.random_range(0..PARTITIONS), replicas }
            }
            _ => What::ElectPreferred { partition: self.rng.random_range(0..PARTITIONS) },
        }
    }
}
