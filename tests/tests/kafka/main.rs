//! The Kafka listener of a whole cluster, spoken to byte by byte and by the clients of others.
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | a cluster, and a client that says what it is told to say |
//! | `versions` | every API in every version that is advertised |
//! | `refusals` | every API in every version, about what is not there |
//! | `bad_input` | what must not be, and the code that Kafka has for it |
//! | `members` | a group from its first member to its last |
//! | `late` | requests that come behind their repetitions |
//! | `nearest` | readers that say where they stand |
//! | `transactions` | transactions of the second protocol, which librdkafka does not speak yet |
//! | `clients` | kcat, confluent-kafka, kafka-python, aiokafka |
//! | [`rust`], `rust_transactions` | the crate rdkafka |
//! | `connections` | what many of them cost |
//! | [`java`], `java_transactions` | Apache Kafka's own tools |
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_input;
mod clients;
mod connections;
mod java;
mod java_transactions;
mod late;
mod members;
mod nearest;
mod refusals;
mod rust;
mod rust_transactions;
mod transactions;
mod versions;
mod wire;
