//! Kafka's clients while brokers are killed: librdkafka as applications use it, through the
//! crate `rdkafka`, and clients of others, against processes that `kill -9` ends.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | a cluster of processes whose brokers die and come back |
//! | [`client`] | a client that is a process |
//! | [`producer`] | sends numbered records and remembers how each went |
//! | [`member`] | one member of a consumer group |
//! | `group` | six members, twelve partitions |
//! | `everybody` | clients of all kinds at once |
//! | `outage` | how long a partition is away for a producer |
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod client;
mod everybody;
mod group;
mod member;
mod outage;
mod producer;
mod stage;
