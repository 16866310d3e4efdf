//! Every metric is there, and says what it should.

use std::collections::BTreeSet;

use super::*;

/// Calls every function once.
fn touch(metrics: &Metrics) {
    let peer = BrokerId(2);
    metrics.produce_received();
    metrics.produce_leader_only();
    metrics.produce_acknowledged(3, 4_096, Duration::from_millis(3));
    metrics.produce_failed(ErrorCode::NotLeader);
    metrics.fetch_received();
    metrics.fetch_answered(1, 100);
    metrics.fetch_failed(ErrorCode::OffsetOutOfRange);
    metrics.committed(7, 70_000, Duration::from_millis(2));
    metrics.log_usage(10, 20);
    metrics.partitions(PartitionCounts { held: 5, led: 4, under_replicated: 3, offline: 2, halted: 1 });
    metrics.replication_lag_max(Duration::from_millis(1_500));
    metrics.peer_lag(peer, 12);
    metrics.peer_stream(peer, false).sent(1_000);
    metrics.isr_shrunk();
    metrics.isr_expanded();
    metrics.elected(Trigger::Detector);
    metrics.stepped_down();
    metrics.resigned();
    metrics.detected(peer, Verdict::Dead);
    metrics.registry_session();
    metrics.registry_connected();
    metrics.registry_disconnected();
    metrics.tail_cache_read(true);
    metrics.tail_cache_read(false);
    metrics.tail_cache_changed(0, 1_000);
    metrics.in_flight(9);
    metrics.throttled();
    metrics.request_refused();
    metrics.groups(2, 3);
    metrics.groups_loaded(Duration::from_millis(4));
    metrics.group_rebalanced();
    metrics.offset_committed();
    metrics.transaction_ended(true);
    metrics.answers_held(7);
    metrics.fetch_redirected();
    metrics.draining(true);
    metrics.kafka(["Fetch"].into_iter()).answered("Fetch", Duration::from_millis(3));
    let listener = metrics.listener("grpc");
    listener.opened();
    listener.refused();
}

#[test]
fn every_metric_of_the_table_is_shown_with_its_help_and_kind() {
    let metrics = Metrics::new(BrokerId(7));
    touch(&metrics);
    let _stream = metrics.stream_opened();
    let text = metrics.render();
    for metric in TABLE {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}: {text}", metric.name);
        assert!(text.contains(&format!("# TYPE {} {kind}", metric.name)), "{}: {text}", metric.name);
    }
    let shown = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(shown, TABLE.len());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.contains("broker=\"7\""), "{line}");
    }
}

#[test]
fn names_follow_prometheus() {
    let names: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), TABLE.len());
    for metric in TABLE {
        let name = metric.name;
        assert!(name.starts_with("baton_") && metric.help.ends_with('.'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
}

#[test]
fn values_labels_and_buckets() {
    let metrics = Metrics::new(BrokerId(1));
    touch(&metrics);
    let text = metrics.render();
    for line in [
        r#"baton_produce_bytes_total{broker="1"} 4096"#,
        r#"baton_produce_errors_total{broker="1",code="NOT_LEADER"} 1"#,
        r#"baton_detector_verdicts_total{broker="1",peer="2",verdict="dead"} 1"#,
        r#"baton_halted_partitions{broker="1"} 1"#,
        r#"baton_registry_connected{broker="1"} 0"#,
        r#"baton_commit_seconds_bucket{broker="1",le="0.0025"} 1"#,
        r#"baton_commit_batches_bucket{broker="1",le="4"} 0"#,
        r#"baton_connections{broker="1",listener="grpc"} 1"#,
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn brokers_of_one_process_count_apart() {
    let (one, two) = (Metrics::new(BrokerId(1)), Metrics::new(BrokerId(2)));
    one.isr_shrunk();
    assert!(one.render().contains(r#"baton_isr_shrinks_total{broker="1"} 1"#));
    assert!(two.render().contains(r#"baton_isr_shrinks_total{broker="2"} 0"#));
}

#[test]
fn streams_and_connections_are_counted_down_again() {
    let metrics = Metrics::new(BrokerId(1));
    let stream = metrics.stream_opened();
    assert!(metrics.render().contains(r#"baton_open_streams{broker="1"} 1"#));
    drop(stream);
    assert!(metrics.render().contains(r#"baton_open_streams{broker="1"} 0"#));
    let listener = metrics.listener("grpc");
    listener.opened();
    listener.closed();
    assert!(metrics.render().contains(r#"baton_connections{broker="1",listener="grpc"} 0"#));
}
