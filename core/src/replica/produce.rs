//! The leader takes records in: assigns offsets, stores them, pushes them to the followers.

use crate::ErrorCode;
use crate::batch::{Stamp, stamp};
use crate::branches::reached;
use crate::ids::{Epoch, Offset};
use crate::producer::Verdict;
use crate::replica::leader::{Leader, Waiting};
use crate::replica::progress::Mode;
use crate::replica::{Acks, Append, Effect, Env, Message, Produce, Refusal, Replica, Role, StoredBatch, Stream};
use crate::transaction::message::Protocol;
use crate::transaction::partition::Guard;

impl Replica {
    pub(super) fn produce(
        &mut self,
        produce: Produce,
        protocol: Protocol,
        guard: Option<Guard>,
        env: &Env,
        out: &mut Vec<Effect>,
    ) {
        if let Err(why) = self.may_accept(env) {
            return out.push(Effect::Reject { request: produce.request, why });
        }
        match self.log.producers.check(&produce.header) {
            Verdict::Append if produce.header.idempotent() => self.admit(produce, protocol, guard, env, out),
            Verdict::Append => self.append_produced(produce, env, out),
            Verdict::Duplicate { base, last } => self.duplicate(&produce, base, last, out),
            refused => {
                let why = self.refusal(refused, &produce);
                out.push(Effect::Reject { request: produce.request, why });
            }
        }
    }

    fn refusal(&self, verdict: Verdict, produce: &Produce) -> Refusal {
        let (producer, sequence) = (produce.header.producer_id, produce.header.base_sequence);
        match verdict {
            Verdict::Forgotten { below } if below > self.high_watermark => {
                let cause = format!("producer {producer}'s sequence {sequence} is stored and not committed yet");
                Refusal::new(ErrorCode::RequestTimedOut, cause)
            }
            Verdict::OutOfOrder { expected } => {
                let cause = format!("producer {producer} sent sequence {sequence}, and {expected} is next");
                Refusal::new(ErrorCode::OutOfOrderSequence, cause)
            }
            Verdict::Fenced { current } => {
                let cause = format!("producer {producer} has epoch {current} by now");
                Refusal::new(ErrorCode::InvalidProducerEpoch, cause)
            }
            Verdict::Forgotten { .. } | Verdict::Append | Verdict::Duplicate { .. } => {
                let cause = format!("producer {producer}'s sequence {sequence} was stored long ago");
                Refusal::new(ErrorCode::DuplicateSequence, cause)
            }
        }
    }

    /// Refused early, before anything is stored, if it could not be acknowledged soon: fewer
    /// than min.insync replicas confirmed, or alive and not merely listed.
    pub(super) fn may_accept(&self, env: &Env) -> Result<(), Refusal> {
        let Role::Leader(leader) = &self.role else {
            reached!("leader.refuses_not_leading");
            return Err(Refusal::new(ErrorCode::NotLeader, "this broker does not lead the partition"));
        };
        if leader.resigning.is_some() {
            reached!("leader.refuses_while_resigning");
            return Err(Refusal::new(ErrorCode::NotLeader, "the leader is handing over"));
        }
        if self.log.changing {
            reached!("leader.refuses_while_cutting");
            return Err(Refusal::new(ErrorCode::NoLeader, "the leader is still cutting its log"));
        }
        if leader.waiting.len() + leader.waiting_local.len() >= self.config.pending_max {
            reached!("leader.refuses_many_waiting");
            return Err(Refusal::new(ErrorCode::Throttled, "too many requests wait for this partition"));
        }
        let alive = self.alive_in_sync(leader, env);
        if alive < self.min_insync {
            reached!("leader.refuses_few_alive");
            let cause = format!("{alive} in-sync replicas are alive and min.insync.replicas is {}", self.min_insync);
            return Err(Refusal::new(ErrorCode::NotEnoughReplicas, cause));
        }
        Ok(())
    }

    pub(super) fn alive_in_sync(&self, leader: &Leader, env: &Env) -> usize {
        leader.isr.iter().filter(|m| m.broker == self.member.broker || env.is_alive(m.broker)).count()
    }

    pub(super) fn append_produced(&mut self, produce: Produce, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let append_time_ms = self.config.log_append_time.then_some(produce.wall_ms);
        let place = Stamp { base_offset: self.log.end, leader_epoch: leader.epoch, append_time_ms };
        let (header, bytes) = match stamp(produce.bytes, place) {
            Ok(stamped) => stamped,
            Err(error) => {
                let why = Refusal::new(error.code(), error.to_string());
                return out.push(Effect::Reject { request: produce.request, why });
            }
        };
        let batch = StoredBatch {
            base: self.log.end,
            last: header.last_offset(),
            epoch: leader.epoch,
            max_timestamp_ms: header.max_timestamp_ms,
            bytes,
        };
        let waiting =
            Waiting { request: produce.request, base: batch.base, end: batch.end(), append_time_ms, duplicate: false };
        match produce.acks {
            Acks::All => leader.waiting.push_back(waiting),
            Acks::Leader => leader.waiting_local.push_back(waiting),
        }
        let previous_epoch = self.log.lineage.last_epoch().unwrap_or_default();
        self.log.lineage.record(batch.epoch, batch.base);
        self.log.producers.applied_batch(&header, batch.base, &batch.bytes);
        self.log.end = batch.end();
        // Sent before the own disk is done: the two run side by side.
        self.push_live(&batch, previous_epoch, env, out);
        out.push(Effect::Append { term: self.log.term, batches: vec![batch] });
    }

    /// To every follower that keeps up; one whose window is full is read for later.
    fn push_live(&mut self, batch: &StoredBatch, previous_epoch: Epoch, env: &Env, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        for (broker, progress) in &mut leader.followers {
            if progress.mode != Mode::Live {
                continue;
            }
            if progress.unacked_bytes() + batch.len() as u64 > self.config.window_bytes {
                reached!("leader.follower_window_full");
                progress.mode = Mode::CatchUp { reading: false };
                continue;
            }
            let append = Append {
                epoch: leader.epoch,
                flow: progress.flow,
                base: batch.base,
                previous_epoch,
                batches: vec![batch.clone()],
                high_watermark: self.high_watermark,
                log_start: self.log.start,
            };
            progress.sent(&append.batches, env.now_ms);
            progress.sent_high_watermark = self.high_watermark;
            progress.sent_log_start = self.log.start;
            out.push(Effect::Send { to: *broker, stream: Stream::Live, message: Message::Append(append) });
        }
    }

    /// Stored before: acknowledged under the same conditions as the first time.
    pub(super) fn duplicate(&mut self, produce: &Produce, base: Offset, last: Offset, out: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let waiting =
            Waiting { request: produce.request, base, end: last.plus(1), append_time_ms: None, duplicate: true };
        let (queue, safe) = match produce.acks {
            Acks::All => (&mut leader.waiting, self.high_watermark),
            Acks::Leader => (&mut leader.waiting_local, self.log.durable),
        };
        if waiting.end <= safe {
            reached!("leader.duplicate_answered");
            out.push(waiting.acknowledge());
        } else {
            reached!("leader.duplicate_waits");
            // Kept in the order of offsets: a retry may come after later batches.
            let at = queue.partition_point(|w| w.end <= waiting.end);
            queue.insert(at, waiting);
        }
    }
}
