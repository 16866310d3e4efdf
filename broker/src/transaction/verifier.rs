//! Asks the coordinators of transactions for the shards: may this partition take the first
//! batch of this transaction?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::transaction::{Producer, Protocol};
use baton_core::{Error, ErrorCode, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::shard::{InTransaction, ShardInput, Shards, VerifyCall};
use crate::transaction::{Asked, PeerCalls, Transactions};

/// How long one question may take; then the client has to send its batch again.
const WITHIN: Duration = Duration::from_secs(3);

/// Questions on their way at once; others wait.
const UNDER_WAY_MAX: usize = 1_000;

/// What the task is made of.
pub struct Verifier {
    pub transactions: Transactions,
    pub peers: Arc<PeerCalls>,
    pub shards: Shards,
    /// Not bounded by itself: a shard asks once for each producer of a partition, of which a
    /// partition has a bounded number, and none before it has answered a request that admission
    /// let in.
    pub asked: mpsc::UnboundedReceiver<VerifyCall>,
}

impl Verifier {
    /// Answers until the broker stops.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            let room = running.len() < UNDER_WAY_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(_) = running.join_next(), if !running.is_empty() => {}
                call = self.asked.recv(), if room => match call {
                    Some(call) => {
                        let (transactions, peers) = (self.transactions.clone(), Arc::clone(&self.peers));
                        running.spawn(answer(transactions, peers, self.shards.clone(), call));
                    }
                    None => return,
                },
            }
        }
    }
}

async fn answer(transactions: Transactions, peers: Arc<PeerCalls>, shards: Shards, call: VerifyCall) {
    let VerifyCall { at, guard, transaction, producer } = call;
    let deadline = Instant::now() + WITHIN;
    let InTransaction { id, protocol } = &transaction;
    let add = *protocol == Protocol::Second;
    let asked = match transactions.leader_of(id).flatten() {
        Some(leader) if leader == transactions.me() => join(&transactions, id, producer, at, add, deadline).await,
        Some(leader) => peers.join_transaction(leader, id, producer, at, add, deadline).await,
        None => Err(Error::new(ErrorCode::CoordinatorUnavailable, "nobody coordinates the transaction at the moment")),
    };
    let result = asked.map_err(|error| passed_on(error, *protocol));
    shards.tell(at, ShardInput::Verified { id: at, guard, result }).await;
}

/// Asks a coordinator of this broker.
///
/// # Errors
/// What stands against it.
pub async fn join(
    transactions: &Transactions,
    id: &str,
    producer: Producer,
    at: TopicPartition,
    add: bool,
    deadline: Instant,
) -> Result<(), Error> {
    let partitions = BTreeSet::from([at]);
    if add {
        return transactions.add(id, producer, partitions, Asked { deadline, connection: None }).await;
    }
    let verified = transactions.verify(id, producer, partitions, deadline).await?;
    verified.into_iter().find(|(verified, _)| *verified == at).map_or_else(
        || Err(Error::new(ErrorCode::Internal, "the coordinator said nothing of the partition")),
        |(_, result)| result,
    )
}

/// What the producer of the batch hears: whatever passes makes it send the batch again.
fn passed_on(error: Error, protocol: Protocol) -> Error {
    use ErrorCode as E;
    let code = match error.code {
        E::InvalidProducerMapping | E::InvalidTransactionState | E::InvalidProducerEpoch => error.code,
        E::ProducerFenced => E::InvalidProducerEpoch,
        E::TransactionAbortable if protocol == Protocol::First => E::InvalidTransactionState,
        E::TransactionAbortable => E::TransactionAbortable,
        E::ConcurrentTransactions if protocol == Protocol::Second => E::ConcurrentTransactions,
        _ => E::NotEnoughReplicas,
    };
    Error { code, ..error }
}
