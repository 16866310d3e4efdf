//! Baton's client: producer, consumer, administration, and a stream of failover events.
//!
//! | module | what it does |
//! |---|---|
//! | [`client`] | the connection to a cluster, from which the rest is made |
//! | [`producer`] | batches, partitions, retries without duplicates, acknowledgements |
//! | [`consumer`] | assigned partitions, positions, prefetching |
//! | [`admin`] | topics, partitions, reassignment, status, events |
//! | [`group`] | consumers that share topics, and remember how far they got |
//! | [`failover`] | changes of leaders as this client sees them |
//! | `metadata`, `finder`, `view`, `offsets` | who leads what, and how a new leader is found in milliseconds |
//! | `net`, `backoff` | connections and waiting |
//!
//! No protobuf type is part of the interface.
#![forbid(unsafe_code)]

pub mod admin;
pub mod client;
pub mod config;
pub mod consumer;
pub mod error;
pub mod failover;
#[cfg(any(test, feature = "fake-cluster"))]
pub mod fake;
pub mod group;
pub mod net;
pub mod producer;
pub mod record;

mod backoff;
mod finder;
mod metadata;
#[doc(hidden)]
pub mod mutation;
mod offsets;
mod view;

pub use admin::Admin;
pub use baton_core::{BrokerId, Epoch, Error, ErrorCode, Offset};
pub use client::Client;
pub use config::{Acks, ClientConfig, Clock, Compression, ConsumerConfig, OutOfRange, ProducerConfig};
pub use consumer::{Consumer, Start};
pub use error::{Attempt, ClientError};
pub use failover::{Failover, FailoverEvent, Failovers};
pub use group::{GroupConfig, GroupConsumer, Rebalance};
pub use producer::{Delivery, Producer};
pub use record::{ConsumedRecord, Header, Record, RecordMetadata};
