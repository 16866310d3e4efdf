//! The other brokers: links to them, what they say, and whether they are alive.
//!
//! Every broker opens its own links to every other one: a live link for appends,
//! acknowledgements and heartbeats, and a catch-up link, so that refilling a replica never
//! delays the others. What a broker has to say always goes out on its own links.
//!
//! | module | what it does |
//! |---|---|
//! | [`sender`] | queues of frames, bounded by bytes |
//! | [`link`] | one outgoing link: connect, say who this is, pump frames and heartbeats |
//! | [`inbound`] | the gRPC service that takes the links of others |
//! | [`detection`] | the task around the failure detector |
//! | [`pace`] | how fast lagging replicas are refilled |

pub mod detection;
pub mod inbound;
pub mod link;
pub mod pace;
pub mod sender;

pub use detection::{Detection, DetectionHandle};
pub use inbound::PeerService;
pub use link::{LinkParts, Links};
pub use sender::PeerSender;
