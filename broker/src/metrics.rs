//! Every metric of a broker, as named functions: call sites see no library.
//!
//! Each broker has a recorder of its own, so that several brokers in one process (`baton dev`,
//! simulations) do not share counts, and nothing depends on which came first. Handles of what
//! happens often are registered once; the label `broker` is on everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::{BrokerId, ErrorCode};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The sort of a metric, as Prometheus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric: what the README's table and the tests are made from.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const METADATA: Metadata<'static> = Metadata::new("baton", Level::INFO, None);

macro_rules! handle {
    (Counter, $recorder:expr, $key:expr) => {
        $recorder.register_counter($key, &METADATA)
    };
    (Gauge, $recorder:expr, $key:expr) => {
        $recorder.register_gauge($key, &METADATA)
    };
    (Histogram, $recorder:expr, $key:expr) => {
        $recorder.register_histogram($key, &METADATA)
    };
}

macro_rules! table {
    (
        single { $( $field:ident: $kind:ident = $name:literal, $help:literal; )* }
        families { $( $family:ident: $fkind:ident = $fname:literal, [$($label:literal)+], $fhelp:literal; )* }
    ) => {
        /// Every metric; those with labels last.
        pub const TABLE: &[Descriptor] = &[
            $( Descriptor { name: $name, kind: MetricKind::$kind, labels: &[], help: $help }, )*
            $( Descriptor { name: $fname, kind: MetricKind::$fkind, labels: &[$($label),+], help: $fhelp }, )*
        ];

        struct Handles { $( $field: $kind, )* }

        impl Handles {
            fn register(recorder: &PrometheusRecorder) -> Self {
                Self { $( $field: handle!($kind, recorder, &Key::from_static_name($name)), )* }
            }
        }

        /// The handles of one set of label values, registered when they first occur. The
        /// values come from closed sets (codes, verdicts, brokers, configured listeners).
        impl Inner {
            $( fn $family(&self, values: &[&str]) -> $fkind {
                handle!($fkind, self.recorder, &labelled($fname, &[$($label),+], values))
            } )*
        }
    };
}

