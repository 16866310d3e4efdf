//! What ZooKeeper says about a partition: the authority on who leads and who is in sync.

use crate::branches::reached;
use crate::ids::{BrokerId, CandidateSeq, DiskId, Epoch, Incarnation, Member};

/// The process that leads, down to the candidate node with which it was elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaderId {
    pub broker: BrokerId,
    pub disk: DiskId,
    pub incarnation: Incarnation,
    pub candidate: CandidateSeq,
}

/// Which brokers hold a copy, and which are joining or leaving (the coordinator writes it).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Assignment {
    /// Every broker that holds a copy, the preferred leader first; includes `adding` and `removing`.
    pub replicas: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
}

/// The data of `/p/{topic id}/{partition}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartitionState {
    pub leader: Option<LeaderId>,
    /// Set while `leader` is none: who should elect itself without waiting for its turn.
    pub hint: Option<BrokerId>,
    pub epoch: Epoch,
    pub isr: Vec<Member>,
    pub assignment: Assignment,
    /// Epochs below this one may have been abandoned with acknowledged records in them.
    pub last_unclean_epoch: Epoch,
}

/// A state together with the version of the node that held it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionedState {
    pub state: PartitionState,
    pub version: i32,
}

impl PartitionState {
    #[must_use]
    pub fn in_isr(&self, member: &Member) -> bool {
        self.isr.contains(member)
    }

    #[must_use]
    pub fn isr_member(&self, broker: BrokerId) -> Option<&Member> {
        self.isr.iter().find(|m| m.broker == broker)
    }

    /// The state after `winner` elected itself. The old leader leaves the in-sync replicas,
    /// unless it is the winner itself or that would take them below `min_insync` ★: below it
    /// a later leader could not know what the removed one had acknowledged.
    #[must_use]
    pub fn elected(&self, winner: LeaderId, min_insync: usize) -> Self {
        let old = self.leader.filter(|old| old.broker != winner.broker);
        let mut isr = self.isr.clone();
        if let Some(old) = old
            && isr.iter().any(|m| m.broker == old.broker)
            && isr.len() > min_insync
        {
            reached!("partition.old_leader_leaves");
            isr.retain(|m| m.broker != old.broker);
        }
        if old.is_some_and(|old| isr.iter().any(|m| m.broker == old.broker)) {
            reached!("partition.old_leader_kept_for_min");
        }
        Self { leader: Some(winner), hint: None, epoch: self.epoch.next(), isr, ..self.clone() }
    }
}
