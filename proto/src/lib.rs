//! The wire between clients, brokers and coordinators, and the only seam between it and the
//! core: nothing behind this crate sees a protobuf type.
#![forbid(unsafe_code)]

/// The generated messages, clients and servers of `baton.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1 {
    tonic::include_proto!("baton.v1");
}

mod error;
pub mod peer;
