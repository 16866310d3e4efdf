//! Every metric, and its handles.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

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

        /// Those without labels.
        pub(super) struct Handles { $( pub(super) $field: $kind, )* }

        impl Handles {
            pub(super) fn register(recorder: &PrometheusRecorder) -> Self {
                Self { $( $field: handle!($kind, recorder, &Key::from_static_name($name)), )* }
            }
        }

        /// The handles of one set of label values, registered when they first occur. The
        /// values come from closed sets (codes, verdicts, brokers, configured listeners).
        impl Inner {
            $( pub(super) fn $family(&self, values: &[&str]) -> $fkind {
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

pub(super) const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
pub(super) const BYTES: &[f64] =
    &[1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
pub(super) const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// The metrics of one broker.
pub(super) struct Inner {
    pub(super) recorder: PrometheusRecorder,
    pub(super) handle: PrometheusHandle,
    pub(super) handles: Handles,
}
