//! The broker: log, shards, peers, listeners.
//!
//! ```text
//! clients ─▶ grpc ─▶ context, authorizer, admission ─▶ shard ─▶ core ─▶ log, peers
//!                                                       ▲ │
//! registry ◀─▶ cluster (view, elections, writes) ───────┘ ▼
//!                                                     internal (events)
//! ```
#![forbid(unsafe_code)]

pub mod admission;
pub mod authorizer;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod context;
mod coordination;
pub mod coordinator;
pub mod group;
pub mod grpc;
pub mod http;
pub mod internal;
pub mod kafka;
pub mod launch;
pub mod log;
pub mod metrics;
pub mod mutation;
pub mod net;
pub mod peers;
pub mod server;
pub mod serving;
pub mod shard;
pub mod tail_cache;
pub mod transaction;

pub use server::{Broker, BrokerParts};
