//! ZooKeeper behind one small trait, and the recipes that Baton builds on it.
#![forbid(unsafe_code)]

pub mod api;

pub use api::{
    Created, CreateMode, Event, EventKind, MultiError, Op, OpResult, Registry, RegistryError,
    SessionId, SessionState, Stat, Watch,
};
