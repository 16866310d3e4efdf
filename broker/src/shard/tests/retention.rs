//! Old records go: on request, by age, by size, and when their key is written again.

use std::collections::BTreeMap;

use baton_core::batch::{BatchBuilder, BuildOptions, ProducerStamp, Pushed, decode_records};
use baton_core::ids::{ProducerEpoch, ProducerId};
use baton_core::partition::{Assignment, PartitionState, VersionedState};
use baton_core::replica::{Acks, Input};
use baton_core::{Error, ErrorCode};
use tokio::sync::oneshot;

use super::*;
use crate::log::contract::id;
use crate::log::memory::StoredCopy;
use crate::shard::input::{FetchCall, ProduceCall};

const PRODUCER: ProducerId = ProducerId(5);

/// The only copy of a partition, leading.
struct Only {
    disk: MemoryDisk,
    bench: Bench,
    sequence: i32,
    version: i32,
}

impl Only {
    async fn new(config: &[(&str, &str)]) -> Self {
        let disk = MemoryDisk::new(identity());
        let bench = Bench::new(&disk, MemoryOptions::default());
        let mut only = Self { disk, bench, sequence: 0, version: 0 };
        only.open(config).await;
        only
    }

    async fn open(&mut self, config: &[(&str, &str)]) {
        self.bench.open(id(0)).await;
        self.version += 1;
        let candidate = CandidateSeq(0);
        let me = LeaderId { broker: ME, disk: identity().disk, incarnation: Incarnation(7), candidate };
        let member = self.bench.partition(id(0)).replica.member();
        let state = PartitionState {
            leader: Some(me),
            epoch: Epoch(u32::try_from(self.version).unwrap()),
            isr: vec![member],
            assignment: Assignment { replicas: vec![ME], ..Assignment::default() },
            ..PartitionState::default()
        };
        let input = Input::State(VersionedState { state, version: self.version });
        self.bench.input(ShardInput::Replica { id: id(0), input });
        let mut settings = TopicConfig { min_insync_replicas: 1, ..TopicConfig::default() };
        for (key, value) in config {
            settings.set(key, value).unwrap();
        }
        self.bench.input(ShardInput::Settings { id: id(0), settings });
        self.bench.settle().await;
    }

    /// The power goes, with this many of the changes under way on the disk.
    async fn crash(&mut self, kept: usize, config: &[(&str, &str)]) {
        self.disk.power_off_keeping(kept);
        self.bench = Bench::new(&self.disk, MemoryOptions::default());
        self.open(config).await;
    }

    /// One batch of keys and values; a value of none deletes the key.
    async fn put(&mut self, time_ms: i64, pairs: &[(&str, Option<&str>)]) {
        let mut builder = BatchBuilder::new(1 << 20);
        for (key, value) in pairs {
            let pushed = builder.push(time_ms, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
            assert_eq!(pushed, Ok(Pushed::Added));
        }
        let producer = ProducerStamp { id: PRODUCER, epoch: ProducerEpoch(0), base_sequence: self.sequence };
        let bytes = builder.build(&BuildOptions { producer: Some(producer), ..BuildOptions::default() }).unwrap();
        self.sequence += i32::try_from(pairs.len()).unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let (reply, answer) = oneshot::channel();
        let reply = Box::new(move |result: Result<_, Error>| drop(reply.send(result)));
        self.bench.input(ShardInput::Produce(ProduceCall {
            id: id(0),
            acks: Acks::All,
            epoch: None,
            transaction: None,
            header,
            bytes,
            reply,
        }));
        self.bench.settle().await;
        answer.await.unwrap().unwrap();
    }

    async fn delete(&mut self, before: Option<u64>) -> Result<Offset, Error> {
        let (reply, answer) = oneshot::channel();
        self.bench.input(ShardInput::DeleteRecords { id: id(0), before: before.map(Offset), reply });
        self.bench.settle().await;
        answer.await.unwrap()
    }

    async fn read(&mut self, from: u64) -> Result<Vec<StoredBatch>, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let call = FetchCall {
            id: id(0),
            from: Offset(from),
            max_bytes: 1,
            epoch: None,
            isolation: crate::shard::Isolation::Uncommitted,
            copies: crate::shard::Copies::Leader,
            reply,
        };
        self.bench.input(ShardInput::Fetch(call));
        self.bench.settle().await;
        answer.await.unwrap().map(|fetched| fetched.batches).map_err(|failure| failure.error.code)
    }

    fn stored(&self) -> StoredCopy {
        self.disk.copies().into_iter().next().expect("the only copy")
    }

