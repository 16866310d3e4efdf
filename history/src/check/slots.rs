//! What stands at each offset of each partition, as far as anybody said.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::ids::{EventId, PartitionId, SendId, SlotId};
use super::sends::SLOTS_MAX;

/// Offsets of one page. Pages are made as offsets are named, so that an offset far away costs one
/// page and not everything up to it.
const PAGE: usize = 64;

const NOBODY: SendId = SendId(u32::MAX);
const NEVER: EventId = EventId(u32::MAX);

/// 20 bytes an offset, of which there are ten million.
#[derive(Debug)]
struct Page {
    partition: PartitionId,
    first: u64,
    payload: [u64; PAGE],
    /// The event that first told what is there, or [`NEVER`].
    seen_in: [EventId; PAGE],
    /// The first record that was acknowledged there, or [`NOBODY`].
    acknowledged: [SendId; PAGE],
    epoch: [Option<NonZeroU32>; PAGE],
    /// A bit each: what is there is none of the history's records.
    foreign: u64,
    /// A bit each: it was told by a replica, not by a poll.
    by_replica: u64,
}

const _: () = assert!(PAGE == u64::BITS as usize, "one bit an offset");

/// What somebody found at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// None: no record of this history.
    pub payload: Option<u64>,
    pub epoch: Option<NonZeroU32>,
    pub event: EventId,
    pub by_replica: bool,
}

impl Sight {
    /// The same record, as far as both know it.
    pub fn agrees(&self, other: &Self) -> bool {
        let epochs = self.epoch.zip(other.epoch);
        self.payload == other.payload && epochs.is_none_or(|(one, another)| one == another)
    }
}

/// One offset.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub id: SlotId,
    pub offset: u64,
    pub sight: Option<Sight>,
    pub acknowledged: Option<SendId>,
}

/// All offsets that were named.
#[derive(Debug, Default)]
pub struct Slots {
    pages: Vec<Page>,
    /// By partition: the page of each multiple of [`PAGE`].
    index: Vec<BTreeMap<u64, u32>>,
    /// The page that was used last: logs are read in their order.
    last: Option<(PartitionId, u64, u32)>,
}

impl Slots {
    /// The slot of an offset; none if there are too many to count.
    pub fn at(&mut self, partition: PartitionId, offset: u64) -> Option<SlotId> {
        let (number, within) = (offset / PAGE as u64, (offset % PAGE as u64) as u32);
        let page = match self.last {
            Some((p, n, page)) if (p, n) == (partition, number) => page,
            _ => self.page(partition, number)?,
        };
        self.last = Some((partition, number, page));
        Some(SlotId(page * PAGE as u32 + within))
    }

    fn page(&mut self, partition: PartitionId, number: u64) -> Option<u32> {
        if self.index.len() <= partition.index() {
            self.index.resize_with(partition.index() + 1, BTreeMap::new);
        }
        let next = u32::try_from(self.pages.len()).ok()?;
        let pages = &mut self.index[partition.index()];
        if let Some(page) = pages.get(&number) {
            return Some(*page);
        }
        if next >= SLOTS_MAX / PAGE as u32 {
            return None;
        }
        pages.insert(number, next);
        self.pages.push(Page {
            partition,
            first: number * PAGE as u64,
            payload: [0; PAGE],
            seen_in: [NEVER; PAGE],
            acknowledged: [NOBODY; PAGE],
            epoch: [None; PAGE],
            foreign: 0,
            by_replica: 0,
        });
        Some(next)
    }

    /// Notes what somebody found. Returns what was known there before; of two different records the
    /// one of the later epoch stays, because an unclean election may have let it replace the other.
    pub fn see(&mut self, slot: SlotId, sight: Sight) -> Option<Sight> {
        let (page, at) = (&mut self.pages[slot.index() / PAGE], slot.index() % PAGE);
        let known = page.sight(at);
        match known {
            // Who was first to know the epoch tells it for all.
            Some(known) if known.agrees(&sight) => page.epoch[at] = known.epoch.or(sight.epoch),
            Some(known) if known.epoch >= sight.epoch => {}
            _ => page.set(at, sight),
        }
        known
    }

    /// Notes an acknowledgement there, unless there is one: then whose is returned.
    pub fn acknowledge(&mut self, slot: SlotId, send: SendId) -> Option<SendId> {
        let known = &mut self.pages[slot.index() / PAGE].acknowledged[slot.index() % PAGE];
        if *known == NOBODY {
            *known = send;
            return None;
        }
        Some(*known).filter(|known| *known != send)
    }

    pub fn get(&self, slot: SlotId) -> Slot {
        self.pages[slot.index() / PAGE].slot(slot.0 / PAGE as u32, slot.index() % PAGE)
    }

    pub fn partition(&self, slot: SlotId) -> PartitionId {
        self.pages[slot.index() / PAGE].partition
    }

    /// Every slot about which something is known, by offset. Pages are found through a tree of
    /// one entry for 64 offsets; within them nothing is searched.
    pub fn of(&self, partition: PartitionId) -> impl DoubleEndedIterator<Item = Slot> + '_ {
        let pages = self.index.get(partition.index()).into_iter().flat_map(|pages| pages.values());
        let slots = pages.flat_map(|page| (0..PAGE).map(|at| self.pages[*page as usize].slot(*page, at)));
        slots.filter(|slot| slot.sight.is_some() || slot.acknowledged.is_some())
    }
}

impl Page {
    fn set(&mut self, at: usize, sight: Sight) {
        let bit = |set: bool| u64::from(set) << at;
        self.payload[at] = sight.payload.unwrap_or(0);
        self.seen_in[at] = sight.event;
        self.epoch[at] = sight.epoch;
        self.foreign = self.foreign & !bit(true) | bit(sight.payload.is_none());
        self.by_replica = self.by_replica & !bit(true) | bit(sight.by_replica);
    }

    fn sight(&self, at: usize) -> Option<Sight> {
        (self.seen_in[at] != NEVER).then(|| Sight {
            payload: (self.foreign >> at & 1 == 0).then_some(self.payload[at]),
            epoch: self.epoch[at],
            event: self.seen_in[at],
            by_replica: self.by_replica >> at & 1 == 1,
        })
    }

    fn slot(&self, page: u32, at: usize) -> Slot {
        Slot {
            id: SlotId(page * PAGE as u32 + at as u32),
            offset: self.first + at as u64,
            sight: self.sight(at),
            acknowledged: Some(self.acknowledged[at]).filter(|send| *send != NOBODY),
        }
    }
}
