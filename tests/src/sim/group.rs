//! A consumer group that reads the orders. Its members come and go, fall silent, and commit when
//! nobody counts on them any more; what they were told is the history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_client::{Client, ConsumedRecord, ConsumerConfig, GroupConfig, GroupConsumer, OutOfRange, Rebalance, Start};
use baton_history::event::{Commit, CommitFailed, Committed, Event, Joined, Poll, PollFailed, Resumed, Seen};
use baton_history::payload_id;
use rand::Rng;
use rand::rngs::SmallRng;

use super::load::{Load, Stage, now_us};
use super::topic::{Place, Topic};

const NAME: &str = "readers";

/// Members at a time.
pub(super) const MEMBERS: u32 = 3;

/// The shortest that brokers allow.
const SESSION: Duration = Duration::from_secs(6);

/// How long a rebalance waits for a member that does not poll.
const REBALANCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Everything is committed.
    pub(super) read: bool,
}

/// When a member was given its part last, and how often; told from inside the client.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    number: u64,
    /// Since when it had none before.
    parted_us: u64,
    began_us: u64,
    assigned_us: u64,
}

struct Member {
    load: Load,
    name: String,
    consumer: GroupConsumer,
    told: Arc<Mutex<Turn>>,
    turn: Turn,
    /// The next record of each partition in this turn.
    next: BTreeMap<Place, u64>,
    /// What was handed out since the last commit.
    dirty: BTreeMap<Place, u64>,
}

impl Load {
    /// One place in the group: a member after the other, until everything is read.
    pub(super) async fn be_member(self, id: u32) {
        let client = self.connect(500 + u64::from(id)).await;
        self.partitions(&client, Topic::Orders).await;
        let mut rng = self.rng(500 + u64::from(id));
        for life in 0_u32.. {
            Member::new(self.clone(), &client, format!("m{id}-{life}")).live(&mut rng).await;
            tokio::time::sleep(Duration::from_millis(rng.random_range(100..4_000))).await;
        }
    }

    /// Asks what is committed, all the time, and until that is everything.
    pub(super) async fn watch_group(self) {
        let client = self.connect(510).await;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let stage = self.stage();
            let sent_us = now_us();
            let (Ok(count), Ok(found)) =
                (client.partitions(Topic::Orders.name()).await, client.admin().group_offsets(NAME).await)
            else {
                continue;
            };
            let mut committed = BTreeMap::new();
            for place in (0..count).map(|partition| Place { topic: Topic::Orders, partition }) {
                let offset = found.get(&(place.topic.name().into(), place.partition)).map(|found| found.offset.0);
                committed.insert(place, offset.unwrap_or(0));
                let (group, partition) = (NAME.into(), place.to_string().into());
                let told = Committed { group, partition, offset, sent_us, received_us: now_us() };
                self.recorder.record(Event::Committed(told));
            }
            let ends = self.lock().ends.clone();
            let reached = |(place, end): (&Place, &u64)| {
                let at = committed.get(place).copied().unwrap_or(0);
                at.max(self.highest_start(*place)) >= *end
            };
            if stage == Stage::Read && ends.iter().filter(|(place, _)| place.topic == Topic::Orders).all(reached) {
                self.lock().group.read = true;
                return;
            }
        }
    }
}

impl Member {
    fn new(load: Load, client: &Client, name: String) -> Self {
        let turn = Turn { parted_us: now_us(), ..Turn::default() };
        let told = Arc::new(Mutex::new(turn));
        let tell = Arc::clone(&told);
        let on_rebalance = move |rebalance: &Rebalance| {
            let mut turn = tell.lock().expect("nobody panics");
            match rebalance {
                Rebalance::Revoked(_) | Rebalance::Lost(_) => turn.parted_us = now_us(),
                Rebalance::Assigned(_) => {
                    let (number, began_us) = (turn.number + 1, turn.parted_us);
                    *turn = Turn { number, began_us, assigned_us: now_us(), ..*turn };
                }
            }
        };
        let consumer = ConsumerConfig {
            fetch_wait: Duration::from_millis(300),
            out_of_range: OutOfRange::Start,
            ..ConsumerConfig::default()
        };
        let config = GroupConfig {
            session: SESSION,
            heartbeat: Duration::from_secs(1),
            rebalance: REBALANCE,
            commit_every: None,
            start: Start::First,
            look_every: Duration::from_secs(3),
            on_rebalance: Some(Arc::new(on_rebalance)),
            consumer,
            ..GroupConfig::new(NAME, [Topic::Orders.name()])
        };
        let consumer = client.group_consumer(config);
        Self { load, name, consumer, told, turn, next: BTreeMap::new(), dirty: BTreeMap::new() }
    }

