//! The consumer: assigned partitions, their positions, and records fetched ahead.
//!
//! A position neither skips nor repeats a record, whichever broker leads: it moves only when
//! `poll` hands a record out, and every batch is checked to follow the one before.

mod fetcher;
mod partition;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton_core::Offset;
use futures::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::partition::Slot;
use crate::{
    client::{AbortOnDrop, Client},
    config::ConsumerConfig,
    error::ClientError,
    metadata::PartitionName,
    record::ConsumedRecord,
};

/// Where to begin to read a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that is still there.
    First,
    /// The next record that will be written.
    End,
    Offset(Offset),
    /// The first record at or after this time, in milliseconds since 1970; the end if there
    /// is none.
    Time(i64),
}

struct State {
    slots: BTreeMap<PartitionName, Slot>,
    /// Bytes that were fetched and not handed out.
    buffered: usize,
    /// Who was handed out last: the next one is the first in the next poll.
    last: Option<PartitionName>,
}

struct Inner {
    config: ConsumerConfig,
    state: Mutex<State>,
    /// The fetcher has to look.
    wanted: Notify,
    /// There is something to poll.
    arrived: Notify,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads assigned partitions.
pub struct Consumer {
    client: Client,
    inner: Arc<Inner>,
    _fetcher: AbortOnDrop,
}

impl Consumer {
    pub(crate) fn start(client: Client, config: ConsumerConfig) -> Self {
        let state = State { slots: BTreeMap::new(), buffered: 0, last: None };
        let inner = Arc::new(Inner { config, state: Mutex::new(state), wanted: Notify::new(), arrived: Notify::new() });
        let task = tokio::spawn(fetcher::run(client.shared.clone(), inner.clone()));
        Self { client, inner, _fetcher: AbortOnDrop(task) }
    }

    /// Reads these partitions too, or anew from another place.
    ///
    /// # Errors
    /// An unknown topic or partition, or no broker answers; nothing is changed then.
    pub async fn assign(&self, topic: &str, partitions: &[(u32, Start)]) -> Result<(), ClientError> {
        let count = self.client.partitions(topic).await?;
        for (partition, _) in partitions {
            if *partition >= count {
                let error = baton_core::Error::new(
                    baton_core::ErrorCode::UnknownPartition,
                    format!("there are {count} partitions"),
                );
                return Err(error.topic(topic).partition(*partition).into());
            }
        }
        let name: Arc<str> = topic.into();
        let mut state = self.inner.state();
        for (partition, start) in partitions {
            state.put((name.clone(), *partition), *start);
        }
        drop(state);
        self.inner.wanted.notify_one();
        Ok(())
    }

    /// Reads this partition too, whose topic and number somebody else has checked.
    pub(crate) fn take(&self, name: PartitionName, start: Start) {
        self.inner.state().put(name, start);
        self.inner.wanted.notify_one();
    }

    /// Reads every partition of a topic.
    ///
    /// # Errors
    /// As [`Consumer::assign`].
    pub async fn assign_all(&self, topic: &str, start: Start) -> Result<(), ClientError> {
        let count = self.client.partitions(topic).await?;
        let all: Vec<(u32, Start)> = (0..count).map(|partition| (partition, start)).collect();
        self.assign(topic, &all).await
    }

    /// Goes on from another place. What was fetched ahead is dropped.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn seek(&self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        let name: PartitionName = (topic.into(), partition);
        let mut state = self.inner.state();
        if !state.slots.contains_key(&name) {
            return Err(ClientError::Invalid(format!("{topic} partition {partition} is not assigned")));
        }
        state.put(name, start);
        drop(state);
        self.inner.wanted.notify_one();
        Ok(())
    }

    /// Reads these partitions no longer.
    pub fn unassign(&self, topic: &str, partitions: &[u32]) {
        let mut state = self.inner.state();
        for partition in partitions {
            let slot = state.slots.remove(&(topic.into(), *partition));
            state.buffered -= slot.map_or(0, |slot| slot.held());
        }
    }

    /// The next record that `poll` hands out; none before that is known.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        let state = self.inner.state();
        let slot = state.slots.get(&(topic.into(), partition))?;
        slot.start.is_none().then_some(slot.position)
    }

    /// The end of what readers may see, as the last answer of the leader told it.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<Offset> {
        self.inner.state().slots.get(&(topic.into(), partition))?.high_watermark
    }

    /// Waits until there are records, at most so long; an empty answer means that there were
    /// none in that time. Partitions take turns.
    ///
    /// # Errors
    /// What no retry can cure, once per partition, which then rests until it is sought. Other
    /// partitions are not affected: poll again.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = Instant::now() + wait;
        loop {
            let mut arrived = std::pin::pin!(self.inner.arrived.notified());
            arrived.as_mut().enable();
            let config = &self.inner.config;
            let drained = self.inner.state().drain(config.poll_records_max, config.batch_inflated_bytes_max);
            let (records, moved) = drained?;
            if moved {
                self.inner.wanted.notify_one();
            }
            if !records.is_empty() || timeout_at(deadline, arrived).await.is_err() {
                return Ok(records);
            }
        }
    }

    /// The records one by one, as long as it is read from.
    pub fn stream(&mut self) -> impl Stream<Item = Result<ConsumedRecord, ClientError>> + '_ {
        futures::stream::unfold((self, VecDeque::new()), |(consumer, mut ready)| async move {
            loop {
                if let Some(record) = ready.pop_front() {
                    return Some((Ok(record), (consumer, ready)));
                }
                match consumer.poll(Duration::from_secs(60)).await {
                    Ok(records) => ready.extend(records),
                    Err(error) => return Some((Err(error), (consumer, ready))),
                }
            }
        })
    }
}

impl State {
    fn put(&mut self, name: PartitionName, start: Start) {
        let mut slot = Slot::new(start);
        if let Some(old) = self.slots.get(&name) {
            self.buffered -= old.held();
            // A leader that was elected this moment may know a lower one than readers were told.
            slot.high_watermark = old.high_watermark;
        }
        self.slots.insert(name, slot);
    }

    /// Hands records out, each partition in its turn. True: room was made in the buffer.
    fn drain(&mut self, most: usize, inflated_max: usize) -> Result<(Vec<ConsumedRecord>, bool), ClientError> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.slots.range::<PartitionName, _>((after, Bound::Unbounded)).map(|(name, _)| name);
        let turn: Vec<PartitionName> = behind.chain(self.slots.keys()).take(self.slots.len()).cloned().collect();
        let (mut records, mut moved) = (Vec::new(), false);
        for name in turn {
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            let before = records.len();
            let freed = slot.drain(&name, most, inflated_max, &mut records);
            self.buffered -= freed;
            moved |= freed > 0;
            // Records that came before an error are handed out before it.
            if records.is_empty()
                && let Some(error) = slot.error.take()
            {
                return Err(error);
            }
            if records.len() > before {
                self.last = Some(name);
            }
            if records.len() >= most {
                break;
            }
        }
        Ok((records, moved))
    }
}
