//! Whole coordinators on the registry in memory, with brokers that only elect themselves. Time
//! is tokio's, paused: minutes pass in milliseconds.

mod admin;
mod fakes;
mod harness;
mod healing;
mod losses;
mod network;
mod takeover;
