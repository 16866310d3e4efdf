//! Consumer groups on simulated clusters: what must hold while their coordinators move, and
//! what members and strangers are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod failover;
mod members;
mod raw;
mod refusals;
mod stage;
