//! The coordinator daemon, for the binary `baton`, for `baton dev`, and for simulations.
#![forbid(unsafe_code)]

pub mod daemon;
pub mod dev;
pub mod launch;
