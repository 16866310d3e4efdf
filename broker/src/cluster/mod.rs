//! What the registry says, and what this broker writes into it.
//!
//! | module | what it does |
//! |---|---|
//! | [`view`] | the cluster as this broker knows it: topics, partitions, brokers |
//! | [`task`] | one task: watches, reads, decides, writes |
//! | `reading` | which nodes are to be read again, a bounded number at a time |
//! | `elections` | candidates and elections of the partitions that this broker holds |
//! | `writing` | state writes for the shards, many in one transaction |
//! | `replicas` | opens and closes local copies as the assignment says |
//!
//! Watches are hints: whatever they say is read again, and every write names the version it
//! was made from. Everything is read again every 30 s, whatever the watches said.

mod elections;
mod reading;
mod replicas;
pub mod task;
pub mod view;
mod writing;

pub use task::{ClusterParts, ClusterTask};
pub use view::{ClusterView, TopicView};
