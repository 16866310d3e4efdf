//! `baton produce`

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use baton_client::{Acks, ClientError, Compression, Delivery, Header, Producer, ProducerConfig, Record};
use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    failure::{Failure, Outcome},
    lines,
    options::Options,
    output,
};

/// Records that wait for their acknowledgement here; the producer's buffer bounds them too.
const WAITING_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Durability {
    /// Stored on every in-sync replica
    All,
    /// Stored on the leader only; lost if its disk is lost before a replica has it
    Leader,
}

#[derive(Debug, ClapArgs)]
pub struct Args {
    topic: String,
    /// Splits a line into key and value at its first occurrence; a line without it has no key
    #[arg(long, env = "BATON_PRODUCE_KEY_DELIMITER", value_name = "TEXT")]
    key_delimiter: Option<String>,
    /// Where all records go [default: by key, or spread evenly]
    #[arg(long, env = "BATON_PRODUCE_PARTITION", value_name = "N")]
    partition: Option<u32>,
    /// When a record counts as stored
    #[arg(long, env = "BATON_PRODUCE_ACKS", value_enum, default_value = "all")]
    acks: Durability,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, env = "BATON_PRODUCE_COMPRESSION", default_value = "none", value_name = "CODEC")]
    compression: Compression,
    /// How long a batch waits for more records
    #[arg(long, env = "BATON_PRODUCE_LINGER", value_parser = humantime::parse_duration, default_value = "5ms",
          value_name = "DURATION")]
    linger: Duration,
    /// How large a batch gets before it is sent
    #[arg(long, env = "BATON_PRODUCE_BATCH_BYTES", default_value_t = 64 << 10, value_name = "BYTES")]
    batch_bytes: usize,
    /// How long a record may take to be acknowledged before it counts as failed
    #[arg(long, env = "BATON_PRODUCE_DELIVERY_TIMEOUT", value_parser = humantime::parse_duration,
          default_value = "120s", value_name = "DURATION")]
    delivery_timeout: Duration,
    /// A header of every record; may be repeated
    #[arg(long, env = "BATON_PRODUCE_HEADER", value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<Header>,
}

fn header(text: &str) -> Result<Header, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form NAME=VALUE"))?;
    let (key, value) = (Bytes::from(key.to_owned()), Some(Bytes::from(value.to_owned())));
    Ok(Header { key, value })
}

/// What became of the records.
#[derive(Default)]
struct Tally {
    acknowledged: u64,
    failed: u64,
    maybe_stored: u64,
    /// Per partition: how many, the first and the last offset.
    partitions: BTreeMap<u32, (u64, u64, u64)>,
    first_error: Option<ClientError>,
}

impl Tally {
    fn failed(&mut self, error: ClientError) {
        self.failed += 1;
        self.maybe_stored += u64::from(error.maybe_stored());
        self.first_error.get_or_insert(error);
    }

    async fn count(&mut self, delivery: Delivery) {
        match delivery.wait().await {
            Ok(stored) => {
                self.acknowledged += 1;
                let offset = stored.offset.0;
                let entry = self.partitions.entry(stored.partition).or_insert((0, offset, offset));
                *entry = (entry.0 + 1, entry.1.min(offset), entry.2.max(offset));
            }
            Err(error) => self.failed(error),
        }
    }
}

