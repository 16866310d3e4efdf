//! What the coordinator decides, without doing it: the cluster as it was read goes in, what to
//! write comes out.
//!
//! | module | what it decides |
//! |---|---|
//! | [`snapshot`] | the cluster as it was read |
//! | [`create`] | where the partitions of a new or growing topic go, or why not |
//! | [`reassign`] | the assignment on the way to other replicas |
//! | [`absent`] | who is away, and new homes for their copies |
//! | [`internal`] | what the topic of the history needs |
//! | [`preferred`] | which leaders hand over to the preferred ones |
//! | [`changes`] | what to record when a partition's state changed |

pub mod absent;
pub mod changes;
pub mod create;
pub mod internal;
pub mod preferred;
pub mod reassign;
pub mod snapshot;

#[cfg(test)]
pub mod fixtures;

pub use snapshot::Snapshot;
