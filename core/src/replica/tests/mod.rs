//! The production state machines in a simulated cluster: real replicas and electors, a
//! simulated registry, network and disk.

mod checks;
mod cluster;
mod exploration;
mod faults;
mod hostile;
mod node;
mod registry;
mod rng;
mod rules;
mod transactions;
