//! Readers who say where they stand are sent to a copy that stands there (KIP-392), which
//! spares the traffic between racks. The copy has to be in sync: another one would keep its
//! readers in the past.

use baton_core::{BrokerId, TopicPartition};

use super::address::wire_id;
use super::service::Call;
use crate::shard::Copies;

/// The first version in which readers say where they stand.
const SAYS_RACK: i16 = 11;

/// Where a reader stands, if it says so.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rack: Option<&'a str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(version: i16, rack: &'a str) -> Self {
        Self { rack: Some(rack).filter(|rack| version >= SAYS_RACK && !rack.is_empty()) }
    }

    /// Which copies may answer it.
    pub(super) fn copies(self) -> Copies {
        if self.rack.is_some() { Copies::InSync } else { Copies::Leader }
    }

    /// The broker that the reader is better served by, if there is one. Asked at the leader.
    pub(super) fn elsewhere(self, call: &Call, id: TopicPartition) -> Option<i32> {
        let rack = self.rack?;
        let parts = call.parts();
        let env = parts.env.borrow().clone();
        let stands_there = |broker: BrokerId| {
            let node = call.service.node(broker);
            node.is_some_and(|node| node.rack.as_deref() == Some(rack)) && !env.is_gone(broker)
        };
        let state = parts.view.state(id)?.state;
        if stands_there(parts.me) {
            return None;
        }
        let near: Vec<_> =
            state.isr.iter().map(|member| member.broker).filter(|broker| stands_there(*broker)).collect();
        // Several in a rack share the partitions.
        let index = usize::try_from(id.partition).ok()?.checked_rem(near.len())?;
        near.get(index).map(|broker| wire_id(*broker).0)
    }
}
