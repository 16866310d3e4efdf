//! Faults on real processes: brokers, coordinators and a ZooKeeper ensemble, load on every
//! partition, and a verdict on every acknowledgement.
//!
//! | module | what |
//! |---|---|
//! | [`daemon`], [`cluster`] | child processes and the cluster made of them |
//! | [`load`], [`history`] | producing and consuming, and everything that was promised |
//! | [`checker`], [`gaps`] | the verdict, and for how long nothing was acknowledged |
//! | [`observer`] | who leads and who is in sync, sampled |
//! | [`stage`], [`rows`] | one round under load, and the faults |
//! | [`coordination`] | a coordinator that dies in the middle of its work |
//! | [`scale`] | many partitions, topics and candidates |
//! | [`series`] | rounds of one fault, one after the other, on one cluster |
//! | [`results`] | what is kept, and the table |
#![forbid(unsafe_code)]

pub mod checker;
pub mod cluster;
pub mod coordination;
pub mod daemon;
pub mod gaps;
pub mod history;
pub mod load;
pub mod observer;
pub mod results;
pub mod rows;
pub mod scale;
pub mod series;
pub mod stage;
