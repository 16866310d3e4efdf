//! Admin calls: any broker forwards them to the coordinator, so that clients need to know
//! brokers only.

use std::time::Duration;

use async_trait::async_trait;
use baton_core::{Error, ErrorCode};
use baton_proto::v1::admin_server::Admin;
use baton_proto::v1::{self, AdminReply, TopicReply};
use tonic::{Request, Response, Status};

use crate::authorizer::{Resource, Verb};
use crate::grpc::service::GrpcService;

/// Creating many partitions takes its time; beyond this an answer is no longer waited for.
const ADMIN_MAX: Duration = Duration::from_secs(120);

/// What an admin call changes: the verb that has to be allowed, and the topic, if it is one.
fn denied(service: &GrpcService, request: &Request<impl Sized>, verb: Verb, topic: Option<&str>) -> Option<Error> {
    let context = service.context(request, 0);
    let resource = topic.map_or(Resource::Cluster, Resource::Topic);
    service.parts.authorizer.authorize(&context, verb, resource).err()
}

macro_rules! forward {
    ($($method:ident($request:ty) -> $reply:ident, $verb:ident, $topic:expr $(, $prepare:expr)?;)*) => {
        #[allow(clippy::needless_update, reason = "one of the replies has a single field")]
        #[async_trait]
        impl Admin for GrpcService {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
                #[allow(unused_mut, reason = "most requests are passed on as they are")]
                let mut request = request;
                $({
                    let prepare: fn(&mut $request) = $prepare;
                    prepare(request.get_mut());
                })?
                let topic: fn(&$request) -> Option<&str> = $topic;
                let refused = denied(self, &request, Verb::$verb, topic(request.get_ref()));
                if let Some(error) = refused {
                    return Ok(Response::new($reply { error: Some(error.into()), ..Default::default() }));
                }
                let error = match self.coordinator.client().await {
                    Ok(client) => {
                        let mut client = client.max_decoding_message_size(16 << 20);
                        match tokio::time::timeout(ADMIN_MAX, client.$method(request.into_inner())).await {
                            Ok(Ok(answer)) => return Ok(answer),
                            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                                Error::new(ErrorCode::FrameTooLarge, status.message())
                            }
                            Ok(Err(status)) => self.lost_coordinator(&status).await,
                            Err(_) => Error::new(ErrorCode::RequestTimedOut, "the coordinator did not answer in time"),
                        }
                    }
                    Err(error) => error,
                };
                Ok(Response::new($reply { error: Some(error.into()), ..Default::default() }))
            })*
        }
    };
}

forward! {
    // Names under `__` are for brokers, which ask the coordinator themselves.
    create_topic(v1::CreateTopicRequest) -> TopicReply, Create, |r| Some(&r.name), |r| r.internal = false;
    alter_topic(v1::AlterTopicRequest) -> TopicReply, Alter, |r| Some(&r.name);
    add_partitions(v1::AddPartitionsRequest) -> TopicReply, Alter, |r| Some(&r.name);
    delete_topic(v1::DeleteTopicRequest) -> TopicReply, Delete, |r| Some(&r.name);
    reassign(v1::ReassignRequest) -> AdminReply, Operate, |r| Some(&r.topic);
    elect_unclean(v1::ElectUncleanRequest) -> AdminReply, Operate, |r| Some(&r.topic);
    elect_preferred(v1::ElectPreferredRequest) -> AdminReply, Operate, |r| Some(&r.topic);
}

impl GrpcService {
    /// Whether the call took effect is unknown: admin calls are safe to repeat. The code differs
    /// from that of a call that reached nobody, so that a client that repeats it knows that it
    /// may find its own work done.
    async fn lost_coordinator(&self, status: &Status) -> Error {
        self.coordinator.forget().await;
        let cause = format!("the coordinator was lost during the call ({}); another one finishes it", status.message());
        Error::new(ErrorCode::FencedCoordinator, cause)
    }
}
