//! The coordinator: it heals, balances and administers. Elections of partitions do not need it.
//!
//! Two or more run, one is elected; each of its writes checks that it still is. It watches, makes
//! a plan, and writes the plan's states by their versions; brokers do the rest.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the coordinator's keys |
//! | [`start`] | putting it together, and taking it apart |
//! | [`lead`] | standing for election, term after term |
//! | [`term`] | one term: its fence, and what its work needs |
//! | [`plan`] | every decision, without I/O |
//! | [`follow`], [`view`] | the cluster as the registry says |
//! | [`admin`] | what administrators ask for |
//! | [`healing`] | what it does by itself |
//! | [`history`] | recording what happened |
//! | [`brokers`] | what it asks of brokers |
//! | [`monitoring`] | metrics and probes |
//! | [`mutation`] | rules that a test build can switch off |

pub mod admin;
pub mod brokers;
pub mod config;
pub mod follow;
pub mod healing;
pub mod history;
pub mod lead;
pub mod monitoring;
pub mod mutation;
pub mod plan;
pub mod start;
pub mod term;
pub mod view;

#[cfg(test)]
mod tests;

pub use config::CoordinatorConfig;
pub use mutation::Mutations;
pub use start::{Coordinator, CoordinatorHandle, CoordinatorParts, StartError};
