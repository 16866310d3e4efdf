//! A coordinator takes over: it reads what is in the log.

use super::GroupCoordinator;
use super::Mutation;
use super::classic::Group;
use super::record::GroupRecord;
use crate::ids::{ProducerEpoch, ProducerId};

impl GroupCoordinator {
    /// One record of the partition, in the order of the log, before anything else is taken in.
    /// What of a transaction it belongs to is told by [`super::Input::TransactionEnded`] between the
    /// records. Limits do not apply: what was stored is kept.
    pub fn replay(&mut self, now_ms: i64, record: GroupRecord, transaction: Option<(ProducerId, ProducerEpoch)>) {
        let name = match &record {
            GroupRecord::Group { group, .. } | GroupRecord::Offset { group, .. } => group.clone(),
        };
        let group = self.groups.entry(name.clone()).or_insert_with_key(|name| Group::new(name.clone(), now_ms));
        match record {
            GroupRecord::Group { metadata, .. } => group.restore(metadata.as_ref(), now_ms),
            GroupRecord::Offset { committed: Some(_), .. } if self.settings.lacks(Mutation::ForgetOffsets) => {}
            GroupRecord::Offset { at, committed: Some(committed), .. } => {
                group.take_offset(at, committed, transaction);
            }
            GroupRecord::Offset { at, committed: None, .. } => group.offsets.remove(at),
        }
        self.settle(&name);
    }

    /// Everything was read. Sessions begin now, so that nobody is taken for dead because the
    /// reading took long.
    pub fn loaded(&mut self, now_ms: i64) {
        for group in self.groups.values_mut() {
            group.touch_all(now_ms);
        }
        let names: Vec<_> = self.groups.keys().cloned().collect();
        for name in names {
            self.settle(&name);
        }
    }
}
