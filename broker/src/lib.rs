//! The broker: log, shards, peers, listeners.
#![forbid(unsafe_code)]

pub mod log;
