//! The control port of `baton dev`: kill a broker, start it again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, response::IntoResponse};
use baton_broker::http::serve_router;
use baton_broker::metrics::ListenerMetrics;
use baton_broker::net::{AcceptLimits, Acceptor, Network, TcpNetwork};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::dev::cluster::{DevCluster, DevError};

/// Where the control port is unless the user says otherwise.
pub const CONTROL: &str = "127.0.0.1:7490";

/// The answer to every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whether brokers 1, 2, 3 run.
    pub running: Vec<bool>,
    pub error: Option<String>,
}

/// Connections at once: a person's, and a script's.
const CONNECTIONS_MAX: usize = 64;

/// A connection that has said nothing after so long is closed.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(5);

/// Serves until the process ends. Only this machine can reach it.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, cluster: Arc<DevCluster>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(status))
        .route("/brokers/{id}/kill", post(kill))
        .route("/brokers/{id}/start", post(start))
        .with_state(cluster);
    let limits = AcceptLimits {
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        first_bytes: 1,
        first_bytes_within: FIRST_BYTES_WITHIN,
        metrics: ListenerMetrics::default(),
    };
    let acceptor = Acceptor::new(TcpNetwork.bind(&address.to_string()).await?, limits);
    serve_router(acceptor, router, || {}, CancellationToken::new()).await;
    Ok(())
}

async fn status(State(cluster): State<Arc<DevCluster>>) -> Json<Told> {
    Json(Told { running: cluster.running(), error: None })
}

async fn kill(State(cluster): State<Arc<DevCluster>>, Path(id): Path<u32>) -> impl IntoResponse {
    answer(cluster, move |cluster| cluster.kill(id)).await
}

async fn start(State(cluster): State<Arc<DevCluster>>, Path(id): Path<u32>) -> impl IntoResponse {
    answer(cluster, move |cluster| cluster.start_broker(id)).await
}

/// The cluster's functions block: they run on a thread of their own.
async fn answer(
    cluster: Arc<DevCluster>,
    act: impl FnOnce(&DevCluster) -> Result<(), DevError> + Send + 'static,
) -> (StatusCode, Json<Told>) {
    let acting = Arc::clone(&cluster);
    let done = tokio::task::spawn_blocking(move || act(&acting)).await;
    let error = match done {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let status = if error.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    (status, Json(Told { running: cluster.running(), error }))
}

/// Asks a running `baton dev`.
///
/// # Errors
/// Nobody listens there, or it is something else.
pub fn ask(address: &str, path: &str) -> Result<Told, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .into();
    let answer = agent.post(format!("http://{address}{path}")).send_empty();
    let mut answer = answer.map_err(|error| format!("no `baton dev` answers at {address}: {error}"))?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|_| format!("what listens at {address} is not `baton dev`"))
}
