//! Faults on real processes: brokers, coordinators and a ZooKeeper ensemble, load on every
//! partition, and a verdict on every acknowledgement.
//!
//! | module | what |
//! |---|---|
//! | [`daemon`], [`cluster`] | child processes and the cluster made of them |
//! | [`load`], [`history`] | producing and consuming, and everything that was promised |
//! | [`events`], [`gaps`] | the same as the history checker takes it; for how long nothing was acknowledged |
//! | [`observer`] | who leads and who is in sync, sampled |
//! | [`stage`], [`rows`] | one round under load, and the faults |
//! | [`coordination`] | a coordinator that dies in the middle of its work |
//! | [`scale`] | many partitions, topics and candidates |
//! | [`series`] | rounds of one fault, one after the other, on one cluster |
//! | [`results`] | what is kept, and the table |
//! | [`network`] | every process in a network namespace of its own; what gets lost and slow |
//! | [`disk`], [`clocks`] | disks that fill up, wall clocks that are moved |
//! | [`flags`], [`plan`], [`loaded`] | what rounds of a ledger are run with, and the load that they have in common |
//! | [`storage`] | power cuts of all brokers at once, and damage at rest |
//! | [`campaign`] | drawn faults, one round after the other, and the ledger of what they showed |
#![forbid(unsafe_code)]

pub mod campaign;
pub mod clocks;
pub mod cluster;
pub mod coordination;
pub mod daemon;
pub mod disk;
pub mod events;
pub mod flags;
pub mod gaps;
pub mod history;
pub mod load;
pub mod loaded;
pub mod network;
pub mod observer;
pub mod plan;
pub mod results;
pub mod rows;
pub mod scale;
pub mod series;
pub mod stage;
pub mod storage;
