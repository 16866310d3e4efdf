//! For monitoring: `/metrics`, `/livez`, `/readyz`, and a small index.
//!
//! The requests have no bodies worth reading, so none is read. Every connection is bounded:
//! its first bytes, its headers, and its whole life have deadlines.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::net::{Acceptor, Connection};

/// How long a probe may take before it counts as failed.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// How long the headers of one request may take, the wait for the next request included.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long one connection lives at most; monitoring connects again.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long open answers may take when the broker stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);
const HEADER_BYTES_MAX: usize = 16 * 1024;
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// One thing that a broker has to have before it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// A stable name: `registry`, `log`, `partitions`, `draining`.
    pub what: &'static str,
    /// One sentence for people.
    pub why: String,
}

/// What the probes ask.
#[async_trait]
pub trait ReadinessProbe: Send + Sync + 'static {
    /// What is missing before this broker does everything that it should: registered, its log
    /// open, following and leading what it should, not draining. Empty means ready.
    async fn missing(&self) -> Vec<Missing>;

    /// Returns once the shards have answered; a broker in which they never do is not alive.
    async fn alive(&self) {}
}

/// What the server shows.
#[derive(Clone)]
pub struct Monitoring {
    pub metrics: Metrics,
    pub probe: Arc<dyn ReadinessProbe>,
    pub about: About,
}

/// Who answers: the body of `/`.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    pub broker: u32,
    pub version: &'static str,
    /// The broker's start, as hex digits.
    pub incarnation: String,
    /// The cluster's uuid.
    pub cluster: String,
}

/// Serves until `stop` is cancelled.
pub async fn serve(acceptor: Acceptor, monitoring: Monitoring, stop: CancellationToken) {
    let metrics = monitoring.metrics.clone();
    serve_router(acceptor, router(monitoring), move || metrics.upkeep(), stop).await;
}

/// Serves other routes in the same way; the coordinator has its own. `upkeep_of` is called every
/// few seconds.
pub async fn serve_router(
    mut acceptor: Acceptor,
    router: Router,
    upkeep_of: impl Fn() + Send,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = upkeep.tick() => upkeep_of(),
            Some(_) = connections.join_next() => {}
            connection = acceptor.accept() => {
                connections.spawn(serve_connection(connection, router.clone(), stop.clone()));
            }
        }
    }
    drop(acceptor);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends whoever is late.
    let _late = tokio::time::timeout(STOP_WITHIN, all_ended).await;
}

async fn serve_connection(connection: Connection, router: Router, stop: CancellationToken) {
    let peer = connection.remote_addr();
    let service = TowerToHyperService::new(router);
    let mut http = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(connection), service)
    );
    let ended = tokio::select! {
        biased;
        ended = tokio::time::timeout(CONNECTION_LIFE, http.as_mut()) => ended,
        () = stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            tokio::time::timeout(STOP_WITHIN, http).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(?peer, %error, "a monitoring connection failed"),
        Err(_) => tracing::debug!(?peer, "a monitoring connection was closed for its age"),
    }
}

fn router(monitoring: Monitoring) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(monitoring)
}

#[derive(Serialize)]
struct Index {
    #[serde(flatten)]
    about: About,
    paths: [&'static str; 3],
}

async fn index(State(monitoring): State<Monitoring>) -> Json<Index> {
    Json(Index { about: monitoring.about, paths: ["/metrics", "/livez", "/readyz"] })
}

async fn metrics(State(monitoring): State<Monitoring>) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (format, monitoring.metrics.render()).into_response()
}

#[derive(Serialize)]
struct Alive {
    alive: bool,
}

async fn livez(State(monitoring): State<Monitoring>) -> (StatusCode, Json<Alive>) {
    let alive = tokio::time::timeout(PROBE_WITHIN, monitoring.probe.alive()).await.is_ok();
    (status(alive), Json(Alive { alive }))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    missing: Vec<Missing>,
}

async fn readyz(State(monitoring): State<Monitoring>) -> (StatusCode, Json<Readiness>) {
    let asked = tokio::time::timeout(PROBE_WITHIN, monitoring.probe.missing()).await;
    let missing = asked.unwrap_or_else(|_| {
        let why = format!("the broker did not answer within {PROBE_WITHIN:?}");
        vec![Missing { what: "answer", why }]
    });
    let ready = missing.is_empty();
    (status(ready), Json(Readiness { ready, missing }))
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
