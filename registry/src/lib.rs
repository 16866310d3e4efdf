//! ZooKeeper behind one small trait, and the recipes that Baton builds on it.
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | the trait [`Registry`]: ZooKeeper's semantics, nothing else |
//! | [`memory`] | the embedded registry, durable if wanted; ZooKeeper's stand-in in simulations |
//! | [`zookeeper`] | a real ensemble, on a thread and runtime of its own |
//! | [`pool`] | several sessions, because ZooKeeper bears only so many ephemerals in one |
//! | [`znode`] | one file per znode: its path, its bytes drawn, its version |
//! | [`recipes`] | membership, candidates, partition state, topics, coordinator election |
//! | [`limits`] | what a request may be |
//!
//! With the feature `testing` there are also servers, a faulty network, and the contract suite
//! that both implementations pass.
//!
//! What every user must know:
//! - A write whose outcome is [`RegistryError::Unknown`] may have happened: `sync`, read again,
//!   decide from what is there. The recipes do so where they can, and say so where they cannot.
//! - A watch is a hint. [`Event::Reset`] means: read again everything that it covers.
//! - Sessions say nothing about who leads. Versions and epochs do.
//! - Only [`Registry::close`] ends a session at once; a dropped handle is a crash, and its
//!   ephemeral nodes stay until the session's time is over.
#![forbid(unsafe_code)]

pub mod api;
mod events;
pub mod limits;
pub mod memory;
pub mod pool;
pub mod recipes;
#[cfg(feature = "testing")]
pub mod testing;
pub mod znode;
pub mod zookeeper;

pub use api::{
    CreateMode, Created, Event, EventKind, MultiError, Op, OpResult, Registry, RegistryError, SessionId, SessionState,
    Stat, Watch,
};