fn labelled(name: &'static str, labels: &[&'static str], values: &[&str]) -> Key {
    let labels: Vec<Label> =
        labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

table! {
    single {
        produce_requests: Counter = "baton_produce_requests_total", "Produce requests received.";
        produce_batches: Counter = "baton_produce_batches_total", "Batches acknowledged to producers.";
        produce_bytes: Counter = "baton_produce_bytes_total", "Bytes of the batches acknowledged to producers.";
        produce_leader_only: Counter = "baton_produce_leader_only_batches_total", "Batches whose producers asked for less than every in-sync replica (acks 0 or 1): outside of what is promised.";
        produce_ack: Histogram = "baton_produce_ack_seconds", "Time from a produce request's arrival to its acknowledgement.";
        fetch_requests: Counter = "baton_fetch_requests_total", "Fetch requests received.";
        fetch_batches: Counter = "baton_fetch_batches_total", "Batches handed to consumers.";
        fetch_bytes: Counter = "baton_fetch_bytes_total", "Bytes of the batches handed to consumers.";
        commit: Histogram = "baton_commit_seconds", "Time of one group commit, its fsync included.";
        commit_bytes: Histogram = "baton_commit_bytes", "Bytes that one group commit made durable.";
        commit_batches: Histogram = "baton_commit_batches", "Batches that one group commit made durable.";
        log_bytes: Gauge = "baton_log_bytes", "Bytes that the data directory uses.";
        log_free_bytes: Gauge = "baton_log_free_bytes", "Free bytes on the disk of the data directory.";
        partitions: Gauge = "baton_partitions", "Partitions that this broker holds a replica of.";
        leading: Gauge = "baton_leader_partitions", "Partitions that this broker leads.";
        under_replicated: Gauge = "baton_under_replicated_partitions", "Led partitions with fewer in-sync replicas than assigned ones.";
        offline: Gauge = "baton_offline_partitions", "Partitions with a replica here that nobody leads.";
        halted: Gauge = "baton_halted_partitions", "Partitions whose copy here contradicts itself and waits for an operator.";
        lag_max: Gauge = "baton_replication_lag_max_seconds", "How far the slowest live follower of the led partitions is behind.";
        isr_shrinks: Counter = "baton_isr_shrinks_total", "Replicas taken out of the in-sync replicas by this leader.";
        isr_expands: Counter = "baton_isr_expands_total", "Replicas taken into the in-sync replicas by this leader.";
        step_downs: Counter = "baton_step_downs_total", "Partitions that this broker ceased to lead without handing them over.";
        resignations: Counter = "baton_resignations_total", "Partitions that this broker handed over to another leader.";
        registry_sessions: Counter = "baton_registry_sessions_total", "ZooKeeper sessions begun.";
        registry_disconnects: Counter = "baton_registry_disconnects_total", "Connections to ZooKeeper that were lost.";
        registry_connected: Gauge = "baton_registry_connected", "1 while ZooKeeper is reached, 0 otherwise.";
        tail_cache_hits: Counter = "baton_tail_cache_hits_total", "Reads answered from memory.";
        tail_cache_misses: Counter = "baton_tail_cache_misses_total", "Reads that went to the log.";
        tail_cache_bytes: Gauge = "baton_tail_cache_bytes", "Bytes in the tail caches of all shards.";
        in_flight_bytes: Gauge = "baton_in_flight_bytes", "Bytes of requests in the broker.";
        answer_bytes: Gauge = "baton_fetch_answer_bytes", "Bytes of batches in answers to readers that are on their way.";
        redirected: Counter = "baton_redirected_fetches_total", "Partitions of fetches whose readers were sent to a copy in their rack.";
        throttled: Counter = "baton_throttled_requests_total", "Requests answered with a throttle time.";
        refused: Counter = "baton_refused_requests_total", "Requests refused because too many bytes were in the broker.";
        streams: Gauge = "baton_open_streams", "Open produce, fetch and event streams of clients.";
        scrubbed_copies: Counter = "baton_scrubbed_copies_total", "Copies read from end to end to find damage.";
        scrubbed_bytes: Counter = "baton_scrubbed_bytes_total", "Bytes read to find damage.";
        compactions: Counter = "baton_compactions_total", "Rounds of compaction over one copy.";
        compacted_bytes: Counter = "baton_compacted_bytes_total", "Bytes that compaction saved.";
        damaged: Counter = "baton_damaged_copies_total", "Copies found damaged, on opening or later.";
        groups: Gauge = "baton_groups", "Consumer groups that this broker coordinates.";
        group_members: Gauge = "baton_group_members", "Members of the consumer groups that this broker coordinates.";
        group_rebalances: Counter = "baton_group_rebalances_total", "Generations of consumer groups begun by this broker.";
        group_offsets: Counter = "baton_group_offsets_total", "Offsets of consumer groups given to the log to be committed.";
        group_load: Histogram = "baton_group_load_seconds", "Time in which a new coordinator of groups read its state.";
        draining: Gauge = "baton_draining", "1 while the broker hands over what it leads before it stops.";
    }
    families {
        produce_errors: Counter = "baton_produce_errors_total", ["code"], "Partitions of produce requests refused, by error code.";
        fetch_errors: Counter = "baton_fetch_errors_total", ["code"], "Partitions of fetch requests refused, by error code.";
        elections: Counter = "baton_elections_total", ["trigger"], "Elections won by this broker, by what asked for them.";
        verdicts: Counter = "baton_detector_verdicts_total", ["peer" "verdict"], "What the failure detector found, by peer.";
        peer_lag: Gauge = "baton_replication_lag_records", ["peer"], "Records that a follower has not acknowledged, over the led partitions.";
        peer_frame_bytes: Counter = "baton_replication_sent_bytes_total", ["peer" "stream"], "Bytes of batches sent to a follower, live or catching up.";
        transactions: Counter = "baton_transactions_total", ["outcome"], "Transactions ended by this broker as their coordinator: committed or aborted.";
        kafka_requests: Counter = "baton_kafka_requests_total", ["api"], "Requests of Kafka's protocol answered, by API.";
        kafka_request: Histogram = "baton_kafka_request_seconds", ["api"], "Time from a request of Kafka's protocol to its answer, what it waited for included.";
        connections: Gauge = "baton_connections", ["listener"], "Open connections.";
        connections_opened: Counter = "baton_connections_opened_total", ["listener"], "Connections accepted.";
        connections_refused: Counter = "baton_connections_refused_total", ["listener"], "Connections closed at once because the limit was reached.";
    }
}

const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BYTES: &[f64] =
    &[1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// What asked for an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The state names no leader.
    NoLeader,
    /// The leader's candidate node is gone.
    CandidateGone,
    /// The failure detector.
    Detector,
    /// The leader resigned to this broker.
    Resigned,
    /// This broker's own session ended, and it elects itself again.
    OwnSession,
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::NoLeader => "no_leader",
            Self::CandidateGone => "candidate_gone",
            Self::Detector => "detector",
            Self::Resigned => "resigned",
            Self::OwnSession => "own_session",
        }
    }
}

