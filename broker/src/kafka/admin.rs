//! What the elected coordinator does: passed on to it with a deadline, whichever broker a
//! client asks.

use std::future::Future;
use std::time::Duration;

use baton_core::{Error, ErrorCode};
use baton_proto::v1::{self, admin_client::AdminClient};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::service::Call;
use crate::context::Principal;

/// What a reply of the coordinator says of its failure.
pub(super) trait Reply {
    fn take_error(&mut self) -> Option<v1::Error>;
}

impl Reply for v1::TopicReply {
    fn take_error(&mut self) -> Option<v1::Error> {
        self.error.take()
    }
}

impl Reply for v1::AdminReply {
    fn take_error(&mut self) -> Option<v1::Error> {
        self.error.take()
    }
}

/// Who asked, for the cluster's history.
pub(super) fn who(call: &Call) -> String {
    match &call.context.principal {
        Principal::User(name) => name.to_string(),
        Principal::Anonymous | Principal::Cluster => format!("Kafka client {}", call.context.client_id),
    }
}

/// Asks the coordinator. Whether a call that was lost took effect is unknown: admin calls are
/// safe to repeat.
pub(super) async fn ask<R: Reply, F>(
    call: &Call,
    within: Duration,
    request: impl FnOnce(AdminClient<Channel>) -> F,
) -> Result<R, Error>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let coordinator = &call.parts().coordinator;
    let late = || Error::new(ErrorCode::RequestTimedOut, "the coordinator did not answer in time");
    let asking = async {
        let client = coordinator.client().await?;
        match request(client.max_decoding_message_size(16 << 20)).await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) if status.code() == tonic::Code::OutOfRange => {
                Err(Error::new(ErrorCode::FrameTooLarge, status.message()))
            }
            Err(status) => {
                coordinator.forget().await;
                let cause = format!("the coordinator was lost during the call ({})", status.message());
                Err(Error::new(ErrorCode::FencedCoordinator, cause))
            }
        }
    };
    let mut reply = tokio::time::timeout(within, asking).await.map_err(|_| late())??;
    match reply.take_error() {
        None => Ok(reply),
        Some(error) => Err(Error::from(&error)),
    }
}

pub(super) async fn create(
    call: &Call,
    request: v1::CreateTopicRequest,
    within: Duration,
) -> Result<v1::TopicReply, Error> {
    ask(call, within, |mut client| async move { client.create_topic(request).await }).await
}

pub(super) async fn alter(call: &Call, request: v1::AlterTopicRequest, within: Duration) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.alter_topic(request).await }).await.map(drop)
}

pub(super) async fn grow(call: &Call, request: v1::AddPartitionsRequest, within: Duration) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.add_partitions(request).await }).await.map(drop)
}

pub(super) async fn delete(call: &Call, request: v1::DeleteTopicRequest, within: Duration) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.delete_topic(request).await }).await.map(drop)
}

pub(super) async fn reassign(call: &Call, request: v1::ReassignRequest, within: Duration) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.reassign(request).await }).await.map(drop)
}

pub(super) async fn elect_preferred(
    call: &Call,
    request: v1::ElectPreferredRequest,
    within: Duration,
) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.elect_preferred(request).await }).await.map(drop)
}

pub(super) async fn elect_unclean(
    call: &Call,
    request: v1::ElectUncleanRequest,
    within: Duration,
) -> Result<(), Error> {
    ask(call, within, |mut client| async move { client.elect_unclean(request).await }).await.map(drop)
}

/// Waits a moment until this broker knows of a change that the coordinator has made, so that
/// the client's next question finds it. Late is no error: other brokers may be later still.
pub(super) async fn until_seen(call: &Call, seen: impl Fn() -> bool) {
    const WITHIN: Duration = Duration::from_secs(1);
    let mut changes = call.parts().view.changes();
    let waiting = async {
        loop {
            changes.mark_unchanged();
            if seen() || changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(WITHIN, waiting).await;
}
