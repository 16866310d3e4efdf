//! The brokers as this listener's clients see them.

use std::collections::BTreeSet;

use baton_core::BrokerId;
use baton_registry::znode::{BrokerRegistration, Endpoint};
use kafka_protocol::messages::BrokerId as WireBroker;
use kafka_protocol::protocol::StrBytes;

use super::service::KafkaService;

/// The protocol's name in registrations.
pub(super) const PROTOCOL: &str = "kafka";

/// One broker that speaks Kafka's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: WireBroker,
    pub(super) host: StrBytes,
    pub(super) port: i32,
    pub(super) rack: Option<StrBytes>,
}

pub(super) fn wire_id(broker: BrokerId) -> WireBroker {
    WireBroker(i32::try_from(broker.0).unwrap_or(i32::MAX))
}

/// No broker.
pub(super) const NOBODY: WireBroker = WireBroker(-1);

impl KafkaService {
    /// Every live broker with a Kafka listener.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let brokers = self.parts.view.brokers();
        brokers.brokers.iter().filter_map(|(id, live)| self.node_of(*id, &live.registration)).collect()
    }

    /// Those of them that this broker hears: another one that is registered still may be dead,
    /// and a client that is sent there loses time.
    pub(super) fn live_ids(&self) -> BTreeSet<WireBroker> {
        let brokers = self.parts.view.brokers();
        let env = self.parts.env.borrow().clone();
        brokers.brokers.keys().filter(|id| !env.is_gone(**id)).copied().map(wire_id).collect()
    }

    pub(super) fn node(&self, broker: BrokerId) -> Option<Node> {
        let brokers = self.parts.view.brokers();
        self.node_of(broker, &brokers.brokers.get(&broker)?.registration)
    }

    fn node_of(&self, id: BrokerId, registration: &BrokerRegistration) -> Option<Node> {
        let endpoint = endpoint_for(&registration.endpoints, &self.name)?;
        Some(Node {
            id: wire_id(id),
            host: StrBytes::from_string(endpoint.host.trim_matches(['[', ']']).to_owned()),
            port: i32::from(endpoint.port),
            rack: registration.rack.clone().map(StrBytes::from_string),
        })
    }

    /// Whom clients send what only the controller answers: any broker passes it on, so that
    /// all brokers name the same live one.
    pub(super) fn controller(&self) -> WireBroker {
        let brokers = self.parts.view.brokers();
        let env = self.parts.env.borrow().clone();
        let serves = |(id, live): &(&BrokerId, &baton_registry::recipes::membership::LiveBroker)| {
            !live.registration.draining
                && !env.is_gone(**id)
                && endpoint_for(&live.registration.endpoints, &self.name).is_some()
        };
        let first = brokers.brokers.iter().find(serves);
        first.map_or(wire_id(self.parts.me), |(id, _)| wire_id(*id))
    }
}

/// The listener of the same name, which is in the client's network; else any that speaks the
/// protocol.
fn endpoint_for<'a>(endpoints: &'a [Endpoint], listener: &str) -> Option<&'a Endpoint> {
    let kafka = || endpoints.iter().filter(|endpoint| endpoint.protocol == PROTOCOL);
    kafka().find(|endpoint| endpoint.name == listener).or_else(|| kafka().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_the_address_of_their_own_listener() {
        let endpoint = |name: &str, protocol: &str| Endpoint {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            host: format!("{name}.example"),
            port: 9_092,
        };
        let all = [endpoint("grpc", "grpc"), endpoint("inside", "kafka"), endpoint("outside", "kafka")];
        let told = |listener| endpoint_for(&all, listener).map(|endpoint| endpoint.name.as_str());
        assert_eq!(told("outside"), Some("outside"));
        assert_eq!(told("grpc"), Some("inside"));
        assert_eq!(endpoint_for(&all[..1], "grpc"), None);
    }
}
