//! Kafka's clients while brokers are killed: librdkafka as applications use it, through the
//! crate `rdkafka`, against a cluster of three brokers.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | a cluster whose brokers die and come back |
//! | [`producer`] | sends numbered records and remembers how each went |
//! | [`member`] | one member of a consumer group |
//! | `group` | six members, twelve partitions |
//! | `outage` | how long a partition is away for a producer |
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod group;
mod member;
mod outage;
mod producer;
mod stage;
