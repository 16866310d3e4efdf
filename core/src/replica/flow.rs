//! The flows from the leader to its followers: acknowledgements, live batches, catching up.

use crate::branches::reached;
use crate::ids::{BrokerId, Epoch, Offset};
use crate::replica::progress::Mode;
use crate::replica::{Ack, Append, Effect, Env, Flow, Message, Mutation, Replica, Role, StoredBatch, Stream};

impl Replica {
    /// Counts only if the epoch is equal, and flow, disk, generation and incarnation are those
    /// of the Hello ★.
    pub(super) fn ack(&mut self, from: BrokerId, ack: Ack, env: &Env, out: &mut Vec<Effect>) {
        let any_epoch = self.config.lacks(Mutation::AckWithoutEpoch);
        let any_flow = self.config.lacks(Mutation::AckWithoutFlow);
        let any_process = self.config.lacks(Mutation::AckFromAnotherIncarnation);
        let any_disk = self.config.lacks(Mutation::AckFromAnotherDisk);
        if ack.epoch > self.highest_epoch && !any_epoch {
            return self.fenced_by(ack.epoch, out);
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if ack.epoch != leader.epoch && !any_epoch {
            reached!("leader.ack_of_older_epoch");
            return;
        }
        let Some(progress) = leader.followers.get_mut(&from) else {
            return;
        };
        let same = (progress.flow == ack.flow || any_flow)
            && (progress.member == ack.member || any_disk)
            && (progress.incarnation == ack.incarnation || any_process);
        let beyond = ack.durable_end > progress.next && !self.config.lacks(Mutation::AckBeyondSent);
        let closed = progress.mode == Mode::Closed && !self.config.lacks(Mutation::AckWhileClosed);
        if !same || beyond || closed {
            if !same {
                reached!("leader.ack_of_another_flow");
            } else if closed {
                reached!("leader.ack_while_closed");
            } else {
                reached!("leader.ack_beyond_what_was_sent");
            }
            return;
        }
        if progress.mode == Mode::Greeting {
            progress.mode = Mode::CatchUp { reading: false };
        }
        let news = progress.acknowledged(ack.durable_end, self.log.end, env.now_ms);
        progress.log_start = progress.log_start.max(ack.log_start);
        let outside = !leader.isr.contains(&ack.member);
        if !outside {
            leader.contact_ms = env.now_ms;
        }
        self.note_log_start();
        self.pump(from, out);
        if news {
            self.advance(env, out);
        }
        if outside || matches!(&self.role, Role::Leader(l) if l.resigning.is_some()) {
            self.review(env, out);
        }
    }

    /// Gives a follower that is behind its next piece, one at a time, or makes it live.
    pub(super) fn pump(&mut self, to: BrokerId, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.followers.get_mut(&to) else {
            return;
        };
        if progress.mode != (Mode::CatchUp { reading: false }) || !progress.drained() {
            return;
        }
        if progress.next >= self.log.end {
            reached!("leader.follower_becomes_live");
            progress.mode = Mode::Live;
            return;
        }
        reached!("leader.follower_reads_from_log");
        progress.mode = Mode::CatchUp { reading: true };
        out.push(Effect::ReadForFollower {
            to,
            flow: progress.flow,
            from: progress.next,
            max_bytes: self.config.catch_up_bytes,
        });
    }

    pub(super) fn read_for_follower(
        &mut self,
        to: BrokerId,
        flow: Flow,
        batches: Vec<StoredBatch>,
        env: &Env,
        out: &mut Vec<Effect>,
    ) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.followers.get_mut(&to).filter(|p| p.flow == flow) else {
            return;
        };
        if progress.mode != (Mode::CatchUp { reading: true }) {
            return;
        }
        progress.mode = Mode::CatchUp { reading: false };
        let next = progress.next;
        let Some(first) = batches.first() else {
            if next < self.log.floor {
                reached!("leader.read_found_log_moved");
                // Retention went past the follower: it has to begin anew.
                leader.close_flow(to);
                self.announce_to(to, out);
            }
            return;
        };
        let previous = next.0.checked_sub(1).and_then(|last| self.log.lineage.at(Offset(last)));
        if first.base != next || batches.windows(2).any(|w| w[0].end() != w[1].base) {
            leader.close_flow(to);
            return self.announce_to(to, out);
        }
        progress.sent(&batches, env.now_ms);
        progress.sent_high_watermark = self.high_watermark;
        progress.sent_log_start = self.log.start;
        // What was sent before is acknowledged, so nothing can be overtaken by the live stream.
        let stream = if progress.next == self.log.end { Stream::Live } else { Stream::CatchUp };
        if stream == Stream::Live {
            progress.mode = Mode::Live;
        }
        let append = Append {
            epoch: leader.epoch,
            flow,
            base: next,
            previous_epoch: previous.map_or(Epoch::NONE, |(epoch, _)| epoch),
            batches,
            high_watermark: self.high_watermark,
            log_start: self.log.start,
        };
        out.push(Effect::Send { to, stream, message: Message::Append(append) });
    }

    /// A flow in which something got lost without a reset of its link would stand still for
    /// ever, and with it the partition: its follower greets again.
    fn give_up_stuck_flows(&mut self, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let mut stuck = Vec::new();
        for (broker, progress) in &mut leader.followers {
            if progress.stands_still(env.now_ms, self.config.lag_max_ms) {
                reached!("leader.flow_stands_still");
                progress.give_up_flow();
                stuck.push(*broker);
            }
        }
        for broker in stuck {
            self.announce_to(broker, out);
        }
    }

    /// Whether what was read for this flow would be of use.
    #[must_use]
    pub fn awaits_read(&self, to: BrokerId, flow: Flow) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.followers.get(&to).is_some_and(|p| p.flow == flow && p.mode == Mode::CatchUp { reading: true })
    }

    /// Tells idle followers how far the high watermark is, and prods whoever stands still.
    pub(super) fn leader_tick(&mut self, env: &Env, out: &mut Vec<Effect>) {
        self.give_up_stuck_flows(env, out);
        let end = self.log.end;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let (mut behind, mut tell) = (Vec::new(), Vec::new());
        for (broker, progress) in &mut leader.followers {
            progress.note_lag(end, env.now_ms);
            behind.push(*broker);
            let knows =
                progress.sent_high_watermark >= self.high_watermark && progress.sent_log_start >= self.log.start;
            if progress.mode == Mode::Live && progress.drained() && !knows {
                reached!("leader.tells_high_watermark");
                tell.push(*broker);
            }
        }
        for broker in tell {
            self.tell_bounds(broker, out);
        }
        for broker in behind {
            self.pump(broker, out);
        }
        self.check_isolation(env, out);
        self.review(env, out);
    }
}
