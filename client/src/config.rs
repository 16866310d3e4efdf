//! What an application may choose. Every field has a default that suits a cluster on one site.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use baton_core::batch::Codec as Compression;

use crate::net::{Connector, TcpConnector};

/// The wall clock that stamps records, in milliseconds since 1970. Replaceable, because a
/// simulation has its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// A clock that asks `now` for milliseconds since 1970.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How a client reaches its cluster.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` of some brokers. All are tried; one that answers is enough.
    pub bootstrap: Vec<String>,
    /// Named in the brokers' logs and quotas.
    pub client_id: String,
    /// How long one TCP connection may take to open.
    pub connect_timeout: Duration,
    /// How long one request may take in all.
    pub request_timeout: Duration,
    /// A leader that leaves a request unanswered for so long is asked after at other brokers.
    /// The request stays where it is until they name a leader of a higher epoch.
    pub suspect_after: Duration,
    /// Metadata is asked for anew after this time even if nothing went wrong.
    pub metadata_max_age: Duration,
    /// How TCP connections are made.
    pub connector: Arc<dyn Connector>,
    /// Seeds every random choice; taken from the operating system if it is absent.
    pub seed: Option<u64>,
    /// Stamps the records that carry no time of their own.
    pub clock: Clock,
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::mutation::Mutation>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: [7400, 7401, 7402].map(|port| format!("127.0.0.1:{port}")).to_vec(),
            client_id: "baton-client".to_owned(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            suspect_after: Duration::from_millis(700),
            metadata_max_age: Duration::from_secs(60),
            connector: Arc::new(TcpConnector),
            seed: None,
            clock: Clock::default(),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// When a record counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Durable on every in-sync replica.
    #[default]
    All,
    /// Durable on the leader only: lost if its disk is lost before a replica has it.
    Leader,
}

/// How a producer batches, waits and gives up.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// A batch is sent when its records reach so many bytes (before compression).
    pub batch_bytes: usize,
    /// Records that are not acknowledged yet take at most so many bytes; `send` waits for room.
    pub buffer_bytes: usize,
    /// One request carries at most so many bytes, but always at least one batch.
    pub request_bytes: usize,
    /// A record that is not acknowledged after this time fails.
    pub delivery_timeout: Duration,
    pub acks: Acks,
    pub compression: Compression,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 64 << 10,
            buffer_bytes: 32 << 20,
            request_bytes: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            acks: Acks::All,
            compression: Compression::None,
        }
    }
}

/// Where a consumer goes on when its position is outside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// Report it; the application seeks.
    #[default]
    Fail,
    /// The first record that is still there.
    Start,
    /// The next record that will be written.
    End,
}

/// How a consumer fetches.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a broker may hold a fetch that finds nothing.
    pub fetch_wait: Duration,
    /// A broker answers as soon as it has so many bytes.
    pub fetch_bytes_min: u32,
    /// One answer carries at most so many bytes, but always at least one batch.
    pub fetch_bytes_max: u32,
    /// One answer carries at most so many bytes of one partition.
    pub partition_bytes_max: u32,
    /// Fetched and not yet polled: fetching stops above so many bytes.
    pub buffer_bytes: usize,
    /// The records of one batch take at most so many bytes once they are decompressed. A
    /// batch beyond it is an error of its partition: whoever wrote it may be malicious.
    pub batch_inflated_bytes_max: usize,
    /// One `poll` returns at most so many records.
    pub poll_records_max: usize,
    pub out_of_range: OutOfRange,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_min: 1,
            fetch_bytes_max: 8 << 20,
            partition_bytes_max: 1 << 20,
            buffer_bytes: 32 << 20,
            batch_inflated_bytes_max: 64 << 20,
            poll_records_max: 1000,
            out_of_range: OutOfRange::Fail,
        }
    }
}