/// What the failure detector found out about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Alive,
    /// The port refuses, or another incarnation answers.
    Dead,
    /// Heartbeats are missing, and another broker says the same.
    Silent,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Dead => "dead",
            Self::Silent => "silent",
        }
    }
}

/// How the partitions of a broker stand; counted by whoever owns them, set as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionCounts {
    pub held: u64,
    pub led: u64,
    pub under_replicated: u64,
    pub offline: u64,
    pub halted: u64,
}

/// The metrics of one broker; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    handles: Handles,
}

impl Metrics {
    #[must_use]
    pub fn new(broker: BrokerId) -> Self {
        let recorder = builder(broker).build_recorder();
        for metric in TABLE {
            let help = metric.help.into();
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(metric.name.into(), None, help),
                MetricKind::Gauge => recorder.describe_gauge(metric.name.into(), None, help),
                MetricKind::Histogram => recorder.describe_histogram(metric.name.into(), None, help),
            }
        }
        let (handle, handles) = (recorder.handle(), Handles::register(&recorder));
        Self(Arc::new(Inner { recorder, handle, handles }))
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.handle.render()
    }

    /// Folds raw histogram samples into their buckets. The HTTP server calls it every few
    /// seconds: without it the samples would pile up in a broker that nobody scrapes.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    pub fn produce_received(&self) {
        self.0.handles.produce_requests.increment(1);
    }

    /// `batches` of `bytes` in all were acknowledged `after` their arrival.
    pub fn produce_acknowledged(&self, batches: u64, bytes: u64, after: Duration) {
        let handles = &self.0.handles;
        handles.produce_batches.increment(batches);
        handles.produce_bytes.increment(bytes);
        handles.produce_ack.record(after.as_secs_f64());
    }

    /// A batch was handed on whose producer does not wait for every in-sync replica.
    pub fn produce_leader_only(&self) {
        self.0.handles.produce_leader_only.increment(1);
    }

    pub fn produce_failed(&self, code: ErrorCode) {
        self.0.produce_errors(&[code.name()]).increment(1);
    }

    pub fn fetch_received(&self) {
        self.0.handles.fetch_requests.increment(1);
    }

    pub fn fetch_answered(&self, batches: u64, bytes: u64) {
        self.0.handles.fetch_batches.increment(batches);
        self.0.handles.fetch_bytes.increment(bytes);
    }

    pub fn fetch_failed(&self, code: ErrorCode) {
        self.0.fetch_errors(&[code.name()]).increment(1);
    }

    /// One group commit made `batches` of `bytes` in all durable in `took`.
    pub fn committed(&self, batches: u64, bytes: u64, took: Duration) {
        let handles = &self.0.handles;
        handles.commit.record(took.as_secs_f64());
        handles.commit_bytes.record(float(bytes));
        handles.commit_batches.record(float(batches));
    }

    pub fn log_usage(&self, bytes: u64, free_bytes: u64) {
        self.0.handles.log_bytes.set(float(bytes));
        self.0.handles.log_free_bytes.set(float(free_bytes));
    }

    pub fn partitions(&self, counts: PartitionCounts) {
        let handles = &self.0.handles;
        handles.partitions.set(float(counts.held));
        handles.leading.set(float(counts.led));
        handles.under_replicated.set(float(counts.under_replicated));
        handles.offline.set(float(counts.offline));
        handles.halted.set(float(counts.halted));
    }

    pub fn replication_lag_max(&self, lag: Duration) {
        self.0.handles.lag_max.set(lag.as_secs_f64());
    }

    pub fn peer_lag(&self, peer: BrokerId, records: u64) {
        self.0.peer_lag(&[&peer.to_string()]).set(float(records));
    }

    /// The counters of what is sent to `peer`; keep them with the stream.
    #[must_use]
    pub fn peer_stream(&self, peer: BrokerId, catch_up: bool) -> PeerStreamMetrics {
        let stream = if catch_up { "catch_up" } else { "live" };
        PeerStreamMetrics { sent: self.0.peer_frame_bytes(&[&peer.to_string(), stream]) }
    }

    pub fn isr_shrunk(&self) {
        self.0.handles.isr_shrinks.increment(1);
    }

    pub fn isr_expanded(&self) {
        self.0.handles.isr_expands.increment(1);
    }

    pub fn elected(&self, trigger: Trigger) {
        self.0.elections(&[trigger.name()]).increment(1);
    }

    pub fn stepped_down(&self) {
        self.0.handles.step_downs.increment(1);
    }

    pub fn resigned(&self) {
        self.0.handles.resignations.increment(1);
    }

    pub fn detected(&self, peer: BrokerId, verdict: Verdict) {
        self.0.verdicts(&[&peer.to_string(), verdict.name()]).increment(1);
    }

    pub fn registry_session(&self) {
        self.0.handles.registry_sessions.increment(1);
        self.0.handles.registry_connected.set(1.0);
    }

    pub fn registry_connected(&self) {
        self.0.handles.registry_connected.set(1.0);
    }

    pub fn registry_disconnected(&self) {
        self.0.handles.registry_disconnects.increment(1);
        self.0.handles.registry_connected.set(0.0);
    }

    /// A copy was read from end to end.
    pub fn scrubbed_copy(&self) {
        self.0.handles.scrubbed_copies.increment(1);
    }

    pub fn scrubbed(&self, bytes: u64) {
        self.0.handles.scrubbed_bytes.increment(bytes);
    }

    /// A round of compaction is done.
    pub fn compacted(&self, saved_bytes: u64) {
        self.0.handles.compactions.increment(1);
        self.0.handles.compacted_bytes.increment(saved_bytes);
    }

    pub fn found_damaged(&self) {
        self.0.handles.damaged.increment(1);
    }

    pub fn tail_cache_read(&self, hit: bool) {
        let handles = &self.0.handles;
        if hit { handles.tail_cache_hits.increment(1) } else { handles.tail_cache_misses.increment(1) }
    }

    /// A shard's cache grew or shrank.
    pub fn tail_cache_changed(&self, before_bytes: u64, after_bytes: u64) {
        self.0.handles.tail_cache_bytes.increment(float(after_bytes) - float(before_bytes));
    }

    pub fn in_flight(&self, bytes: u64) {
        self.0.handles.in_flight_bytes.set(float(bytes));
    }

    pub fn answers_held(&self, bytes: u64) {
        self.0.handles.answer_bytes.set(float(bytes));
    }

    pub fn fetch_redirected(&self) {
        self.0.handles.redirected.increment(1);
    }

    pub fn throttled(&self) {
        self.0.handles.throttled.increment(1);
    }

    pub fn request_refused(&self) {
        self.0.handles.refused.increment(1);
    }

    /// Counts an open stream until the guard is dropped.
    #[must_use]
    pub fn stream_opened(&self) -> OpenStream {
        self.0.handles.streams.increment(1.0);
        OpenStream(self.0.handles.streams.clone())
    }

    /// What this broker coordinates now.
    pub fn groups(&self, groups: u64, members: u64) {
        self.0.handles.groups.set(float(groups));
        self.0.handles.group_members.set(float(members));
    }

    pub fn groups_loaded(&self, took: Duration) {
        self.0.handles.group_load.record(took.as_secs_f64());
    }

    pub fn group_rebalanced(&self) {
        self.0.handles.group_rebalances.increment(1);
    }

    pub fn offset_committed(&self) {
        self.0.handles.group_offsets.increment(1);
    }

    pub fn transaction_ended(&self, committed: bool) {
        let outcome = if committed { "committed" } else { "aborted" };
        self.0.transactions(&[outcome]).increment(1);
    }

    pub fn draining(&self, draining: bool) {
        self.0.handles.draining.set(f64::from(u8::from(draining)));
    }

    /// The counters of the listener with this configured name.
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            open: self.0.connections(&[name]),
            opened: self.0.connections_opened(&[name]),
            refused: self.0.connections_refused(&[name]),
        }
    }
}

