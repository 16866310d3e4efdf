//! Accepts the connections of one listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::service::KafkaService;
use crate::net::{Acceptor, ConnectError, Network};

/// Bytes of a request that are certain to come: its length, and the first half of its header.
pub const FIRST_BYTES: usize = 8;

/// How long open connections have to come to their end when the broker stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the broker tries to reach itself.
const REACH_WITHIN: Duration = Duration::from_secs(5);

/// Serves until the broker stops; what was asked before is answered.
pub async fn serve(mut acceptor: Acceptor, service: KafkaService, stop: CancellationToken) {
    let service = Arc::new(service);
    let mut connections = JoinSet::new();
    loop {
        let connection = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // Ended ones are taken out as they end.
            Some(_) = connections.join_next() => continue,
            connection = acceptor.accept() => connection,
        };
        connections.spawn(connection::serve(Arc::clone(&service), connection, stop.clone()));
    }
    let ending = async { while connections.join_next().await.is_some() {} };
    // What is left is dropped with the set.
    let _ = tokio::time::timeout(FAREWELL, ending).await;
}

/// Clients connect to the address that they are told, wherever they asked first. One that
/// leads nowhere is the most common mistake, and looks like a broker that does not answer.
pub async fn check_advertised(network: Arc<dyn Network>, listener: Arc<str>, advertised: String) {
    let listener = &*listener;
    let Err(error) = network.connect(&advertised, REACH_WITHIN).await else { return };
    let hint = match error {
        ConnectError::Refused { .. } => "nothing listens there",
        _ => "it does not answer",
    };
    tracing::warn!(
        listener,
        advertised,
        %error,
        "this broker cannot reach its own advertised address ({hint}): clients are told to connect there; \
         correct `advertised` of the listener"
    );
}
