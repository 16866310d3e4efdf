//! How far the leader may acknowledge, and show what it has.

use crate::branches::reached;
use crate::ids::Offset;
use crate::replica::{Effect, Env, Mutation, Replica, Role};

impl Replica {
    pub(super) fn own_disk_advanced(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while let Some(waiting) = leader.waiting_local.pop_front_if(|w| w.end <= self.log.durable) {
            out.push(waiting.acknowledge());
        }
        self.advance(env, out);
    }

    /// Moves the high watermark to the smallest durable end over the in-sync replicas and
    /// those of every write that may yet take effect ★, and acknowledges what lies below.
    pub(super) fn advance(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let _ = env;
        let Some(reached) = self.committed_end() else {
            return;
        };
        if reached > self.high_watermark {
            reached!("leader.high_watermark_rises");
            self.high_watermark = reached;
            self.settle_transactions();
            out.push(Effect::HighWatermark(reached));
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while let Some(waiting) = leader.waiting.pop_front_if(|w| w.end <= self.high_watermark) {
            out.push(waiting.acknowledge());
        }
    }

    /// None while nothing may be acknowledged: not the leader, too few confirmed in-sync
    /// replicas, or the own epoch is not durable yet ★.
    fn committed_end(&self) -> Option<Offset> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let saved = self.saved_epoch >= leader.epoch || self.config.lacks(Mutation::CommitBeforeEpochSaved);
        let enough = leader.confirmed(&self.config) >= self.min_insync || self.config.lacks(Mutation::CommitBelowMin);
        if !saved {
            reached!("leader.commit_waits_for_epoch_on_disk");
        } else if !enough {
            reached!("leader.commit_waits_for_min");
        }
        if self.log.changing || !saved || !enough {
            return None;
        }
        let early = self.config.lacks(Mutation::CommitBeforeFsync);
        let mut end = if early { self.log.end } else { self.log.durable };
        for member in leader.must_have(&self.config).filter(|m| **m != self.member) {
            end = end.min(leader.acked(member, &self.config)?);
        }
        Some(end)
    }
}
