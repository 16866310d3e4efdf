//! The gRPC listener: what applications and administrators use.
//!
//! | module | what it does |
//! |---|---|
//! | [`service`] | what every request needs; the services' entry points |
//! | `produce` | one stream of produce requests |
//! | `fetch` | long polls |
//! | `metadata` | who leads what; held until there is a new leader |
//! | `offsets` | where a partition starts and ends, and offsets by time |
//! | `status` | how the cluster stands |
//! | `groups` | consumer groups |
//! | `events` | the cluster's history |
//! | `admin` | forwards to the coordinator |

mod admin;
mod deletion;
mod events;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod groups;
mod metadata;
mod offsets;
mod produce;
pub mod service;
mod status;

pub use service::{GrpcService, ListenerParts};