pub async fn run(options: &Options, args: Args) -> Outcome {
    let started = Instant::now();
    let client = options.connect().await?;
    check(args.partition, client.partitions(&args.topic).await?, &args.topic)?;
    let producer = client.producer(ProducerConfig {
        linger: args.linger,
        batch_bytes: args.batch_bytes,
        delivery_timeout: args.delivery_timeout,
        compression: args.compression,
        acks: match args.acks {
            Durability::All => Acks::All,
            Durability::Leader => Acks::Leader,
        },
        ..ProducerConfig::default()
    });
    let progress = progress(options);
    let (deliveries, waiting) = mpsc::channel(WAITING_MAX);
    let counting = tokio::spawn(count(waiting, progress.clone()));
    let sent = send(&args, &producer, &deliveries).await;
    drop(deliveries);
    // Everything that was sent is acknowledged or fails within the delivery timeout.
    let closing = producer.close(args.delivery_timeout + Duration::from_secs(1));
    let interrupted = tokio::select! {
        _ = closing => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    // Without the producer, what is still on its way fails: nothing is waited for any longer.
    drop(producer);
    let mut tally = counting.await.map_err(io::Error::other)?;
    progress.finish_and_clear();
    let (bytes, ended) = match sent {
        Ok(sent) => sent,
        Err((bytes, error)) => {
            tally.failed(error);
            (bytes, Ended::AtError)
        }
    };
    summary(options, &tally, bytes, started.elapsed())?;
    verdict(&tally, interrupted, ended)
}

fn check(partition: Option<u32>, count: u32, topic: &str) -> Outcome {
    match partition {
        Some(partition) if partition >= count => {
            let cause = format!("there are {count} partitions");
            let error = baton_client::Error::new(baton_client::ErrorCode::UnknownPartition, cause);
            Err(ClientError::from(error.topic(topic).partition(partition)).into())
        }
        _ => Ok(()),
    }
}

/// Why no more lines were read.
#[derive(PartialEq, Eq)]
enum Ended {
    AtEnd,
    Interrupted,
    Unread(String),
    AtError,
}

/// Sends every line; returns how many bytes, and why it ended.
async fn send(
    args: &Args,
    producer: &Producer,
    deliveries: &mpsc::Sender<Delivery>,
) -> Result<(u64, Ended), (u64, ClientError)> {
    let mut groups = lines::read(io::stdin());
    let mut bytes = 0;
    loop {
        let group = tokio::select! {
            group = groups.recv() => group,
            _ = tokio::signal::ctrl_c() => return Ok((bytes, Ended::Interrupted)),
        };
        let lines = match group {
            None => return Ok((bytes, Ended::AtEnd)),
            Some(Err(error)) => return Ok((bytes, Ended::Unread(error.to_string()))),
            Some(Ok(lines)) => lines,
        };
        for line in lines {
            bytes += line.len() as u64;
            let delivery = producer.send(&args.topic, record(args, line)).await.map_err(|error| (bytes, error))?;
            if deliveries.send(delivery).await.is_err() {
                return Ok((bytes, Ended::AtEnd));
            }
        }
    }
}

fn record(args: &Args, line: Vec<u8>) -> Record {
    let line = Bytes::from(line);
    let (key, value) = match args.key_delimiter.as_deref().and_then(|delimiter| split(&line, delimiter.as_bytes())) {
        Some((key, value)) => (Some(key), value),
        None => (None, line),
    };
    Record { key, value: Some(value), headers: args.header.clone(), timestamp_ms: None, partition: args.partition }
}

/// Key and value around the first occurrence of the delimiter.
fn split(line: &Bytes, delimiter: &[u8]) -> Option<(Bytes, Bytes)> {
    let at = line.windows(delimiter.len().max(1)).position(|window| window == delimiter)?;
    Some((line.slice(..at), line.slice(at + delimiter.len()..)))
}

async fn count(mut waiting: mpsc::Receiver<Delivery>, progress: ProgressBar) -> Tally {
    let mut tally = Tally::default();
    while let Some(delivery) = waiting.recv().await {
        tally.count(delivery).await;
        if tally.acknowledged % 256 == 0 {
            progress.set_position(tally.acknowledged);
        }
    }
    tally
}

/// A line on the standard error, if that is a terminal.
fn progress(options: &Options) -> ProgressBar {
    if options.json() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} acknowledged, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn summary(options: &Options, tally: &Tally, bytes: u64, elapsed: Duration) -> Outcome {
    let Tally { acknowledged, failed, maybe_stored, partitions, .. } = tally;
    if !options.json() {
        let seconds = elapsed.as_secs_f64().max(0.001);
        eprintln!("{acknowledged} records acknowledged in {seconds:.1} s");
        return Ok(());
    }
    let partitions: Vec<Value> = partitions
        .iter()
        .map(|(partition, (records, first, last))| {
            json!({"partition": partition, "records": records, "first_offset": first, "last_offset": last})
        })
        .collect();
    output::json(&json!({
        "acknowledged": acknowledged,
        "failed": failed,
        "maybe_stored": maybe_stored,
        "bytes": bytes,
        "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "partitions": partitions,
    }))
}

fn verdict(tally: &Tally, interrupted: bool, ended: Ended) -> Outcome {
    if tally.failed > 0 {
        let first = tally.first_error.as_ref().map(|error| format!("; first: {error}")).unwrap_or_default();
        let maybe = match tally.maybe_stored {
            0 => "none of them is stored".to_owned(),
            n => format!("{n} of them may be stored"),
        };
        return Err(Failure::Failed(format!("{} records were not acknowledged, {maybe}{first}", tally.failed)));
    }
    match ended {
        Ended::Unread(error) => {
            Err(Failure::Failed(format!("the standard input could not be read to its end: {error}")))
        }
        Ended::Interrupted => Err(Failure::Failed("interrupted; what was read before is acknowledged".to_owned())),
        Ended::AtEnd | Ended::AtError if interrupted => Err(Failure::Failed("interrupted".to_owned())),
        Ended::AtEnd | Ended::AtError => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_the_first_delimiter() {
        let of = |line: &'static str, delimiter: &str| split(&Bytes::from(line), delimiter.as_bytes());
        assert_eq!(of("k:v:w", ":"), Some(("k".into(), "v:w".into())));
        assert_eq!(of(":v", ":"), Some(("".into(), "v".into())));
        assert_eq!(of("k=>", "=>"), Some(("k".into(), "".into())));
        assert_eq!(of("no key", ":"), None);
        assert_eq!(of("", ":"), None);
        assert_eq!(of("text", ""), None);
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(header("a=b=c").unwrap().value.unwrap(), "b=c");
        assert!(header("a").is_err());
    }
}
