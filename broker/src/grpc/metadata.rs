//! Who leads what; held until there is a new leader, so that a failover costs a client one
//! round trip after the election, and no guessing.

use std::sync::Arc;

use baton_core::{Error, ErrorCode, TopicPartition};
use baton_proto::v1;
use baton_registry::znode::Endpoint;

use crate::authorizer::Verb;
use crate::cluster::TopicView;
use crate::context::RequestContext;
use crate::grpc::service::GrpcService;
use crate::serving::just_started;

impl GrpcService {
    pub(super) async fn describe(
        &self,
        context: &RequestContext,
        request: &v1::MetadataRequest,
    ) -> v1::MetadataResponse {
        self.parts.knows_topics(context.remaining()).await;
        if !request.r#await.is_empty() {
            self.await_leaders(context, request).await;
        }
        v1::MetadataResponse {
            cluster_id: self.parts.cluster.clone(),
            brokers: self.broker_infos(),
            topics: self.topic_infos(context, request),
        }
    }

    /// Until each of these partitions has a leader of a later epoch, or the time is up.
    async fn await_leaders(&self, context: &RequestContext, request: &v1::MetadataRequest) {
        let mut changes = self.parts.view.changes();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if request.r#await.iter().all(|wanted| self.has_later_leader(wanted)) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // Late is no error: what is known then is the answer.
        let _ = tokio::time::timeout(context.remaining(), waiting).await;
    }

    fn has_later_leader(&self, wanted: &v1::AwaitLeader) -> bool {
        // A topic that is not there is not waited for: the answer says that it is unknown.
        let Some(topic) = self.parts.view.topic(&wanted.topic) else { return true };
        let (leader, epoch) = self.parts.view.leader(TopicPartition { topic: topic.id, partition: wanted.partition });
        wanted.partition >= topic.partitions || (leader.is_some() && epoch > wanted.above_epoch)
    }

    pub(super) fn broker_infos(&self) -> Vec<v1::BrokerInfo> {
        let brokers = self.parts.view.brokers();
        let info = |(id, live): (&baton_core::BrokerId, &baton_registry::recipes::membership::LiveBroker)| {
            let registration = &live.registration;
            v1::BrokerInfo {
                id: id.0,
                rack: registration.rack.clone().unwrap_or_default(),
                endpoints: endpoints_for(&registration.endpoints, &self.name),
                draining: registration.draining,
            }
        };
        brokers.brokers.iter().map(info).collect()
    }

    fn topic_infos(&self, context: &RequestContext, request: &v1::MetadataRequest) -> Vec<v1::TopicInfo> {
        if request.all_topics {
            let topics = self.parts.view.topics();
            let shown = topics
                .iter()
                .filter(|topic| request.include_internal || !topic.name.starts_with("__"))
                .filter(|topic| self.authorize(context, Verb::Describe, &topic.name).is_ok());
            return shown.map(|topic| self.topic_info(topic)).collect();
        }
        let one = |name: &String| match self.authorize(context, Verb::Describe, name) {
            Err(error) => unknown_topic(name, &error),
            Ok(()) => match self.parts.view.topic(name) {
                Some(topic) => self.topic_info(&topic),
                None if !self.parts.view.is_whole() => unknown_topic(name, &just_started().topic(name)),
                None => {
                    let cause = "there is no such topic, or this broker has not heard of it yet";
                    unknown_topic(name, &Error::new(ErrorCode::UnknownTopic, cause).topic(name))
                }
            },
        };
        request.topics.iter().map(one).collect()
    }

    fn topic_info(&self, topic: &Arc<TopicView>) -> v1::TopicInfo {
        let states = self.parts.view.states_of(topic.id);
        let mut partitions: Vec<v1::PartitionInfo> =
            (0..topic.partitions).map(|partition| v1::PartitionInfo { partition, ..Default::default() }).collect();
        for (partition, known) in states {
            let Some(info) = usize::try_from(partition).ok().and_then(|p| partitions.get_mut(p)) else { continue };
            let state = known.state;
            info.leader = state.leader.map(|leader| leader.broker.0);
            info.epoch = state.epoch.0;
            info.isr = state.isr.iter().map(|member| member.broker.0).collect();
            info.isr.sort_unstable();
            info.replicas = state.assignment.replicas.iter().map(|broker| broker.0).collect();
            info.adding = state.assignment.adding.iter().map(|broker| broker.0).collect();
            info.removing = state.assignment.removing.iter().map(|broker| broker.0).collect();
        }
        v1::TopicInfo {
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            internal: topic.name.starts_with("__"),
            partitions,
            config: topic.config.to_map().into_iter().collect(),
            error: None,
        }
    }
}

/// The address on the listener by which the client asked comes first: clients take the first
/// that they speak, and another listener may be in a network that they do not reach.
fn endpoints_for(endpoints: &[Endpoint], listener: &str) -> Vec<v1::Endpoint> {
    let (same, other): (Vec<_>, Vec<_>) = endpoints.iter().partition(|endpoint| endpoint.name == listener);
    same.into_iter().chain(other).map(endpoint_to_wire).collect()
}

pub(super) fn endpoint_to_wire(endpoint: &Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        listener: endpoint.name.clone(),
        protocol: endpoint.protocol.clone(),
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
    }
}

fn unknown_topic(name: &str, error: &Error) -> v1::TopicInfo {
    v1::TopicInfo { name: name.to_owned(), error: Some(error.into()), ..v1::TopicInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_the_address_in_its_own_network_first() {
        let endpoint = |name: &str, protocol: &str| Endpoint {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            host: format!("{name}.example"),
            port: 7_400,
        };
        let all = [endpoint("inside", "grpc"), endpoint("outside", "grpc"), endpoint("peer", "peer")];
        let order =
            |listener| endpoints_for(&all, listener).into_iter().map(|endpoint| endpoint.listener).collect::<Vec<_>>();
        assert_eq!(order("inside"), ["inside", "outside", "peer"]);
        assert_eq!(order("outside"), ["outside", "inside", "peer"]);
        assert_eq!(order("elsewhere"), ["inside", "outside", "peer"]);
    }
}
