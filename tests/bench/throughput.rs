//! The speed floor: one producer at full rate against a running cluster, and what it cost.
//!
//! ```text
//! throughput --bootstrap HOST:PORT,… --topic T --partitions 12 --record-bytes 1024 \
//!            --seconds 20 --warm-up 5 [--pids 1,2,3] [--rate RECORDS_PER_S]
//! ```
//! Prints MB/s of acknowledged payload, the latency of acknowledgements, and with `--pids` the
//! servers' CPU seconds per GB (their user and system time from /proc).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton_client::{Client, ClientConfig, Delivery, ProducerConfig, Record};
use bytes::Bytes;
use clap::Parser;
use tokio::sync::mpsc;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402")]
    bootstrap: Vec<String>,
    #[arg(long, default_value = "throughput")]
    topic: String,
    #[arg(long, default_value_t = 12)]
    partitions: u32,
    #[arg(long, default_value_t = 1_024)]
    record_bytes: usize,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Records per second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    #[arg(long, default_value_t = 262_144)]
    batch_bytes: usize,
    #[arg(long, default_value_t = 5)]
    linger_ms: u64,
    /// The brokers' process ids.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

/// Ticks of /proc/PID/stat are hundredths of a second on Linux.
const TICKS_PER_S: f64 = 100.0;

fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0_u64;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        for index in [11, 12] {
            ticks += fields.get(index).context("a short stat line")?.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / TICKS_PER_S)
}

/// The same bytes for every record; what a codec could make of repetition is not measured.
fn incompressible(bytes: usize) -> Bytes {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        body.extend_from_slice(&seed.to_le_bytes());
    }
    body.truncate(bytes);
    Bytes::from(body)
}

/// Awaits every acknowledgement; returns when each was sent and how long it took, and how many
/// failed.
async fn count(
    mut delivered: mpsc::Receiver<(Instant, Delivery)>,
    acked: Arc<AtomicU64>,
) -> (Vec<(Instant, Duration)>, u64) {
    let (mut latencies, mut failed) = (Vec::new(), 0_u64);
    while let Some((sent, delivery)) = delivered.recv().await {
        match delivery.await {
            Ok(_) => {
                acked.fetch_add(1, Ordering::Relaxed);
                latencies.push((sent, sent.elapsed()));
            }
            Err(_) => failed += 1,
        }
    }
    (latencies, failed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let config = ClientConfig { bootstrap: args.bootstrap.clone(), ..ClientConfig::default() };
    let client = Client::connect(config).await?;
    let producer = client.producer(ProducerConfig {
        linger: Duration::from_millis(args.linger_ms),
        batch_bytes: args.batch_bytes,
        ..ProducerConfig::default()
    });
    let started = Instant::now();
    let warm = started + Duration::from_secs(args.warm_up);
    let end = warm + Duration::from_secs(args.seconds);
    let acked = Arc::new(AtomicU64::new(0));
    let (deliveries, delivered) = mpsc::channel(200_000);
    let counter = tokio::spawn(count(delivered, Arc::clone(&acked)));
    let body = incompressible(args.record_bytes);
    let (mut sent, mut marked) = (0_u64, None);
    while Instant::now() < end {
        if marked.is_none() && Instant::now() >= warm {
            marked = Some((acked.load(Ordering::Relaxed), cpu_seconds(&args.pids)?, Instant::now()));
        }
        if args.rate > 0 {
            let due = started + Duration::from_secs_f64(sent as f64 / args.rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        let partition = u32::try_from(sent % u64::from(args.partitions)).unwrap_or(0);
        let record = Record::new(body.clone()).partition(partition);
        let at = Instant::now();
        let delivery = producer.send(&args.topic, record).await?;
        if deliveries.send((at, delivery)).await.is_err() {
            break;
        }
        sent += 1;
    }
    let (before, cpu_before, since) = marked.context("the warm-up never ended")?;
    let done = acked.load(Ordering::Relaxed) - before;
    let took = since.elapsed().as_secs_f64();
    let cpu = cpu_seconds(&args.pids)? - cpu_before;
    drop(deliveries);
    producer.flush().await?;
    let (latencies, failed) = counter.await?;
    let mut measured: Vec<Duration> = latencies.iter().filter(|(at, _)| *at >= warm).map(|(_, l)| *l).collect();
    measured.sort_unstable();
    let at =
        |p: f64| measured.get((measured.len() as f64 * p) as usize).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let mb = done as f64 * args.record_bytes as f64 / 1e6;
    println!(
        "{:.1} MB/s, {:.0} records/s, ack p50 {:.1} ms p99 {:.1} ms max {:.1} ms, {failed} failed, {:.1} server CPU-s/GB",
        mb / took,
        done as f64 / took,
        at(0.5),
        at(0.99),
        at(0.999_999),
        if mb > 0.0 { cpu / (mb / 1e3) } else { 0.0 },
    );
    Ok(())
}
