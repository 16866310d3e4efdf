//! Every metric of a broker, as named functions: call sites see no library.
//!
//! Each broker has a recorder of its own, so that several brokers in one process (`baton dev`,
//! simulations) do not share counts, and nothing depends on which came first. Handles of what
//! happens often are registered once; the label `broker` is on everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::{BrokerId, ErrorCode};
use metrics::{Counter, Gauge, Histogram, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

mod table;
#[cfg(test)]
mod tests;

use self::table::{BATCHES, BYTES, Handles, Inner, SECONDS};
pub use self::table::{Descriptor, MetricKind, TABLE};

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