impl Metrics {
    /// The metrics of these APIs of Kafka's protocol.
    #[must_use]
    pub fn kafka(&self, apis: impl Iterator<Item = &'static str>) -> KafkaMetrics {
        let one = |api| (api, (self.0.kafka_requests(&[api]), self.0.kafka_request(&[api])));
        KafkaMetrics { apis: apis.map(one).collect() }
    }
}

/// The metrics of Kafka's protocol, by API.
#[derive(Clone)]
pub struct KafkaMetrics {
    apis: BTreeMap<&'static str, (Counter, Histogram)>,
}

impl KafkaMetrics {
    /// A request was answered `after` its arrival.
    pub fn answered(&self, api: &str, after: Duration) {
        if let Some((requests, time)) = self.apis.get(api) {
            requests.increment(1);
            time.record(after.as_secs_f64());
        }
    }
}

fn builder(broker: BrokerId) -> PrometheusBuilder {
    let mut builder = PrometheusBuilder::new().add_global_label("broker", broker.to_string());
    let buckets = [("_seconds", SECONDS), ("_bytes", BYTES), ("_batches", BATCHES)];
    for (suffix, values) in buckets {
        // The only error is an empty list of buckets.
        builder = match builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), values) {
            Ok(builder) => builder,
            Err(_) => return PrometheusBuilder::new(),
        };
    }
    builder
}

/// Prometheus knows only floats; counts above 2⁵³ lose their last digits.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// The counters of one listener; the default counts nothing.
#[derive(Clone)]
pub struct ListenerMetrics {
    open: Gauge,
    opened: Counter,
    refused: Counter,
}

impl Default for ListenerMetrics {
    fn default() -> Self {
        Self { open: Gauge::noop(), opened: Counter::noop(), refused: Counter::noop() }
    }
}

impl ListenerMetrics {
    pub fn opened(&self) {
        self.opened.increment(1);
        self.open.increment(1.0);
    }

    pub fn closed(&self) {
        self.open.decrement(1.0);
    }

    pub fn refused(&self) {
        self.refused.increment(1);
    }
}

/// The counter of one stream to a follower.
#[derive(Clone)]
pub struct PeerStreamMetrics {
    sent: Counter,
}

impl PeerStreamMetrics {
    pub fn sent(&self, bytes: u64) {
        self.sent.increment(bytes);
    }
}

/// A stream that counts as open.
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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
}
