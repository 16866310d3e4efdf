//! What every request needs, and how it is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_core::{Error, ErrorCode};
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::guard::{self, Malformed};
use super::room::Bodies;
use super::table::Api;
use crate::admission::ConnectionUse;
use crate::authorizer::{Resource, Verb};
use crate::config::KafkaConfig;
use crate::context::{RequestContext, granted_timeout};
use crate::grpc::ListenerParts;
use crate::metrics::KafkaMetrics;
use crate::serving::ProducerIds;
use crate::transaction::Asked;

/// One Kafka listener.
pub struct KafkaService {
    pub(super) parts: Arc<ListenerParts>,
    pub(super) config: KafkaConfig,
    /// The listener's configured name: clients are told the addresses of the same listener of
    /// the other brokers.
    pub(super) name: Arc<str>,
    pub(super) producer_ids: ProducerIds,
    pub(super) metrics: KafkaMetrics,
    pub(super) bodies: Bodies,
}

/// How a request is answered.
pub(super) enum Answer {
    Now(Bytes),
    /// Once it is known; the next request of the connection is begun meanwhile.
    Later(BoxFuture<'static, Result<Bytes, Hangup>>),
    /// A producer that waits for no acknowledgement gets none.
    Never,
}

/// Why a connection is closed by the broker.
#[derive(Debug, thiserror::Error)]
pub enum Hangup {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("there is no API with key {0}")]
    UnknownApi(i16),
    #[error("{name} is served in the versions {min} to {max}, not in {version}")]
    UnsupportedVersion { name: &'static str, min: i16, max: i16, version: i16 },
    #[error("the request cannot be decoded: {0}")]
    Undecodable(String),
    #[error("this broker has just started, and has not read the topics yet")]
    JustStarted,
    /// Whoever sent it has gone, most likely; a client that is still there asks again on a new
    /// connection. An error code would have it ask again on this one.
    #[error("{0}")]
    Replaced(Error),
    /// A defect of this broker.
    #[error("the response cannot be encoded: {0}")]
    Unencodable(String),
    /// The only way to tell a producer that asked for no acknowledgements.
    #[error("what was sent without acknowledgement was refused: {0}")]
    Unacknowledged(Error),
}

/// One request, on its way.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) service: Arc<KafkaService>,
    pub(super) api: &'static Api,
    pub(super) context: RequestContext,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

impl KafkaService {
    #[must_use]
    pub fn new(parts: Arc<ListenerParts>, config: KafkaConfig, name: &str) -> Self {
        let producer_ids = ProducerIds::new(Arc::clone(&parts.registry));
        let metrics = parts.metrics.kafka(super::table::APIS.iter().map(|api| api.name));
        let bodies = Bodies::new(&parts.limits);
        Self { parts, config, name: name.into(), producer_ids, metrics, bodies }
    }

    pub(super) fn context(&self, peer: Option<SocketAddr>, connection: &ConnectionUse) -> RequestContext {
        let timeout = Duration::from_millis(self.parts.timing.request_ms);
        RequestContext::new(Arc::clone(&self.name), peer, timeout).connection(connection.clone())
    }
}

impl Call {
    /// The same call with the time that the client named, as far as it is granted.
    pub(super) fn granted(&self, timeout_ms: i32) -> Duration {
        let timing = &self.service.parts.timing;
        let asked = u32::try_from(timeout_ms).unwrap_or(0);
        granted_timeout(asked, Duration::from_millis(timing.request_ms), Duration::from_millis(timing.request_ms_max))
    }

    pub(super) fn parts(&self) -> &ListenerParts {
        &self.service.parts
    }

    pub(super) fn authorize(&self, verb: Verb, resource: Resource<'_>) -> Result<(), Error> {
        self.service.parts.authorizer.authorize(&self.context, verb, resource)
    }

    /// How a request of a transaction comes to its coordinator.
    pub(super) fn asked(&self) -> Asked {
        Asked { deadline: self.context.deadline, connection: self.context.connection_id }
    }

    pub(super) fn answer(&self, response: &impl Encodable) -> Result<Answer, Hangup> {
        self.encode(response).map(Answer::Now)
    }

    /// The whole frame of the response.
    pub(super) fn encode(&self, response: &impl Encodable) -> Result<Bytes, Hangup> {
        encode(self.correlation, self.api.flexible_response(self.version), response, self.version)
    }
}

/// What a coordinator says, unless it is that the connection was replaced.
///
/// # Errors
/// [`Hangup::Replaced`].
pub(super) fn in_time<T>(said: Result<T, Error>) -> Result<Result<T, Error>, Hangup> {
    match said {
        Err(error) if error.code == ErrorCode::ConnectionReplaced => Err(Hangup::Replaced(error)),
        said => Ok(said),
    }
}

/// The frame of a response: its length, its header, itself.
///
/// # Errors
/// A field is set that this version does not have, or the frame is longer than one may be.
pub fn encode(
    correlation: i32,
    flexible_header: bool,
    response: &impl Encodable,
    version: i16,
) -> Result<Bytes, Hangup> {
    let failed = |error: &dyn std::fmt::Display| Hangup::Unencodable(error.to_string());
    let size = response.compute_size(version).map_err(|error| failed(&error))?;
    let mut frame = BytesMut::with_capacity(size + 16);
    frame.put_i32(0);
    frame.put_i32(correlation);
    if flexible_header {
        // No tagged fields.
        frame.put_u8(0);
    }
    response.encode(&mut frame, version).map_err(|error| failed(&error))?;
    let length = i32::try_from(frame.len() - 4).map_err(|error| failed(&error))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// A request out of its bytes, none of which costs more memory than it deserves.
///
/// # Errors
/// It is malformed.
pub fn decode<M: Decodable>(api: &Api, version: i16, mut body: Bytes) -> Result<M, Hangup> {
    guard::check(api.layout, version, &body)?;
    M::decode(&mut body, version).map_err(|error| Hangup::Undecodable(error.to_string()))
}
