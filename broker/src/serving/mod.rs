//! What every listener of clients does in the same way, whatever it speaks.
//!
//! | module | what it does |
//! |---|---|
//! | [`answers`] | how many bytes answers hold |
//! | `deletion` | gives up the oldest records of a partition |
//! | `finding` | topics and partitions by name, and who leads them |
//! | [`poll`] | long polls of several partitions |
//! | [`offsets`] | where a partition starts and ends, and offsets by time |
//! | `producer_ids` | hands out the ids of idempotent producers |

pub mod answers;
mod deletion;
mod finding;
pub mod offsets;
pub mod poll;
mod producer_ids;

pub use deletion::delete_records;
pub(crate) use finding::just_started;
pub use producer_ids::ProducerIds;

/// Partitions of one request.
pub const PARTITIONS_MAX: usize = 10_000;
