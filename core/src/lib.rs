//! The pure heart of Baton: decisions without a clock, randomness, async, locks or I/O.
//!
//! Everything here takes inputs and returns values or effects, so that the same
//! code runs in production, in the simulator and in the model checker.
//!
//! | module | what it decides |
//! |---|---|
//! | [`ids`] | identifiers, offsets, epochs |
//! | [`error`] | the stable error codes that every interface shows |
//! | [`batch`] | RecordBatch v2: header, validation, stamping, records, compression |
//! | [`producer`] | idempotent producers: duplicates and gaps |
//! | [`topic`] | topic names and configuration |
//! | [`partition`] | what ZooKeeper says about a partition |
//! | [`lineage`] | which epoch wrote which offsets; where two logs diverge |
//! | [`replica`] | leader and follower of one partition |
//! | [`retention`] | how much of a log is kept |
//! | [`compaction`] | which records of a compacted topic go |
//! | [`election`] | who elects itself, and when |
//! | [`detector`] | which peers are alive |
//! | [`placement`] | which brokers hold a partition |
//! | [`group`] | consumer groups: who is in one, who reads what, and how far they got |
//! | [`transaction`] | transactions over several partitions: the coordinator's side and the partitions' |
//! | [`event`] | what happened to the cluster, as it is recorded |
//! | [`branches`] | which decisions a simulation reached |
#![forbid(unsafe_code)]

pub mod batch;
pub mod branches;
pub mod compaction;
pub mod connection;
pub mod detector;
pub mod election;
pub mod error;
pub mod event;
pub mod group;
pub mod ids;
pub mod lineage;
pub mod partition;
pub mod partitioner;
pub mod placement;
pub mod producer;
pub mod replica;
pub mod retention;
pub mod topic;
pub mod transaction;

pub use error::{Error, ErrorCode};
pub use ids::{
    BrokerId, CandidateSeq, CoordinatorEpoch, DiskId, Epoch, Generation, Incarnation, Member, Offset, ProducerEpoch,
    ProducerId, TopicId, TopicPartition,
};
