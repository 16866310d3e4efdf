//! Bad input: what clients, operators, disks and ZooKeeper may hand to a cluster, and what it
//! answers. [`table`] lists every row with its test.
//!
//! | module | what is bad |
//! |---|---|
//! | [`requests`] | names, places and counts in requests |
//! | [`batches`] | batches |
//! | [`ports`] | bytes on the wire |
//! | [`znodes`] | data in ZooKeeper |
//! | [`directories`] | data directories |
//! | [`starts`] | configurations and circumstances of a start |
//! | [`disk`] | a disk without room |
//!
//! Every test ends with [`harness::Ledger::settle`]: the cluster works, nothing that was ever
//! acknowledged is missing, and no thread panicked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod batches;
mod directories;
mod disk;
mod harness;
mod ports;
mod raw;
mod requests;
mod starts;
mod table;
mod watch;
mod znodes;
