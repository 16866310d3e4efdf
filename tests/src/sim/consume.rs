//! The consumers: those that follow, those that go back, and the one that reads everything in
//! the end.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_client::{Client, Consumer, ConsumerConfig, Offset, OutOfRange, Start};
use baton_history::event::{Event, Final, Poll, PollFailed, Seen};
use baton_history::payload_id;
use rand::Rng;
use rand::rngs::SmallRng;

use super::load::{Load, Stage, now_us};
use super::topic::{Place, Topic};

impl Load {
    /// Reads everything as it comes; the second half of the consumers also goes back, now and
    /// then, to where it was before.
    pub(super) async fn consume(self, id: u32, every_ms: u32) {
        let client = self.connect(200 + u64::from(id)).await;
        self.partitions(&client, Topic::Orders).await;
        let mut rng = self.rng(200 + u64::from(id));
        let mut reader = Reader::start(self.clone(), &client, format!("c{id}")).await;
        while self.stage() < Stage::Read {
            tokio::time::sleep(Duration::from_millis(u64::from(every_ms))).await;
            reader.poll(Duration::from_millis(200)).await;
            reader.follow_growth(&client).await;
            if id % 2 == 1 && rng.random_bool(0.01) {
                reader.go_back(&mut rng);
            }
        }
    }

    /// When told to, reads every partition from its first record to the end.
    pub(super) async fn read_everything(self) {
        let mut stage = self.stage.clone();
        if stage.wait_for(|stage| *stage == Stage::Read).await.is_err() {
            return;
        }
        let client = self.connect(300).await;
        let mut reader = Reader::start(self.clone(), &client, "last".to_owned()).await;
        loop {
            reader.poll(Duration::from_millis(500)).await;
            reader.follow_growth(&client).await;
            let ends = self.lock().ends.clone();
            let reached = |(place, end): (&Place, &u64)| {
                let next = reader.next.get(place).copied().unwrap_or(0);
                next.max(self.highest_start(*place)) >= *end
            };
            if ends.iter().all(reached) {
                for (place, end) in ends {
                    let log_start = self.highest_start(place);
                    let last = Final { partition: place.to_string().into(), log_start, end, at_us: now_us() };
                    self.recorder.record(Event::Final(last));
                }
                self.lock().read = true;
                return;
            }
        }
    }
}

/// A consumer with what it expects next.
struct Reader {
    load: Load,
    name: String,
    consumer: Consumer,
    next: BTreeMap<Place, u64>,
    sought: BTreeMap<Place, bool>,
}

impl Reader {
    async fn start(load: Load, client: &Client, name: String) -> Self {
        // An unclean election makes a log shorter, and deletions let it begin later.
        let config = ConsumerConfig {
            fetch_wait: Duration::from_millis(300),
            out_of_range: OutOfRange::Start,
            ..ConsumerConfig::default()
        };
        let consumer = client.consumer(config);
        let mut reader = Self { load, name, consumer, next: BTreeMap::new(), sought: BTreeMap::new() };
        while reader.next.is_empty() {
            reader.follow_growth(client).await;
        }
        reader
    }

    /// Reads partitions that were added, too.
    async fn follow_growth(&mut self, client: &Client) {
        for topic in Topic::ALL {
            let Ok(count) = client.partitions(topic.name()).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            for place in (0..count).map(|partition| Place { topic, partition }) {
                if self.next.contains_key(&place) {
                    continue;
                }
                let from = [(place.partition, Start::Offset(Offset(0)))];
                if self.consumer.assign(topic.name(), &from).await.is_ok() {
                    self.next.insert(place, 0);
                    self.sought.insert(place, true);
                }
            }
        }
    }

    fn go_back(&mut self, rng: &mut SmallRng) {
        let Some((place, next)) = self.next.iter_mut().nth(rng.random_range(0..6)) else { return };
        let to = rng.random_range(0..=*next);
        if self.consumer.seek(place.topic.name(), place.partition, Start::Offset(Offset(to))).is_ok() {
            *next = to;
            self.sought.insert(*place, true);
        }
    }

    async fn poll(&mut self, wait: Duration) {
        self.load.lock().operations += 1;
        let sent_us = now_us();
        let records = match self.consumer.poll(wait).await {
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
        let mut by_partition: BTreeMap<Place, Vec<Seen>> = BTreeMap::new();
        for record in records {
            let payload = record.value.as_ref().map(|value| payload_id(value));
            let seen = Seen { offset: record.offset.0, payload, epoch: Some(record.epoch.0) };
            let Some(topic) = Topic::named(&record.topic) else { continue };
            by_partition.entry(Place { topic, partition: record.partition }).or_default().push(seen);
        }
        for (place, records) in by_partition {
            self.saw(place, sent_us, records);
        }
    }

    fn saw(&mut self, place: Place, sent_us: u64, records: Vec<Seen>) {
        let next = self.next.entry(place).or_default();
        let mut seek = self.sought.insert(place, false).unwrap_or(false);
        let first = records.first().map_or(*next, |first| first.offset);
        // After an unclean election the log may end below where this consumer was: it begins anew.
        // What was deleted is not there to be read: the consumer begins at the new start.
        let deleted = first > *next && first <= self.load.highest_start(place);
        let anew = deleted || (place.topic == Topic::Drafts && first < *next);
        seek |= anew;
        let from = if anew { first } else { *next };
        *next = records.last().map_or(from, |last| last.offset + 1);
        // Who was told the end by a leader that had not heard of the unclean election, and by
        // the elected one then, was told a lower one: only orders are held to it.
        let told = self.consumer.high_watermark(place.topic.name(), place.partition);
        let high_watermark = told.filter(|_| place.topic == Topic::Orders).map(|end| end.0);
        let (consumer, partition) = (self.name.clone().into(), place.to_string().into());
        let received_us = now_us();
        let poll = Poll { consumer, partition, from, seek, high_watermark, sent_us, received_us, records };
        self.load.recorder.record(Event::Poll(poll));
    }
}
