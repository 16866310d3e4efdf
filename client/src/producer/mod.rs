//! The producer: records in, acknowledgements out, each record stored once and in order.
//!
//! ```text
//! send ─▶ accumulator (one open batch per partition) ─▶ sender (one task) ─▶ lane (order, retries)
//!                                                          │                      │
//!                                       acknowledgements ◀─┴─ stream per broker ◀─┘
//! ```

mod accumulator;
mod delivery;
mod lane;
mod sender;
mod stream;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};

pub use self::delivery::Delivery;
use self::{
    accumulator::{Accumulator, Linger},
    delivery::{Outcome, Stored},
};
use crate::{
    client::{AbortOnDrop, Client},
    config::ProducerConfig,
    error::ClientError,
    record::Record,
};

/// What `send` and the sender's task share.
struct Inner {
    config: ProducerConfig,
    accumulator: Mutex<Accumulator>,
    /// Free bytes of the buffer.
    room: Semaphore,
    /// The sender has to look at the accumulator.
    wake: Notify,
    /// While somebody flushes or waits for room, batches do not wait for more records.
    hurry: AtomicUsize,
    closed: AtomicBool,
}

impl Inner {
    fn accumulator(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn linger(&self, now: Instant) -> Linger {
        let hurry = self.hurry.load(Ordering::Acquire) > 0;
        Linger { now, time: if hurry { Duration::ZERO } else { self.config.linger } }
    }

    /// The end of a batch: its buffer is free, and all who wait for it know.
    fn done(&self, id: u64, reserved: usize, outcome: &Outcome, result: Result<Stored, ClientError>) {
        self.accumulator().done(id);
        outcome.set(result);
        self.room.add_permits(reserved);
    }
}

/// While it lives, batches do not wait for more records.
struct Hurry<'a>(&'a Inner);

impl<'a> Hurry<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.hurry.fetch_add(1, Ordering::AcqRel);
        inner.wake.notify_one();
        Self(inner)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurry.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends records; clones share one buffer, one producer id and one task.
#[derive(Clone)]
pub struct Producer {
    client: Client,
    inner: Arc<Inner>,
    _sender: Arc<AbortOnDrop>,
}

impl Producer {
    pub(crate) fn start(client: Client, config: ProducerConfig) -> Self {
        let room = config.buffer_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let inner = Arc::new(Inner {
            accumulator: Mutex::new(Accumulator::new(config.batch_bytes)),
            room: Semaphore::new(room),
            wake: Notify::new(),
            hurry: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            config: ProducerConfig { buffer_bytes: room, ..config },
        });
        let task = tokio::spawn(sender::run(client.shared.clone(), inner.clone()));
        Self { client, inner, _sender: Arc::new(AbortOnDrop(task)) }
    }

    /// Puts a record into its batch, and waits for room in the buffer if there is none. The
    /// answer is awaited through the [`Delivery`], so that many records can be on their way.
    /// Records that one caller sends to one partition keep their order.
    ///
    /// # Errors
    /// An unknown topic or partition, a record larger than the buffer, no broker that answers,
    /// no room within the delivery timeout, or the producer is closed.
    pub async fn send(&self, topic: &str, record: Record) -> Result<Delivery, ClientError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(ClientError::Closed);
        }
        let known = self.inner.accumulator().topic(topic);
        let index = match known {
            Some(index) => index,
            None => self.learn_topic(topic).await?,
        };
        let (bytes, limit) = (record.size_max(), self.inner.config.buffer_bytes);
        if bytes > limit {
            return Err(ClientError::RecordTooLarge { bytes, limit });
        }
        self.reserve(bytes).await?;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.client.shared.config.clock.now_ms());
        let appended = {
            let mut accumulator = self.inner.accumulator();
            // Checked under the lock that closing takes too: nothing slips in behind it.
            if self.inner.closed.load(Ordering::Acquire) {
                Err(ClientError::Closed)
            } else {
                accumulator.append(index, &record, timestamp_ms, bytes, Instant::now(), &self.client.shared.dice)
            }
        };
        match appended {
            Ok((delivery, wake)) => {
                if wake {
                    self.inner.wake.notify_one();
                }
                Ok(delivery)
            }
            Err(error) => {
                self.inner.room.add_permits(bytes);
                Err(error)
            }
        }
    }

    /// Waits until everything that was sent before is acknowledged or has failed.
    ///
    /// # Errors
    /// The first failure among the records that were under way when it was called.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let live = self.inner.accumulator().live();
        let _hurry = Hurry::new(&self.inner);
        let mut first = Ok(());
        for outcome in live {
            let result = outcome.wait().await;
            if first.is_ok() {
                first = result.map(|_| ());
            }
        }
        first
    }

    /// Takes no more records, flushes, and gives up what is not acknowledged in time.
    ///
    /// # Errors
    /// As [`Producer::flush`]; what was given up says so too.
    pub async fn close(&self, within: Duration) -> Result<(), ClientError> {
        {
            let _accumulator = self.inner.accumulator();
            self.inner.closed.store(true, Ordering::Release);
        }
        let flushed = timeout(within, self.flush()).await;
        self.inner.room.close();
        self.inner.wake.notify_one();
        match flushed {
            Ok(flushed) => flushed,
            Err(_) => Err(ClientError::TimedOut { what: "closing the producer".to_owned(), after: within, last: None }),
        }
    }

    /// Bytes of the buffer that are free.
    #[must_use]
    pub fn room(&self) -> usize {
        self.inner.room.available_permits()
    }

    async fn learn_topic(&self, topic: &str) -> Result<usize, ClientError> {
        let partitions = self.client.shared.topic(topic).await?;
        let view = self.client.shared.metadata.view();
        let mut accumulator = self.inner.accumulator();
        let index = accumulator.ensure(topic, partitions);
        accumulator.set_led(index, sender::led(&view, topic));
        Ok(index)
    }

    /// Takes bytes from the buffer; waits in line if there are too few.
    async fn reserve(&self, bytes: usize) -> Result<(), ClientError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = self.inner.room.try_acquire_many(permits) {
            permit.forget();
            return Ok(());
        }
        let _hurry = Hurry::new(&self.inner);
        let limit = self.inner.config.delivery_timeout;
        match timeout(limit, self.inner.room.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::TimedOut {
                what: "waiting for room in the buffer".to_owned(),
                after: limit,
                last: None,
            }),
        }
    }
}
