//! What the tests share: the simulated network and cluster.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support")]

pub mod net;
pub mod ports;
pub mod sim;
