//! Kafka's clients in a campaign: a group of readers, and transactions, all of librdkafka.
//!
//! They run in threads of their own for as long as the cluster lives, since neither a member of a
//! group nor a producer with an open transaction is whole between two windows of the other load.
//! What they see is written into books, which a round's verdict reads.
//!
//! | module | what |
//! |---|---|
//! | [`books`] | what was promised and seen, and the verdict on it |
//! | [`group`] | an idempotent producer, three members, one that watches what is committed |
//! | [`transactions`] | a transactional producer with its zombies, and a reader of what is committed |

pub mod books;
mod group;
mod transactions;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use baton_client::Admin;
use baton_client::admin::TopicSpec;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{Instant, sleep};

use self::books::{GroupBook, TransactionBook};
use super::ledger::Kafka;

const GROUP_TOPIC: &str = "group-orders";
const GROUP_PARTITIONS: i32 = 6;
const TRANSACTION_TOPIC: &str = "transfers";
const TRANSACTION_PARTITIONS: i32 = 2;
/// So soon after the end of a fault both go on again, or the round failed: librdkafka itself
/// waits up to 10 s before it connects anew.
const GOES_ON_WITHIN: Duration = Duration::from_secs(30);
const SOCKET_MS: &str = "6000";
/// How long threads may take to end, whatever their brokers do.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What the threads share.
#[derive(Default)]
struct Shared {
    group: Mutex<GroupBook>,
    transactions: Mutex<TransactionBook>,
    /// Nothing new is sent.
    full: AtomicBool,
    /// Everybody ends.
    stop: AtomicBool,
}

impl Shared {
    fn group(&self) -> MutexGuard<'_, GroupBook> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transactions(&self) -> MutexGuard<'_, TransactionBook> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sends(&self) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Kafka's clients of one cluster. They end when it is dropped.
pub struct KafkaLoad {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl Drop for KafkaLoad {
    fn drop(&mut self) {
        self.shared.full.store(true, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
        // The next cluster has the same addresses: nobody may go on there.
        let deadline = std::time::Instant::now() + ENDS_WITHIN;
        let runs = || self.senders.iter().chain(&self.readers).any(|thread| !thread.is_finished());
        while runs() && std::time::Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

impl KafkaLoad {
    /// Makes the topics, starts the clients and waits until all of them are at work.
    ///
    /// # Errors
    /// They are not within `within`.
    pub async fn start(bootstrap: &str, admin: &Admin, within: Duration) -> anyhow::Result<Self> {
        for (name, partitions) in [(GROUP_TOPIC, GROUP_PARTITIONS), (TRANSACTION_TOPIC, TRANSACTION_PARTITIONS)] {
            let partitions = u32::try_from(partitions)?;
            let spec = TopicSpec::new(name).partitions(partitions).replication(3).config("min.insync.replicas", "2");
            admin.create_topic(spec).await.context("a topic of Kafka's clients")?;
        }
        let shared = Arc::<Shared>::default();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        // Links end without a word to whom waits for an answer: unplugged brokers, and detours,
        // whose address translation goes with them. librdkafka itself would wait for a minute.
        config.set("socket.timeout.ms", SOCKET_MS);
        let (sender, mut readers) = group::start(&config, &shared)?;
        let (writer, reader) = transactions::start(&config, &shared)?;
        readers.push(reader);
        let load = Self { shared, senders: vec![sender, writer], readers };
        load.mark();
        goes_on(Arc::clone(&load.shared), within).await.context("Kafka's clients of a new cluster")?;
        Ok(load)
    }

    /// What happens from now on is looked for by [`Self::recovers`].
    pub fn mark(&self) {
        self.shared.group().mark();
        self.shared.transactions().mark();
    }

    /// Waits until the group has committed what was acknowledged since the mark in every
    /// partition, and a transaction that began since then is committed and shown. Returns after
    /// how long each was so.
    ///
    /// # Errors
    /// Something stands still: which of them.
    pub fn recovers(&self) -> impl Future<Output = anyhow::Result<(Duration, Duration)>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { goes_on(shared, GOES_ON_WITHIN).await.context("Kafka's clients after the fault") }
    }

    /// The verdict on what is complete by now: what it counts, and everything that must not be.
    #[must_use]
    pub fn judge(&self) -> (Kafka, Vec<String>) {
        let (mut kafka, mut violations) = (Kafka::default(), Vec::new());
        self.shared.group().settle(&mut kafka, &mut violations);
        self.shared.transactions().settle(&mut kafka, &mut violations);
        (kafka, violations)
    }

    /// The last verdict: nothing new is sent, and everything that was has to be there.
    ///
    /// # Errors
    /// Not everything is within `within`.
    pub async fn finish(&mut self, within: Duration) -> anyhow::Result<(Kafka, Vec<String>)> {
        let deadline = Instant::now() + within;
        self.shared.full.store(true, Ordering::Relaxed);
        while self.senders.iter().any(|thread| !thread.is_finished()) {
            ensure!(Instant::now() < deadline, "Kafka's producers do not end within {within:?}");
            sleep(POLL).await;
        }
        loop {
            let missing = (self.shared.group().missing(), self.shared.transactions().missing());
            if missing == (0, 0) {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "not read and committed: {} records, {} transactions",
                missing.0,
                missing.1
            );
            sleep(POLL).await;
        }
        let (kafka, mut violations) = self.judge();
        violations.extend(self.shared.group().left_over());
        Ok((kafka, violations))
    }
}

async fn goes_on(shared: Arc<Shared>, within: Duration) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let (mut group, mut transactions) = (None, None);
    loop {
        let so_far = began.elapsed();
        if group.is_none() && shared.group().goes_on(GROUP_PARTITIONS) {
            group = Some(so_far);
        }
        if transactions.is_none() && shared.transactions().goes_on() {
            transactions = Some(so_far);
        }
        if let (Some(group), Some(transactions)) = (group, transactions) {
            return Ok((group, transactions));
        }
        ensure!(
            so_far < within,
            "after {within:?} the group goes on: {}, transactions: {}",
            group.is_some(),
            transactions.is_some()
        );
        sleep(POLL).await;
    }
}

/// What librdkafka tells while it connects anew by itself: nothing that its user has to act on.
fn is_informational(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown))
}
