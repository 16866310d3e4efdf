//! Tells the coordinator that this member is alive, and hears when the group divides anew.

use std::sync::Arc;

use baton_core::ErrorCode;
use baton_proto::v1;
use tokio::{sync::watch, time::Instant};

use super::membership::Me;
use crate::error::ClientError;

/// How a place in a generation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Good,
    /// The group divides anew: give up what is read, and join again.
    Rebalances,
    /// The group went on without this member: what it read may be another's by now.
    Lost,
    /// Another one took its place for good.
    Refused(ClientError),
}

/// Runs until the place is not good any more.
pub(super) async fn run(me: Arc<Me>, generation: i32, stand: watch::Sender<Stand>) {
    loop {
        tokio::time::sleep(me.config.heartbeat).await;
        let request = v1::GroupHeartbeatRequest {
            group: me.config.group.clone(),
            member: Some(me.identity()),
            generation,
            timeout_ms: 0,
        };
        let deadline = Instant::now() + me.config.session;
        let beat = me.coordinator.call("a heartbeat", deadline, me.config.heartbeat, |mut client, timeout_ms| {
            let request = v1::GroupHeartbeatRequest { timeout_ms, ..request.clone() };
            async move { client.group_heartbeat(request).await }
        });
        let news = match beat.await {
            Ok(v1::GroupHeartbeatResponse { .. }) => continue,
            Err(error) => match error.code() {
                ErrorCode::RebalanceInProgress => Stand::Rebalances,
                ErrorCode::UnknownMember | ErrorCode::IllegalGeneration => Stand::Lost,
                _ if error.retriable() => {
                    // The coordinator counts the session, and a new one begins it anew.
                    tracing::warn!(group = me.config.group, %error, "the group's coordinator does not answer");
                    continue;
                }
                _ => Stand::Refused(error),
            },
        };
        let over = !matches!(news, Stand::Rebalances);
        stand.send_replace(news);
        if over {
            return;
        }
    }
}
