//! Records that wait for their batch to fill, by partition.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use baton_core::{
    Error, ErrorCode,
    batch::{BatchBuilder, Pushed},
    partitioner,
};
use tokio::time::Instant;

use super::delivery::{Delivery, Outcome};
use crate::{backoff::Dice, error::ClientError, record::Record};

/// A partition of one of this producer's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub topic: usize,
    pub partition: u32,
}

/// A batch that takes records.
pub(super) struct OpenBatch {
    pub id: u64,
    pub builder: BatchBuilder,
    pub outcome: Arc<Outcome>,
    pub created: Instant,
    /// Bytes of the producer's buffer that it holds.
    pub reserved: usize,
}

#[derive(Default)]
struct Slot {
    full: VecDeque<OpenBatch>,
    open: Option<OpenBatch>,
}

struct TopicSlots {
    name: Arc<str>,
    slots: Vec<Slot>,
    /// Where keyless records go until that batch is closed.
    sticky: Option<u32>,
    /// Partitions that have a leader.
    led: Vec<u32>,
}

pub(super) struct Accumulator {
    batch_bytes: usize,
    topics: Vec<TopicSlots>,
    by_name: BTreeMap<Arc<str>, usize>,
    /// Partitions that hold a batch.
    active: BTreeSet<LaneKey>,
    /// Every batch that is not done: here, on its way, or waiting for a retry.
    live: BTreeMap<u64, Arc<Outcome>>,
    next_id: u64,
}

/// When a batch is sent though it is not full.
#[derive(Clone, Copy)]
pub(super) struct Linger {
    pub now: Instant,
    /// Zero while somebody flushes or waits for room.
    pub time: Duration,
}

impl Linger {
    fn ready(self, slot: &Slot) -> bool {
        !slot.full.is_empty() || slot.open.as_ref().is_some_and(|open| open.created + self.time <= self.now)
    }
}

