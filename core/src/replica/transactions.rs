//! Batches of transactions and the markers that end them, as the leader takes them, and up to
//! where readers of what is committed may read.

use crate::batch::BatchHeader;
use crate::branches::reached;
use crate::error::ErrorCode;
use crate::ids::Offset;
use crate::replica::{Acks, Effect, Env, Mark, Produce, Refusal, Replica, Role};
use crate::transaction::message::Protocol;
use crate::transaction::partition::{Admission, Guard, MarkerVerdict};

impl Replica {
    /// A producer's batch whose sequence number is right: does its transaction allow it?
    pub(super) fn admit(
        &mut self,
        produce: Produce,
        protocol: Protocol,
        guard: Option<Guard>,
        env: &Env,
        out: &mut Vec<Effect>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let producers = &self.log.producers;
        let known = producers.get(produce.header.producer_id).is_some();
        let table = producers.transactions();
        match leader.verification.admit(table, known, &produce.header, protocol, guard) {
            Admission::Append => {
                leader.verification.began(&produce.header);
                self.append_produced(produce, env, out);
            }
            Admission::Verify(guard) => {
                reached!("leader.verifies_transaction");
                out.push(Effect::Verify { produce, guard });
            }
            Admission::Refused(code) => {
                reached!("leader.refuses_in_transaction");
                let (producer, epoch) = (produce.header.producer_id, produce.header.producer_epoch);
                let cause =
                    format!("a batch of producer {producer} in epoch {epoch} does not fit its transactions here");
                out.push(Effect::Reject { request: produce.request, why: Refusal::new(code, cause) });
            }
        }
    }

    /// The coordinator has decided a transaction that this partition is part of.
    pub(super) fn mark(&mut self, mark: Mark, env: &Env, out: &mut Vec<Effect>) {
        let Mark { request, marker, raised, wall_ms } = mark;
        if let Err(why) = self.may_accept(env) {
            return out.push(Effect::Reject { request, why });
        }
        let batch = marker.batch(wall_ms).and_then(|bytes| Ok((BatchHeader::parse(&bytes)?, bytes)));
        let (header, bytes) = match batch {
            Ok(batch) => batch,
            Err(error) => {
                let why = Refusal::new(error.code(), error.to_string());
                return out.push(Effect::Reject { request, why });
            }
        };
        let produce = Produce { request, acks: Acks::All, header, bytes, wall_ms };
        match self.log.producers.transactions().check_marker(&marker, raised) {
            MarkerVerdict::Append => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.verification.ended(&marker, raised);
                }
                self.append_produced(produce, env, out);
            }
            MarkerVerdict::Over { below } => {
                reached!("leader.marker_again");
                let last = Offset(below.0.saturating_sub(1));
                self.duplicate(&produce, last, last, out);
            }
            MarkerVerdict::Stale => {
                reached!("leader.marker_late");
                let cause = format!("producer {} has a later epoch here", marker.producer.id);
                out.push(Effect::Reject { request, why: Refusal::new(ErrorCode::InvalidProducerEpoch, cause) });
            }
            MarkerVerdict::Fenced => {
                reached!("leader.marker_fenced");
                let cause = "a later coordinator has ended a transaction of this producer here";
                out.push(Effect::Reject { request, why: Refusal::new(ErrorCode::TransactionCoordinatorFenced, cause) });
            }
        }
    }

    /// Markers that are committed and on this disk stay: nothing has to be remembered of what
    /// they ended.
    pub(super) fn settle_transactions(&mut self) {
        let settled = self.high_watermark.min(self.log.durable);
        self.log.producers.transactions_mut().committed(settled);
    }

    /// Readers of what is committed for good may see everything below it (KIP-98).
    #[must_use]
    pub fn last_stable(&self) -> Offset {
        self.log.producers.transactions().last_stable(self.high_watermark).max(self.log.start)
    }
}