    /// What a reader of all of it ends up with.
    fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        for record in self.records() {
            let key = record.key.unwrap().to_vec();
            match record.value {
                Some(value) => drop(state.insert(key, value.to_vec())),
                None => drop(state.remove(&key)),
            }
        }
        state
    }

    fn records(&self) -> Vec<baton_core::batch::Record> {
        self.stored().batches.iter().flat_map(|b| decode_records(&b.bytes, 1 << 20).unwrap()).collect()
    }

    /// Time passes, and the shard looks at what is due.
    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.bench.shard.retain();
        self.bench.shard.compact();
        self.bench.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_deletes_up_to_any_record() {
    let mut only = Only::new(&[]).await;
    for n in 0..4 {
        only.put(n, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]).await;
    }
    assert_eq!(only.delete(Some(13)).await.unwrap_err().code, ErrorCode::OffsetOutOfRange);
    assert_eq!(only.delete(Some(0)).await, Ok(Offset(0)));
    assert_eq!(only.delete(Some(7)).await, Ok(Offset(7)));
    assert_eq!(only.delete(Some(5)).await, Ok(Offset(7)), "it never goes back");
    assert_eq!(only.read(6).await.unwrap_err(), ErrorCode::OffsetOutOfRange);
    assert_eq!(only.read(7).await.unwrap()[0].base, Offset(6), "the batch that contains it");
    assert_eq!(only.bench.partition(id(0)).replica.log_floor(), Offset(6));
    only.crash(0, &[]).await;
    let replica = &only.bench.partition(id(0)).replica;
    assert_eq!((replica.log_start(), replica.log_floor(), replica.log_end()), (Offset(7), Offset(6), Offset(12)));
    assert_eq!(only.delete(None).await, Ok(Offset(12)));
    only.crash(0, &[]).await;
    let replica = &only.bench.partition(id(0)).replica;
    assert_eq!((replica.log_start(), replica.log_end()), (Offset(12), Offset(12)));
    let known = replica.producers().get(PRODUCER).expect("it outlives its records");
    assert_eq!(known.batches().last().map(|b| b.next_sequence()), Some(12));
    only.put(9, &[("a", Some("4"))]).await;
    assert_eq!(only.stored().end, Offset(13));
}

#[tokio::test(start_paused = true)]
async fn who_compacts_only_does_not_delete() {
    let mut only = Only::new(&[("cleanup.policy", "compact")]).await;
    only.put(0, &[("a", Some("1"))]).await;
    let refused = only.delete(None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PolicyViolation);
    assert!(refused.cause.contains("set it to `compact,delete`"), "it names what to do: {}", refused.cause);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_goes_from_an_idle_log() {
    let mut only = Only::new(&[("retention.ms", "60000")]).await;
    for n in 0..10 {
        only.put(n * 10_000 + 5_000, &[("a", Some("1"))]).await;
    }
    // 120 s: records from before the first minute go.
    only.pass(Duration::from_secs(120)).await;
    assert_eq!(only.stored().start, Offset(6));
    only.pass(Duration::from_secs(600)).await;
    assert_eq!((only.stored().start, only.stored().batches.len()), (Offset(10), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_goes() {
    let mut only = Only::new(&[("retention.bytes", "1000"), ("retention.ms", "-1")]).await;
    let value = "x".repeat(400);
    for n in 0..10 {
        only.put(n, &[("a", Some(&value))]).await;
    }
    only.pass(Duration::from_secs(2)).await;
    let stored = only.stored();
    let bytes: usize = stored.batches.iter().map(|b| b.len()).sum();
    assert_eq!((stored.start, stored.batches.len()), (Offset(7), 3));
    assert!((1_000..1_500).contains(&bytes), "{bytes}");
}

const COMPACTED: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.1"), ("delete.retention.ms", "5000")];

#[tokio::test(start_paused = true)]
async fn of_every_key_the_last_record_stays() {
    let mut only = Only::new(COMPACTED).await;
    for n in 0..200 {
        let (key, value) = (format!("k{}", n % 10), format!("v{n}"));
        only.put(n, &[(&key, Some(&value))]).await;
    }
    let (state, end) = (only.state(), only.stored().end);
    only.pass(Duration::from_secs(2)).await;
    assert_eq!((only.state(), only.stored().end), (state.clone(), end));
    assert_eq!(only.records().len(), 10);
    assert_eq!(only.stored().batches.len(), 11, "and one empty batch");
    let before = only.stored().batches;
    only.pass(Duration::from_secs(2)).await;
    assert_eq!(only.stored().batches, before, "a clean log is left alone");
    // A tombstone goes when its time is over, though nothing is written any more.
    only.put(300, &[("k3", None)]).await;
    only.put(301, &[("k4", Some("new"))]).await;
    let settings = [("min.cleanable.dirty.ratio", "0"), ("cleanup.policy", "compact"), ("delete.retention.ms", "5000")];
    only.crash(0, &settings).await;
    only.pass(Duration::from_secs(2)).await;
    assert!(only.records().iter().any(|r| r.value.is_none()), "readers have to see it");
    only.pass(Duration::from_secs(3)).await;
    only.pass(Duration::from_secs(3)).await;
    assert!(only.records().iter().all(|r| r.value.is_some()));
    assert_eq!(only.state().len(), 9);
    assert_eq!(only.read(0).await.unwrap()[0].base, Offset(0), "there is no gap");
}

/// Wherever the power goes, what is left is a log without gaps that says the same.
#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_loses_nothing() {
    for steps in 0..14 {
        for kept in 0..2 {
            let mut only = Only::new(COMPACTED).await;
            let value = "x".repeat(30_000);
            for n in 0..120 {
                let key = format!("k{}", n % 7);
                only.put(n, &[(&key, Some(&value)), ("n", Some(&n.to_string()))]).await;
            }
            let (state, end) = (only.state(), only.stored().end);
            tokio::time::advance(Duration::from_secs(2)).await;
            only.bench.shard.compact();
            for _ in 0..steps {
                only.bench.complete_one().await;
            }
            only.bench.shard.end_turn();
            tokio::task::yield_now().await;
            only.crash(kept, COMPACTED).await;
            assert_eq!((only.state(), only.stored().end), (state.clone(), end));
            let mut next = Offset(0);
            for batch in only.stored().batches {
                assert_eq!(batch.base, next, "no gap");
                next = batch.end();
            }
            let replica = &only.bench.partition(id(0)).replica;
            assert!(!replica.is_damaged());
            only.put(500, &[("n", Some("last"))]).await;
            only.pass(Duration::from_secs(2)).await;
            only.pass(Duration::from_secs(2)).await;
            assert!(only.records().len() < 20, "{}", only.records().len());
        }
    }
}
