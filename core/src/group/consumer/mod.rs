//! What consumers say to each other through a group: the bytes of Kafka's ConsumerProtocol, so
//! that clients of both kinds divide the partitions of one group among them.
//!
//! | module | what it has |
//! |---|---|
//! | [`subscription`] | what a member wants to read, and what it has |
//! | [`assignment`] | what a member is to read |
//! | [`range`] | how a leader divides partitions by the protocol "range" |

pub mod assignment;
mod codec;
pub mod range;
pub mod subscription;

pub use self::assignment::Assignment;
pub use self::subscription::Subscription;

/// The type of groups of consumers.
pub const PROTOCOL_TYPE: &str = "consumer";

/// Bytes that do not follow the ConsumerProtocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member's bytes do not follow the consumer protocol: {0}")]
pub struct Malformed(pub &'static str);