    /// Reads and commits, until it leaves or dies.
    async fn live(mut self, rng: &mut SmallRng) {
        loop {
            let loaded = self.load.stage() == Stage::Load;
            match if loaded { rng.random_range(0..1_000) } else { 1_000 } {
                0..3 => self.sleep_and_commit(rng).await,
                3..6 => {
                    // The group hears of it at once; it has nothing to do with the answer.
                    let _ = self.consumer.close().await;
                    return;
                }
                // The group hears of it when the session ends.
                6..8 => return,
                _ => {}
            }
            self.poll().await;
            if !loaded || rng.random_bool(0.4) {
                self.commit().await;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(20..120))).await;
        }
    }

    /// Does not poll for longer than the group waits, and then commits what it has.
    async fn sleep_and_commit(&mut self, rng: &mut SmallRng) {
        let mut stage = self.load.stage.clone();
        let sleep = Duration::from_millis(rng.random_range(1_000..14_000));
        let ended = stage.wait_for(|stage| *stage > Stage::Load);
        drop(tokio::time::timeout(sleep, ended).await);
        self.commit().await;
    }

    async fn poll(&mut self) {
        self.load.lock().operations += 1;
        let sent_us = now_us();
        let polled = self.consumer.poll(Duration::from_millis(300)).await;
        self.look();
        let records = match polled {
            Ok(records) => records,
            Err(error) => {
                let failed = PollFailed {
                    consumer: self.name.clone().into(),
                    partition: Place { topic: Topic::Orders, partition: 0 }.to_string().into(),
                    received_us: now_us(),
                    reason: error.to_string().into(),
                };
                return self.load.recorder.record(Event::PollFailed(failed));
            }
        };
        let mut by_partition: BTreeMap<Place, Vec<ConsumedRecord>> = BTreeMap::new();
        for record in records {
            by_partition.entry(Place { topic: Topic::Orders, partition: record.partition }).or_default().push(record);
        }
        for (place, records) in by_partition {
            self.saw(place, sent_us, &records);
        }
    }

    /// Whether a generation has begun meanwhile.
    fn look(&mut self) {
        let turn = *self.told.lock().expect("nobody panics");
        if turn.number == self.turn.number {
            return;
        }
        self.turn = turn;
        self.next.clear();
        self.dirty.clear();
        let Some(generation) = self.generation() else { return };
        let place = |(_, partition)| Place { topic: Topic::Orders, partition }.to_string().into();
        self.load.recorder.record(Event::Joined(Joined {
            group: NAME.into(),
            member: self.name.clone().into(),
            generation,
            partitions: self.consumer.assignment().into_iter().map(place).collect(),
            sent_us: turn.began_us,
            received_us: turn.assigned_us,
        }));
    }

    fn generation(&self) -> Option<u32> {
        self.consumer.generation().and_then(|generation| u32::try_from(generation).ok())
    }

    fn saw(&mut self, place: Place, sent_us: u64, records: &[ConsumedRecord]) {
        let (Some(first), Some(last), Some(generation)) = (records.first(), records.last(), self.generation()) else {
            return;
        };
        let (offset, end, partition) = (first.offset.0, last.offset.0 + 1, place.to_string());
        let (log_start, received_us) = (self.load.highest_start(place), now_us());
        let before = self.next.insert(place, end);
        self.dirty.insert(place, end);
        if before.is_none() {
            self.load.recorder.record(Event::Resumed(Resumed {
                group: NAME.into(),
                member: self.name.clone().into(),
                partition: partition.clone().into(),
                generation,
                offset,
                log_start,
                received_us,
            }));
        }
        // What was deleted is not there to be read.
        let deleted = before.is_some_and(|next| offset > next) && offset <= log_start;
        let seen = |record: &ConsumedRecord| Seen {
            offset: record.offset.0,
            payload: record.value.as_ref().map(|value| payload_id(value)),
            epoch: Some(record.epoch.0),
        };
        self.load.recorder.record(Event::Poll(Poll {
            consumer: format!("{}#{}", self.name, self.turn.number).into(),
            partition: partition.into(),
            from: if deleted { offset } else { before.unwrap_or(offset) },
            seek: deleted || before.is_none(),
            high_watermark: None,
            sent_us,
            received_us,
            records: records.iter().map(seen).collect(),
        }));
    }

    /// In whatever generation it is, or was.
    async fn commit(&mut self) {
        let Some(generation) = self.generation().filter(|_| !self.dirty.is_empty()) else { return };
        let sent_us = now_us();
        let outcome = self.consumer.commit().await;
        let received_us = now_us();
        for (place, offset) in &self.dirty {
            let (group, partition, offset) = (NAME.into(), place.to_string().into(), *offset);
            self.load.recorder.record(match &outcome {
                Ok(()) => {
                    Event::Commit(Commit { group, partition, offset, generation, reset: false, sent_us, received_us })
                }
                // Of several partitions some may have been taken.
                Err(error) => {
                    let reason = error.to_string().into();
                    let failed = CommitFailed { group, partition, offset, generation, sent_us, received_us, reason };
                    Event::CommitFailed(failed)
                }
            });
        }
        if outcome.is_ok() {
            self.dirty.clear();
        }
    }
}
