//! What the tests of all packages share: simulated networks.
#![forbid(unsafe_code)]

pub mod faults;
pub mod net;
