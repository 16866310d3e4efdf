//! The configuration of a topic: one table of keys, which carry Kafka's names.
//!
//! A key is here once the broker does what it says; an unknown one is refused, so that nobody
//! relies on a setting that has no effect.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::batch::{HEADER_LEN, ProduceLimits, TimestampType};
use crate::error::{Error, ErrorCode};

/// What a topic's configuration says, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicConfig {
    /// `min.insync.replicas`
    pub min_insync_replicas: u32,
    /// `max.message.bytes`: the largest batch, header included.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `compression.type`
    pub compression: CompressionType,
}

/// Who decides how batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompressionType {
    /// The producer; what it sent is stored byte for byte.
    #[default]
    Producer,
}

/// The smallest and largest value of `max.message.bytes`. The upper bound is what the frames
/// between brokers are made for.
const MESSAGE_BYTES_MIN: u32 = 1024;
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// Kafka's default: a MiB of records, and what stands before them.
const MESSAGE_BYTES_DEFAULT: u32 = 1_048_588;

/// More replicas than this are not asked for.
const INSYNC_MAX: u32 = 32;

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            min_insync_replicas: 2,
            max_message_bytes: MESSAGE_BYTES_DEFAULT,
            timestamp_type: TimestampType::CreateTime,
            compression: CompressionType::Producer,
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no topic configuration {0:?}")]
    UnknownKey(String),
    #[error("{key} takes {values}, not {value:?}")]
    BadValue { key: &'static str, values: &'static str, value: String },
    #[error("min.insync.replicas is {min_insync}, and there are {replication} replicas")]
    InsyncAboveReplication { min_insync: u32, replication: u32 },
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::InvalidConfig, error.to_string())
    }
}

/// One key of the configuration, with all that its documentation says.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    pub name: &'static str,
    /// The values that it takes, in words.
    pub values: &'static str,
    /// The value of a topic that does not say.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    read: fn(&TopicConfig) -> String,
    /// Sets the value; none if it is not one of [`ConfigKey::values`].
    write: fn(&mut TopicConfig, &str) -> Option<()>,
}

/// Every key, sorted by name.
pub const CONFIG_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "compression.type",
        values: "`producer`",
        default: "producer",
        doc: "How batches are compressed: as the producer sent them.",
        read: |_| "producer".to_owned(),
        write: |config, value| {
            config.compression = (value == "producer").then_some(CompressionType::Producer)?;
            Some(())
        },
    },
    ConfigKey {
        name: "max.message.bytes",
        values: "a number of bytes from 1024 to 67108864",
        default: "1048588",
        doc: "The largest batch that is taken, as it is sent: compressed, with its header.",
        read: |config| config.max_message_bytes.to_string(),
        write: |config, value| {
            config.max_message_bytes = number(value, MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX)?;
            Some(())
        },
    },
    ConfigKey {
        name: "message.timestamp.type",
        values: "`CreateTime` or `LogAppendTime`",
        default: "CreateTime",
        doc: "Whose clock a record's timestamp is from: the producer's, or the leader's.",
        read: |config| timestamp_type_name(config.timestamp_type).to_owned(),
        write: |config, value| {
            config.timestamp_type = [TimestampType::CreateTime, TimestampType::LogAppendTime]
                .into_iter()
                .find(|kind| timestamp_type_name(*kind) == value)?;
            Some(())
        },
    },
    ConfigKey {
        name: "min.insync.replicas",
        values: "a number from 1 to 32, and not above the number of replicas",
        default: "2",
        doc: "With fewer replicas in sync than this, producing is refused; \
              1 when it is not given and there are fewer than three brokers or one replica.",
        read: |config| config.min_insync_replicas.to_string(),
        write: |config, value| {
            config.min_insync_replicas = number(value, 1, INSYNC_MAX)?;
            Some(())
        },
    },
];

impl ConfigKey {
    /// The key with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CONFIG_KEYS.iter().find(|key| key.name == name)
    }

    /// Its value in a configuration.
    #[must_use]
    pub fn value(&self, config: &TopicConfig) -> String {
        (self.read)(config)
    }
}

impl TopicConfig {
    /// The defaults of a new topic. Two replicas in sync are asked for when there are three
    /// brokers, so that one may be away; with fewer brokers that would stop producing.
    #[must_use]
    pub fn for_new_topic(brokers: u32, replication: u32) -> Self {
        let min_insync_replicas = if brokers < 3 || replication < 2 { 1 } else { 2 };
        Self { min_insync_replicas, ..Self::default() }
    }