impl Accumulator {
    pub(super) fn new(batch_bytes: usize) -> Self {
        Self {
            batch_bytes,
            topics: Vec::new(),
            by_name: BTreeMap::new(),
            active: BTreeSet::new(),
            live: BTreeMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn topic(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Adds a topic, or partitions to it; topics are few and stay.
    pub(super) fn ensure(&mut self, name: &str, partitions: usize) -> usize {
        let index = match self.topic(name) {
            Some(index) => index,
            None => {
                let name: Arc<str> = name.into();
                self.by_name.insert(name.clone(), self.topics.len());
                self.topics.push(TopicSlots { name, slots: Vec::new(), sticky: None, led: Vec::new() });
                self.topics.len() - 1
            }
        };
        let slots = &mut self.topics[index].slots;
        slots.resize_with(partitions.max(slots.len()), Slot::default);
        index
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().map(|topic| &topic.name)
    }

    pub(super) fn name(&self, topic: usize) -> &Arc<str> {
        &self.topics[topic].name
    }

    pub(super) fn set_led(&mut self, topic: usize, led: Vec<u32>) {
        self.topics[topic].led = led;
    }

    /// Puts a record into the batch of its partition. True: a batch opened or filled up, so
    /// the sender has to look.
    pub(super) fn append(
        &mut self,
        topic: usize,
        record: &Record,
        timestamp_ms: i64,
        reserved: usize,
        now: Instant,
        dice: &Dice,
    ) -> Result<(Delivery, bool), ClientError> {
        let mut wake = false;
        loop {
            let partition = self.choose(topic, record, dice)?;
            let id = self.next_id;
            let slots = &mut self.topics[topic];
            let slot = &mut slots.slots[partition as usize];
            let opened = slot.open.is_none();
            let open = slot.open.get_or_insert_with(|| OpenBatch {
                id,
                builder: BatchBuilder::new(self.batch_bytes),
                outcome: Arc::default(),
                created: now,
                reserved: 0,
            });
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            match open.builder.push(timestamp_ms, key, value, &record.headers) {
                Ok(Pushed::Added) => {}
                Ok(Pushed::Full) => {
                    slot.full.extend(slot.open.take());
                    wake = true;
                    continue;
                }
                Err(error) => {
                    if opened {
                        slot.open = None;
                    }
                    return Err(Error::from(error).into());
                }
            }
            open.reserved += reserved;
            let index = open.builder.len() - 1;
            let outcome = open.outcome.clone();
            if opened {
                self.next_id += 1;
                self.live.insert(id, outcome.clone());
                self.active.insert(LaneKey { topic, partition });
            }
            let delivery = Delivery { outcome, topic: slots.name.clone(), partition, index };
            return Ok((delivery, wake || opened));
        }
    }

    /// The partition that is asked for, that of the key, or the one that keyless records fill
    /// just now, so that their batches are large.
    fn choose(&mut self, topic: usize, record: &Record, dice: &Dice) -> Result<u32, ClientError> {
        let topic = &mut self.topics[topic];
        let count = topic.slots.len();
        if let Some(partition) = record.partition {
            if (partition as usize) < count {
                return Ok(partition);
            }
            let cause = format!("there are {count} partitions");
            let error = Error::new(ErrorCode::UnknownPartition, cause);
            return Err(error.topic(&*topic.name).partition(partition).into());
        }
        let partitions = u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        if let Some(key) = &record.key {
            return Ok(partitioner::partition_for_key(key, partitions));
        }
        if let Some(sticky) = topic.sticky
            && topic.slots[sticky as usize].open.is_some()
        {
            return Ok(sticky);
        }
        let random = u32::try_from(dice.below(u32::MAX as usize)).unwrap_or(0);
        let chosen = partitioner::sticky_partition(random, topic.sticky, &topic.led, partitions);
        topic.sticky = Some(chosen);
        Ok(chosen)
    }

    /// The partitions with a batch to send, and when the next one will have one.
    pub(super) fn ready(&self, linger: Linger) -> (Vec<LaneKey>, Option<Instant>) {
        let (mut ready, mut next) = (Vec::new(), None);
        for key in &self.active {
            let slot = self.slot(*key);
            if linger.ready(slot) {
                ready.push(*key);
            } else if let Some(open) = &slot.open {
                let at = open.created + linger.time;
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
            }
        }
        (ready, next)
    }

    /// The oldest batch of a partition, if it is to be sent.
    pub(super) fn take(&mut self, key: LaneKey, linger: Linger) -> Option<OpenBatch> {
        if !linger.ready(self.slot(key)) {
            return None;
        }
        let slot = &mut self.topics[key.topic].slots[key.partition as usize];
        let batch = slot.full.pop_front().or_else(|| slot.open.take());
        if slot.full.is_empty() && slot.open.is_none() {
            self.active.remove(&key);
        }
        batch
    }

    /// The batches that are older than `before`, or all.
    pub(super) fn take_old(&mut self, before: Option<Instant>) -> Vec<(LaneKey, OpenBatch)> {
        let old = |batch: &OpenBatch| before.is_none_or(|before| batch.created <= before);
        let mut taken = Vec::new();
        let Self { active, topics, .. } = self;
        active.retain(|key| {
            let slot = &mut topics[key.topic].slots[key.partition as usize];
            while let Some(batch) = slot.full.pop_front_if(|batch| old(batch)) {
                taken.push((*key, batch));
            }
            if slot.full.is_empty() {
                taken.extend(slot.open.take_if(|batch| old(batch)).map(|batch| (*key, batch)));
            }
            !slot.full.is_empty() || slot.open.is_some()
        });
        taken
    }

    pub(super) fn done(&mut self, id: u64) {
        self.live.remove(&id);
    }

    pub(super) fn live(&self) -> Vec<Arc<Outcome>> {
        self.live.values().cloned().collect()
    }

    fn slot(&self, key: LaneKey) -> &Slot {
        &self.topics[key.topic].slots[key.partition as usize]
    }
}
