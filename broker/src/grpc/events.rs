//! The cluster's history, from whichever broker is asked: the leader of `__events` answers,
//! others pass its words on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baton_core::event::Event;
use baton_core::{BrokerId, Error, ErrorCode, Offset};
use baton_proto::v1::{self, broker_client::BrokerClient};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::grpc::service::GrpcService;
use crate::internal::EVENTS_TOPIC;
use crate::internal::events::Events;
use crate::net::NetConnector;

/// Events of one answer.
const EVENTS_MAX: usize = 100;

/// A follower is told that all is quiet so often, so that a broken connection is noticed.
const QUIET: Duration = Duration::from_secs(10);

type Answers = Pin<Box<dyn Stream<Item = Result<v1::EventsResponse, Status>> + Send>>;

impl GrpcService {
    #[allow(clippy::result_large_err, reason = "tonic's status")]
    pub(super) async fn history(&self, request: v1::EventsRequest) -> Result<Answers, Status> {
        let (leader, _) = match self.parts.view.topic(EVENTS_TOPIC) {
            Some(topic) => self.parts.view.leader(baton_core::TopicPartition { topic: topic.id, partition: 0 }),
            None => return Err(unavailable("nothing has been recorded yet: no coordinator has run")),
        };
        match leader {
            Some(leader) if leader == self.parts.me => Ok(self.own_history(request)),
            Some(leader) => self.passed_on(leader, request).await,
            None => Err(unavailable("nobody leads the history at the moment")),
        }
    }

    fn own_history(&self, request: v1::EventsRequest) -> Answers {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(tell(self.parts.events.clone(), request, sender));
        Box::pin(ReceiverStream::new(receiver))
    }

    #[allow(clippy::result_large_err, reason = "tonic's status")]
    async fn passed_on(&self, leader: BrokerId, request: v1::EventsRequest) -> Result<Answers, Status> {
        let address =
            self.grpc_address(leader).ok_or_else(|| unavailable("the leader of the history has no address"))?;
        let timeout = Duration::from_millis(self.parts.timing.connect_ms);
        let connector = NetConnector::new(Arc::clone(&self.parts.network), timeout);
        let endpoint = Endpoint::new(format!("http://{address}")).map_err(|e| unavailable(&e.to_string()))?;
        let endpoint = endpoint.connect_timeout(timeout);
        let connected = endpoint.connect_with_connector(connector);
        let channel = tokio::time::timeout(timeout, connected)
            .await
            .map_err(|_| unavailable("the leader of the history does not answer"))?
            .map_err(|e| unavailable(&e.to_string()))?;
        let answers = BrokerClient::new(channel).events(request).await?.into_inner();
        Ok(answers.boxed())
    }
}

fn unavailable(why: &str) -> Status {
    let error = Error::new(ErrorCode::NoLeader, why).topic(EVENTS_TOPIC).partition(0);
    Status::unavailable(error.to_string())
}

/// Tells what there is, and with `follow` what comes, until the client or the leadership is gone.
async fn tell(events: Events, request: v1::EventsRequest, answers: mpsc::Sender<Result<v1::EventsResponse, Status>>) {
    let mut changes = events.changes();
    let mut from = Offset::from_wire(request.from);
    loop {
        changes.mark_unchanged();
        let Some(found) = events.read(from, EVENTS_MAX) else {
            let _ = answers.send(Err(unavailable("this broker does not lead the history any more"))).await;
            return;
        };
        if let Some((last, _)) = found.last() {
            from = Some(last.plus(1));
        } else {
            from = from.or(Some(Offset::ZERO));
        }
        let more = found.len() == EVENTS_MAX;
        let told = v1::EventsResponse { events: found.iter().map(|(at, event)| to_wire(*at, event)).collect() };
        if answers.send(Ok(told)).await.is_err() || (!request.follow && !more) {
            return;
        }
        if !more {
            let _quiet = tokio::time::timeout(QUIET, changes.changed()).await;
        }
    }
}

fn to_wire(offset: Offset, event: &Event) -> v1::Event {
    v1::Event {
        offset: offset.to_wire(),
        time_ms: event.time_ms,
        kind: event.kind.name().to_owned(),
        topic: event.topic.clone().unwrap_or_default(),
        partition: event.partition,
        broker: event.broker.map(|broker| broker.0),
        epoch: event.epoch.map(|epoch| epoch.0),
        seen: event.seen.clone(),
        decided: event.decided.clone(),
        result: event.result.clone(),
        who: event.who.clone(),
    }
}