    /// Sets one key.
    ///
    /// # Errors
    /// The key is unknown, or does not take the value; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = ConfigKey::find(name).ok_or_else(|| ConfigError::UnknownKey(abridged(name)))?;
        (key.write)(self, value).ok_or_else(|| ConfigError::BadValue {
            key: key.name,
            values: key.values,
            value: abridged(value),
        })
    }

    /// This configuration with `changes` on top.
    ///
    /// # Errors
    /// As [`TopicConfig::set`], for the first change in the order of the keys.
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        for (name, value) in changes {
            config.set(name, value)?;
        }
        Ok(config)
    }

    /// The configuration out of its map; what the map does not say is the default.
    ///
    /// # Errors
    /// As [`TopicConfig::set`].
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::default().with(map)
    }

    /// Every key with its value.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let entry = |key: &ConfigKey| (key.name.to_owned(), key.value(self));
        CONFIG_KEYS.iter().map(entry).collect()
    }

    /// Checks what depends on the number of replicas.
    ///
    /// # Errors
    /// More replicas would have to be in sync than there are.
    pub fn check_replication(&self, replication: u32) -> Result<(), ConfigError> {
        let min_insync = self.min_insync_replicas;
        if min_insync > replication {
            return Err(ConfigError::InsyncAboveReplication { min_insync, replication });
        }
        Ok(())
    }

    /// What a batch of this topic may be.
    #[must_use]
    pub fn produce_limits(&self) -> ProduceLimits {
        ProduceLimits { max_message_bytes: self.max_message_bytes as usize }
    }
}

fn timestamp_type_name(kind: TimestampType) -> &'static str {
    match kind {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// A decimal number in a range. Signs and blanks are not taken: a value has one spelling, but
/// for leading zeros.
fn number<N: FromStr + PartialOrd>(text: &str, min: N, max: N) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| text.parse().ok()).flatten()?;
    (min..=max).contains(&value).then_some(value)
}

/// The start of a text from outside, for an error.
fn abridged(text: &str) -> String {
    text.chars().take(100).collect()
}

const _: () = assert!(MESSAGE_BYTES_MIN as usize > HEADER_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    }

    #[test]
    fn the_table_is_sorted_documented_and_its_defaults_are_the_defaults() {
        assert!(CONFIG_KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in CONFIG_KEYS {
            assert!(!key.doc.is_empty() && !key.values.is_empty(), "{}", key.name);
            assert_eq!(key.value(&TopicConfig::default()), key.default, "{}", key.name);
            let mut config = TopicConfig::default();
            assert_eq!(config.set(key.name, key.default), Ok(()));
            assert_eq!(config, TopicConfig::default());
        }
        assert_eq!(TopicConfig::from_map(&map(&[])), Ok(TopicConfig::default()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for key in ["retention.mss", "", "MAX.MESSAGE.BYTES", "x y"] {
            let error = TopicConfig::from_map(&map(&[(key, "1")]));
            assert_eq!(error, Err(ConfigError::UnknownKey(key.to_owned())));
        }
        let long = "k".repeat(10_000);
        let error = TopicConfig::from_map(&map(&[(&long, "1")])).unwrap_err();
        assert!(error.to_string().len() < 200);
        assert_eq!(Error::from(error).code, ErrorCode::InvalidConfig);
    }

    #[test]
    fn values_out_of_range_are_refused_and_change_nothing() {
        let bad = [
            ("min.insync.replicas", ["0", "33", "-1", "two", ""]),
            ("max.message.bytes", ["1023", "67108865", "+2000", "1e6", " 2000"]),
            ("message.timestamp.type", ["createtime", "", "0", "LogAppend", "None"]),
            ("compression.type", ["zstd", "none", "uncompressed", "", "Producer"]),
        ];
        assert_eq!(bad.len(), CONFIG_KEYS.len());
        for (key, values) in bad {
            for value in values {
                let mut config = TopicConfig::default();
                let error = config.set(key, value).unwrap_err();
                assert!(matches!(error, ConfigError::BadValue { .. }), "{error}");
                assert_eq!(config, TopicConfig::default());
            }
        }
    }

    #[test]
    fn more_in_sync_than_replicas_is_refused() {
        let config = TopicConfig::default();
        assert_eq!(config.check_replication(2), Ok(()));
        let error = config.check_replication(1).unwrap_err();
        assert_eq!(Error::from(error).code, ErrorCode::InvalidConfig);
    }

    #[test]
    fn a_new_topic_works_with_any_number_of_brokers() {
        for brokers in 1..5 {
            for replication in 1..=brokers {
                let config = TopicConfig::for_new_topic(brokers, replication);
                assert_eq!(config.check_replication(replication), Ok(()));
            }
        }
        assert_eq!(TopicConfig::for_new_topic(3, 3).min_insync_replicas, 2);
        assert_eq!(TopicConfig::for_new_topic(2, 2).min_insync_replicas, 1);
    }

    proptest! {
        #[test]
        fn maps_round_trip(
            insync in 1..=INSYNC_MAX, bytes in MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX, append: bool,
        ) {
            let config = TopicConfig {
                min_insync_replicas: insync,
                max_message_bytes: bytes,
                timestamp_type: if append {
                    TimestampType::LogAppendTime
                } else {
                    TimestampType::CreateTime
                },
                compression: CompressionType::Producer,
            };
            prop_assert_eq!(TopicConfig::from_map(&config.to_map()), Ok(config.clone()));
            prop_assert_eq!(config.produce_limits().max_message_bytes, bytes as usize);
        }
    }
}
