//! What has to hold after every step; a violation is a bug and stops the process.

use crate::replica::{Replica, Role};

impl Replica {
    /// Cheap enough for production: comparisons of a few numbers.
    pub(super) fn assert_invariants(&self) {
        assert!(self.log.start <= self.log.end, "the log ends before it starts: {:?}", self.id);
        assert!(self.log.floor <= self.log.start, "the first batch begins above the start: {:?}", self.id);
        assert!(self.log.start <= self.high_watermark, "uncommitted records were given up: {:?}", self.id);
        assert!(self.log.durable <= self.log.end, "durable beyond the end: {:?}", self.id);
        assert!(self.high_watermark <= self.log.end, "the high watermark lies beyond the end: {:?}", self.id);
        assert!(self.saved_epoch <= self.highest_epoch, "an epoch was saved that nobody saw: {:?}", self.id);
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(leader.epoch, self.highest_epoch, "leads in an epoch that is over: {:?}", self.id);
                assert!(leader.epoch_start <= self.log.end);
            }
            Role::Follower(follower) => {
                assert_eq!(follower.epoch, self.highest_epoch, "follows in an epoch that is over: {:?}", self.id);
                assert_ne!(follower.leader, self.member.broker, "follows itself: {:?}", self.id);
            }
            Role::Idle | Role::Halted(_) => {}
        }
    }
}
