//! Topics: their names and their configuration.

mod config;
mod name;

pub use config::{CONFIG_KEYS, CleanupPolicy, CompressionType, ConfigError, ConfigKey, TopicConfig};
pub use name::{BadName, NAME_LEN_MAX, NAMESPACE_DEFAULT, TopicName, names_collide};
