//! Measures the log on disk: `log_bench DIRECTORY [SECONDS]`.
//!
//! For each size of batch and number of partitions, some tasks keep a few appends in flight, as
//! the shards of a broker do. A line says: durable MB/s and batches/s, batches per fsync,
//! how long an append took to become durable, CPU seconds per GB. The last lines are a single
//! caller that waits for each append: the latency of a commit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_broker::log::fjall::{DataDirectory, FjallLog, FjallOptions};
use baton_broker::log::{Append, LocalPartition, Log, StoredBatch};
use baton_core::{BrokerId, Epoch, Generation, Offset, TopicId, TopicPartition};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

const TASKS: usize = 2;
const IN_FLIGHT: usize = 8;
/// What one append carries, about.
const APPEND_BYTES: usize = 128 << 10;
const HEADER_BYTES: usize = 61;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("log_bench DIRECTORY [SECONDS]")?;
    let seconds = args.next().map_or(Ok(5), |s| s.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("batch KiB  partitions    MB/s  batches/s  per fsync   p50 ms   p99 ms  CPU-s/GB");
    for partitions in [12, 1_000] {
        for size in [1 << 10, 16 << 10, 64 << 10, 1 << 20] {
            let run = Run { size, partitions, tasks: TASKS, in_flight: IN_FLIGHT, appended: APPEND_BYTES };
            runtime.block_on(run.measure(Path::new(&path), Duration::from_secs(seconds)))?;
        }
    }
    for size in [1 << 10, 64 << 10] {
        let run = Run { size, partitions: 12, tasks: 1, in_flight: 1, appended: size };
        runtime.block_on(run.measure(Path::new(&path), Duration::from_secs(seconds)))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Run {
    size: usize,
    partitions: usize,
    tasks: usize,
    in_flight: usize,
    appended: usize,
}

impl Run {
    async fn measure(self, path: &Path, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
        let path = path.join(format!("bench-{}-{}", self.size, self.partitions));
        let directory = Arc::new(DataDirectory::lock(&path)?);
        let cluster = uuid::Uuid::from_u128(1);
        let log = Arc::new(FjallLog::open(directory, cluster, BrokerId(1), FjallOptions::default())?);
        let mut shares = vec![Vec::new(); self.tasks];
        for n in 0..self.partitions {
            let id = TopicPartition { topic: TopicId(1), partition: u32::try_from(n)? };
            shares[n % self.tasks].push(log.create(id, Generation(0), Offset(0)).await?);
        }
        let (commits, cpu, began) = (log.usage().commits, cpu_seconds()?, Instant::now());
        let tasks: Vec<_> =
            shares.into_iter().map(|share| tokio::spawn(self.append(Arc::clone(&log), share, began + time))).collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await??);
        }
        let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        let batches: usize = waits.iter().map(|(_, batches)| batches).sum();
        let bytes = (batches * self.size) as f64;
        let per_fsync = batches as f64 / (log.usage().commits - commits) as f64;
        waits.sort_unstable();
        let wait = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].0.as_secs_f64() * 1e3;
        println!(
            "{:9} {:11} {:7.0} {:10.0} {per_fsync:10.1} {:8.2} {:8.2} {:9.2}",
            self.size >> 10,
            self.partitions,
            bytes / took / 1e6,
            batches as f64 / took,
            wait(0.5),
            wait(0.99),
            cpu / (bytes / 1e9),
        );
        log.close().await?;
        drop(log);
        std::fs::remove_dir_all(&path)?;
        Ok(())
    }

    /// One task: round and round its partitions. Says how long each append took, and how many
    /// batches it had.
    async fn append(
        self,
        log: Arc<FjallLog>,
        share: Vec<LocalPartition>,
        until: Instant,
    ) -> Result<Vec<(Duration, usize)>, baton_broker::log::LogError> {
        let template = template(self.size);
        let mut ends = vec![0; share.len()];
        let (mut next, mut waits, mut flying) = (0, Vec::new(), FuturesUnordered::new());
        loop {
            let more = Instant::now() < until;
            while more && flying.len() < self.in_flight {
                let count = (self.appended / self.size).max(1);
                let mut appends = Vec::with_capacity(count);
                for _ in 0..count {
                    let batches = vec![stamp(&template, ends[next])];
                    appends.push(Append { partition: share[next], batches });
                    ends[next] += 10;
                    next = (next + 1) % share.len();
                }
                let (called, answer) = (Instant::now(), log.append(appends));
                flying.push(async move { answer.await.map(|_| (called.elapsed(), count)) });
            }
            match flying.next().await {
                Some(wait) => waits.push(wait?),
                None => return Ok(waits),
            }
        }
    }
}

/// A batch of ten records' worth of bytes that do not compress.
fn template(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size.max(HEADER_BYTES)];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes[HEADER_BYTES..]);
    let length = u32::try_from(size - 12).unwrap_or(u32::MAX);
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&1_u32.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&9_u32.to_be_bytes());
    bytes[57..61].copy_from_slice(&10_u32.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// What a leader does: the base offset is outside the checksum.
fn stamp(template: &[u8], base: u64) -> StoredBatch {
    let mut bytes = template.to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    StoredBatch {
        base: Offset(base),
        last: Offset(base + 9),
        epoch: Epoch(1),
        max_timestamp_ms: 0,
        bytes: bytes.into(),
    }
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).ok_or("no such field");
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
