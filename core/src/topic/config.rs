//! The configuration of a topic: one table of keys, which carry Kafka's names.
//!
//! A key is here once the broker does what it says; an unknown one is refused, so that nobody
//! relies on a setting that has no effect.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::batch::{HEADER_LEN, ProduceLimits, TimestampType};
use crate::error::{Error, ErrorCode};
use crate::retention::Keep;

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
    /// `cleanup.policy`
    pub cleanup: CleanupPolicy,
    /// `retention.ms`; none: for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: of one partition; none: without a limit.
    pub retention_bytes: Option<u64>,
    /// `min.compaction.lag.ms`: a record is left alone for so long.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`: after this a record is compacted however little is dirty.
    pub max_compaction_lag_ms: u64,
    /// `delete.retention.ms`: how long tombstones can be read.
    pub delete_retention_ms: u64,
    /// `min.cleanable.dirty.ratio`, in millionths.
    pub min_dirty_millionths: u32,
}

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CleanupPolicy {
    /// They go by age and size.
    pub delete: bool,
    /// They go when their key is written again.
    pub compact: bool,
}

impl CleanupPolicy {
    const ALL: [(&str, Self); 4] = [
        ("delete", Self { delete: true, compact: false }),
        ("compact", Self { delete: false, compact: true }),
        ("compact,delete", Self { delete: true, compact: true }),
        ("delete,compact", Self { delete: true, compact: true }),
    ];

    fn named(text: &str) -> Option<Self> {
        let text = text.replace(' ', "");
        Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, policy)| policy)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, policy)| *policy == self).map_or("delete", |(name, _)| name)
    }
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

/// Kafka's default: a week.
const RETENTION_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Kafka's default: a day.
const DELETE_RETENTION_MS_DEFAULT: u64 = 24 * 60 * 60 * 1_000;

/// The largest time: Kafka's numbers are signed.
const MS_MAX: u64 = i64::MAX as u64;

const MILLIONTHS: u32 = 1_000_000;

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
            cleanup: CleanupPolicy { delete: true, compact: false },
            retention_ms: Some(RETENTION_MS_DEFAULT),
            retention_bytes: None,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: MS_MAX,
            delete_retention_ms: DELETE_RETENTION_MS_DEFAULT,
            min_dirty_millionths: MILLIONTHS / 2,
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no topic configuration {0:?}; those that there are: {known}", known = known_keys())]
    UnknownKey(String),
    #[error("{0} has no meaning here, as a log is not kept in segment files and is always synced: leave it out")]
    OfFiles(&'static str),
    #[error("{key} takes {values}, not {value:?}")]
    BadValue { key: &'static str, values: &'static str, value: String },
    #[error("min.compaction.lag.ms is {min_ms} and max.compaction.lag.ms is {max_ms}, which is less")]
    LagsCross { min_ms: u64, max_ms: u64 },
    #[error("min.insync.replicas is {min_insync}, and there are {replication} replicas")]
    InsyncAboveReplication { min_insync: u32, replication: u32 },
}

/// Apache Kafka's settings of log files, which its users bring along with their topics.
const OF_FILES: &[&str] = &[
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "preallocate",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
];

fn known_keys() -> String {
    CONFIG_KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
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
        name: "cleanup.policy",
        values: "`delete`, `compact` or `compact,delete`",
        default: "delete",
        doc: "What becomes of old records: they go by age and size, when their key is written again, or both.",
        read: |config| config.cleanup.name().to_owned(),
        write: |config, value| {
            config.cleanup = CleanupPolicy::named(value)?;
            Some(())
        },
    },
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
        name: "delete.retention.ms",
        values: "a number of ms from 0 on",
        default: "86400000",
        doc: "How long a tombstone can be read after it was first compacted; a reader from the \
              start has to be done within that time to see every deletion.",
        read: |config| config.delete_retention_ms.to_string(),
        write: |config, value| {
            config.delete_retention_ms = number(value, 0, MS_MAX)?;
            Some(())
        },
    },
    ConfigKey {
        name: "max.compaction.lag.ms",
        values: "a number of ms from 1 on",
        default: "9223372036854775807",
        doc: "After this time a record is compacted, however little of the log is dirty.",
        read: |config| config.max_compaction_lag_ms.to_string(),
        write: |config, value| {
            config.max_compaction_lag_ms = number(value, 1, MS_MAX)?;
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
        name: "min.cleanable.dirty.ratio",
        values: "a fraction from 0 to 1",
        default: "0.5",
        doc: "Which part of a compacted log has to be new before it is compacted again.",
        read: |config| ratio_text(config.min_dirty_millionths),
        write: |config, value| {
            config.min_dirty_millionths = ratio(value)?;
            Some(())
        },
    },
    ConfigKey {
        name: "min.compaction.lag.ms",
        values: "a number of ms from 0 on",
        default: "0",
        doc: "A record is left alone by compaction for so long.",
        read: |config| config.min_compaction_lag_ms.to_string(),
        write: |config, value| {
            config.min_compaction_lag_ms = number(value, 0, MS_MAX)?;
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
    ConfigKey {
        name: "retention.bytes",
        values: "a number of bytes from 0 on, or -1 for no limit",
        default: "-1",
        doc: "Beyond this size of one partition its oldest records go; never less is kept.",
        read: |config| limit_text(config.retention_bytes),
        write: |config, value| {
            config.retention_bytes = limit(value)?;
            Some(())
        },
    },
    ConfigKey {
        name: "retention.ms",
        values: "a number of ms from 0 on, or -1 for ever",
        default: "604800000",
        doc: "Records older than this go, a batch at a time; by their timestamps, so that one from \
              the future holds up what follows it.",
        read: |config| limit_text(config.retention_ms),
        write: |config, value| {
            config.retention_ms = limit(value)?;
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
        if let Some(name) = OF_FILES.iter().find(|of_files| **of_files == name) {
            return Err(ConfigError::OfFiles(name));
        }
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
        let (min_ms, max_ms) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
        if min_ms > max_ms {
            return Err(ConfigError::LagsCross { min_ms, max_ms });
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
        ProduceLimits { max_message_bytes: self.max_message_bytes as usize, keyed: self.cleanup.compact }
    }

    /// What its logs keep. A log that is only compacted keeps every key.
    #[must_use]
    pub fn retention(&self) -> Keep {
        if self.cleanup.delete {
            Keep { age_ms: self.retention_ms, bytes: self.retention_bytes }
        } else {
            Keep::default()
        }
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

/// A number, or −1 for none.
fn limit(text: &str) -> Option<Option<u64>> {
    if text == "-1" { Some(None) } else { number(text, 0, MS_MAX).map(Some) }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string())
}

/// A decimal fraction from 0 to 1, in millionths; more digits are not kept apart.
fn ratio(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: u32 = number(whole, 0, 1)?;
    if fraction.is_empty() || fraction.len() > 18 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let millionths = whole * MILLIONTHS + digits.parse::<u32>().ok()?;
    (millionths <= MILLIONTHS).then_some(millionths)
}

fn ratio_text(millionths: u32) -> String {
    let text = format!("{}.{:06}", millionths / MILLIONTHS, millionths % MILLIONTHS);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// The start of a text from outside, for an error.
fn abridged(text: &str) -> String {
    text.chars().take(100).collect()
}

const _: () = assert!(MESSAGE_BYTES_MIN as usize > HEADER_LEN);

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
