//! Where the log begins: the leader moves it, the others follow.
//!
//! Retention and DeleteRecords ask the leader to give up what lies below an offset. It does so
//! below its high watermark only, makes it durable, and tells its followers with everything it
//! sends. They give up the same, as far as they know it to be committed, and say so in their
//! acknowledgements. A client is told of a new start once every in-sync replica has it: whoever
//! leads later never shows what was deleted on request.

use crate::branches::reached;
use crate::ids::{BrokerId, Offset};
use crate::replica::leader::Leader;
use crate::replica::progress::Mode;
use crate::replica::{Append, Effect, LogTerm, Message, Mutation, Replica, Role, Stream};

impl Leader {
    /// What every member that may be in sync has given up, as far as this leader knows.
    fn start_everywhere(&self, own: Offset, replica: &Replica) -> Offset {
        if replica.config.lacks(Mutation::PromiseLogStartEarly) {
            return own;
        }
        let others = self.must_have(&replica.config).filter(|m| **m != replica.member);
        others.fold(own, |least, member| {
            let progress = self.followers.get(&member.broker).filter(|p| p.member == *member);
            least.min(progress.map_or(Offset::ZERO, |p| p.log_start))
        })
    }
}

impl Replica {
    /// The leader gives up what lies below `to`, an offset of any record. Asked again, it
    /// does what is still to be done.
    pub(super) fn trim(&mut self, to: Offset, out: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            self.give_up_below(to, out);
        }
    }

    /// What is not committed or not durable here cannot be given up: it may have to be cut off.
    fn give_up_below(&mut self, to: Offset, out: &mut Vec<Effect>) {
        let under_way = self.log.trimming.map_or(self.log.start, |(_, start)| start);
        let committed = self.high_watermark.min(self.log.durable);
        if to <= under_way || to > committed || self.log.changing || self.log.damaged {
            return;
        }
        self.log.trimming = Some((self.log.term, to));
        out.push(Effect::Trim { term: self.log.term, start: to });
    }

    /// An [`Effect::Trim`] is on stable storage.
    pub(super) fn trimmed(&mut self, term: LogTerm, start: Offset, floor: Offset, out: &mut Vec<Effect>) {
        // One from before the copy was emptied says nothing about the present one.
        if self.log.trimming != Some((term, start)) {
            reached!("replica.trim_of_older_copy");
            return;
        }
        reached!("replica.log_start_moves");
        self.log.trimming = None;
        self.log.start = start;
        self.log.floor = floor.min(start);
        self.log.lineage.set_start(start);
        self.log.producers.transactions_mut().log_starts_at(start);
        match &self.role {
            Role::Leader(_) => self.tell_log_start(out),
            Role::Follower(_) => {
                self.acknowledge_to_leader(out);
                self.follow_log_start(out);
            }
            Role::Idle | Role::Halted(_) => {}
        }
    }

    /// Gives up what the leader has given up, as soon as that is known to be committed.
    pub(super) fn follow_log_start(&mut self, out: &mut Vec<Effect>) {
        let Role::Follower(follower) = &self.role else { return };
        self.give_up_below(follower.leader_start, out);
    }

    /// To every follower that keeps up; the others hear of it with what they are sent.
    pub(super) fn tell_log_start(&mut self, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        let live = |(broker, p): (&BrokerId, &crate::replica::Progress)| {
            let tell = p.mode == Mode::Live && p.sent_log_start < self.log.start;
            tell.then_some(*broker)
        };
        let live: Vec<BrokerId> = leader.followers.iter().filter_map(live).collect();
        for broker in live {
            self.tell_bounds(broker, out);
        }
        self.note_log_start();
    }

    /// A message without batches: how far the high watermark is, and where the log begins.
    pub(super) fn tell_bounds(&mut self, to: BrokerId, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(&to) else { return };
        progress.sent_high_watermark = self.high_watermark;
        progress.sent_log_start = self.log.start;
        let append = Append {
            epoch: leader.epoch,
            flow: progress.flow,
            base: progress.next,
            previous_epoch: self.log.lineage.last_epoch().unwrap_or_default(),
            batches: Vec::new(),
            high_watermark: self.high_watermark,
            log_start: self.log.start,
        };
        out.push(Effect::Send { to, stream: Stream::Live, message: Message::Append(append) });
    }

    /// Whoever joins has to begin where clients were told that the log begins ★: it may lead
    /// next, and would show again what was deleted.
    pub(super) fn note_log_start(&mut self) {
        let Some(everywhere) = self.start_everywhere() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        leader.joins_from = leader.joins_from.max(everywhere);
    }

    /// The log start that outlives any clean change of the leader: what DeleteRecords may
    /// answer. None on a replica that does not lead.
    #[must_use]
    pub fn start_everywhere(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) => Some(leader.start_everywhere(self.log.start, self)),
            _ => None,
        }
    }

    /// The log start that was asked for last, durable or not: nothing below can be counted on.
    #[must_use]
    pub fn start_under_way(&self) -> Offset {
        self.log.trimming.map_or(self.log.start, |(_, start)| start.max(self.log.start))
    }

    /// Whether this very [`Effect::Trim`] is waited for.
    #[must_use]
    pub fn awaits_trim(&self, term: LogTerm, start: Offset) -> bool {
        self.log.trimming == Some((term, start))
    }

    /// The first offset of the batch that contains the log start: where a copy begins that is
    /// filled anew.
    #[must_use]
    pub fn log_floor(&self) -> Offset {
        self.log.floor
    }

    /// Compaction rewrote batches below this offset: their boundaries are not those of the
    /// leader any more.
    #[must_use]
    pub fn compacted_to(&self) -> Offset {
        self.log.compacted
    }

    pub(super) fn note_compacted(&mut self, to: Offset) {
        self.log.compacted = self.log.compacted.max(to.min(self.log.end));
    }
}
