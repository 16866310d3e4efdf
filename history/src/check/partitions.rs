//! What is known of each partition as a whole.

use std::collections::BTreeMap;

use super::ids::{EventId, Names, PartitionId};
use crate::event::{Final, Unclean};

/// What an operator allowed.
#[derive(Clone, Copy, Debug)]
pub struct UncleanElection {
    pub epoch: u32,
    pub at_us: u64,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub log_start: u64,
    pub end: u64,
    pub at_us: u64,
    pub event: EventId,
}

#[derive(Debug, Default)]
pub struct Partition {
    pub unclean: Vec<UncleanElection>,
    pub end: Option<End>,
    /// When somebody first was told something of an epoch, and the event.
    pub epochs: BTreeMap<u32, (u64, EventId)>,
}

impl Partition {
    pub fn tell_epoch(&mut self, epoch: u32, at_us: u64, event: EventId) {
        let first = self.epochs.entry(epoch).or_insert((at_us, event));
        *first = (*first).min((at_us, event));
    }

    /// Whether what was acknowledged, or read, in `epoch` may be lost. Without an epoch it is the
    /// time that decides; without a time, any unclean election excuses.
    pub fn may_lose(&self, epoch: Option<u32>, at_us: Option<u64>, skew_us: u64) -> bool {
        self.unclean.iter().any(|unclean| match (epoch, at_us) {
            (Some(epoch), _) => epoch < unclean.epoch,
            (None, Some(at_us)) => at_us <= unclean.at_us.saturating_add(skew_us),
            (None, None) => true,
        })
    }
}

#[derive(Debug, Default)]
pub struct Partitions {
    pub names: Names,
    pub all: Vec<Partition>,
}

impl Partitions {
    pub fn intern(&mut self, name: &str) -> PartitionId {
        let id = self.names.intern(name);
        if id as usize >= self.all.len() {
            self.all.push(Partition::default());
        }
        PartitionId(id)
    }

    pub fn get(&self, id: PartitionId) -> &Partition {
        &self.all[id.index()]
    }

    pub fn unclean(&mut self, event: &Unclean<'_>) {
        let id = self.intern(&event.partition);
        self.all[id.index()].unclean.push(UncleanElection { epoch: event.epoch, at_us: event.at_us });
    }

    pub fn end(&mut self, event: &Final<'_>, id: EventId) {
        let partition = self.intern(&event.partition);
        let end = End { log_start: event.log_start, end: event.end, at_us: event.at_us, event: id };
        let known = &mut self.all[partition.index()].end;
        if known.is_none_or(|known| known.at_us <= end.at_us) {
            *known = Some(end);
        }
    }

    pub fn ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u32::try_from(self.all.len()).unwrap_or(u32::MAX)).map(PartitionId)
    }
}
