//! What administrators ask for. The elected coordinator does it; one that stands by names it.
//!
//! | module | what |
//! |---|---|
//! | [`service`] | the gRPC service: who may answer, deadlines, bounds |
//! | `topics` | create, alter, add partitions, delete |
//! | `partitions` | reassign, elect the preferred leader, elect uncleanly |
//!
//! A request that was begun is carried on when its caller goes away, so that what it found half
//! done is not left so.

mod partitions;
pub mod service;
mod topics;

pub use service::{Admin, AdminService};
pub(super) use topics::create;
