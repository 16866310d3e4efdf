//! Shards own partitions: each is one task, so that their state needs no lock.
//!
//! A shard takes its inputs in batches from a bounded queue, lets the core decide, and hands
//! on the effects of a whole batch together: one call of the log, one frame per peer.
//!
//! | module | what it does |
//! |---|---|
//! | [`input`] | what a shard is told |
//! | [`status`] | what it shows of its partitions |
//! | `partition` | one partition: the replica and what surrounds it |
//! | `turn` | carries out effects, grouped |
//! | `run` | the task |
//! | `changes` | calls that change the log, and what is saved beside it |
//! | `completion` | what was started in an earlier turn is done |
//! | `catch_up` | reads for lagging followers |
//! | `compact` | compacts the copies of compacted topics |
//! | `expiry` | producers that fell silent are forgotten |
//! | `fetch` | answers readers from memory or from the log |
//! | `retention` | gives up old records, and those that clients delete |
//! | `scrub` | reads every copy now and then, to find what has rotted |
//! | `transactions` | asks coordinators before a batch opens a transaction, and ends them |
//! | [`open`] | brings a partition from disk into its shard |

mod catch_up;
mod changes;
mod compact;
mod completion;
mod expiry;
mod fetch;
pub mod input;
pub mod open;
mod partition;
mod retention;
mod run;
mod scrub;
pub mod status;
#[cfg(test)]
mod tests;
mod transactions;
mod turn;

use std::sync::Arc;

use baton_core::TopicPartition;
use tokio::sync::mpsc;

pub use compact::CompactionConfig;
pub use input::{
    ActiveProducer, ClosedCopy, EpochEnd, FetchCall, FetchFailure, Fetched, InTransaction, Isolation, MarkCall,
    OpenPartition, ProduceCall, Produced, ShardInput, VerifyCall,
};
pub use retention::RetentionConfig;
pub use run::{ShardParts, spawn};
pub use scrub::ScrubConfig;
pub use status::{Copies, PartitionHandle, PartitionStatus, Partitions, StatusWatch};

/// All shards of a broker. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Shards {
    senders: Arc<Vec<mpsc::Sender<ShardInput>>>,
}

impl Shards {
    #[must_use]
    pub fn new(senders: Vec<mpsc::Sender<ShardInput>>) -> Self {
        assert!(!senders.is_empty(), "a broker has at least one shard");
        Self { senders: Arc::new(senders) }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Which shard owns a partition: neighbours are spread.
    #[must_use]
    pub fn index_of(&self, id: TopicPartition) -> usize {
        let mixed = u64::from(id.topic.0).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(id.partition));
        usize::try_from(mixed % self.senders.len() as u64).unwrap_or(0)
    }

    /// Waits for room in the shard's queue. Without effect once the shard has stopped.
    pub async fn tell(&self, id: TopicPartition, input: ShardInput) {
        self.tell_shard(self.index_of(id), input).await;
    }

    pub async fn tell_shard(&self, index: usize, input: ShardInput) {
        if let Some(sender) = self.senders.get(index) {
            // A stopped shard takes nothing; whoever waits for its answer sees that it is gone.
            let _ = sender.send(input).await;
        }
    }

    /// Says the same to every shard.
    pub async fn tell_all(&self, mut make: impl FnMut() -> ShardInput) {
        for index in 0..self.len() {
            self.tell_shard(index, make()).await;
        }
    }
}
