//! For tests of this package and of others: real servers, a faulty network, the contract suite.

pub mod contract;
pub mod memory;
pub mod process;
pub mod proxy;
pub mod recipes;
pub mod server;
pub mod zookeeper;
