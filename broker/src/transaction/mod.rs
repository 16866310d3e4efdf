//! Transactions, hosted on the partitions of one internal topic as groups are.
//!
//! ```text
//! listeners ─▶ Transactions (who coordinates an id)      shards, before a batch opens one
//!                │ bounded queue                            │ VerifyCall
//!                ▼                                          ▼
//!             Serving, one task for each led partition ◀── verifier (here, or by Peer.JoinTransaction)
//!                │ core TransactionCoordinator::step
//!                ├─ Append, in the leader epoch in which it was loaded
//!                └─ WriteMarkers ─▶ markers ─▶ shards (here, or by Peer.WriteMarkers)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`handle`] | what listeners ask: [`Transactions`] |
//! | `seats` | which coordinators sit on this broker |
//! | `host` | starts a task for each partition that is here, and makes the topic |
//! | `load` | reads what earlier coordinators left |
//! | `serving` | carries out what the core decides |
//! | `encode` | records as batches |
//! | `markers` | ends a transaction in all of its partitions |
//! | [`marking`] | writes markers into partitions that this broker leads |
//! | `verifier` | asks coordinators for the shards |
//! | [`peers`] | calls to other brokers |

mod encode;
pub mod handle;
mod host;
mod load;
mod markers;
pub mod marking;
pub mod peers;
mod seats;
mod serving;
mod verifier;

pub use handle::{Asked, TransactionParts, Transactions};
pub use host::HostParts;
pub use marking::Marking;
pub use peers::PeerCalls;
pub use verifier::{Verifier, join};

use baton_core::transaction::settings::TransactionSettings;

use crate::config::TransactionsConfig;
use crate::mutation::Mutations;

/// The topic whose partitions hold the transactional ids. Tools know it by Kafka's name.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The core's settings as the broker's configuration has them.
#[must_use]
#[cfg_attr(not(feature = "mutations"), expect(unused_variables, reason = "all rules hold"))]
pub fn settings(config: &TransactionsConfig, mutations: Mutations) -> TransactionSettings {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    TransactionSettings {
        timeout_ms_max: config.timeout_ms_max,
        id_expiration_ms: i64::try_from(config.id_expiration_ms).unwrap_or(i64::MAX),
        ids_max: size(config.ids_max),
        partitions_max: size(config.partitions_max),
        #[cfg(feature = "mutations")]
        mutation: mutations.transaction,
        ..TransactionSettings::default()
    }
}
