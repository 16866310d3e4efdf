//! Whole clusters, simulated: brokers, coordinators and clients in one process, on simulated
//! time, network, disks and registry; what goes wrong is a plan that its seed decides.
//!
//! ```text
//! seed ─▶ plan ─▶ run: hosts (cluster) + faults (nemesis) + clients (load)
//!                      │ every 100 ms, and after every write of the registry: what must hold (watch)
//!                      ▼
//!                 all is mended ─▶ everybody in sync, everything read (verdict) ─▶ history checked
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | what happens in one run, as data |
//! | [`draw`], [`scene`] | draw a plan from its seed |
//! | [`topic`] | the topics of the load, and what is promised for each |
//! | [`cluster`] | the hosts |
//! | [`registry`] | the way to the registry |
//! | [`nemesis`] | carries out a plan's faults, and mends them |
//! | [`load`], [`consume`], [`plain`], [`operate`] | the clients |
//! | [`keyed`] | a compacted topic |
//! | [`group`] | a consumer group, whose members come and go |
//! | [`transactions`], [`kafka`] | transactional producers, and their client of Kafka's protocol |
//! | [`committed`] | what a reader of what is committed must find |
//! | [`watch`] | what must hold at every moment |
//! | [`verdict`] | what must hold in the end |
//! | [`run`] | one run from its plan to its outcome |
//! | [`process`] | a run in a process of its own, the same in every one |
//! | [`mutation`] | the bugs that can be put in |
//! | [`shrink`] | cuts a failing plan down |
//! | [`unreached`] | the decisions that no run takes, and why |
//! | [`ledger`] | what long campaigns have shown |

pub mod cluster;
pub mod committed;
pub mod consume;
pub mod draw;
pub mod group;
pub mod kafka;
pub mod keyed;
pub mod ledger;
pub mod load;
pub mod mutation;
pub mod nemesis;
pub mod operate;
pub mod plain;
pub mod plan;
pub mod process;
pub mod registry;
pub mod run;
pub mod scene;
pub mod shrink;
pub mod topic;
pub mod transactions;
pub mod unreached;
pub mod verdict;
pub mod watch;

pub use cluster::{SimCluster, Trace};
pub use plan::{Plan, Timed, What};
pub use run::{Outcome, run};
pub use topic::{Place, Topic};

#[must_use]
pub fn broker_name(id: u32) -> String {
    format!("broker-{id}")
}

#[must_use]
pub fn coordinator_name(id: u32) -> String {
    format!("coordinator-{id}")
}

#[must_use]
pub fn client_name(id: u32) -> String {
    format!("client-{id}")
}
