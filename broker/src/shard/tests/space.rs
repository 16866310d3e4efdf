//! A shard on a real disk: space comes back while nobody writes, and what compaction costs.
//!
//! `BATON_MEBIBYTES=1024 cargo test -p baton-broker shard::tests::space -- --nocapture` prints
//! figures for a larger log; `-- --ignored` compares producing with and without compaction.

use std::path::Path;
use std::time::Instant;

use baton_core::batch::{BatchBuilder, BuildOptions, Codec, Pushed};
use baton_core::partition::{Assignment, PartitionState, VersionedState};
use baton_core::replica::{Acks, Input};
use tokio::sync::oneshot;

use super::*;
use crate::log::contract::id;
use crate::log::fjall::{DataDirectory, FjallLog, FjallOptions};
use crate::shard::input::ProduceCall;
use crate::shard::{CompactionConfig, RetentionConfig};

/// Keys of the compacted log.
const KEYS: u64 = 1_000;

/// Bytes of a value that no codec makes smaller.
const VALUE_BYTES: usize = 1_000;
const RECORDS_PER_BATCH: u64 = 16;

fn mebibytes(default: u64) -> u64 {
    std::env::var("BATON_MEBIBYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// A running shard with one led partition.
struct Running {
    inputs: mpsc::Sender<ShardInput>,
    status: watch::Receiver<PartitionStatus>,
    dir: tempfile::TempDir,
    noise: u64,
}

impl Running {
    async fn start(config: &[(&str, &str)], compacts: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(DataDirectory::lock(dir.path()).unwrap());
        let options = FjallOptions {
            rotate_bytes: 16 << 20,
            reserve_bytes: 0,
            reclaim_interval: Duration::from_millis(100),
            ..FjallOptions::default()
        };
        let log = Arc::new(FjallLog::open(directory, identity().cluster, identity().broker, options).unwrap());
        let (inputs, taken) = mpsc::channel(1024);
        let mut parts = parts(log);
        parts.inputs = taken;
        parts.clock = Arc::new(crate::clock::SystemClock);
        parts.retention = RetentionConfig { interval: Duration::from_millis(500) };
        let interval = if compacts { Duration::from_millis(500) } else { Duration::ZERO };
        let (bytes_per_s, map_bytes) = (16 << 20, 16 << 20);
        parts.compaction = CompactionConfig { interval, bytes_per_s, map_bytes, seed: 1 };
        let opened = open(&*parts.log, id(0), None, Mutations::default()).await.unwrap();
        crate::shard::spawn(parts);
        let (member, shown, status) = shown(opened.generation);
        let mut settings = TopicConfig { min_insync_replicas: 1, ..TopicConfig::default() };
        config.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
        let (local, recovered, meta) = (opened.local, opened.recovered, opened.meta);
        let topic = "t".into();
        let open = OpenPartition { id: id(0), topic, local, member, recovered, meta, settings, status: shown };
        inputs.send(ShardInput::Open(Box::new(open))).await.unwrap();
        let candidate = CandidateSeq(0);
        let me = LeaderId { broker: ME, disk: identity().disk, incarnation: Incarnation(7), candidate };
        let assignment = Assignment { replicas: vec![ME], ..Assignment::default() };
        let state = PartitionState {
            leader: Some(me),
            epoch: Epoch(1),
            isr: vec![member],
            assignment,
            ..PartitionState::default()
        };
        let input = Input::State(VersionedState { state, version: 1 });
        inputs.send(ShardInput::Replica { id: id(0), input }).await.unwrap();
        let mut running = Self { inputs, status, dir, noise: 9 };
        running.status.wait_for(PartitionStatus::leads).await.unwrap();
        running
    }

    fn batch(&mut self, from: u64) -> Bytes {
        let mut builder = BatchBuilder::new(1 << 20);
        for n in from..from + RECORDS_PER_BATCH {
            let mut value = Vec::with_capacity(VALUE_BYTES);
            while value.len() < VALUE_BYTES {
                self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                value.extend_from_slice(&self.noise.to_be_bytes());
            }
            let key = (n * 7_919 % KEYS).to_be_bytes();
            assert_eq!(builder.push(n as i64, Some(&key), Some(&value), &[]), Ok(Pushed::Added));
        }
        builder.build(&BuildOptions { codec: Codec::None, ..BuildOptions::default() }).unwrap()
    }

    /// Some batches under way at a time; returns the MB/s that were acknowledged.
    async fn produce(&mut self, bytes_max: u64) -> f64 {
        let (began, mut sent, mut n) = (Instant::now(), 0, 0);
        let mut answers = std::collections::VecDeque::new();
        while sent < bytes_max {
            let bytes = self.batch(n);
            n += RECORDS_PER_BATCH;
            sent += bytes.len() as u64;
            let header = BatchHeader::parse(&bytes).unwrap();
            let (reply, answer) = oneshot::channel();
            let reply = Box::new(move |result: Result<_, baton_core::Error>| drop(reply.send(result)));
            let call = ProduceCall { id: id(0), acks: Acks::All, epoch: None, transaction: None, header, bytes, reply };
            self.inputs.send(ShardInput::Produce(call)).await.unwrap();
            answers.push_back(answer);
            if answers.len() > 64 {
                answers.pop_front().unwrap().await.unwrap().unwrap();
            }
        }
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        sent as f64 / 1e6 / began.elapsed().as_secs_f64()
    }

    /// Nobody writes; waits until the directory is that small.
    async fn shrinks_below(&self, bytes: u64) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let left = disk_bytes(self.dir.path());
            if left < bytes {
                return left;
            }
            assert!(Instant::now() < deadline, "{left} bytes are left");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Gives up most of a log, or all of it, and waits until the disk shows it.
async fn gives_back(what: &str, kept: u64, give_up: impl AsyncFnOnce(&Running)) {
    let mut running = Running::start(&[("retention.ms", "-1")], true).await;
    running.produce(mebibytes(64) << 20).await;
    let (before, began) = (disk_bytes(running.dir.path()), Instant::now());
    give_up(&running).await;
    running.status.wait_for(|status| status.log_start > Offset(0)).await.unwrap();
    // The store keeps 32 MiB for its next journal, and files of which the half is in use.
    let after = running.shrinks_below(2 * kept + (36 << 20)).await;
    println!("{what}: {} MiB before, {} MiB after {:?}", before >> 20, after >> 20, began.elapsed());
}

impl Running {
    async fn retain(&self, ms: Option<u64>, bytes: Option<u64>) {
        let settings =
            TopicConfig { min_insync_replicas: 1, retention_ms: ms, retention_bytes: bytes, ..TopicConfig::default() };
        self.inputs.send(ShardInput::Settings { id: id(0), settings }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_gives_back_what_is_too_much() {
    let kept = mebibytes(64) << 17;
    gives_back("by size", kept, async |running| running.retain(None, Some(kept)).await).await;
}

/// The records say that they are of 1970.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_gives_back_what_is_too_old() {
    gives_back("by age", 0, async |running| running.retain(Some(1_000), None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_gives_back_what_is_deleted() {
    gives_back("on request", 0, async |running| {
        let (reply, answer) = oneshot::channel();
        running.inputs.send(ShardInput::DeleteRecords { id: id(0), before: None, reply }).await.unwrap();
        answer.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_gives_back_what_is_compacted() {
    let mut running = Running::start(&[("cleanup.policy", "compact")], true).await;
    running.produce(mebibytes(64) << 20).await;
    let (before, began) = (disk_bytes(running.dir.path()), Instant::now());
    // The store keeps 32 MiB for its next journal.
    let after = running.shrinks_below(40 << 20).await;
    println!("compaction: {} MiB before, {} MiB after {:?}", before >> 20, after >> 20, began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn producing_beside_compaction() {
    for round in 0..3 {
        for compacts in [false, true] {
            let config = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.1")];
            let mut running = Running::start(&config, compacts).await;
            let rate = running.produce(mebibytes(512) << 20).await;
            println!("round {round}, compaction {compacts}: {rate:.0} MB/s");
        }
    }
}
