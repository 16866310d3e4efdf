//! A whole cluster in one process, for trying things out: three brokers and a coordinator on
//! the embedded registry, each broker with its own runtime, listeners and data directory, so
//! that one can be killed while the others go on.
//!
//! | module | what it does |
//! |---|---|
//! | [`cluster`] | the brokers, the coordinator, the registry |
//! | [`control`] | `baton dev kill N` and `baton dev start N` |

pub mod cluster;
pub mod control;

pub use cluster::{DevCluster, DevError, DevOptions};
