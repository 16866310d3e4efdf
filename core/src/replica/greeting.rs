//! The leader judges the log of a follower that says hello.

use crate::branches::reached;
use crate::ids::BrokerId;
use crate::producer::ProducerTable;
use crate::replica::progress::Progress;
use crate::replica::{Effect, Env, Health, Hello, HelloReply, HelloVerdict, Message, Mutation, Replica, Role, Stream};

impl Replica {
    pub(super) fn hello(&mut self, from: BrokerId, hello: Hello, env: &Env, out: &mut Vec<Effect>) {
        if hello.epoch > self.highest_epoch && !self.config.lacks(Mutation::HelloWithoutEpoch) {
            self.fenced_by(hello.epoch, out);
        }
        if self.is_overtaken(from, &hello, env) && !self.config.lacks(Mutation::HelloOvertaken) {
            return;
        }
        let verdict = self.judge_hello(from, &hello);
        // Whatever was acknowledged before: the follower says itself what it has now.
        if let Role::Leader(leader) = &mut self.role
            && hello.epoch == leader.epoch
            && !self.config.lacks(Mutation::AckOutlivesHello)
        {
            leader.close_flow(from);
        }
        if let (HelloVerdict::Accepted { truncate_to, .. }, Role::Leader(leader)) = (&verdict, &mut self.role) {
            let earlier = leader.followers.get(&from);
            let mut progress = Progress::new(&hello, *truncate_to, self.log.end, env.now_ms).after(earlier);
            if self.config.lacks(Mutation::AckOutlivesHello) {
                progress.acked = earlier.and_then(|p| p.acked);
            }
            leader.followers.insert(from, progress);
        }
        let changed_identity = self.replaces_member(&hello);
        let reply = HelloReply { epoch: self.highest_epoch, flow: hello.flow, verdict };
        out.push(Effect::Send { to: from, stream: Stream::Live, message: Message::HelloReply(reply) });
        if changed_identity {
            reached!("leader.hello_under_another_identity");
            self.review(env, out);
        }
    }

    /// A Hello that comes after a later one of the same process, or of the process that took
    /// its place, would close a flow that the follower believes to be open.
    fn is_overtaken(&self, from: BrokerId, hello: &Hello, env: &Env) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let Some(current) = leader.followers.get(&from) else {
            return false;
        };
        if current.incarnation == hello.incarnation {
            if hello.flow <= current.flow {
                reached!("leader.hello_overtaken");
            }
            return hello.flow <= current.flow;
        }
        let dead = env.health(from) == Health::Alive(current.incarnation);
        if dead {
            reached!("leader.hello_of_dead_process");
        }
        dead
    }

    fn replaces_member(&self, hello: &Hello) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.isr.iter().any(|m| m.broker == hello.member.broker && *m != hello.member)
    }

    fn judge_hello(&self, from: BrokerId, hello: &Hello) -> HelloVerdict {
        let Role::Leader(leader) = &self.role else {
            reached!("leader.hello_while_not_leading");
            return HelloVerdict::NotYet;
        };
        let assigned = self.known.as_ref().is_some_and(|k| k.state.assignment.replicas.contains(&from));
        let any_epoch = self.config.lacks(Mutation::HelloWithoutEpoch);
        if hello.epoch < leader.epoch && !any_epoch {
            reached!("leader.hello_of_older_epoch");
            return HelloVerdict::Fenced;
        }
        if (hello.epoch != leader.epoch && !any_epoch)
            || hello.member.broker != from
            || from == self.member.broker
            || !assigned
            || self.log.changing
            || !self.may_serve(leader)
        {
            if !assigned {
                reached!("leader.hello_of_unassigned");
            } else if self.log.changing {
                reached!("leader.hello_finds_log_changing");
            } else if !self.may_serve(leader) {
                reached!("leader.hello_before_epoch_on_disk");
            }
            return HelloVerdict::NotYet;
        }
        let in_sync = leader.must_have(&self.config).any(|member| *member == hello.member)
            && !self.config.lacks(Mutation::HelloOfDamagedMember);
        if in_sync && hello.end < self.high_watermark {
            reached!("leader.hello_of_damaged_member");
            return HelloVerdict::Damaged;
        }
        let truncate_to = if hello.lineage.entries().is_empty() && hello.end <= self.log.end {
            hello.end
        } else if self.config.lacks(Mutation::SingleStepSearch) {
            let last = hello.lineage.last_epoch().unwrap_or_default();
            hello.end.min(self.log.lineage.end_of(last, self.log.end))
        } else {
            self.log.lineage.common_end(self.log.end, &hello.lineage, hello.end)
        };
        // Where this log begins it cannot compare; an in-sync replica has what was committed there.
        let truncate_to =
            if in_sync && hello.end >= self.log.start { truncate_to.max(self.log.start) } else { truncate_to };
        if in_sync && truncate_to < self.high_watermark {
            return HelloVerdict::Damaged;
        }
        if truncate_to < self.log.floor {
            reached!("leader.hello_restarts_copy");
            let start = self.log.floor;
            let forgets = self.config.lacks(Mutation::ForgetProducersBelowStart);
            let producers = if forgets { ProducerTable::default() } else { self.log.producers.before(start) };
            return HelloVerdict::RestartAt { start, producers };
        }
        if truncate_to < hello.end {
            reached!("leader.hello_truncates");
            let one_step = hello.lineage.last_epoch().map(|last| self.log.lineage.end_of(last, self.log.end));
            if one_step.is_some_and(|end| truncate_to < end.min(hello.end)) {
                reached!("leader.hello_diverged_over_several_epochs");
            }
        }
        HelloVerdict::Accepted { truncate_to, high_watermark: self.high_watermark, log_start: self.log.start }
    }
}
