//! `/metrics`, `/livez` and `/readyz` of a coordinator.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use baton_core::{CoordinatorEpoch, ErrorCode};
use baton_registry::SessionState;
use serde_json::{Value, json};

use super::plan::{Snapshot, reassign};
use super::term::Shared;

/// What is counted; everything else is read from the view when it is asked for.
#[derive(Debug, Default)]
pub struct CoordinatorMetrics {
    active: AtomicBool,
    epoch: AtomicU64,
    terms: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
}

impl CoordinatorMetrics {
    pub fn elected(&self, epoch: CoordinatorEpoch) {
        self.epoch.store(u64::from(epoch.0), Ordering::Relaxed);
        self.terms.fetch_add(1, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    pub fn stepped_down(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// An administrator's request was answered, with an error or without.
    pub fn answered(&self, error: Option<ErrorCode>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if error.is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One line of `/metrics`: name, kind, help, value.
type Line = (&'static str, &'static str, &'static str, u64);

/// Everything in Prometheus' text format.
#[must_use]
pub fn render(shared: &Shared) -> String {
    let metrics = &shared.metrics;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let history = shared.history.counts();
    let cluster = shared.view.read(counts);
    let lines: [Line; 14] = [
        (
            "baton_coordinator_active",
            "gauge",
            "1 while this coordinator is the elected one.",
            metrics.is_active().into(),
        ),
        ("baton_coordinator_epoch", "gauge", "The epoch of its last term.", load(&metrics.epoch)),
        ("baton_coordinator_terms_total", "counter", "Elections won.", load(&metrics.terms)),
        (
            "baton_coordinator_requests_total",
            "counter",
            "Requests of administrators answered.",
            load(&metrics.requests),
        ),
        (
            "baton_coordinator_requests_refused_total",
            "counter",
            "Those answered with an error.",
            load(&metrics.refused),
        ),
        ("baton_coordinator_events_recorded_total", "counter", "Events appended to the history.", history.recorded),
        (
            "baton_coordinator_events_dropped_total",
            "counter",
            "Events dropped because too many waited.",
            history.dropped,
        ),
        ("baton_coordinator_events_waiting", "gauge", "Events that wait to be appended.", history.waiting),
        ("baton_cluster_brokers", "gauge", "Registered brokers.", cluster.brokers),
        ("baton_cluster_topics", "gauge", "Topics.", cluster.topics),
        ("baton_cluster_partitions", "gauge", "Partitions.", cluster.partitions),
        ("baton_cluster_leaderless_partitions", "gauge", "Partitions that nobody leads.", cluster.leaderless),
        (
            "baton_cluster_under_replicated_partitions",
            "gauge",
            "Partitions with fewer copies in sync than assigned.",
            cluster.under_replicated,
        ),
        ("baton_cluster_moving_partitions", "gauge", "Partitions with copies on their way.", cluster.moving),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}

#[derive(Default)]
struct Counts {
    brokers: u64,
    topics: u64,
    partitions: u64,
    leaderless: u64,
    under_replicated: u64,
    moving: u64,
}

fn counts(snapshot: &Snapshot) -> Counts {
    let mut counts = Counts {
        brokers: snapshot.brokers.len() as u64,
        topics: snapshot.topics.len() as u64,
        partitions: snapshot.states.len() as u64,
        ..Counts::default()
    };
    for known in snapshot.states.values() {
        let state = &known.state;
        counts.leaderless += u64::from(state.leader.is_none());
        counts.under_replicated += u64::from(state.isr.len() < state.assignment.replicas.len());
        counts.moving += u64::from(reassign::under_way(&state.assignment));
    }
    counts
}

/// The routes that are served.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

async fn index(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "coordinator": shared.config.name,
        "version": env!("CARGO_PKG_VERSION"),
        "active": shared.metrics.is_active(),
        "paths": ["/metrics", "/livez", "/readyz"],
    }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (format, render(&shared)).into_response()
}

async fn livez() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// Ready: the registry is reached, and either this coordinator or another one is elected by it.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let connected = matches!(*shared.registry.session().borrow(), SessionState::Connected(_));
    let mut missing = Vec::new();
    if !connected {
        missing.push(json!({ "what": "registry", "why": "ZooKeeper does not answer" }));
    }
    if !shared.view.read(Snapshot::is_complete) {
        missing.push(json!({ "what": "view", "why": "the cluster has not been read yet" }));
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let role = if shared.metrics.is_active() { "active" } else { "standby" };
    (status, Json(json!({ "ready": missing.is_empty(), "role": role, "missing": missing })))
}
