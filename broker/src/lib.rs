//! The broker: log, shards, peers, listeners.
#![forbid(unsafe_code)]

pub mod admission;
pub mod authorizer;
pub mod clock;
pub mod config;
pub mod context;
pub mod http;
pub mod log;
pub mod metrics;
pub mod net;
pub mod tail_cache;
