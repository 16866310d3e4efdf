//! Batches that would open a transaction wait here while its coordinator is asked whether the
//! partition is part of it (KIP-890); and markers, which end transactions.

use std::collections::BTreeMap;

use baton_core::producer::SequencedBatch;
use baton_core::replica::{Input, Mark, Produce, Refusal};
use baton_core::transaction::Producer;
use baton_core::transaction::partition::Guard;
use baton_core::{Error, ErrorCode, TopicPartition};

use crate::shard::input::{ActiveProducer, MarkCall, VerifyCall};
use crate::shard::partition::{Partition, unknown};
use crate::shard::run::Shard;

/// What waits for coordinators, in the order in which it came.
#[derive(Default)]
pub(super) struct Verifying(BTreeMap<(TopicPartition, Guard), Vec<Produce>>);

impl Shard {
    /// The first batch of a transaction asks; those behind it wait with it.
    pub(super) fn verify(&mut self, id: TopicPartition, produce: Produce, guard: Guard) {
        let Some(pending) = self.requests.get(&produce.request) else { return };
        let Some(transaction) = pending.transaction.clone() else {
            let cause = "a batch of a transaction has to come with a transactional id";
            return self.refuse(produce.request, Refusal::new(ErrorCode::InvalidTransactionState, cause));
        };
        let producer = Producer { id: produce.header.producer_id, epoch: produce.header.producer_epoch };
        let waiting = self.verifying.0.entry((id, guard)).or_default();
        waiting.push(produce);
        if waiting.len() > 1 {
            return;
        }
        let call = VerifyCall { at: id, guard, transaction, producer };
        if self.parts.verifier.send(call).is_err() {
            let error = Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
            self.verified(id, guard, &Err(error));
        }
    }

    /// The coordinator said whether they may be appended.
    pub(super) fn verified(&mut self, id: TopicPartition, guard: Guard, result: &Result<(), Error>) {
        for produce in self.verifying.0.remove(&(id, guard)).unwrap_or_default() {
            // The partition may have been closed meanwhile, and everybody told.
            let protocol = self.requests.get(&produce.request).and_then(|pending| pending.transaction.as_ref());
            let Some(protocol) = protocol.map(|transaction| transaction.protocol) else { continue };
            match result {
                Ok(()) => self.step(id, Input::ProduceIn { produce, protocol, guard: Some(guard) }),
                Err(error) => self.refuse(produce.request, Refusal::new(error.code, error.cause.clone())),
            }
        }
    }

    pub(super) fn mark(&mut self, call: MarkCall) {
        let MarkCall { id, marker, raised, reply } = call;
        if !self.partitions.contains_key(&id) {
            return reply(Err(unknown(id)));
        }
        let request = self.request(id, None, 0, reply);
        let wall_ms = self.parts.clock.now_ms();
        self.step(id, Input::Mark(Mark { request, marker, raised, wall_ms }));
    }
}

impl Partition {
    /// Who wrote here, and which transactions are open.
    pub(super) fn active_producers(&self) -> Vec<ActiveProducer> {
        let table = self.replica.producers();
        let mut found: BTreeMap<_, _> = table
            .iter()
            .map(|(id, state)| {
                let next = state.batches().last().map(SequencedBatch::next_sequence);
                (
                    id,
                    ActiveProducer {
                        producer: Producer { id, epoch: state.epoch },
                        last_sequence: next.map(|next| if next == 0 { i32::MAX } else { next - 1 }),
                        last_timestamp_ms: Some(state.last_timestamp_ms),
                        coordinator_epoch: None,
                        open_since: None,
                    },
                )
            })
            .collect();
        for (producer, _, open_since, coordinator_epoch) in table.transactions().known() {
            let fresh = ActiveProducer {
                producer,
                last_sequence: None,
                last_timestamp_ms: None,
                coordinator_epoch: None,
                open_since: None,
            };
            let known = found.entry(producer.id).or_insert(fresh);
            (known.coordinator_epoch, known.open_since) = (coordinator_epoch, open_since);
        }
        found.into_values().collect()
    }
}
