//! Admin calls: any broker forwards them to the coordinator, so that clients need to know
//! brokers only.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::{Error, ErrorCode};
use baton_proto::v1::admin_client::AdminClient;
use baton_proto::v1::admin_server::Admin;
use baton_proto::v1::{self, AdminReply, TopicReply};
use baton_registry::recipes::coordinator_election;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::authorizer::{Resource, Verb};
use crate::grpc::service::{GrpcService, ListenerParts};
use crate::net::NetConnector;

/// Creating many partitions takes its time; beyond this an answer is no longer waited for.
const ADMIN_MAX: Duration = Duration::from_secs(120);

/// The connection to the elected coordinator.
pub(super) struct CoordinatorLink {
    parts: Arc<ListenerParts>,
    channel: Mutex<Option<(String, Channel)>>,
}

impl CoordinatorLink {
    pub(super) fn new(parts: Arc<ListenerParts>) -> Self {
        Self { parts, channel: Mutex::new(None) }
    }

    /// Who coordinates, as the registry says.
    pub(super) async fn current(&self) -> Option<v1::CoordinatorStatus> {
        let (term, candidate) = coordinator_election::current(&*self.parts.registry).await.ok().flatten()?;
        Some(v1::CoordinatorStatus { endpoint: format!("{}:{}", candidate.host, candidate.port), epoch: term.epoch.0 })
    }

    async fn client(&self) -> Result<AdminClient<Channel>, Error> {
        let none = "no coordinator is elected: start one with `baton coordinator`, or wait for the election";
        let current = self.current().await.ok_or_else(|| Error::new(ErrorCode::NoCoordinator, none))?;
        let mut known = self.channel.lock().await;
        if let Some((endpoint, channel)) = &*known
            && *endpoint == current.endpoint
        {
            return Ok(AdminClient::new(channel.clone()));
        }
        let channel = self.connect(&current.endpoint).await?;
        *known = Some((current.endpoint, channel.clone()));
        Ok(AdminClient::new(channel))
    }

    async fn connect(&self, address: &str) -> Result<Channel, Error> {
        let gone = |why: String| Error::new(ErrorCode::NoCoordinator, format!("the coordinator at {address}: {why}"));
        let timeout = Duration::from_millis(self.parts.timing.connect_ms);
        let connector = NetConnector::new(Arc::clone(&self.parts.network), timeout);
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(|e| gone(e.to_string()))?;
        let endpoint = endpoint
            .connect_timeout(timeout)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        match tokio::time::timeout(timeout, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(gone(error.to_string())),
            Err(_) => Err(gone("it does not answer".to_owned())),
        }
    }

    async fn forget(&self) {
        *self.channel.lock().await = None;
    }
}

/// What an admin call changes: the verb that has to be allowed, and the topic, if it is one.
fn denied(service: &GrpcService, request: &Request<impl Sized>, verb: Verb, topic: Option<&str>) -> Option<Error> {
    let context = service.context(request, 0);
    let resource = topic.map_or(Resource::Cluster, Resource::Topic);
    service.parts.authorizer.authorize(&context, verb, resource).err()
}

macro_rules! forward {
    ($($method:ident($request:ty) -> $reply:ident, $verb:ident, $topic:expr;)*) => {
        #[allow(clippy::needless_update, reason = "one of the replies has a single field")]
        #[async_trait]
        impl Admin for GrpcService {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
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
    create_topic(v1::CreateTopicRequest) -> TopicReply, Create, |r| Some(&r.name);
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
