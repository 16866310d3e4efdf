//! What happens in one run: data, so that it can be printed, replayed and cut down.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::broker_name;
use super::draw::Draw;
use super::topic::{Place, Topic};

/// Faults come every ten seconds, one to four at a time.
const FAULT_EVERY_MS: u64 = 10_000;

/// Administrators change something about so often.
const CHANGE_EVERY_MS: u64 = 7_000;

/// In one of so many plans records are deleted.
const DELETING_SEEDS: u64 = 3;

/// In one of so many a topic is compacted.
const COMPACTING_SEEDS: u64 = 6;

/// Seeds are of so many kinds.
const KINDS: u64 = 8;

/// Those of this kind have a consumer group. It draws from streams of its own, so that the other
/// seeds are what they were.
const GROUPS_KIND: u64 = 6;

/// Those of this kind have transactional producers, which speak Kafka's protocol; drawn apart as well.
const TRANSACTIONS_KIND: u64 = 3;

/// The cluster is left alone for so long at first.
const QUIET_MS: u64 = 3_000;

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
    /// Producers without idempotence, which repeat what was not answered, and now and then
    /// break the rules of sequences.
    pub plain_producers: u32,
    /// Little may be under way to a follower, little is kept in memory, and copies are read
    /// from end to end all the time.
    pub tight: bool,
    /// Produced records and polls of all clients together.
    pub operations_per_second: u32,
    /// The rule that is switched off, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutation: Option<String>,
    /// `retention.bytes` of the topic that everybody uses: small enough to bite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// There is a compacted topic, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compacts: bool,
    /// A consumer group reads the orders.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub groups: bool,
    /// Brokers listen to clients of Kafka's protocol, and some of these use transactions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transactions: bool,
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
    /// The log takes nothing for a while: too much waits for it.
    Overloaded {
        broker: u32,
    },
    /// One append is refused for want of room.
    RefuseAppend {
        broker: u32,
    },
    /// What befalls whoever leads the partition at that time.
    ToLeader {
        place: Place,
        strike: Strike,
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
        topic: Topic,
        replicas: u32,
    },
    Reassign {
        place: Place,
        replicas: Vec<u32>,
    },
    ElectPreferred {
        place: Place,
    },
    /// An operator believes this copy, whatever others acknowledged.
    ElectUnclean {
        partition: u32,
        broker: u32,
    },
    /// Records are deleted, up to so many in a hundred of what is there.
    DeleteRecords {
        partition: u32,
        percent: u32,
    },
}

/// A fault of one broker, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strike {
    Kill,
    PowerOff,
    Pause,
    Isolate,
    NoRegistry,
    Expire,
    FullDisk,
    RefuseAppend,
    SlowDisk,
    Drain,
}

impl Strike {
    /// The fault, at this broker.
    #[must_use]
    pub fn at(self, broker: u32) -> What {
        let host = broker_name(broker);
        match self {
            Self::Kill => What::Kill { host },
            Self::PowerOff => What::PowerOff { broker, torn: 0 },
            Self::Pause => What::Pause { host },
            Self::Isolate => What::Isolate { host },
            Self::NoRegistry => What::NoRegistry { host },
            Self::Expire => What::Expire { host },
            Self::FullDisk => What::FullDisk { broker },
            Self::RefuseAppend => What::RefuseAppend { broker },
            Self::SlowDisk => What::SlowDisk { broker, ms: 300 },
            Self::Drain => What::Drain { broker },
        }
    }
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
                | Self::ElectUnclean { .. }
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
        let mut draw = Draw::new(seed);
        let mut plan = Self {
            seed,
            seconds,
            brokers: draw.brokers,
            coordinators: 2,
            producers: 4,
            consumers: 2,
            plain_producers: 1,
            tight: draw.chance(0.4),
            operations_per_second: 50,
            mutation: None,
            retention_bytes: None,
            compacts: seed % COMPACTING_SEEDS == 4,
            groups: seed % KINDS == GROUPS_KIND,
            transactions: seed % KINDS == TRANSACTIONS_KIND,
            rehome_after_s: if draw.chance(0.3) { 8 } else { 600 },
            events: Vec::new(),
        };
        let end = seconds * 1_000;
        let mut at = QUIET_MS + draw.below(3_000);
        while at + 1_500 < end {
            let mut events = if draw.chance(0.5) { draw.scene() } else { Vec::new() };
            for _ in 0..draw.between(u64::from(events.is_empty()), if events.is_empty() { 4 } else { 1 }) {
                let what = draw.fault();
                events.push(Timed { at_ms: draw.below(1_500), for_ms: draw.duration(&what), what });
            }
            for event in events.into_iter().filter(|event| at + event.at_ms < end) {
                let at_ms = at + event.at_ms;
                plan.events.push(Timed { at_ms, for_ms: event.for_ms.min(end - at_ms), ..event });
            }
            at += FAULT_EVERY_MS - 1_000 + draw.below(2_000);
        }
        let mut at = QUIET_MS;
        while at < end {
            let what = draw.change();
            plan.events.push(Timed { at_ms: at, for_ms: 0, what });
            at += CHANGE_EVERY_MS / 2 + draw.below(CHANGE_EVERY_MS);
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
            let (partition, percent) = (rng.random_range(0..Topic::Orders.partitions()), rng.random_range(1..=100));
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
