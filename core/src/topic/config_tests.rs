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
    assert!(error.to_string().len() < 500);
    let told = error.to_string();
    assert!(CONFIG_KEYS.iter().all(|key| told.contains(key.name)), "{told}");
    assert_eq!(Error::from(error).code, ErrorCode::InvalidConfig);
    // What users of Apache Kafka bring along.
    for key in ["segment.bytes", "segment.ms", "flush.messages"] {
        let error = TopicConfig::from_map(&map(&[(key, "1")])).unwrap_err();
        assert_eq!(error, ConfigError::OfFiles(key));
        assert!(error.to_string().ends_with("leave it out"), "{error}");
    }
}

#[test]
fn values_out_of_range_are_refused_and_change_nothing() {
    let bad = [
        ("min.insync.replicas", ["0", "33", "-1", "two", ""]),
        ("max.message.bytes", ["1023", "67108865", "+2000", "1e6", " 2000"]),
        ("message.timestamp.type", ["createtime", "", "0", "LogAppend", "None"]),
        ("compression.type", ["zstd", "none", "uncompressed", "", "Producer"]),
        ("cleanup.policy", ["", "Delete", "compact,", "both", "delete,delete"]),
        ("retention.ms", ["-2", "", "1e6", "forever", "9223372036854775808"]),
        ("retention.bytes", ["-2", "", "1k", "0x10", "9223372036854775808"]),
        ("delete.retention.ms", ["-1", "", "1.5", "day", "9223372036854775808"]),
        ("min.compaction.lag.ms", ["-1", "", "1.5", "day", "9223372036854775808"]),
        ("max.compaction.lag.ms", ["-1", "0", "1.5", "day", "9223372036854775808"]),
        ("min.cleanable.dirty.ratio", ["-1", "1.1", "", ".5", "half"]),
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
fn the_compaction_lags_do_not_cross() {
    let map = |min: &str, max: &str| {
        let key = |name: &str| format!("{name}.compaction.lag.ms");
        TopicConfig::from_map(&BTreeMap::from([(key("min"), min.to_owned()), (key("max"), max.to_owned())]))
    };
    assert!(map("5", "5").is_ok());
    assert!(matches!(map("6", "5"), Err(ConfigError::LagsCross { min_ms: 6, max_ms: 5 })));
}

#[test]
fn fractions_are_read_and_written() {
    for (text, shown) in [("0", "0.0"), ("1", "1.0"), ("0.50", "0.5"), ("0.0000015", "0.000001"), ("1.000", "1.0")] {
        assert_eq!(ratio(text).map(ratio_text).as_deref(), Some(shown), "{text}");
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
        retention_ms in proptest::option::of(0..=MS_MAX), retention_bytes in proptest::option::of(0..=MS_MAX),
        min_dirty_millionths in 0..=MILLIONTHS, policy in 0..CleanupPolicy::ALL.len(),
    ) {
        let config = TopicConfig {
            min_insync_replicas: insync,
            max_message_bytes: bytes,
            timestamp_type: if append {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            retention_ms,
            retention_bytes,
            min_dirty_millionths,
            cleanup: CleanupPolicy::ALL[policy].1,
            ..TopicConfig::default()
        };
        prop_assert_eq!(TopicConfig::from_map(&config.to_map()), Ok(config.clone()));
        prop_assert_eq!(config.produce_limits().max_message_bytes, bytes as usize);
    }
}
