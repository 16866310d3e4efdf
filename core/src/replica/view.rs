//! What others may ask a replica.

use crate::ids::{Epoch, Member, Offset, TopicPartition};
use crate::lineage::Lineage;
use crate::partition::VersionedState;
use crate::producer::ProducerTable;
use crate::replica::{LogTerm, Replica, Role, RoleView};

impl Replica {
    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    #[must_use]
    pub fn member(&self) -> Member {
        self.member
    }

    #[must_use]
    pub fn role(&self) -> RoleView {
        match &self.role {
            Role::Idle => RoleView::Idle,
            Role::Follower(f) => RoleView::Follower { leader: f.leader, greeted: f.is_ready() },
            Role::Leader(l) => RoleView::Leader { resigning: l.resigning.is_some() },
            Role::Halted(_) => RoleView::Halted,
        }
    }

    /// The highest epoch seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.highest_epoch
    }

    #[must_use]
    pub fn known(&self) -> Option<&VersionedState> {
        self.known.as_ref()
    }

    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The high watermark, once this leader knows it: until then a client must not be told
    /// where the end is, or it would see it go back.
    #[must_use]
    pub fn latest(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) if self.high_watermark >= leader.epoch_start => Some(self.high_watermark),
            _ => None,
        }
    }

    /// Whether readers may be served by this copy although another one leads (KIP-392): what
    /// lies below its high watermark stays, and being in sync it hears of what is new. One
    /// that left the in-sync replicas could keep its readers in the past.
    #[must_use]
    pub fn follows_in_sync(&self) -> bool {
        let greeted = matches!(self.role(), RoleView::Follower { greeted: true, .. });
        let known = self.known.as_ref().map(|known| &known.state);
        greeted && known.is_some_and(|state| state.epoch == self.epoch() && state.isr.contains(&self.member))
    }

    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log.start
    }

    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.log.end
    }

    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.log.durable
    }

    /// The number of the log as it is now: a truncation or a restart makes it another.
    #[must_use]
    pub fn log_term(&self) -> LogTerm {
        self.log.term
    }

    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.log.lineage
    }

    #[must_use]
    pub fn producers(&self) -> &ProducerTable {
        &self.log.producers
    }

    #[must_use]
    pub fn saved_epoch(&self) -> Epoch {
        self.saved_epoch
    }

    #[must_use]
    pub fn min_insync(&self) -> usize {
        self.min_insync
    }

    /// The copy was found damaged and has not been emptied for its refill yet.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.log.damaged
    }

    /// Its disk refused what it led a moment ago: it does not stand for election.
    #[must_use]
    pub fn yields(&self, now_ms: u64) -> bool {
        now_ms < self.yields_until_ms
    }
}
