//! The Kafka listener: the one seam between Kafka's wire and the broker. What is behind it
//! never sees a message of Kafka's; the batches pass through as they are, since they are stored
//! in Kafka's own format.
//!
//! ```text
//! connection ─▶ frame ─▶ header ─▶ table ─▶ guard ─▶ decoder ─▶ one file per API ─▶ shards
//!     ▲                                                             │
//!     └───────────────── answers, in the order of the requests ◀────┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`table`] | every API and version that is served: what clients are told, and who serves it |
//! | [`guard`] | looks at a request before it is decoded |
//! | [`frame`], [`header`] | bytes of a connection to requests |
//! | `connection` | one connection: order, back-pressure, deadlines, its end |
//! | `room` | admits what comes of a request, as it comes |
//! | [`server`] | accepts connections; notes when the advertised address is not reachable |
//! | [`service`] | what every request needs |
//! | `address`, `errors`, `names` | brokers, error codes and topic ids as Kafka has them |
//! | `leaders` | how long a client that lost a leader waits for the next one |
//! | `nearest` | which copy a reader is sent to |
//! | `groups`, `topics`, the others | one API each |

mod address;
mod admin;
mod connection;
mod errors;
pub mod frame;
pub mod guard;
pub mod header;
mod leaders;
mod names;
mod nearest;
mod room;
pub mod server;
pub mod service;
pub mod table;

mod api_versions;
mod delete_records;
mod describe_cluster;
mod describe_log_dirs;
mod fetch;
mod groups;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod topics;
mod transactions;

pub use service::KafkaService;
